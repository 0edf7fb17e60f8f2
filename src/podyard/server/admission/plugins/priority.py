"""A Pod's priority is the value of its PriorityClass.

The two classes every cluster has are known here.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from typing import Final

from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)
from podyard.server.admission.pods import is_pod_write, pod_spec

#: The classes that need no object.
SYSTEM_CLASSES: Final = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}
_PREEMPT: Final = "PreemptLowerPriority"


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Write the priority and the preemption policy into a Pod.

    Raises:
        ApiError: 403, the class is unknown, or the Pod claims another value.
    """
    if not is_pod_write(request):
        return
    spec = pod_spec(request)
    if request.operation is Operation.UPDATE:
        old = (request.old_object or {}).get("spec") or {}
        for field in ("priority", "preemptionPolicy"):
            if spec.get(field) is None and old.get(field) is not None:
                spec[field] = old[field]
        return
    name = spec.get("priorityClassName") or ""
    if name and name not in SYSTEM_CLASSES:
        raise deny(request, f"no PriorityClass with name {name} was found")
    value = SYSTEM_CLASSES.get(name, 0)
    tail = "priority admission controller computed"
    claimed = spec.get("priority")
    if claimed is not None and claimed != value:
        raise deny(
            request,
            f"the integer value of priority ({claimed}) must not be provided in pod "
            f"spec; {tail} {value} from the given PriorityClass name",
        )
    policy = spec.get("preemptionPolicy")
    if policy is not None and policy != _PREEMPT:
        raise deny(
            request,
            f"the string value of PreemptionPolicy ({policy}) must not be provided in "
            f"pod spec; {tail} {_PREEMPT} from the given PriorityClass name",
        )
    spec["priority"] = value
    spec["preemptionPolicy"] = _PREEMPT


PART: Final = AdmissionPlugin(
    name="Priority",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
    ),
    mutate=mutate,
)
