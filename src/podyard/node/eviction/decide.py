"""When the node is short of something, and which Pod goes for it. Pure.

Source: kubernetes ``pkg/kubelet/eviction`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.priority import CRITICAL
from podyard.api.quantity import (
    ZERO,
    Format,
    Quantity,
    QuantityError,
    parse_quantity,
)
from podyard.api.resources import (
    EPHEMERAL_STORAGE,
    MEMORY,
    parse_resources,
    pod_limits,
    pod_requests,
)
from podyard.lib.values import dataclass

MEMORY_AVAILABLE: Final = "memory.available"
NODEFS_AVAILABLE: Final = "nodefs.available"
NODEFS_INODES: Final = "nodefs.inodesFree"
IMAGEFS_AVAILABLE: Final = "imagefs.available"
IMAGEFS_INODES: Final = "imagefs.inodesFree"
PID_AVAILABLE: Final = "pid.available"
INODES: Final = "inodes"
PIDS: Final = "pids"

#: What each signal is about, most urgent first.
RESOURCES: Final = {
    MEMORY_AVAILABLE: MEMORY,
    PID_AVAILABLE: PIDS,
    NODEFS_AVAILABLE: EPHEMERAL_STORAGE,
    IMAGEFS_AVAILABLE: EPHEMERAL_STORAGE,
    NODEFS_INODES: INODES,
    IMAGEFS_INODES: INODES,
}
_CONDITIONS: Final = {
    MEMORY: "MemoryPressure",
    PIDS: "PIDPressure",
    EPHEMERAL_STORAGE: "DiskPressure",
    INODES: "DiskPressure",
}
#: The hard thresholds where nothing is said.
DEFAULT_HARD: Final = {
    MEMORY_AVAILABLE: "100Mi",
    NODEFS_AVAILABLE: "10%",
    NODEFS_INODES: "5%",
    IMAGEFS_AVAILABLE: "15%",
    IMAGEFS_INODES: "5%",
}
#: What a Pod gets to end when it exceeds a hard threshold or a limit, seconds.
IMMEDIATE_GRACE_S: Final = 1.0
REASON: Final = "Evicted"


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity, or a share of the capacity.

    Attributes:
        quantity: bytes, inodes or processes; ``None`` for a share.
        share: between 0 and 1.
    """

    quantity: int | None = None
    share: float = 0.0

    def of(self, capacity: int) -> int:
        """Return the amount for a capacity."""
        return int(capacity * self.share) if self.quantity is None else self.quantity


@dataclass(frozen=True, slots=True)
class Threshold:
    """How much of something has to be left.

    Attributes:
        signal: what is looked at.
        amount: less than so much is too little.
        grace_s: how long it may be too little; 0 for a hard threshold.
        reclaim: how much more than the amount has to be had again.
    """

    signal: str
    amount: Amount
    grace_s: float = 0.0
    reclaim: Amount = field(default_factory=lambda: Amount(0))

    @property
    def is_hard(self) -> bool:
        """Whether Pods go at once."""
        return self.grace_s == 0


@dataclass(frozen=True, slots=True)
class Observation:
    """How much of something there is.

    Attributes:
        available: bytes, inodes or processes left.
        capacity: of how many.
    """

    available: int
    capacity: int


def _parse_amount(text: str) -> Amount:
    """Read ``100Mi`` or ``10%``.

    Raises:
        ValueError: it is neither, or not positive.
    """
    if text.endswith("%"):
        try:
            percent = float(text[:-1])
        except ValueError:
            raise ValueError(f'"{text}" is no percentage') from None
        if not 0 <= percent <= 100:
            raise ValueError(f'"{text}" must be between 0% and 100%')
        return Amount(share=percent / 100)
    try:
        quantity = parse_quantity(text)
    except QuantityError as error:
        raise ValueError(str(error)) from error
    if quantity < ZERO:
        raise ValueError(f'"{text}" must not be negative')
    return Amount(quantity.value)


def _amount_of(setting: str, signal: str, text: str) -> Amount:
    try:
        return _parse_amount(text)
    except ValueError as error:
        raise ValueError(f'{setting}: {signal}: "{text}": {error}') from error


