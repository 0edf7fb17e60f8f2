"""A node's taints keep away the Pods that do not tolerate them.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import (
    soft_taints_against,
    untolerated_taint,
    untolerated_taint_reason,
)
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node with a hard taint that the Pod does not tolerate."""
    taint = untolerated_taint(pod, info.node)
    return None if taint is None else Unfit((untolerated_taint_reason(taint),))


def score(pod: Document, info: NodeInfo) -> float:
    """Return how many soft taints the Pod does not tolerate."""
    return float(soft_taints_against(pod, info.node))


PART: Final = SchedulerPlugin(
    name="TaintToleration",
    order=30,
    filter=check,
    score=score,
    scale=Scale.LOWER_IS_BETTER,
    weight=3,
)
