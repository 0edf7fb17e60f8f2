"""A Pod goes where the Pods are that it wants near, and not where others keep away.

Source: kubernetes ``pkg/scheduler/framework/plugins/interpodaffinity`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
"""

from typing import Final

from podyard.api.documents import Document
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit

NOT_NEAR: Final = "node(s) didn't match pod affinity rules"
TOO_NEAR: Final = "node(s) didn't match pod anti-affinity rules"
KEPT_AWAY: Final = "node(s) didn't satisfy existing pods anti-affinity rules"


def check(_pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node that is far from wanted Pods, or near unwanted ones."""
    around = info.neighbours
    if around is None:
        return None
    labels: dict[str, str] = info.node["metadata"].get("labels") or {}
    near = [
        (term.topology_key, labels.get(term.topology_key))
        for term in around.terms.affinity
    ]
    if any(value is None for _, value in near):
        return Unfit((NOT_NEAR,))
    if any(not around.wanted[key, value or ""] for key, value in near) and (
        not around.is_first_of_its_kind()
    ):
        return Unfit((NOT_NEAR,))
    for term in around.terms.anti_affinity:
        value = labels.get(term.topology_key)
        if value is not None and around.avoided[term.topology_key, value]:
            return Unfit((TOO_NEAR,), resolvable=True)
    if any(around.avoiding[domain] for domain in labels.items()):
        return Unfit((KEPT_AWAY,), resolvable=True)
    return None


def score(_pod: Document, info: NodeInfo) -> float:
    """Return what the preferences of the Pod and its neighbours say for a node."""
    if info.neighbours is None or not info.neighbours.liked:
        return 0.0
    labels: dict[str, str] = info.node["metadata"].get("labels") or {}
    return float(sum(info.neighbours.liked[domain] for domain in labels.items()))


PART: Final = SchedulerPlugin(
    name="InterPodAffinity",
    order=80,
    filter=check,
    score=score,
    scale=Scale.FROM_LOWEST,
    weight=2,
)
