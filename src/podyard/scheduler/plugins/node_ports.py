"""Two Pods cannot have the same port of a node."""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import PORTS_TAKEN, has_port_conflict
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node where a wanted host port is taken."""
    if has_port_conflict(pod, info.usage):
        return Unfit((PORTS_TAKEN,), resolvable=True)
    return None


PART: Final = SchedulerPlugin(name="NodePorts", order=50, filter=check)
