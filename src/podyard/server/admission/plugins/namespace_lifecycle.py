"""Nothing is created in a Namespace that is absent or going; some never go.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle
"""

from typing import Final

from podyard.api.errors import NAMESPACE_TERMINATING, not_found
from podyard.api.scheme import NAMESPACE
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)

#: Namespaces that may not be deleted.
IMMORTAL: Final = frozenset({"default", "kube-system", "kube-public"})
#: A review asks about a Namespace, it puts nothing in it.
_REVIEWS: Final = frozenset({"localsubjectaccessreviews"})


async def check(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse what the Namespace does not allow.

    Raises:
        ApiError: 404 there is no such Namespace; 403 it is being terminated, or
            may not be deleted.
    """
    if request.kind is NAMESPACE:
        _check_immortal(request)
        return
    if (
        not request.namespace
        or request.operation in {Operation.DELETE, Operation.CONNECT}
        or request.kind.resource in _REVIEWS
    ):
        return
    namespace = await lookup.get(NAMESPACE, "", request.namespace)
    if namespace is None:
        raise not_found("", "namespaces", request.namespace)
    if request.operation is not Operation.CREATE:
        return
    phase = (namespace.get("status") or {}).get("phase")
    if phase != "Terminating" and not namespace["metadata"].get("deletionTimestamp"):
        return
    refusal = deny(
        request,
        f"unable to create new content in namespace {request.namespace} because it is "
        "being terminated",
    )
    assert refusal.details is not None
    refusal.details["causes"] = [
        {
            "reason": NAMESPACE_TERMINATING,
            "message": f"namespace {request.namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    raise refusal


def _check_immortal(request: AdmissionRequest) -> None:
    if request.operation is Operation.DELETE and request.name in IMMORTAL:
        raise deny(request, "this namespace may not be deleted")


PART: Final = AdmissionPlugin(name="NamespaceLifecycle", mutate=check)
