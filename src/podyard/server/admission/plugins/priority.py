"""A Pod's priority is the value of its PriorityClass.

Without a class it is the one marked as the default for all; of several the lowest.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
and kubernetes ``plugin/pkg/admission/priority`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.priority import PREEMPT, SYSTEM_CLASSES
from podyard.api.scheme import PRIORITY_CLASS
from podyard.lib.values import dataclass
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)
from podyard.server.admission.pods import is_pod_write, pod_spec


@dataclass(frozen=True, slots=True)
class _Given:
    """What a class gives to its Pods."""

    name: str = ""
    value: int = 0
    policy: str = PREEMPT


def _given_by(priority_class: Document) -> _Given:
    return _Given(
        str(priority_class["metadata"]["name"]),
        int(priority_class.get("value") or 0),
        priority_class.get("preemptionPolicy") or PREEMPT,
    )


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Write the class, the priority and the preemption policy into a Pod.

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
    given = await _resolve(request, spec.get("priorityClassName") or "", lookup)
    _check_claims(request, spec, given)
    if given.name:
        spec["priorityClassName"] = given.name
    spec["priority"] = given.value
    spec["preemptionPolicy"] = given.policy


async def _resolve(request: AdmissionRequest, name: str, lookup: Lookup) -> _Given:
    known = SYSTEM_CLASSES.get(name)
    if known is not None:
        return _Given(name, known.value)
    if not name:
        default = await _default_class(lookup)
        return _Given() if default is None else _given_by(default)
    priority_class = await lookup.get(PRIORITY_CLASS, "", name)
    if priority_class is None:
        raise deny(request, f"no PriorityClass with name {name} was found")
    return _given_by(priority_class)


async def _default_class(lookup: Lookup) -> Document | None:
    marked = [
        priority_class
        for priority_class in await lookup.list(PRIORITY_CLASS, "")
        if priority_class.get("globalDefault")
    ]
    return min(marked, key=lambda item: item.get("value") or 0, default=None)


def _check_claims(request: AdmissionRequest, spec: Document, given: _Given) -> None:
    tail = "priority admission controller computed"
    claimed = spec.get("priority")
    if claimed is not None and claimed != given.value:
        raise deny(
            request,
            f"the integer value of priority ({claimed}) must not be provided in pod "
            f"spec; {tail} {given.value} from the given PriorityClass name",
        )
    policy = spec.get("preemptionPolicy")
    if policy is not None and policy != given.policy:
        raise deny(
            request,
            f"the string value of PreemptionPolicy ({policy}) must not be provided in "
            f"pod spec; {tail} {given.policy} from the given PriorityClass name",
        )


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Keep one default, and the classes that every cluster has.

    Raises:
        ApiError: 403, a second default, or a system class would be deleted.
    """
    if request.kind is not PRIORITY_CLASS or request.subresource:
        return
    if request.operation is Operation.DELETE:
        if request.name in SYSTEM_CLASSES:
            why = "this is a system priority class and cannot be deleted"
            raise deny(request, why)
        return
    if not (request.object or {}).get("globalDefault"):
        return
    default = await _default_class(lookup)
    if default is None:
        return
    name = default["metadata"]["name"]
    if request.operation is Operation.CREATE or name != request.name:
        raise deny(
            request,
            f"PriorityClass {name} is already marked as default. Only one default can "
            "exist",
        )


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
    validate=validate,
)
