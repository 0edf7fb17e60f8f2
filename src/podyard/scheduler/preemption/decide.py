"""Which Pods to end so that a more important one fits, or why none. Pure.

On each node where it could help, all less important Pods are taken away in thought and
as many as possible let back, those whose budget would be broken first and the more
important before the less; of all nodes the one with the least harm is chosen.

Source: kubernetes ``pkg/scheduler/framework/preemption`` and
``plugins/defaultpreemption`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace
from typing import Final, TypeAlias

from podyard.api.core_v1 import parse_time
from podyard.api.disruption import DISRUPTION_TARGET, budget_holds
from podyard.api.documents import Document
from podyard.api.predicates import NodeUsage
from podyard.api.priority import NEVER, pod_priority
from podyard.api.quantity import ZERO
from podyard.api.resources import ResourceList
from podyard.lib.values import dataclass
from podyard.scheduler.decide import first_objection, histogram, in_order
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit

#: The reason of the condition a victim is marked with.
REASON: Final = "PreemptionByScheduler"
_NOT_HELPFUL: Final = "Preemption is not helpful for scheduling"
_NO_VICTIMS: Final = "No preemption victims found for incoming pod"
_NEVER_PREEMPTS: Final = "not eligible due to preemptionPolicy=Never."
_STILL_ENDING: Final = "not eligible due to a terminating pod on the nominated node."
#: Makes every priority positive before priorities are summed.
_OFFSET: Final = 2**31


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A Pod on a node, with what it takes.

    Attributes:
        pod: the Pod.
        usage: what it takes.
    """

    pod: Document
    usage: NodeUsage = field(default_factory=NodeUsage)

    @property
    def uid(self) -> str:
        """The Pod's uid."""
        return str(self.pod["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class Preemption:
    """Who is to go, and where the room will be.

    Attributes:
        node_name: the node.
        victims: the Pods to end, the more important first.
        violations: how many of them break their budget.
    """

    node_name: str
    victims: tuple[Document, ...]
    violations: int = 0


@dataclass(frozen=True, slots=True)
class NoPreemption:
    """Nobody is to go.

    Attributes:
        message: why, as the condition and the Event go on after ``preemption: ``.
        is_hopeless: no node would do; a nomination is given up.
    """

    message: str
    is_hopeless: bool = False


Decision: TypeAlias = Preemption | NoPreemption
#: Returns the Pods on a node.
PodsOn: TypeAlias = Callable[[str], Sequence[PlacedPod]]


def decide_preemption(
    pod: Document,
    nodes: Sequence[NodeInfo],
    unfit: Sequence[tuple[str, Unfit]],
    *,
    pods_on: PodsOn,
    budgets: Sequence[Document],
    plugins: Sequence[SchedulerPlugin],
    nominated: str = "",
) -> Decision:
    """Choose the Pods to end for one that fits nowhere.

    Args:
        pod: the Pod that waits.
        nodes: all nodes.
        unfit: why each of them is passed over.
        pods_on: tells the Pods on a node, ending ones included.
        budgets: all PodDisruptionBudgets.
        plugins: the filters.
        nominated: the node that room was made on before, empty for none.
    """
    objection = _ineligible(pod, dict(unfit), pods_on, nominated)
    if objection:
        return NoPreemption(objection)
    reasons: Counter[str] = Counter()
    candidates: list[Preemption] = []
    infos = {info.name: info for info in nodes}
    for name, why in unfit:
        if not why.resolvable:
            reasons[_NOT_HELPFUL] += 1
            continue
        found = _victims_on(pod, infos[name], pods_on(name), budgets, plugins)
        if isinstance(found, Unfit):
            reasons.update(found.reasons)
        else:
            candidates.append(found)
    if not candidates:
        head = f"0/{len(unfit)} nodes are available: "
        return NoPreemption(f"{head}{histogram(reasons)}.", is_hopeless=True)
    return min(candidates, key=_harm)


def _ineligible(
    pod: Document, unfit: dict[str, Unfit], pods_on: PodsOn, nominated: str
) -> str:
    """Return why a Pod may not preempt now, or an empty string."""
    if (pod.get("spec") or {}).get("preemptionPolicy") == NEVER:
        return _NEVER_PREEMPTS
    if not nominated or nominated not in unfit or not unfit[nominated].resolvable:
        return ""
    priority = pod_priority(pod)
    is_waiting = any(
        pod_priority(placed.pod) < priority and _is_preempted(placed.pod)
        for placed in pods_on(nominated)
    )
    return _STILL_ENDING if is_waiting else ""


def _is_preempted(pod: Document) -> bool:
    if not pod["metadata"].get("deletionTimestamp"):
        return False
    return any(
        condition.get("type") == DISRUPTION_TARGET
        and condition.get("status") == "True"
        and condition.get("reason") == REASON
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def _victims_on(
    pod: Document,
    info: NodeInfo,
    placed: Sequence[PlacedPod],
    budgets: Sequence[Document],
    plugins: Sequence[SchedulerPlugin],
) -> Preemption | Unfit:
    """Return the fewest Pods of one node that have to go, or why that is no use."""
    filters = in_order(plugins)
    priority = pod_priority(pod)
    lower = [item for item in placed if pod_priority(item.pod) < priority]
    if not lower:
        return Unfit((_NO_VICTIMS,))
    # Nominated Pods are in the node's usage beside those on it: keep what they take.
    freed = _without_pods(info, lower)
    objection = first_objection(pod, freed, filters)
    if objection is not None:
        return objection
    lower.sort(key=_importance)
    violating, others = _by_budget(lower, budgets)
    victims: list[PlacedPod] = []
    violations = 0
    for item, violates in [(i, True) for i in violating] + [(i, False) for i in others]:
        back = _with_pod(freed, item)
        if first_objection(pod, back, filters) is None:
            freed = back
            continue
        victims.append(item)
        violations += violates
    victims.sort(key=_importance)
    return Preemption(info.name, tuple(item.pod for item in victims), violations)


def _importance(item: PlacedPod) -> tuple[int, float, str]:
    """Order Pods by importance: priority, then who has run longer."""
    return -pod_priority(item.pod), _started_s(item.pod), item.uid


def _started_s(pod: Document) -> float:
    started = parse_time((pod.get("status") or {}).get("startTime"))
    return float("inf") if started is None else started.timestamp()


def _by_budget(
    pods: Iterable[PlacedPod], budgets: Sequence[Document]
) -> tuple[list[PlacedPod], list[PlacedPod]]:
    """Part the Pods whose end breaks a budget from the others; the order stays."""
    allowed = [
        int((budget.get("status") or {}).get("disruptionsAllowed") or 0)
        for budget in budgets
    ]
    violating: list[PlacedPod] = []
    others: list[PlacedPod] = []
    for item in pods:
        violates = False
        for index, budget in enumerate(budgets):
            if not item.pod["metadata"].get("labels"):
                continue
            noted = (budget.get("status") or {}).get("disruptedPods") or {}
            if item.pod["metadata"]["name"] in noted:
                continue
            if budget_holds(budget, item.pod):
                allowed[index] -= 1
                violates = violates or allowed[index] < 0
        (violating if violates else others).append(item)
    return violating, others


def _harm(candidate: Preemption) -> tuple[int, int, int, int, float, str]:
    """Order candidates: the least harm first."""
    priorities = [pod_priority(victim) for victim in candidate.victims]
    highest = max(priorities, default=-_OFFSET)
    earliest_s = min(
        (
            _started_s(victim)
            for victim in candidate.victims
            if pod_priority(victim) == highest
        ),
        default=0.0,
    )
    return (
        candidate.violations,
        highest,
        sum(priority + _OFFSET for priority in priorities),
        len(priorities),
        -earliest_s,
        candidate.node_name,
    )


def _without_pods(info: NodeInfo, gone: Sequence[PlacedPod]) -> NodeInfo:
    around = info.neighbours
    return replace(
        info,
        usage=_without(info.usage, (item.usage for item in gone)),
        neighbours=around
        and around.without_pods([item.pod for item in gone], info.node),
    )


def _with_pod(info: NodeInfo, item: PlacedPod) -> NodeInfo:
    around = info.neighbours
    return replace(
        info,
        usage=_with(info.usage, item.usage),
        neighbours=around and around.with_pods([item.pod], info.node),
    )


def _without(total: NodeUsage, parts: Iterable[NodeUsage]) -> NodeUsage:
    requested: ResourceList = dict(total.requested)
    pods, ports = total.pods, total.host_ports
    for part in parts:
        for name, amount in part.requested.items():
            requested[name] = requested.get(name, ZERO) - amount
        pods -= part.pods
        ports -= part.host_ports
    return NodeUsage(requested, pods, ports)


def _with(total: NodeUsage, part: NodeUsage) -> NodeUsage:
    requested: ResourceList = dict(total.requested)
    for name, amount in part.requested.items():
        requested[name] = requested.get(name, ZERO) + amount
    return NodeUsage(
        requested, total.pods + part.pods, total.host_ports | part.host_ports
    )


def describe_victim(preemptor: Document, node_name: str) -> str:
    """Return what a victim's Event says."""
    return f"Preempted by pod {preemptor['metadata']['uid']} on node {node_name}"
