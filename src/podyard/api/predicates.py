"""May this Pod run on this node? The scheduler's filters and the kubelet's admission.

Pure questions on documents; every refusal carries the reason kubectl shows.

Source: ``pkg/scheduler/framework/plugins`` and ``pkg/kubelet/lifecycle`` (v1.36), and
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final

from podyard.api.documents import Document
from podyard.api.labels import (
    Selector,
    SelectorError,
    node_requirement_from_expression,
)
from podyard.api.quantity import ZERO, Quantity
from podyard.api.resources import (
    CPU,
    EPHEMERAL_STORAGE,
    MEMORY,
    PODS,
    ResourceList,
    is_extended_resource,
    parse_resources,
    pod_requests,
)
from podyard.lib.values import dataclass

UNSCHEDULABLE: Final = "node(s) were unschedulable"
NODE_NAME_MISMATCH: Final = "node(s) didn't match the requested node name"
AFFINITY_MISMATCH: Final = "node(s) didn't match Pod's node affinity/selector"
PORTS_TAKEN: Final = "node(s) didn't have free ports for the requested pod ports"
TAINTED: Final = "node(s) had taints that the pod didn't tolerate"
TOO_MANY_PODS: Final = "Too many pods"

#: The taint a cordoned node has in effect.
UNSCHEDULABLE_TAINT: Final = "node.kubernetes.io/unschedulable"
_HARD_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
_ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104
_TERMINAL: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that a container claims."""

    ip: str
    protocol: str
    port: int

    def conflicts(self, other: "HostPort") -> bool:
        """Say whether both cannot be had at once; any address meets every one."""
        return (self.protocol, self.port) == (other.protocol, other.port) and (
            self.ip == other.ip or _ANY_ADDRESS in {self.ip, other.ip}
        )


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What the Pods already on a node take.

    Attributes:
        requested: the sum of their requests, overhead included.
        pods: how many there are.
        host_ports: the node ports they claim.
    """

    requested: ResourceList = field(default_factory=dict)
    pods: int = 0
    host_ports: frozenset[HostPort] = frozenset()


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A resource the node has too little of.

    Attributes:
        resource: its name, ``cpu``.
        requested: what the Pod asks; millicores for cpu, else whole units.
        used: what is taken already, in the same unit.
        capacity: what the node can give in all.
    """

    resource: str
    requested: int
    used: int
    capacity: int

    @property
    def reason(self) -> str:
        """The scheduler's words."""
        if self.resource == PODS:
            return TOO_MANY_PODS
        return f"Insufficient {self.resource}"

    @property
    def message(self) -> str:
        """The kubelet's words."""
        return (
            f"Node didn't have enough resource: {self.resource}, requested: "
            f"{self.requested}, used: {self.used}, capacity: {self.capacity}"
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the kubelet does not run a Pod: its status reason and message.

    The Pod's status message is ``Pod was rejected: `` and this message.
    """

    reason: str
    message: str


def usage_of(pods: Iterable[Document]) -> NodeUsage:
    """Return what these Pods take; finished ones take nothing.

    Raises:
        QuantityError: an amount is no quantity.
    """
    requested: ResourceList = {}
    ports: set[HostPort] = set()
    count = 0
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in _TERMINAL:
            continue
        count += 1
        ports.update(host_ports(pod))
        for name, amount in pod_requests(pod).items():
            requested[name] = requested.get(name, ZERO) + amount
    return NodeUsage(requested, count, frozenset(ports))


def host_ports(pod: Document) -> frozenset[HostPort]:
    """Return the node ports the containers and sidecars of a Pod claim."""
    spec = pod.get("spec") or {}
    sidecars = [
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    return frozenset(
        HostPort(
            port.get("hostIP") or _ANY_ADDRESS,
            port.get("protocol") or "TCP",
            port["hostPort"],
        )
        for container in [*(spec.get("containers") or ()), *sidecars]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


# --- taints ---------------------------------------------------------------------


def tolerates(tolerations: Iterable[Document], taint: Document) -> bool:
    """Say whether one of the tolerations covers the taint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Document, taint: Document) -> bool:
    effect, key = toleration.get("effect"), toleration.get("key")
    if effect and effect != taint.get("effect"):
        return False
    if key and key != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if not key:
        return False
    return operator == "Equal" and (toleration.get("value") or "") == (
        taint.get("value") or ""
    )


