"""A new Node takes no Pods before it has said that it is ready.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#taintnodesbycondition
"""

from typing import Final

from podyard.api.scheme import NODE
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)

NOT_READY: Final = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Taint a new Node."""
    if request.kind is not NODE or request.subresource or request.object is None:
        return
    if request.operation is not Operation.CREATE:
        return
    spec = request.object.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(
        (taint.get("key"), taint.get("effect")) == tuple(NOT_READY.values())
        for taint in taints
    ):
        spec["taints"] = [*taints, dict(NOT_READY)]


PART: Final = AdmissionPlugin(
    name="TaintNodesByCondition",
    after=("NamespaceLifecycle", "ServiceAccount", "NodeRestriction"),
    mutate=mutate,
)
