"""Why a Pod runs where it does, or nowhere: constraints, their sources, the nodes.

Pure, and made from API objects alone: nothing has to be remembered for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.api.predicates import (
    NodeUsage,
    host_ports,
    usage_of,
)
from podyard.api.resources import (
    ResourceList,
    parse_resources,
    pod_requests,
)
from podyard.api.storage import PodStorage
from podyard.lib.values import dataclass
from podyard.scheduler.decide import Placement, Unschedulable, decide_placement
from podyard.scheduler.neighbours import (
    NamespaceLabels,
    Neighbours,
    look_around,
    terms_of,
)
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin
from podyard.scheduler.shortcomings import lacks

_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_POD: Final = "the Pod"
#: Tolerations that admission adds to every Pod.
_DEFAULTED: Final = frozenset(
    {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
)
_TERMINAL: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class _Sources:
    """Who may have set a constraint.

    Attributes:
        name: of the RuntimeClass; empty where the Pod names none.
        scheduling: what the class says of it now.
        applied: the Pod's spec as it was sent, where that is known.
    """

    name: str
    scheduling: Document
    applied: Document | None

    def tell(self, *, in_class: bool, in_pod: bool | None) -> str:
        """Say where a constraint comes from; ``None`` is not known."""
        if not in_class:
            return _POD
        theirs = f"RuntimeClass {self.name}"
        if in_pod is None:
            return f"{theirs} ({_POD} may say the same)"
        return f"{_POD} and {theirs}" if in_pod else theirs


def explain_schedule(
    pod: Document,
    nodes: Iterable[Document],
    pods: Iterable[Document],
    plugins: Sequence[SchedulerPlugin],
    *,
    runtime_class: Document | None,
    storage: PodStorage | None = None,
    labels_of: NamespaceLabels | None = None,
) -> Document:
    """Return why a Pod runs where it does, or nowhere.

    Args:
        pod: the Pod.
        nodes: all nodes.
        pods: all Pods; what they take counts.
        plugins: the scheduler's.
        runtime_class: the class the Pod names, ``None`` where it does not exist.
        storage: its claims, ``None`` where it has none.
        labels_of: the labels of the Namespaces.

    Raises:
        QuantityError: an amount is no quantity.
    """
    spec, metadata = pod.get("spec") or {}, pod["metadata"]
    sources = _Sources(
        str(spec.get("runtimeClassName") or ""),
        (runtime_class or {}).get("scheduling") or {},
        _applied_spec(pod),
    )
    others = [one for one in pods if one["metadata"]["uid"] != metadata["uid"]]
    nodes = list(nodes)
    around = _neighbours(pod, nodes, others, labels_of or {})
    infos = [NodeInfo(node, _usage(node, others), storage, around) for node in nodes]
    free = _unbound(pod, sources.applied)
    verdict = decide_placement(free, infos, plugins)
    return {
        "namespace": metadata.get("namespace"),
        "name": metadata["name"],
        "node": spec.get("nodeName") or "",
        "runtimeClass": _describe_class(sources.name, runtime_class),
        "requests": _requests(pod, sources.name, runtime_class),
        "constraints": list(_constraints(spec, sources)),
        "verdict": _describe(verdict, bound=str(spec.get("nodeName") or "")),
        "nodes": [
            {
                "name": info.name,
                "here": info.name == spec.get("nodeName"),
                "lacks": list(lacks(free, info, plugins)),
            }
            for info in sorted(infos, key=lambda info: info.name)
        ],
    }


def _applied_spec(pod: Document) -> Document | None:
    """Return the spec as ``kubectl apply`` sent it, where it has left that."""
    text = (pod["metadata"].get("annotations") or {}).get(_APPLIED)
    try:
        spec = orjson.loads(text or "").get("spec")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return spec if isinstance(spec, dict) else None


def _usage(node: Document, pods: Iterable[Document]) -> NodeUsage:
    name = node["metadata"]["name"]
    return usage_of(
        pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == name
    )


def _neighbours(
    pod: Document,
    nodes: Sequence[Document],
    others: Iterable[Document],
    labels_of: NamespaceLabels,
) -> Neighbours:
    by_name = {node["metadata"]["name"]: node for node in nodes}
    placed = [
        (other, by_name[name], terms_of(other))
        for other in others
        if (name := (other.get("spec") or {}).get("nodeName")) in by_name
        and (other.get("status") or {}).get("phase") not in _TERMINAL
    ]
    return look_around(pod, nodes, placed, labels_of)


def _unbound(pod: Document, applied: Document | None) -> Document:
    """Return the Pod as it was before it was bound."""
    spec = dict(pod.get("spec") or {})
    if not (applied or {}).get("nodeName"):
        spec.pop("nodeName", None)
    return pod | {"spec": spec}


def _describe_class(name: str, runtime_class: Document | None) -> Document:
    if not name:
        return {}
    found: Document = {"name": name, "exists": runtime_class is not None}
    if runtime_class is not None:
        found["handler"] = runtime_class.get("handler")
    return found


def _requests(pod: Document, name: str, runtime_class: Document | None) -> Document:
    spec = pod.get("spec") or {}
    overhead = spec.get("overhead") or {}
    found: Document = {
        "containers": _texts(pod_requests(pod, include_overhead=False)),
        "overhead": dict(overhead),
        "total": _texts(pod_requests(pod)),
    }
    if overhead:
        fixed = ((runtime_class or {}).get("overhead") or {}).get("podFixed") or {}
        same = parse_resources(fixed) == parse_resources(overhead)
        found["overheadFrom"] = (
            f"RuntimeClass {name}"
            if same
            else f"RuntimeClass {name} as it was when the Pod was made"
        )
    return found


def _texts(amounts: ResourceList) -> dict[str, str]:
    return {name: str(amount) for name, amount in sorted(amounts.items())}


def _describe(verdict: Placement | Unschedulable, *, bound: str) -> str:
    if isinstance(verdict, Unschedulable):
        if bound:
            return f"runs on {bound}; it would not be scheduled now: {verdict.message}"
        return verdict.message
    if bound == verdict.node_name:
        return f"runs on {bound}, which would be chosen again"
    if bound:
        return f"runs on {bound}; now {verdict.node_name} would be chosen"
    return f"{verdict.node_name} is chosen of {verdict.feasible} that fit"


# --- constraints ---


def _constraints(spec: Document, sources: _Sources) -> Iterator[Document]:
    yield from _selectors(spec.get("nodeSelector") or {}, sources)
    yield from _tolerations(spec.get("tolerations") or (), sources)
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in needed.get("nodeSelectorTerms") or ():
        yield _constraint("required node affinity (any of)", _term(term), _POD)
    for wish in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
        text = f"{_term(wish.get('preference') or {})} (weight {wish.get('weight')})"
        yield _constraint("preferred node affinity", text, _POD)
    yield from _about_others(spec)
    if (sources.applied or {}).get("nodeName"):
        yield _constraint("nodeName", str(spec.get("nodeName")), _POD)
    for port in sorted(host_ports({"spec": spec}), key=lambda port: port.port):
        yield _constraint("host port", f"{port.ip}:{port.port}/{port.protocol}", _POD)


def _about_others(spec: Document) -> Iterator[Document]:
    """Yield what the Pod asks of where other Pods run."""
    affinity = spec.get("affinity") or {}
    for field, kind in (
        ("podAffinity", "affinity"),
        ("podAntiAffinity", "anti-affinity"),
    ):
        terms = affinity.get(field) or {}
        for term in terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            yield _constraint(f"required Pod {kind}", _pods_of(term), _POD)
        for wish in terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            text = _pods_of(wish.get("podAffinityTerm") or {})
            text += f" (weight {wish.get('weight')})"
            yield _constraint(f"preferred Pod {kind}", text, _POD)
    for spread in spec.get("topologySpreadConstraints") or ():
        text = (
            f"{_pods_of(spread)}, skew at most {spread.get('maxSkew')}, "
            f"{spread.get('whenUnsatisfiable')}"
        )
        yield _constraint("topology spread", text, _POD)


def _pods_of(term: Document) -> str:
    """Return which Pods a term means, and in what they are together."""
    selector = term.get("labelSelector") or {}
    wanted = [
        f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())
    ]
    if selector.get("matchExpressions"):
        wanted.append(_term(selector))
    named = ", ".join(wanted) or ("(all)" if "labelSelector" in term else "(none)")
    where = ", ".join(term.get("namespaces") or ())
    text = f"Pods {named} in {where}" if where else f"Pods {named}"
    return f"{text} by {term.get('topologyKey')}"


def _constraint(kind: str, text: str, source: str) -> Document:
    return {"kind": kind, "text": text, "from": source}


def _selectors(selector: Mapping[str, str], sources: _Sources) -> Iterator[Document]:
    theirs = sources.scheduling.get("nodeSelector") or {}
    applied = sources.applied
    for key, value in sorted(selector.items()):
        sent = None
        if applied is not None:
            sent = (applied.get("nodeSelector") or {}).get(key) == value
        source = sources.tell(in_class=theirs.get(key) == value, in_pod=sent)
        yield _constraint("nodeSelector", f"{key}={value}", source)
    for key, value in sorted(theirs.items()):
        if selector.get(key) != value:
            source = f"RuntimeClass {sources.name}, changed after the Pod was made"
            yield _constraint("nodeSelector (not in force)", f"{key}={value}", source)


def _tolerations(
    tolerations: Iterable[Document], sources: _Sources
) -> Iterator[Document]:
    theirs = sources.scheduling.get("tolerations") or ()
    applied = sources.applied
    for toleration in tolerations:
        sent = None
        if applied is not None:
            sent = toleration in (applied.get("tolerations") or ())
        source = sources.tell(in_class=toleration in theirs, in_pod=sent)
        if source == _POD and not sent and toleration.get("key") in _DEFAULTED:
            source = "every Pod has it"
        yield _constraint("toleration", _toleration(toleration), source)


def _toleration(toleration: Document) -> str:
    key = toleration.get("key") or "every taint"
    text = key
    if (toleration.get("operator") or "Equal") == "Equal" and toleration.get("key"):
        text = f"{key}={toleration.get('value') or ''}"
    if toleration.get("effect"):
        text += f":{toleration['effect']}"
    if toleration.get("tolerationSeconds") is not None:
        text += f" for {toleration['tolerationSeconds']}s"
    return text


def _term(term: Document) -> str:
    wanted = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    return ", ".join(
        " ".join(
            (str(one.get("key")), str(one.get("operator")), *(one.get("values") or ()))
        )
        for one in wanted
    )
