"""What is taken on each node: bound Pods, and Pods on their way to one.

A Pod counts from the moment it is assumed, so that two binds in a row never promise
the same room twice; what the API says of it later replaces the assumption.
"""

from collections.abc import Iterator

from podyard.api.documents import Document
from podyard.api.predicates import NodeUsage, usage_of
from podyard.api.quantity import ZERO, QuantityError
from podyard.api.resources import ResourceList
from podyard.scheduler.parts import NodeInfo

_TERMINAL = frozenset({"Succeeded", "Failed"})


class NodeAccounts:
    """Nodes, and what the Pods on them take."""

    def __init__(self) -> None:
        self._nodes: dict[str, Document] = {}
        self._pods: dict[str, dict[str, NodeUsage]] = {}
        self._where: dict[str, str] = {}
        self._totals: dict[str, NodeUsage] = {}

    def set_node(self, node: Document) -> None:
        """Take a new or changed Node."""
        self._nodes[str(node["metadata"]["name"])] = node

    def remove_node(self, name: str) -> None:
        """Forget a Node; its Pods count again when it comes back."""
        self._nodes.pop(name, None)

    def place(self, pod: Document, node_name: str) -> None:
        """Count a Pod on a node, bound or assumed; it moves if it was elsewhere."""
        uid = str(pod["metadata"]["uid"])
        try:
            usage = usage_of((pod,))
        except QuantityError:
            usage = NodeUsage(pods=1)  # nobody can say what it takes; it is one Pod
        if self._where.get(uid) == node_name:
            if self._pods[node_name][uid] == usage:
                return
            self.remove(uid)
        elif uid in self._where:
            self.remove(uid)
        self._where[uid] = node_name
        self._pods.setdefault(node_name, {})[uid] = usage
        total = self._totals.get(node_name)
        if total is not None:
            self._totals[node_name] = _sum((total, usage))

    def remove(self, uid: str) -> bool:
        """Stop counting a Pod.

        Returns:
            Whether it was counted.
        """
        node_name = self._where.pop(uid, None)
        if node_name is None:
            return False
        del self._pods[node_name][uid]
        self._totals.pop(node_name, None)
        return True

    def node_of(self, uid: str) -> str:
        """Return the node a Pod counts on, or an empty string."""
        return self._where.get(uid, "")

    def infos(self) -> tuple[NodeInfo, ...]:
        """Return every node with what is taken on it."""
        return tuple(self._infos())

    def _infos(self) -> Iterator[NodeInfo]:
        for name, node in self._nodes.items():
            total = self._totals.get(name)
            if total is None:
                total = _sum(tuple(self._pods.get(name, {}).values()))
                self._totals[name] = total
            yield NodeInfo(node, total)


def is_finished(pod: Document) -> bool:
    """Say whether a Pod has ended and takes nothing any more."""
    return (pod.get("status") or {}).get("phase") in _TERMINAL


def _sum(usages: tuple[NodeUsage, ...]) -> NodeUsage:
    requested: ResourceList = {}
    for usage in usages:
        for name, amount in usage.requested.items():
            requested[name] = requested.get(name, ZERO) + amount
    ports = frozenset().union(*(usage.host_ports for usage in usages))
    return NodeUsage(requested, sum(usage.pods for usage in usages), ports)
