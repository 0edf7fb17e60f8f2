"""Pods of a kind are spread over zones, racks or nodes.

Source: kubernetes ``pkg/scheduler/framework/plugins/podtopologyspread`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
"""

from math import inf, log
from typing import Final

from podyard.api.documents import Document
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit

UNEVEN: Final = "node(s) didn't match pod topology spread constraints"
UNLABELLED: Final = f"{UNEVEN} (missing required label)"


def check(_pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node of a domain that would lead the others by too much."""
    around = info.neighbours
    if around is None:
        return None
    labels = info.node["metadata"].get("labels") or {}
    for index, spread in enumerate(around.spreads):
        if not spread.is_hard:
            continue
        if spread.topology_key not in labels:
            return Unfit((UNLABELLED,))
        if around.lead(index, labels[spread.topology_key]) > spread.max_skew:
            return Unfit((UNEVEN,), resolvable=True)
    return None


def score(_pod: Document, info: NodeInfo) -> float:
    """Return how crowded the domains of a node are; infinite where it has none.

    A key with few domains weighs less, so that a zone does not outweigh a node.
    """
    around = info.neighbours
    if around is None:
        return 0.0
    labels = info.node["metadata"].get("labels") or {}
    total = 0.0
    for spread, crowd in zip(around.spreads, around.crowds, strict=True):
        if spread.is_hard:
            continue
        if spread.topology_key not in labels:
            return inf
        weight = log(len(crowd) + 2)
        total += crowd[labels[spread.topology_key]] * weight + spread.max_skew - 1
    return float(round(total))


PART: Final = SchedulerPlugin(
    name="PodTopologySpread",
    order=70,
    filter=check,
    score=score,
    scale=Scale.EVEN,
    weight=2,
)
