"""A cordoned node takes no new Pods but those that tolerate it."""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import UNSCHEDULABLE, tolerates_cordon
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a cordoned node."""
    cordoned = (info.node.get("spec") or {}).get("unschedulable")
    return Unfit((UNSCHEDULABLE,)) if cordoned and not tolerates_cordon(pod) else None


PART: Final = SchedulerPlugin(name="NodeUnschedulable", order=10, filter=check)