def untolerated_taint(
    pod: Document,
    node: Document,
    effects: frozenset[str] = _HARD_EFFECTS,
) -> Document | None:
    """Return the first taint of those effects that the Pod does not tolerate."""
    tolerations = (pod.get("spec") or {}).get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in effects and not tolerates(tolerations, taint):
            return dict(taint)
    return None


def soft_taints_against(pod: Document, node: Document) -> int:
    """Return how many ``PreferNoSchedule`` taints the Pod does not tolerate."""
    tolerations = (pod.get("spec") or {}).get("tolerations") or ()
    return sum(
        taint.get("effect") == "PreferNoSchedule" and not tolerates(tolerations, taint)
        for taint in (node.get("spec") or {}).get("taints") or ()
    )


def tolerates_cordon(pod: Document) -> bool:
    """Say whether the Pod may go to a node marked unschedulable."""
    cordon = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return tolerates((pod.get("spec") or {}).get("tolerations") or (), cordon)


# --- affinity -------------------------------------------------------------------


def matches_node_selector_term(term: Document, node: Document) -> bool:
    """Say whether the node fulfils one term; an empty term matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels: Mapping[str, str] = (node.get("metadata") or {}).get("labels") or {}
    try:
        requirements = tuple(map(node_requirement_from_expression, expressions))
    except SelectorError:
        return False
    if not Selector(requirements).matches(labels):
        return False
    name = (node.get("metadata") or {}).get("name") or ""
    return all(_matches_field(requirement, name) for requirement in fields)


def _matches_field(requirement: Document, node_name: str) -> bool:
    values: list[str] = requirement.get("values") or []
    if requirement.get("key") != "metadata.name" or len(values) != 1:
        return False
    match requirement.get("operator"):
        case "In":
            return node_name == values[0]
        case "NotIn":
            return node_name != values[0]
        case _:
            return False


def matches_node_affinity(pod: Document, node: Document) -> bool:
    """Say whether ``nodeSelector`` and the required node affinity allow the node."""
    spec = pod.get("spec") or {}
    labels = (node.get("metadata") or {}).get("labels") or {}
    wanted = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    required = _node_affinity(spec).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is None:
        return True
    terms = required.get("nodeSelectorTerms") or ()
    return any(matches_node_selector_term(term, node) for term in terms)


def node_preference(pod: Document, node: Document) -> int:
    """Return the summed weight of the preferred node affinity terms that match."""
    preferred = _node_affinity(pod.get("spec") or {}).get(
        "preferredDuringSchedulingIgnoredDuringExecution"
    )
    return sum(
        term.get("weight") or 0
        for term in preferred or ()
        if _is_no_wish(term.get("preference") or {})
        or matches_node_selector_term(term["preference"], node)
    )


def _is_no_wish(preference: Document) -> bool:
    return not (preference.get("matchExpressions") or preference.get("matchFields"))


def _node_affinity(spec: Document) -> Document:
    affinity: Document = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return affinity


# --- resources and ports --------------------------------------------------------


def _measure(name: str, amount: Quantity) -> int:
    return amount.milli_value if name == CPU else amount.value


def resource_shortfalls(
    pod: Document, node: Document, usage: NodeUsage
) -> tuple[Shortfall, ...]:
    """Return what the node has too little of, in upstream's order; none if it fits.

    Raises:
        QuantityError: an amount is no quantity.
    """
    allocatable = parse_resources((node.get("status") or {}).get("allocatable"))
    shortfalls: list[Shortfall] = []
    room = allocatable.get(PODS, ZERO).value
    if usage.pods + 1 > room:
        shortfalls.append(Shortfall(PODS, 1, usage.pods, room))
    requests = pod_requests(pod)
    others = sorted(requests.keys() - {CPU, MEMORY, EPHEMERAL_STORAGE, PODS})
    for name in (CPU, MEMORY, EPHEMERAL_STORAGE, *others):
        asked = _measure(name, requests.get(name, ZERO))
        used = _measure(name, usage.requested.get(name, ZERO))
        capacity = _measure(name, allocatable.get(name, ZERO))
        if asked > 0 and asked > capacity - used:
            shortfalls.append(Shortfall(name, asked, used, capacity))
    return tuple(shortfalls)


def requested_amount(pod: Document, resource: str) -> int:
    """Return what a Pod takes of a resource, in the unit of ``Shortfall``.

    Raises:
        QuantityError: an amount is no quantity.
    """
    if resource == PODS:
        return 1
    return _measure(resource, pod_requests(pod).get(resource, ZERO))


def has_port_conflict(pod: Document, usage: NodeUsage) -> bool:
    """Say whether a node port the Pod wants is taken."""
    return any(
        wanted.conflicts(taken)
        for wanted in host_ports(pod)
        for taken in usage.host_ports
    )


# --- the two verdicts -----------------------------------------------------------


def unschedulable_reasons(
    pod: Document, node: Document, usage: NodeUsage
) -> tuple[str, ...]:
    """Return why the scheduler passes this node over; empty where the Pod fits.

    The first filter that objects speaks alone, as upstream; only the resource filter
    can name several reasons.

    Raises:
        QuantityError: an amount is no quantity.
    """
    wanted = (pod.get("spec") or {}).get("nodeName")
    if (node.get("spec") or {}).get("unschedulable") and not tolerates_cordon(pod):
        return (UNSCHEDULABLE,)
    if wanted and wanted != (node.get("metadata") or {}).get("name"):
        return (NODE_NAME_MISMATCH,)
    taint = untolerated_taint(pod, node)
    if taint is not None:
        return (untolerated_taint_reason(taint),)
    if not matches_node_affinity(pod, node):
        return (AFFINITY_MISMATCH,)
    if has_port_conflict(pod, usage):
        return (PORTS_TAKEN,)
    return tuple(short.reason for short in resource_shortfalls(pod, node, usage))


def untolerated_taint_reason(taint: Document) -> str:
    """Return the scheduler's words for a taint that is not tolerated."""
    value = taint.get("value") or ""
    return f"node(s) had untolerated taint {{{taint.get('key') or ''}: {value}}}"


