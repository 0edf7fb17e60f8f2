"""What the Pods that run say of one that waits: affinity and spread, by domain. Pure.

A domain is a label of nodes and one of its values: a zone, a rack, a node's own name.
Everything is counted once for the Pod that waits, so that a plugin's question about a
node is a look into a few tables.

Source: kubernetes ``pkg/scheduler/framework/plugins/{interpodaffinity,
podtopologyspread}`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Final, TypeAlias

from podyard.api.documents import Document
from podyard.api.labels import (
    NOTHING,
    Operator,
    Requirement,
    Selector,
    SelectorError,
    selector_from_object,
)
from podyard.api.predicates import matches_node_affinity, untolerated_taint
from podyard.lib.values import dataclass

#: A label of nodes, and a value of it.
Domain: TypeAlias = tuple[str, str]
#: The labels of each Namespace, by name.
NamespaceLabels: TypeAlias = Mapping[str, Mapping[str, str]]

#: What a Pod's required affinity weighs when it is only a preference of the other.
_REQUIRED_WEIGHT: Final = 1
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Term:
    """One term of affinity or anti-affinity.

    Attributes:
        topology_key: the label that makes nodes one domain.
        selector: the labels of the Pods it names.
        namespaces: where these Pods are.
        namespace_selector: the labels of more such namespaces.
        weight: of a preference; below zero it keeps apart.
    """

    topology_key: str
    selector: Selector
    namespaces: frozenset[str]
    namespace_selector: Selector = NOTHING
    weight: int = 0

    def names(self, pod: Document, labels_of: NamespaceLabels) -> bool:
        """Say whether it means a Pod."""
        namespace = pod["metadata"].get("namespace") or ""
        return self.selector.matches(_labels(pod)) and (
            namespace in self.namespaces
            or self.namespace_selector.matches(labels_of.get(namespace))
        )


@dataclass(frozen=True, slots=True)
class PodTerms:
    """What a Pod says of the Pods it wants near or far.

    Attributes:
        affinity: where it has to be near.
        anti_affinity: where it may not be near.
        preferred: where it would rather be, or not.
    """

    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    preferred: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.affinity or self.anti_affinity or self.preferred)


#: A Pod that minds nobody.
NO_TERMS: Final = PodTerms()


@dataclass(frozen=True, slots=True)
class Spread:
    """One topology spread constraint.

    Attributes:
        topology_key: the label that makes nodes one domain.
        selector: the labels of the Pods that are counted.
        max_skew: by how much the fullest domain may lead.
        is_hard: whether it forbids; else it is a preference.
        min_domains: with fewer domains the emptiest counts as empty.
        honours_affinity: only nodes that the Pod's node affinity allows are counted.
        honours_taints: only nodes whose taints it tolerates are counted.
    """

    topology_key: str
    selector: Selector
    max_skew: int = 1
    is_hard: bool = True
    min_domains: int = 1
    honours_affinity: bool = True
    honours_taints: bool = False

    def counts(self, pod: Document, namespace: str) -> bool:
        """Say whether a Pod is one of those that are to be spread."""
        return pod["metadata"].get("namespace") == namespace and self.selector.matches(
            _labels(pod)
        )


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours of one Pod that waits, in every domain.

    Attributes:
        pod: the Pod that waits.
        terms: its terms.
        spreads: its spread constraints.
        labels_of: the labels of the Namespaces.
        wanted: Pods that fulfil all its required affinity, by the terms' domains.
        avoided: Pods that its anti-affinity names.
        avoiding: Pods whose anti-affinity names it.
        liked: what preferences, its own and theirs, say for a domain.
        crowds: for each spread constraint, the Pods that count in each domain; a
            domain where none is counts, too.
    """

    pod: Document
    terms: PodTerms = NO_TERMS
    spreads: tuple[Spread, ...] = ()
    labels_of: NamespaceLabels = field(default_factory=dict)
    wanted: Counter[Domain] = field(default_factory=Counter)
    avoided: Counter[Domain] = field(default_factory=Counter)
    avoiding: Counter[Domain] = field(default_factory=Counter)
    liked: Counter[Domain] = field(default_factory=Counter)
    crowds: tuple[Counter[str], ...] = ()

    def with_pods(
        self, pods: Iterable[Document], node: Document, *, are_sure: bool = True
    ) -> "Neighbours":
        """Count more Pods on a node.

        Args:
            pods: the Pods.
            node: the Node.
            are_sure: they are there; of Pods that only may come nothing good is
                expected.
        """
        return self._changed(pods, node, 1, are_sure=are_sure)

    def without_pods(self, pods: Iterable[Document], node: Document) -> "Neighbours":
        """Count Pods of a node no more."""
        return self._changed(pods, node, -1, are_sure=True)

    def _changed(
        self, pods: Iterable[Document], node: Document, sign: int, *, are_sure: bool
    ) -> "Neighbours":
        changed = replace(
            self,
            wanted=self.wanted.copy(),
            avoided=self.avoided.copy(),
            avoiding=self.avoiding.copy(),
            liked=self.liked.copy(),
            crowds=tuple(crowd.copy() for crowd in self.crowds),
        )
        for pod in pods:
            _count(changed, pod, terms_of(pod), node, sign=sign, are_sure=are_sure)
        return changed

    def is_counted(self, spread: Spread, node: Document) -> bool:
        """Say whether a node is of a domain that a spread constraint looks at."""
        labels = _labels(node)
        return (
            all(
                other.topology_key in labels
                for other in self.spreads
                if other.is_hard is spread.is_hard
            )
            and (not spread.honours_affinity or matches_node_affinity(self.pod, node))
            and (not spread.honours_taints or untolerated_taint(self.pod, node) is None)
        )

    def is_first_of_its_kind(self) -> bool:
        """Say whether nobody fulfils its affinity but the Pod itself would.

        The first Pod of a group that wants to be together may go anywhere.
        """
        return not self.wanted and all(
            term.names(self.pod, self.labels_of) for term in self.terms.affinity
        )

    def lead(self, index: int, domain: str) -> int:
        """Return by how much a domain would lead the emptiest with the Pod in it.

        Args:
            index: which spread constraint.
            domain: the value of its topology key.
        """
        spread, crowd = self.spreads[index], self.crowds[index]
        fewest = min(crowd.values(), default=0)
        if len(crowd) < spread.min_domains:
            fewest = 0
        namespace = self.pod["metadata"].get("namespace") or ""
        return crowd[domain] + spread.counts(self.pod, namespace) - fewest


