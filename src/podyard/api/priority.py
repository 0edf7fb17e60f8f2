"""Priority classes that every cluster has, and what a priority means. Pure.

Source: kubernetes ``pkg/apis/scheduling/{types.go,v1/helpers.go}`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from typing import Final

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: The priority from which on a Pod is critical.
CRITICAL: Final = 2_000_000_000
#: The highest priority a class of a user's may have.
HIGHEST_OF_USERS: Final = 1_000_000_000
#: What begins with this is not for users.
SYSTEM_PREFIX: Final = "system-"
PREEMPT: Final = "PreemptLowerPriority"
NEVER: Final = "Never"


@dataclass(frozen=True, slots=True)
class SystemClass:
    """One class that every cluster has.

    Attributes:
        value: its priority.
        description: as ``kubectl describe`` shows it.
    """

    value: int
    description: str


SYSTEM_CLASSES: Final = {
    "system-node-critical": SystemClass(
        CRITICAL + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    "system-cluster-critical": SystemClass(
        CRITICAL,
        "Used for system critical pods that must run in the cluster, but can be "
        "moved to another node if necessary.",
    ),
}


def build_system_classes() -> tuple[Document, ...]:
    """Return the PriorityClasses that every cluster has."""
    return tuple(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": known.value,
            "description": known.description,
        }
        for name, known in SYSTEM_CLASSES.items()
    )


def pod_priority(pod: Document) -> int:
    """Return a Pod's priority, 0 where it has none."""
    return int((pod.get("spec") or {}).get("priority") or 0)
