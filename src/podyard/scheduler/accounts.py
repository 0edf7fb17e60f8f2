"""What is taken on each node: bound Pods, and Pods on their way to one.

A Pod counts from the moment it is assumed, so that two binds in a row never promise
the same room twice; what the API says of it later replaces the assumption.
"""

from collections.abc import Iterator
from dataclasses import replace

from podyard.api.documents import Document
from podyard.api.predicates import NodeUsage, usage_of
from podyard.api.priority import pod_priority
from podyard.api.quantity import ZERO, QuantityError
from podyard.api.resources import ResourceList
from podyard.scheduler.neighbours import (
    NO_TERMS,
    NamespaceLabels,
    Neighbours,
    PodTerms,
    look_around,
    minds_others,
    terms_of,
)
from podyard.scheduler.parts import NodeInfo
from podyard.scheduler.preemption.decide import PlacedPod

_TERMINAL = frozenset({"Succeeded", "Failed"})


class NodeAccounts:
    """Nodes, and what the Pods on them take."""

    def __init__(self) -> None:
        self._nodes: dict[str, Document] = {}
        self._pods: dict[str, dict[str, PlacedPod]] = {}
        self._nominated: dict[str, tuple[str, PlacedPod]] = {}
        self._where: dict[str, str] = {}
        self._totals: dict[str, NodeUsage] = {}
        self._terms: dict[str, PodTerms] = {}

    def set_node(self, node: Document) -> None:
        """Take a new or changed Node."""
        self._nodes[str(node["metadata"]["name"])] = node

    def remove_node(self, name: str) -> None:
        """Forget a Node; its Pods count again when it comes back."""
        self._nodes.pop(name, None)

    def place(self, pod: Document, node_name: str) -> None:
        """Count a Pod on a node, bound or assumed; it moves if it was elsewhere."""
        uid = str(pod["metadata"]["uid"])
        usage = _usage_of(pod)
        self._nominated.pop(uid, None)
        if self._where.get(uid) == node_name:
            if self._pods[node_name][uid].usage == usage:
                self._pods[node_name][uid] = PlacedPod(pod, usage)
                return
            self.remove(uid)
        elif uid in self._where:
            self.remove(uid)
        self._where[uid] = node_name
        terms = terms_of(pod)
        if terms:
            self._terms[uid] = terms
        self._pods.setdefault(node_name, {})[uid] = PlacedPod(pod, usage)
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
        self._terms.pop(uid, None)
        self._totals.pop(node_name, None)
        return True

    def node_of(self, uid: str) -> str:
        """Return the node a Pod counts on, or an empty string."""
        return self._where.get(uid, "")

    def pods_on(self, node_name: str) -> tuple[PlacedPod, ...]:
        """Return the Pods that count on a node."""
        return tuple(self._pods.get(node_name, {}).values())

    # --- room that is made for somebody

    def nominate(self, pod: Document, node_name: str) -> None:
        """Keep the room on a node for a Pod that waits there."""
        uid = str(pod["metadata"]["uid"])
        self._nominated[uid] = node_name, PlacedPod(pod, _usage_of(pod))

    def forget_nomination(self, uid: str) -> None:
        """Keep no room for a Pod any more."""
        self._nominated.pop(uid, None)

    def nominated_node(self, uid: str) -> str:
        """Return the node whose room is kept for a Pod, or an empty string."""
        return self._nominated.get(uid, ("", None))[0]

    def outranked(self, pod: Document, node_name: str) -> tuple[Document, ...]:
        """Return less important Pods that room is kept for on a node."""
        priority = pod_priority(pod)
        return tuple(
            kept.pod
            for where, kept in self._nominated.values()
            if where == node_name and pod_priority(kept.pod) < priority
        )

    def infos(
        self,
        pod: Document | None = None,
        labels_of: NamespaceLabels | None = None,
    ) -> tuple[NodeInfo, ...]:
        """Return every node with what is taken on it.

        Args:
            pod: whose turn it is; room kept for others at least as important as it
                counts as taken.
            labels_of: the labels of the Namespaces.
        """
        infos = tuple(self._infos())
        if pod is None:
            return infos
        kept = self._kept(pod)
        around = self._neighbours(pod, kept, labels_of or {})
        if not kept and around is None:
            return infos
        return tuple(
            replace(
                info,
                usage=_sum(
                    (
                        info.usage,
                        *(item.usage for where, item in kept if where == info.name),
                    )
                ),
                neighbours=around,
            )
            for info in infos
        )

    def _kept(self, pod: Document) -> tuple[tuple[str, PlacedPod], ...]:
        """Return the Pods that room is kept for while it is a Pod's turn."""
        if not self._nominated:
            return ()
        priority, uid = pod_priority(pod), str(pod["metadata"]["uid"])
        return tuple(
            (where, item)
            for other, (where, item) in self._nominated.items()
            if other != uid and pod_priority(item.pod) >= priority
        )

    def _neighbours(
        self,
        pod: Document,
        kept: tuple[tuple[str, PlacedPod], ...],
        labels_of: NamespaceLabels,
    ) -> Neighbours | None:
        """Return the neighbours of a Pod; ``None`` where nobody minds another."""
        mine = minds_others(pod)
        kept = tuple((w, one) for w, one in kept if mine or minds_others(one.pod))
        if not mine and not self._terms and not kept:
            return None
        uids = self._where if mine else self._terms
        around = look_around(
            pod,
            tuple(self._nodes.values()),
            (
                (
                    self._pods[self._where[uid]][uid].pod,
                    self._nodes[self._where[uid]],
                    self._terms.get(uid, NO_TERMS),
                )
                for uid in uids
                if self._where[uid] in self._nodes
            ),
            labels_of,
        )
        for where, one in kept:
            if where in self._nodes:
                around = around.with_pods([one.pod], self._nodes[where], are_sure=False)
        return around

    def _infos(self) -> Iterator[NodeInfo]:
        for name, node in self._nodes.items():
            total = self._totals.get(name)
            if total is None:
                placed = self._pods.get(name, {}).values()
                total = _sum(tuple(item.usage for item in placed))
                self._totals[name] = total
            yield NodeInfo(node, total)


def is_finished(pod: Document) -> bool:
    """Say whether a Pod has ended and takes nothing any more."""
    return (pod.get("status") or {}).get("phase") in _TERMINAL


def _usage_of(pod: Document) -> NodeUsage:
    try:
        return usage_of((pod,))
    except QuantityError:
        return NodeUsage(pods=1)  # nobody can say what it takes; it is one Pod


def _sum(usages: tuple[NodeUsage, ...]) -> NodeUsage:
    requested: ResourceList = {}
    for usage in usages:
        for name, amount in usage.requested.items():
            requested[name] = requested.get(name, ZERO) + amount
    ports = frozenset().union(*(usage.host_ports for usage in usages))
    return NodeUsage(requested, sum(usage.pods for usage in usages), ports)
