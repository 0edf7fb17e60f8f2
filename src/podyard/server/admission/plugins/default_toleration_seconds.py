"""A Pod stays five minutes on a node that is not ready or out of reach.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#defaulttolerationseconds
"""

from typing import Final

from podyard.server.admission.parts import AdmissionPlugin, AdmissionRequest, Lookup
from podyard.server.admission.pods import is_pod_write, pod_spec

#: How long a Pod stays, seconds.
TOLERATION_S: Final = 300
_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Add the tolerations a Pod does not speak of itself."""
    if not is_pod_write(request):
        return
    spec = pod_spec(request)
    present = spec.get("tolerations") or []
    missing = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_S,
        }
        for key in _TAINTS
        if not any(
            (toleration.get("key") or key) == key
            and (toleration.get("effect") or "NoExecute") == "NoExecute"
            for toleration in present
        )
    ]
    if missing:
        spec["tolerations"] = [*present, *missing]


PART: Final = AdmissionPlugin(
    name="DefaultTolerationSeconds",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
        "Priority",
    ),
    mutate=mutate,
)
