"""The documents the scheduler writes. Pure."""

from datetime import datetime
from typing import Final

from podyard.api.core_v1 import format_time
from podyard.api.disruption import with_disruption_target
from podyard.api.documents import Document
from podyard.scheduler.preemption.decide import REASON

GATED: Final = "Scheduling is blocked due to non-empty scheduling gates"


def build_binding(pod: Document, node_name: str) -> Document:
    """Return the ``v1`` Binding of a Pod to a node."""
    metadata = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
    }


def build_failure(
    pod: Document, *, reason: str, message: str, now: datetime
) -> Document | None:
    """Return the status patch that says why a Pod is not scheduled.

    ``None`` where the Pod says so already.

    Args:
        pod: the Pod.
        reason: ``Unschedulable`` or ``SchedulingGated``.
        message: the sentence.
        now: dates the condition, if it is a change of its status.
    """
    present = _condition(pod)
    if (
        present.get("status") == "False"
        and present.get("reason") == reason
        and present.get("message") == message
    ):
        return None
    since = present.get("lastTransitionTime")
    if present.get("status") != "False" or not since:
        since = format_time(now)
    condition: Document = {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": since,
    }
    generation = pod["metadata"].get("generation")
    if generation:
        condition["observedGeneration"] = generation
    return {
        "metadata": {"uid": pod["metadata"]["uid"]},
        "status": {"conditions": [condition]},
    }


def build_mark(victim: Document, scheduler_name: str, *, now: datetime) -> Document:
    """Return the status patch that tells a victim why it is ended."""
    conditions = with_disruption_target(
        victim,
        reason=REASON,
        message=f"{scheduler_name}: preempting to accommodate a higher priority pod",
        now=now,
    )
    return {
        "metadata": {"uid": victim["metadata"]["uid"]},
        "status": {"conditions": conditions[-1:]},
    }


def build_nomination(pod: Document, node_name: str) -> Document:
    """Return the status patch that says where room is made for a Pod.

    Args:
        pod: the Pod.
        node_name: the node; empty gives a nomination up.
    """
    return {
        "metadata": {"uid": pod["metadata"]["uid"]},
        "status": {"nominatedNodeName": node_name or None},
    }


def _condition(pod: Document) -> Document:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled":
            found: Document = condition
            return found
    return {}
