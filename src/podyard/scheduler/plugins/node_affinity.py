"""A Pod's node selector and node affinity.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import (
    AFFINITY_MISMATCH,
    matches_node_affinity,
    node_preference,
)
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node that the Pod does not want."""
    return (
        None if matches_node_affinity(pod, info.node) else Unfit((AFFINITY_MISMATCH,))
    )


def score(pod: Document, info: NodeInfo) -> float:
    """Return the weight of the preferred terms that the node fulfils."""
    return float(node_preference(pod, info.node))


PART: Final = SchedulerPlugin(
    name="NodeAffinity",
    order=40,
    filter=check,
    score=score,
    scale=Scale.HIGHER_IS_BETTER,
    weight=2,
)