def parse_thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    grace_s: Mapping[str, float],
    reclaim: Mapping[str, str],
) -> tuple[Threshold, ...]:
    """Return the thresholds of KubeletConfiguration's four maps.

    Args:
        hard: ``evictionHard``; an amount of 0 or ``0%`` switches a signal off.
        soft: ``evictionSoft``.
        grace_s: ``evictionSoftGracePeriod``, seconds.
        reclaim: ``evictionMinimumReclaim``.

    Raises:
        ValueError: a signal is unknown, an amount is none, or a soft threshold has no
            grace period.
    """
    maps: tuple[tuple[str, Iterable[str]], ...] = (
        ("evictionHard", hard),
        ("evictionSoft", soft),
        ("evictionSoftGracePeriod", grace_s),
        ("evictionMinimumReclaim", reclaim),
    )
    for setting, signals in maps:
        for signal in signals:
            if signal not in RESOURCES:
                known = ", ".join(sorted(RESOURCES))
                raise ValueError(
                    f'{setting}: unknown eviction signal "{signal}"; known: {known}'
                )
    more = {
        signal: _amount_of("evictionMinimumReclaim", signal, text)
        for signal, text in reclaim.items()
    }
    none = Amount(0)
    found: list[Threshold] = []
    for signal, text in hard.items():
        amount = _amount_of("evictionHard", signal, text)
        if amount != none and amount.of(100):
            found.append(Threshold(signal, amount, 0.0, more.get(signal, none)))
    for signal, text in soft.items():
        span_s = grace_s.get(signal, 0.0)
        if span_s <= 0:
            raise ValueError(
                "evictionSoftGracePeriod: grace period must be specified for the soft "
                f"eviction threshold {signal}"
            )
        amount = _amount_of("evictionSoft", signal, text)
        found.append(Threshold(signal, amount, span_s, more.get(signal, none)))
    return tuple(found)


# --- when -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PressureState:
    """What is remembered from look to look; times are monotonic seconds.

    Attributes:
        first_s: since when a threshold is crossed.
        last_s: when a condition was last true.
        met: the thresholds acted on and not yet satisfied.
        conditions: the node conditions that are shown as true.
    """

    first_s: Mapping[Threshold, float] = field(default_factory=dict)
    last_s: Mapping[str, float] = field(default_factory=dict)
    met: tuple[Threshold, ...] = ()
    conditions: frozenset[str] = frozenset()


def is_crossed(
    threshold: Threshold, seen: Mapping[str, Observation], *, reclaimed: bool = False
) -> bool:
    """Say whether too little is left; what nobody could observe is enough.

    Args:
        threshold: what has to be left.
        seen: what is left.
        reclaimed: ask for the minimum reclaim beyond it as well.
    """
    observed = seen.get(threshold.signal)
    if observed is None:
        return False
    wanted = threshold.amount.of(observed.capacity)
    if reclaimed:
        wanted += threshold.reclaim.of(observed.capacity)
    return observed.available < wanted


def decide_pressure(
    thresholds: Sequence[Threshold],
    seen: Mapping[str, Observation],
    state: PressureState,
    *,
    now_s: float,
    transition_s: float,
) -> PressureState:
    """Return the state after a look; its ``met`` thresholds are to be acted on now.

    Args:
        thresholds: what has to be left.
        seen: what is left.
        state: what was remembered.
        now_s: the monotonic time.
        transition_s: how long a condition stays true after it was last so.
    """
    crossed = [item for item in thresholds if is_crossed(item, seen)]
    for item in state.met:
        if item not in crossed and is_crossed(item, seen, reclaimed=True):
            crossed.append(item)
    first_s = {item: state.first_s.get(item, now_s) for item in crossed}
    now_true = {_CONDITIONS[RESOURCES[item.signal]] for item in crossed}
    last_s = {**state.last_s, **dict.fromkeys(now_true, now_s)}
    shown = frozenset(
        name
        for name, at_s in last_s.items()
        if name in now_true or now_s - at_s < transition_s
    )
    met = tuple(
        sorted(
            (item for item in crossed if now_s - first_s[item] >= item.grace_s),
            key=lambda item: (
                RESOURCES[item.signal] != MEMORY,
                list(RESOURCES).index(item.signal),
                item.grace_s,
            ),
        )
    )
    return PressureState(first_s, {k: last_s[k] for k in shown}, met, shown)


