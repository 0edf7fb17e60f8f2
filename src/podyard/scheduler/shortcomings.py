"""Everything that keeps a Pod from a node, in words of our own. Pure.

The scheduler's filters stop at the first objection and count nodes; a person who looks
at one node wants to know all of it, with the values.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.predicates import (
    PORTS_TAKEN,
    host_ports,
    resource_shortfalls,
    tolerates,
)
from podyard.api.resources import CPU, EPHEMERAL_STORAGE, MEMORY
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin

_MIB: Final = 1024 * 1024
_HARD: Final = frozenset({"NoSchedule", "NoExecute"})


def lacks(
    pod: Document, info: NodeInfo, plugins: Iterable[SchedulerPlugin]
) -> Iterator[str]:
    """Yield everything that keeps a Pod from a node, not the first alone.

    Raises:
        QuantityError: an amount is no quantity.
    """
    for plugin in sorted(plugins, key=lambda plugin: (plugin.order, plugin.name)):
        objection = plugin.filter(pod, info) if plugin.filter else None
        if objection is None:
            continue
        details = tuple(_DETAILS.get(plugin.name, _nothing)(pod, info))
        yield from details or objection.reasons


def _nothing(_pod: Document, _info: NodeInfo) -> Iterator[str]:
    return iter(())


def _cordoned(_pod: Document, _info: NodeInfo) -> Iterator[str]:
    yield "it is cordoned (spec.unschedulable)"


def _taints(pod: Document, info: NodeInfo) -> Iterator[str]:
    tolerations = (pod.get("spec") or {}).get("tolerations") or ()
    for taint in (info.node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in _HARD and not tolerates(tolerations, taint):
            text = f"{taint.get('key')}={taint.get('value') or ''}:{taint['effect']}"
            yield f"the Pod does not tolerate its taint {text}"


def _affinity(pod: Document, info: NodeInfo) -> Iterator[str]:
    labels = (info.node.get("metadata") or {}).get("labels") or {}
    spec = pod.get("spec") or {}
    told = False
    for key, value in sorted((spec.get("nodeSelector") or {}).items()):
        if key not in labels:
            told = True
            yield f"it has no label {key} (wanted: {value})"
        elif labels[key] != value:
            told = True
            yield f"its label {key} is {labels[key]} (wanted: {value})"
    if not told:
        yield "no term of the required node affinity fits its labels"


def _ports(pod: Document, info: NodeInfo) -> Iterator[str]:
    for wanted in sorted(host_ports(pod), key=lambda port: port.port):
        if any(wanted.conflicts(taken) for taken in info.usage.host_ports):
            yield f"{PORTS_TAKEN}: {wanted.port}/{wanted.protocol}"


def _resources(pod: Document, info: NodeInfo) -> Iterator[str]:
    for short in resource_shortfalls(pod, info.node, info.usage):
        name, free = short.resource, max(short.capacity - short.used, 0)
        asked, left, room = (
            _amount(name, amount) for amount in (short.requested, free, short.capacity)
        )
        yield f"too little {name}: {asked} asked, {left} of {room} free"


def _spread(_pod: Document, info: NodeInfo) -> Iterator[str]:
    around = info.neighbours
    assert around is not None
    labels = info.node["metadata"].get("labels") or {}
    for index, spread in enumerate(around.spreads):
        if not spread.is_hard:
            continue
        key, value = spread.topology_key, labels.get(spread.topology_key)
        if value is None:
            yield f"it has no label {key}, which the topology spread goes by"
            continue
        lead = around.lead(index, value)
        if lead > spread.max_skew:
            yield (
                f"{key}={value} would lead the emptiest by {lead} Pods "
                f"({spread.max_skew} allowed)"
            )


def _others(_pod: Document, info: NodeInfo) -> Iterator[str]:
    around = info.neighbours
    assert around is not None
    labels = info.node["metadata"].get("labels") or {}
    is_first = around.is_first_of_its_kind()
    for term in around.terms.affinity:
        key, value = term.topology_key, labels.get(term.topology_key)
        if value is None:
            yield f"it has no label {key}, which the Pod's affinity goes by"
        elif not around.wanted[key, value] and not is_first:
            yield f"no Pod that the Pod's affinity wants is in {key}={value}"
    for term in around.terms.anti_affinity:
        key, value = term.topology_key, labels.get(term.topology_key, "")
        if around.avoided[key, value]:
            yield f"a Pod that the Pod's anti-affinity names is in {key}={value}"
    for key, value in sorted(labels.items()):
        if around.avoiding[key, value]:
            yield f"a Pod in {key}={value} keeps it away by its own anti-affinity"


def _amount(name: str, amount: int) -> str:
    if name == CPU:
        return f"{amount}m"
    if name in {MEMORY, EPHEMERAL_STORAGE}:
        return f"{amount / _MIB:.0f}Mi"
    return str(amount)


_DETAILS: Final = {
    "NodeUnschedulable": _cordoned,
    "TaintToleration": _taints,
    "NodeAffinity": _affinity,
    "NodePorts": _ports,
    "NodeResourcesFit": _resources,
    "PodTopologySpread": _spread,
    "InterPodAffinity": _others,
}
