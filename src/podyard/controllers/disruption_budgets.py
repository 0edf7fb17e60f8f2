"""How many Pods a budget lets go: from its Pods and their controllers. Pure.

Source: kubernetes ``pkg/controller/disruption`` (v1.36);
https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from podyard.api.core_v1 import parse_time
from podyard.api.disruption import (
    DISRUPTION_TARGET,
    is_ready,
    set_allowed_condition,
)
from podyard.api.documents import Document
from podyard.api.scheme import (
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    Kind,
    find_kind_by_name,
)
from podyard.lib.values import dataclass

#: An evicted Pod that is still there after so long was not deleted after all.
DELETION_TIMEOUT: Final = timedelta(minutes=2)
#: A Pod that was to be disrupted and still is not ends being a target after so long.
STALE_AFTER: Final = timedelta(minutes=2)
_FINISHED: Final = frozenset({"Succeeded", "Failed"})

#: Finds a controller by kind, namespace and name.
Find: TypeAlias = Callable[[Kind, str, str], Document | None]


class ScaleError(Exception):
    """It cannot be said how many Pods there should be."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How many Pods there should be, and how many of them have to be healthy.

    Attributes:
        pods: how many there should be.
        healthy: how many of them have to be healthy.
        unmanaged: names of Pods without a controller, which nobody can count.
    """

    pods: int
    healthy: int
    unmanaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetLook:
    """What a look at a budget found.

    Attributes:
        status: as it should be.
        not_deleted: evicted Pods that are still there, by name.
        again_in_s: when an evicted Pod should be gone, seconds; ``None`` for none.
    """

    status: Document
    not_deleted: tuple[str, ...] = ()
    again_in_s: float | None = None


def decide_expected(budget: Document, pods: Sequence[Document], find: Find) -> Expected:
    """Return how many Pods a budget expects.

    A number of available Pods needs nobody to ask; all else is a share of what the
    controllers of the Pods want.

    Raises:
        ScaleError: a Pod's controller is not to be found, or has no scale.
    """
    spec = budget.get("spec") or {}
    at_least, at_most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if at_most is not None:
        pods_wanted, unmanaged = _scale(pods, find)
        missing = _amount(at_most, pods_wanted)
        return Expected(pods_wanted, max(pods_wanted - missing, 0), unmanaged)
    if isinstance(at_least, str):
        pods_wanted, unmanaged = _scale(pods, find)
        return Expected(pods_wanted, _amount(at_least, pods_wanted), unmanaged)
    if at_least is not None:
        return Expected(len(pods), int(at_least))
    return Expected(0, 0)


def _amount(value: int | str, whole: int) -> int:
    """Return a number, or a share of the whole, rounded up."""
    if isinstance(value, str):
        return -(-int(value.removesuffix("%")) * whole // 100)
    return value


def _scale(pods: Iterable[Document], find: Find) -> tuple[int, tuple[str, ...]]:
    scales: dict[str, int] = {}
    unmanaged: list[str] = []
    for pod in pods:
        metadata = pod["metadata"]
        owner = _controller(pod)
        if owner is None:
            unmanaged.append(str(metadata["name"]))
            continue
        uid, scale = _scale_of(owner, pod, find)
        scales[uid] = scale
    return sum(scales.values()), tuple(unmanaged)


def _controller(document: Document) -> Document | None:
    for reference in document["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            found: Document = reference
            return found
    return None


def _scale_of(owner: Document, pod: Document, find: Find) -> tuple[str, int]:
    namespace = str(pod["metadata"].get("namespace") or "")
    kind = find_kind_by_name(str(owner["apiVersion"]), str(owner["kind"]))
    if kind not in {REPLICA_SET, STATEFUL_SET, DEPLOYMENT} or kind is None:
        what = kind.qualified_resource if kind else str(owner["kind"])
        raise ScaleError(f"{what} does not implement the scale subresource")
    found = find(kind, namespace, str(owner["name"]))
    if found is None or found["metadata"]["uid"] != owner["uid"]:
        name = pod["metadata"]["name"]
        raise ScaleError(f'found no controllers for pod "{name}"')
    above = _controller(found)
    if kind is REPLICA_SET and above is not None and above["kind"] == "Deployment":
        return _scale_of(above, pod, find)
    replicas = (found.get("spec") or {}).get("replicas")
    return str(found["metadata"]["uid"]), 1 if replicas is None else int(replicas)


def decide_budget(
    budget: Document, pods: Sequence[Document], expected: Expected, *, now: datetime
) -> BudgetLook:
    """Return a budget's status as its Pods are.

    Args:
        budget: the budget.
        pods: those it holds.
        expected: how many there should be.
        now: the wall time.
    """
    old = budget.get("status") or {}
    disrupted, not_deleted, again_in_s = _disrupted(old, pods, now)
    healthy = sum(
        1
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod["metadata"]["name"] not in disrupted
        and is_ready(pod)
    )
    allowed = max(healthy - expected.healthy, 0) if expected.pods > 0 else 0
    status: Document = {
        "observedGeneration": budget["metadata"].get("generation") or 0,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "expectedPods": expected.pods,
        "conditions": old.get("conditions") or [],
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    return BudgetLook(set_allowed_condition(status, now=now), not_deleted, again_in_s)


def _disrupted(
    status: Document, pods: Iterable[Document], now: datetime
) -> tuple[dict[str, str], tuple[str, ...], float | None]:
    """Return the evicted Pods that are still awaited to go."""
    noted: Mapping[str, str] = status.get("disruptedPods") or {}
    kept: dict[str, str] = {}
    late: list[str] = []
    again_in_s: float | None = None
    for pod in pods:
        name = str(pod["metadata"]["name"])
        at = parse_time(noted.get(name))
        if at is None or pod["metadata"].get("deletionTimestamp"):
            continue
        left_s = (at + DELETION_TIMEOUT - now).total_seconds()
        if left_s < 0:
            late.append(name)
            continue
        kept[name] = noted[name]
        again_in_s = left_s if again_in_s is None else min(again_in_s, left_s)
    return kept, tuple(late), again_in_s


def build_failed_status(budget: Document, why: str, *, now: datetime) -> Document:
    """Return the status of a budget that nobody can count: nothing may go."""
    status = {**(budget.get("status") or {}), "disruptionsAllowed": 0}
    return set_allowed_condition(status, now=now, failure=why)


def same_status(new: Document, old: Document) -> bool:
    """Say whether two statuses tell the same; absent counts as empty."""

    def bare(status: Document) -> Document:
        return {key: value for key, value in status.items() if value}

    return bare(new) == bare(old)


def stale_in_s(pod: Document, now: datetime) -> float | None:
    """Return when a Pod ends being a target that nobody disrupts, seconds.

    ``None`` where it is none: ended by its node, finished, or being deleted.
    """
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") in _FINISHED:
        return None
    for condition in status.get("conditions") or ():
        if condition.get("type") != DISRUPTION_TARGET:
            continue
        if (
            condition.get("status") != "True"
            or condition.get("reason") == "TerminationByKubelet"
        ):
            return None
        since = parse_time(condition.get("lastTransitionTime")) or now
        return max((since + STALE_AFTER - now).total_seconds(), 0.0)
    return None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What of a Pod means something to a budget."""

    labels: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False
    deleting: bool = False
    owner: str = ""


def facts_of(pod: Document) -> PodFacts:
    """Return what of a Pod means something to a budget."""
    metadata = pod["metadata"]
    owner = _controller(pod) or {}
    return PodFacts(
        metadata.get("labels") or {},
        is_ready(pod),
        bool(metadata.get("deletionTimestamp")),
        str(owner.get("uid") or ""),
    )


def show_selector(selector: Document) -> str:
    """Return a selector as upstream's Events show it."""
    labels = "".join(
        f"{key}: {value}," for key, value in (selector.get("matchLabels") or {}).items()
    )
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{item.get('key')},Operator:"
        f"{item.get('operator')},Values:[{' '.join(item.get('values') or ())}],}},"
        for item in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