def look_around(
    pod: Document,
    nodes: Sequence[Document],
    placed: Iterable[tuple[Document, Document, PodTerms]],
    labels_of: NamespaceLabels,
) -> Neighbours:
    """Count the neighbours of a Pod that waits.

    Args:
        pod: the Pod.
        nodes: all nodes.
        placed: the Pods that run or are on their way, each with its node and terms.
        labels_of: the labels of the Namespaces.
    """
    spreads = spreads_of(pod)
    found = Neighbours(
        pod,
        terms_of(pod),
        spreads,
        labels_of,
        crowds=tuple(Counter() for _ in spreads),
    )
    for spread, crowd in zip(spreads, found.crowds, strict=True):
        for node in nodes:
            if found.is_counted(spread, node):
                crowd[_labels(node)[spread.topology_key]] += 0
    for other, node, theirs in placed:
        _count(found, other, theirs, node)
    return found


def _count(
    around: Neighbours,
    pod: Document,
    theirs: PodTerms,
    node: Document,
    *,
    sign: int = 1,
    are_sure: bool = True,
) -> None:
    """Count one Pod of a node, in place: nobody else has these tables yet."""
    mine, labels = around.terms, _labels(node)
    if are_sure:
        _count_friend(around, pod, theirs, labels, sign)
    for term in _naming(mine.anti_affinity, pod, around, labels):
        _add(around.avoided, _domain(term, labels), sign)
    for term in _naming(theirs.anti_affinity, around.pod, around, labels):
        _add(around.avoiding, _domain(term, labels), sign)
    if pod["metadata"].get("deletionTimestamp"):
        return
    namespace = around.pod["metadata"].get("namespace") or ""
    for spread, crowd in zip(around.spreads, around.crowds, strict=True):
        if around.is_counted(spread, node) and spread.counts(pod, namespace):
            crowd[labels[spread.topology_key]] += sign


def _count_friend(
    around: Neighbours,
    pod: Document,
    theirs: PodTerms,
    labels: Mapping[str, str],
    sign: int,
) -> None:
    mine = around.terms
    if all(term.names(pod, around.labels_of) for term in mine.affinity):
        for term in mine.affinity:
            if term.topology_key in labels:
                _add(around.wanted, _domain(term, labels), sign)
    for term in _naming(mine.preferred, pod, around, labels):
        _add(around.liked, _domain(term, labels), sign * term.weight)
    for term in _naming(
        (*theirs.affinity, *theirs.preferred), around.pod, around, labels
    ):
        weight = term.weight or _REQUIRED_WEIGHT
        _add(around.liked, _domain(term, labels), sign * weight)