def decide_admission(
    pod: Document, node: Document, usage: NodeUsage, *, is_static: bool = False
) -> Rejection | None:
    """Return why the node itself refuses a Pod that was given to it, or ``None``.

    Static Pods never passed a scheduler, so their taints are looked at here.
    ``usage`` is that of the other active Pods of the node.

    Raises:
        QuantityError: an amount is no quantity.
    """
    refusal = _refuse_by_platform(pod, node)
    if refusal is not None:
        return refusal
    for short in admission_shortfalls(pod, node, usage):
        return Rejection(f"OutOf{short.resource}", short.message)
    failed = _failed_predicate(pod, node, usage)
    if failed is None and is_static:
        taint = untolerated_taint(pod, node, frozenset({"NoExecute"}))
        failed = ("TaintToleration", TAINTED) if taint is not None else None
    if failed is None:
        return None
    name, description = failed
    return Rejection(name, f"Predicate {name} failed: {description}")


def _refuse_by_platform(pod: Document, node: Document) -> Rejection | None:
    spec = pod.get("spec") or {}
    selected_os = (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if selected_os is not None and selected_os != "linux":
        return Rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node "
            "label",
        )
    if ((spec.get("os") or {}).get("name") or "linux") != "linux":
        return Rejection(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        )
    policy = (spec.get("securityContext") or {}).get("supplementalGroupsPolicy")
    features = (node.get("status") or {}).get("features") or {}
    if policy == "Strict" and not features.get("supplementalGroupsPolicy"):
        return Rejection(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        )
    return None


def admission_shortfalls(
    pod: Document, node: Document, usage: NodeUsage
) -> Iterable[Shortfall]:
    """Iterate over what the node itself has too little of for a Pod given to it.

    Raises:
        QuantityError: an amount is no quantity.
    """
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    for short in resource_shortfalls(pod, node, usage):
        # A cluster-level resource the node never heard of is the scheduler's matter.
        if short.resource in allocatable or not is_extended_resource(short.resource):
            yield short


def _failed_predicate(
    pod: Document, node: Document, usage: NodeUsage
) -> tuple[str, str] | None:
    wanted = (pod.get("spec") or {}).get("nodeName")
    if not matches_node_affinity(pod, node):
        return "NodeAffinity", AFFINITY_MISMATCH
    if wanted and wanted != (node.get("metadata") or {}).get("name"):
        return "NodeName", NODE_NAME_MISMATCH
    if has_port_conflict(pod, usage):
        return "NodePorts", PORTS_TAKEN
    return None
