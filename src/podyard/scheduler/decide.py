"""On which node a Pod is to run, or why on none. Pure.

Source: kubernetes ``pkg/scheduler/schedule_one.go`` and
``pkg/scheduler/framework/types.go`` (v1.36: how scores add up, how a failure reads).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Final, TypeAlias, assert_never

from podyard.api.documents import Document
from podyard.lib.values import dataclass
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit

_NO_NODES: Final = "no nodes available to schedule pods"
_NOT_HELPFUL: Final = "Preemption is not helpful for scheduling"
_NO_VICTIMS: Final = "No preemption victims found for incoming pod"
_NEVER_PREEMPTS: Final = "not eligible due to preemptionPolicy=Never."
_BEST: Final = 100.0


@dataclass(frozen=True, slots=True)
class Placement:
    """The node to bind a Pod to.

    Attributes:
        node_name: the node.
        score: its score, the weighted sum of all plugins.
        feasible: how many nodes passed every filter.
    """

    node_name: str
    score: float
    feasible: int


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node takes the Pod.

    Attributes:
        message: the sentence of the condition and the event, where nobody may be
            ended for the Pod.
        filtered: the sentence without what it says of preemption.
        unfit: why each node is passed over.
    """

    message: str
    filtered: str = ""
    unfit: tuple[tuple[str, Unfit], ...] = ()


Verdict: TypeAlias = Placement | Unschedulable


def decide_placement(
    pod: Document, nodes: Sequence[NodeInfo], plugins: Sequence[SchedulerPlugin]
) -> Verdict:
    """Choose the node with the best score among those that pass every filter.

    Of equally good nodes the one with the fewest Pods is taken, then the first by
    name, so that the same question always has the same answer.

    Raises:
        QuantityError: an amount is no quantity.
    """
    if not nodes:
        return Unschedulable(_NO_NODES)
    filters = in_order(plugins)
    feasible: list[NodeInfo] = []
    unfit: list[tuple[str, Unfit]] = []
    for info in nodes:
        objection = first_objection(pod, info, filters)
        if objection is None:
            feasible.append(info)
        else:
            unfit.append((info.name, objection))
    if not feasible:
        filtered = _failure([why for _, why in unfit])
        message = f"{filtered} preemption: {_no_help(pod, unfit)}"
        return Unschedulable(message, filtered, tuple(unfit))
    if len(feasible) == 1:
        return Placement(feasible[0].name, _BEST, 1)
    scores = _scores(pod, feasible, plugins)
    best = min(
        range(len(feasible)),
        key=lambda i: (-scores[i], feasible[i].usage.pods, feasible[i].name),
    )
    return Placement(feasible[best].name, scores[best], len(feasible))


def in_order(plugins: Iterable[SchedulerPlugin]) -> list[SchedulerPlugin]:
    """Return the plugins that filter, in the order they are asked."""
    return sorted(
        (plugin for plugin in plugins if plugin.filter is not None),
        key=lambda plugin: (plugin.order, plugin.name),
    )


def first_objection(
    pod: Document, info: NodeInfo, filters: Iterable[SchedulerPlugin]
) -> Unfit | None:
    """Return why a node is passed over, or ``None`` where it is not."""
    for plugin in filters:
        assert plugin.filter is not None
        objection = plugin.filter(pod, info)
        if objection is not None:
            return objection
    return None


def _scores(
    pod: Document, feasible: Sequence[NodeInfo], plugins: Iterable[SchedulerPlugin]
) -> list[float]:
    totals = [0.0] * len(feasible)
    for plugin in plugins:
        if plugin.score is None:
            continue
        raw = [plugin.score(pod, info) for info in feasible]
        for index, score in enumerate(_normalize(raw, plugin.scale)):
            totals[index] += score * plugin.weight
    return totals


def _normalize(raw: Sequence[float], scale: Scale) -> list[float]:
    """Stretch scores to 0..100."""
    match scale:
        case Scale.KEEP:
            return list(raw)
        case Scale.HIGHER_IS_BETTER:
            return _by_highest(raw)
        case Scale.LOWER_IS_BETTER:
            return [_BEST - score for score in _by_highest(raw)]
        case Scale.FROM_LOWEST:
            lowest, span = min(raw), max(raw) - min(raw)
            return [(score - lowest) * _BEST / span if span else 0.0 for score in raw]
        case Scale.EVEN:
            return _evenly(raw)
        case unknown:
            assert_never(unknown)


def _by_highest(raw: Sequence[float]) -> list[float]:
    highest = max(raw)
    return [score * _BEST / highest if highest else 0.0 for score in raw]


def _evenly(raw: Sequence[float]) -> list[float]:
    counted = [score for score in raw if isfinite(score)]
    lowest, highest = min(counted, default=0.0), max(counted, default=0.0)
    return [
        0.0
        if not isfinite(score)
        else _BEST * (highest + lowest - score) / highest
        if highest
        else _BEST
        for score in raw
    ]


def _failure(unfit: Sequence[Unfit]) -> str:
    """Return the sentence that says why no node is left."""
    for why in unfit:
        if why.everywhere:
            return f"0/{len(unfit)} nodes are available: {', '.join(why.reasons)}."
    reasons = Counter(reason for why in unfit for reason in why.reasons)
    return f"0/{len(unfit)} nodes are available: {histogram(reasons)}."


def _no_help(pod: Document, unfit: Sequence[tuple[str, Unfit]]) -> str:
    """Return why nothing is freed where nobody runs that could go."""
    if (pod.get("spec") or {}).get("preemptionPolicy") == "Never":
        return _NEVER_PREEMPTS
    helped = Counter(
        _NO_VICTIMS if why.resolvable else _NOT_HELPFUL for _, why in unfit
    )
    return f"0/{len(unfit)} nodes are available: {histogram(helped)}."


def histogram(counts: Counter[str]) -> str:
    """Return how often each reason is met, as one sentence."""
    return ", ".join(sorted(f"{count} {text}" for text, count in counts.items()))
