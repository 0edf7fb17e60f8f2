"""What a node's conditions mean for its taints, and taints for its Pods. Pure.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
and kubernetes ``pkg/controller/{nodelifecycle,tainteviction}`` (v1.36).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from podyard.api.core_v1 import format_time, parse_time
from podyard.api.documents import Document
from podyard.api.predicates import tolerates
from podyard.lib.values import dataclass

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
CORDONED: Final = "node.kubernetes.io/unschedulable"
#: Condition → status → the taint it puts on a node.
CONDITION_TAINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "Ready": {"False": NOT_READY, "Unknown": UNREACHABLE},
    "MemoryPressure": {"True": "node.kubernetes.io/memory-pressure"},
    "DiskPressure": {"True": "node.kubernetes.io/disk-pressure"},
    "PIDPressure": {"True": "node.kubernetes.io/pid-pressure"},
    "NetworkUnavailable": {"True": "node.kubernetes.io/network-unavailable"},
}
#: The conditions an agent that has fallen silent can no longer vouch for.
VOUCHED: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_NO_EXECUTE: Final = frozenset({NOT_READY, UNREACHABLE})
_OURS: Final = frozenset(
    {taint for states in CONDITION_TAINTS.values() for taint in states.values()}
    | {CORDONED}
)


def condition(document: Document, name: str) -> Document | None:
    """Return a status condition, if it is there."""
    for entry in (document.get("status") or {}).get("conditions") or ():
        if entry.get("type") == name:
            found: Document = entry
            return found
    return None


def is_ready(node: Document) -> bool:
    """Say whether a node is ready."""
    return (condition(node, "Ready") or {}).get("status") == "True"


def decide_taints(node: Document, *, now: datetime) -> list[Document] | None:
    """Return the taints a node is to have, or ``None`` where it has just those.

    Args:
        node: the Node.
        now: dates new NoExecute taints; Pods may stay so long after it.
    """
    present: list[Document] = (node.get("spec") or {}).get("taints") or []
    wanted = _wanted(node)
    kept = [
        taint
        for taint in present
        if taint.get("key") not in _OURS
        or _identity(taint) in wanted
        # Whoever put another effect on one of our keys keeps it.
        or taint.get("effect") not in {"NoSchedule", "NoExecute"}
    ]
    there = {_identity(taint) for taint in kept}
    added: list[Document] = [
        {"key": key, "effect": effect, "timeAdded": format_time(now)}
        if effect == "NoExecute"
        else {"key": key, "effect": effect}
        for key, effect in wanted
        if (key, effect) not in there
    ]
    taints = [*kept, *added]
    return None if taints == present else taints


def _identity(taint: Document) -> tuple[str, str]:
    return str(taint.get("key")), str(taint.get("effect"))


def _wanted(node: Document) -> list[tuple[str, str]]:
    wanted: list[tuple[str, str]] = []
    if condition(node, "Ready") is None:
        wanted.append((NOT_READY, "NoSchedule"))  # it has never said that it is
    for name, states in CONDITION_TAINTS.items():
        key = states.get(str((condition(node, name) or {}).get("status")))
        if key is None:
            continue
        wanted.append((key, "NoSchedule"))
        if key in _NO_EXECUTE:
            wanted.append((key, "NoExecute"))
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append((CORDONED, "NoSchedule"))
    return wanted


def build_silent(node: Document, *, now: datetime) -> list[Document]:
    """Return the conditions of a node whose agent has fallen silent."""
    conditions: list[Document] = []
    for name in VOUCHED:
        present = condition(node, name)
        if present is not None and present.get("status") == "Unknown":
            continue
        never = present is None
        conditions.append(
            {
                **(present or {"type": name, "lastHeartbeatTime": None}),
                "status": "Unknown",
                "reason": "NodeStatusNeverUpdated" if never else "NodeStatusUnknown",
                "message": "Kubelet never posted node status."
                if never
                else "Kubelet stopped posting node status.",
                "lastTransitionTime": format_time(now),
            }
        )
    return conditions


@dataclass(frozen=True, slots=True)
class Stay:
    """The Pod tolerates every taint for good."""


@dataclass(frozen=True, slots=True)
class EvictAfter:
    """The Pod has to go.

    Attributes:
        delay_s: seconds from now; 0 is at once.
    """

    delay_s: float


Eviction: TypeAlias = Stay | EvictAfter


def decide_eviction(pod: Document, node: Document, *, now: datetime) -> Eviction:
    """Say whether a node's NoExecute taints drive a Pod away, and when.

    The shortest of the tolerations that apply counts, from the newest taint on.
    """
    taints = [
        taint
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint.get("effect") == "NoExecute"
    ]
    if not taints:
        return Stay()
    used: list[Document] = []
    for taint in taints:
        fitting = [
            toleration
            for toleration in (pod.get("spec") or {}).get("tolerations") or ()
            if tolerates((toleration,), taint)
        ]
        if not fitting:
            return EvictAfter(0.0)
        used += fitting
    spans = [
        t["tolerationSeconds"] for t in used if t.get("tolerationSeconds") is not None
    ]
    if not spans:
        return Stay()
    since = max(
        (parse_time(taint.get("timeAdded")) or now for taint in taints), default=now
    )
    end = since + timedelta(seconds=max(min(spans), 0))
    return EvictAfter(max((end - now).total_seconds(), 0.0))
