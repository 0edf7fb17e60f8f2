"""What a scheduler plugin is, and what it is given. Pure.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/
"""

from collections.abc import Callable
from dataclasses import field
from enum import StrEnum
from typing import TypeAlias

from podyard.api.documents import Document
from podyard.api.predicates import NodeUsage
from podyard.api.storage import PodStorage
from podyard.lib.values import dataclass
from podyard.scheduler.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as the scheduler sees it.

    Attributes:
        node: the Node.
        usage: what the Pods on it take, those on their way to it included.
        storage: the claims of the Pod that is asked about; ``None`` where it has
            none, or nobody looked.
        neighbours: what other Pods, of all nodes, mean to it; ``None`` where neither
            it nor they care.
    """

    node: Document
    usage: NodeUsage = field(default_factory=NodeUsage)
    storage: PodStorage | None = None
    neighbours: Neighbours | None = None

    @property
    def name(self) -> str:
        """The Node's name."""
        return str(self.node["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a node is passed over.

    Attributes:
        reasons: as kubectl shows them, without the count of nodes.
        resolvable: whether evicting other Pods could help.
        everywhere: the reason is the Pod's own, whatever the node; it is said once,
            without a count.
    """

    reasons: tuple[str, ...]
    resolvable: bool = False
    everywhere: bool = False


class Scale(StrEnum):
    """How raw scores of all nodes become 0 to 100."""

    KEEP = "keep"
    HIGHER_IS_BETTER = "higher"
    LOWER_IS_BETTER = "lower"
    #: The lowest becomes 0, the highest 100.
    FROM_LOWEST = "from-lowest"
    #: The lowest becomes 100, and the others as much less as they are above it;
    #: infinite ones, which do not count, become 0.
    EVEN = "even"


#: Says why a Pod cannot go to a node, or ``None`` where it can.
Filter: TypeAlias = Callable[[Document, NodeInfo], Unfit | None]
#: Says how well a Pod would do on a node that has passed every filter.
Score: TypeAlias = Callable[[Document, NodeInfo], float]


@dataclass(frozen=True, slots=True)
class SchedulerPlugin:
    """One plugin; pure.

    Attributes:
        name: upstream's name of it.
        order: filters are asked from low to high; the first to object is named.
        filter: passes nodes over.
        score: prefers nodes.
        scale: how its scores are made comparable.
        weight: how much its score counts.
    """

    name: str
    order: int
    filter: Filter | None = None
    score: Score | None = None
    scale: Scale = Scale.KEEP
    weight: int = 1
