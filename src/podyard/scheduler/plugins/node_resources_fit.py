"""A node has to have room for what a Pod requests, its overhead included.

Among nodes with room the emptier one is preferred (LeastAllocated).

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/resource-bin-packing/
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import resource_shortfalls
from podyard.api.quantity import ZERO, Quantity
from podyard.api.resources import CPU, MEMORY, parse_resources, pod_requests
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit

#: What a container without a request counts for when nodes are compared.
_UNSAID: Final = {CPU: Quantity.of_milli(100), MEMORY: Quantity.of(200 * 1024 * 1024)}


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node without room."""
    short = resource_shortfalls(pod, info.node, info.usage)
    if not short:
        return None
    # Not even an empty node would do: nobody's eviction can help.
    hopeless = any(item.requested > item.capacity for item in short)
    return Unfit(tuple(item.reason for item in short), resolvable=not hopeless)


def score(pod: Document, info: NodeInfo) -> float:
    """Return how much of the node would stay free, 0 to 100."""
    allocatable = parse_resources((info.node.get("status") or {}).get("allocatable"))
    requests = pod_requests(pod)
    shares: list[float] = []
    for name, unsaid in _UNSAID.items():
        capacity = allocatable.get(name, ZERO).nano
        if not capacity:
            continue
        used = info.usage.requested.get(name, ZERO) + (requests.get(name) or unsaid)
        shares.append(max(capacity - used.nano, 0) * 100 / capacity)
    return sum(shares) / len(shares) if shares else 0.0


PART: Final = SchedulerPlugin(
    name="NodeResourcesFit", order=60, filter=check, score=score
)