# --- who --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """What a container uses.

    Attributes:
        memory_bytes: its working set.
        rootfs_bytes: what it wrote to its root filesystem.
        rootfs_inodes: files it made there.
        log_bytes: its logs.
    """

    memory_bytes: int = 0
    rootfs_bytes: int = 0
    rootfs_inodes: int = 0
    log_bytes: int = 0

    @property
    def disk_bytes(self) -> int:
        """Everything it has on disk."""
        return self.rootfs_bytes + self.log_bytes


@dataclass(frozen=True, slots=True)
class PodUse:
    """What a Pod uses.

    Attributes:
        containers: by name.
        volumes: bytes of its volumes on the node's disk or in memory, by name.
        volume_inodes: files in them.
        processes: how many run.
    """

    containers: Mapping[str, ContainerUse] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    volume_inodes: int = 0
    processes: int = 0

    @property
    def memory_bytes(self) -> int:
        """The working set of all containers."""
        return sum(use.memory_bytes for use in self.containers.values())

    def disk_bytes(self, pod: Pod) -> int:
        """Return what it has on disk; volumes in memory do not count."""
        own = sum(use.disk_bytes for use in self.containers.values())
        return own + sum(self.volumes.get(name, 0) for name in disk_empty_dirs(pod))

    @property
    def inodes(self) -> int:
        """Files it made."""
        own = sum(use.rootfs_inodes for use in self.containers.values())
        return own + self.volume_inodes


def empty_dirs(pod: Pod) -> Iterator[tuple[str, Document]]:
    """Iterate over names and sources of a Pod's emptyDirs."""
    for volume in (pod.document.get("spec") or {}).get("volumes") or ():
        if volume.get("emptyDir") is not None:
            yield str(volume["name"]), volume["emptyDir"]


def disk_empty_dirs(pod: Pod) -> list[str]:
    """Return the names of a Pod's emptyDirs that are on disk."""
    return [
        name for name, source in empty_dirs(pod) if source.get("medium") != "Memory"
    ]


def is_critical(pod: Pod) -> bool:
    """Say whether a Pod is never evicted: a static one, or of a system's priority."""
    return pod.is_static or pod.is_mirror or (pod.spec.priority or 0) >= CRITICAL


@dataclass(frozen=True, slots=True)
class Eviction:
    """One Pod that is to go.

    Attributes:
        uid: the Pod.
        grace_s: what it gets to end, seconds.
        message: what its Event and its status say; ends in a space as upstream's.
        disrupted: whether it is marked as a disruption's target.
    """

    uid: str
    grace_s: float
    message: str
    disrupted: bool


def rank(pods: Iterable[Pod], uses: Mapping[str, PodUse], resource: str) -> list[Pod]:
    """Order Pods for eviction, the first to go first.

    Those above their requests go first, then the lower priority, then whoever is
    furthest above what was requested.
    """

    def order(pod: Pod) -> tuple[bool, int, int, str]:
        use = uses.get(pod.uid, PodUse())
        used, requested = _used(pod, use, resource), _requested(pod, resource)
        # A Pod's number of processes is no request: nobody is above it.
        above = resource != PIDS and used > requested
        return not above, pod.spec.priority or 0, requested - used, pod.uid

    return sorted(pods, key=order)


def _used(pod: Pod, use: PodUse, resource: str) -> int:
    match resource:
        case "memory":
            return use.memory_bytes
        case "pids":
            return use.processes
        case "inodes":
            return use.inodes
        case _:
            return use.disk_bytes(pod)


def _requested(pod: Pod, resource: str) -> int:
    if resource in {PIDS, INODES}:
        return 0
    return pod_requests(pod.document).get(resource, ZERO).value