def _naming(
    terms: Iterable[Term], pod: Document, around: Neighbours, labels: Mapping[str, str]
) -> Iterator[Term]:
    """Iterate over the terms that mean a Pod, on a node with these labels."""
    for term in terms:
        if term.topology_key in labels and term.names(pod, around.labels_of):
            yield term


def minds_others(pod: Document) -> bool:
    """Say whether it matters to a Pod where others run."""
    spec = pod.get("spec") or {}
    affinity = spec.get("affinity") or {}
    return bool(
        affinity.get("podAffinity")
        or affinity.get("podAntiAffinity")
        or spec.get("topologySpreadConstraints")
    )


def terms_of(pod: Document) -> PodTerms:
    """Return the terms of a Pod's affinity and anti-affinity to Pods."""
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    near, far = affinity.get("podAffinity"), affinity.get("podAntiAffinity")
    if not near and not far:
        return NO_TERMS
    return PodTerms(
        tuple(_term(term, pod) for term in (near or {}).get(_REQUIRED) or ()),
        tuple(_term(term, pod) for term in (far or {}).get(_REQUIRED) or ()),
        (*_preferences(near or {}, pod, 1), *_preferences(far or {}, pod, -1)),
    )


def _preferences(affinity: Document, pod: Document, sign: int) -> Iterator[Term]:
    for wish in affinity.get(_PREFERRED) or ():
        weight = sign * int(wish.get("weight") or 0)
        if weight:
            yield _term(wish.get("podAffinityTerm") or {}, pod, weight)


def _term(term: Document, pod: Document, weight: int = 0) -> Term:
    namespaces = term.get("namespaces") or ()
    everywhere = term.get("namespaceSelector")
    if not namespaces and everywhere is None:
        namespaces = (pod["metadata"].get("namespace") or "",)
    return Term(
        term.get("topologyKey") or "",
        _selector(
            term.get("labelSelector"),
            _same(term.get("matchLabelKeys"), pod, Operator.IN),
            _same(term.get("mismatchLabelKeys"), pod, Operator.NOT_IN),
        ),
        frozenset(namespaces),
        _selector(everywhere),
        weight,
    )


def spreads_of(pod: Document) -> tuple[Spread, ...]:
    """Return the topology spread constraints of a Pod."""
    found = (pod.get("spec") or {}).get("topologySpreadConstraints") or ()
    return tuple(
        Spread(
            constraint.get("topologyKey") or "",
            _selector(
                constraint.get("labelSelector"),
                _same(constraint.get("matchLabelKeys"), pod, Operator.IN),
            ),
            max_skew=int(constraint.get("maxSkew") or 1),
            is_hard=constraint.get("whenUnsatisfiable") != "ScheduleAnyway",
            min_domains=int(constraint.get("minDomains") or 1),
            honours_affinity=constraint.get("nodeAffinityPolicy") != "Ignore",
            honours_taints=constraint.get("nodeTaintsPolicy") == "Honor",
        )
        for constraint in found
    )


def _selector(selector: Document | None, *more: tuple[Requirement, ...]) -> Selector:
    """Return a selector; absent, or one that makes no sense, it selects nothing."""
    try:
        made = selector_from_object(selector)
    except SelectorError:
        return NOTHING
    added = [requirement for part in more for requirement in part]
    return Selector((*made.requirements, *added), nothing=made.nothing)


def _same(
    keys: Sequence[str] | None, pod: Document, operator: Operator
) -> tuple[Requirement, ...]:
    """Return what labels of the Pod itself ask of the others."""
    labels = _labels(pod)
    return tuple(
        Requirement(key, operator, (labels[key],))
        for key in keys or ()
        if key in labels
    )


def _labels(document: Document) -> Mapping[str, str]:
    labels: Mapping[str, str] = (document.get("metadata") or {}).get("labels") or {}
    return labels


def _domain(term: Term, labels: Mapping[str, str]) -> Domain:
    return term.topology_key, labels[term.topology_key]


def _add(counts: Counter[Domain], domain: Domain, amount: int) -> None:
    """Change a count; what is nought is not kept."""
    counts[domain] += amount
    if not counts[domain]:
        del counts[domain]
