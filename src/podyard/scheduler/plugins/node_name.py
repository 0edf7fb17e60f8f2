"""A Pod that names its node goes there or nowhere."""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import NODE_NAME_MISMATCH
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over every other node."""
    wanted = (pod.get("spec") or {}).get("nodeName")
    return Unfit((NODE_NAME_MISMATCH,)) if wanted and wanted != info.name else None


PART: Final = SchedulerPlugin(name="NodeName", order=20, filter=check)