def decide_evictions(
    usage: Mapping[str, PodUse],
    thresholds: Sequence[Threshold],
    pods: Sequence[Pod],
    *,
    seen: Mapping[str, Observation],
    max_grace_s: float,
) -> tuple[Eviction, ...]:
    """Return the Pods that may go for the first threshold, the first to go first.

    One is ended at a time: the rest is for where it is found to be gone already.

    Args:
        usage: what the Pods use, by uid.
        thresholds: those to be acted on, the most urgent first.
        pods: those that run.
        seen: what is left of everything.
        max_grace_s: the most a Pod gets for a soft threshold.
    """
    if not thresholds:
        return ()
    threshold = thresholds[0]
    resource = RESOURCES[threshold.signal]
    grace_s = IMMEDIATE_GRACE_S if threshold.is_hard else max_grace_s
    return tuple(
        Eviction(
            pod.uid,
            max(min(grace_s, _own_grace_s(pod)), 1.0),
            _describe(pod, usage.get(pod.uid, PodUse()), resource, thresholds, seen),
            disrupted=True,
        )
        for pod in rank(pods, usage, resource)
        if not is_critical(pod)
    )


def _own_grace_s(pod: Pod) -> float:
    own = (pod.document.get("spec") or {}).get("terminationGracePeriodSeconds")
    return 30.0 if own is None else float(own)


def _describe(
    pod: Pod,
    use: PodUse,
    resource: str,
    thresholds: Sequence[Threshold],
    seen: Mapping[str, Observation],
) -> str:
    parts = [f"The node was low on resource: {resource}. "]
    for threshold in thresholds:
        observed = seen.get(threshold.signal)
        if RESOURCES[threshold.signal] == resource and observed is not None:
            show = _count if resource in {INODES, PIDS} else _bytes
            wanted = show(threshold.amount.of(observed.capacity))
            available = show(observed.available)
            parts.append(f"Threshold quantity: {wanted}, available: {available}. ")
            break
    if resource in {MEMORY, EPHEMERAL_STORAGE}:
        parts += _greedy(pod, use, resource)
    return "".join(parts)


def _greedy(pod: Pod, use: PodUse, resource: str) -> Iterator[str]:
    """Iterate over the sentences about containers above their requests."""
    for container in pod.spec.containers:
        found = use.containers.get(container.name, ContainerUse())
        used = found.memory_bytes if resource == MEMORY else found.disk_bytes
        resources = container.document.get("resources") or {}
        requested = parse_resources(resources.get("requests")).get(resource, ZERO)
        if used > requested.value:
            yield (
                f"Container {container.name} was using {_bytes(used)}, request is "
                f"{requested}, has larger consumption of {resource}. "
            )


def _bytes(amount: int) -> str:
    return str(Quantity.of(amount, Format.BINARY_SI))


def _count(amount: int) -> str:
    return str(Quantity.of(amount))


# --- limits of one Pod ------------------------------------------------------------


def has_storage_limits(pod: Pod) -> bool:
    """Say whether there is anything of a Pod's disk use to be watched."""
    if any(source.get("sizeLimit") for _, source in empty_dirs(pod)):
        return True
    return EPHEMERAL_STORAGE in pod_limits(pod.document)


def decide_limit_eviction(pod: Pod, use: PodUse) -> Eviction | None:
    """Return the eviction of a Pod that is above a limit of its own, or ``None``."""
    if is_critical(pod):
        return None
    message = (
        _volume_above(pod, use) or _pod_above(pod, use) or _container_above(pod, use)
    )
    if not message:
        return None
    return Eviction(pod.uid, IMMEDIATE_GRACE_S, message, disrupted=False)


def _volume_above(pod: Pod, use: PodUse) -> str:
    for name, source in empty_dirs(pod):
        if not source.get("sizeLimit"):
            continue
        limit = parse_quantity(source["sizeLimit"])
        if limit > ZERO and use.volumes.get(name, 0) > limit.value:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    return ""


def _pod_above(pod: Pod, use: PodUse) -> str:
    limit = pod_limits(pod.document).get(EPHEMERAL_STORAGE)
    if limit is None or use.disk_bytes(pod) <= limit.value:
        return ""
    return (
        "Pod ephemeral local storage usage exceeds the total limit of containers "
        f"{limit}. "
    )


def _container_above(pod: Pod, use: PodUse) -> str:
    for container in pod.spec.containers:
        resources = container.document.get("resources") or {}
        limit = parse_resources(resources.get("limits")).get(EPHEMERAL_STORAGE)
        found = use.containers.get(container.name)
        if limit and found is not None and found.disk_bytes > limit.value:
            return (
                f"Container {container.name} exceeded its local ephemeral storage "
                f'limit "{limit}". '
            )
    return ""
