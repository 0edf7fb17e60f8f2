"""Where a Pod's cgroup is and what stands in its files; who is killed first.

Source: lifecycle of cgroups in ``pkg/kubelet/cm`` and ``pkg/kubelet/qos`` (v1.36),
https://kubernetes.io/docs/concepts/architecture/cgroups/
"""

from typing import Final

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.quantity import ZERO
from podyard.api.resources import (
    BEST_EFFORT,
    CPU,
    GUARANTEED,
    MEMORY,
    is_hugepage,
    parse_resources,
    pod_limits,
    pod_requests,
    qos_class,
)
from podyard.lib.values import dataclass

MIN_SHARES: Final = 2
MAX_SHARES: Final = 262144
SHARES_PER_CPU: Final = 1024
CPU_PERIOD_US: Final = 100_000
MIN_QUOTA_US: Final = 1000

GUARANTEED_OOM_SCORE_ADJ: Final = -997
BEST_EFFORT_OOM_SCORE_ADJ: Final = 1000
#: Priority from which a Pod is critical to the node.
SYSTEM_NODE_CRITICAL: Final = 2_000_001_000

CGROUPFS: Final = "cgroupfs"
SYSTEMD: Final = "systemd"
_KUBEPODS: Final = "kubepods"


def milli_to_shares(milli: int) -> int:
    """Return the cgroup v1 weight of millicores; nothing is the least there is."""
    if milli <= 0:
        return MIN_SHARES
    return max(MIN_SHARES, min(MAX_SHARES, milli * SHARES_PER_CPU // 1000))


def milli_to_quota(milli: int) -> int:
    """Return microseconds per period for millicores; 0 for no limit."""
    if milli <= 0:
        return 0
    return max(MIN_QUOTA_US, milli * CPU_PERIOD_US // 1000)


def shares_to_weight(shares: int) -> int:
    """Return the cgroup v2 ``cpu.weight`` of a v1 weight: 2…262144 → 1…10000."""
    shares = max(MIN_SHARES, min(MAX_SHARES, shares))
    return 1 + (shares - 2) * 9999 // 262142


def page_size_name(resource: str) -> str:
    """Return the cgroup name of a huge page resource: ``hugepages-2Mi`` → ``2MB``."""
    return resource.removeprefix("hugepages-").replace("i", "") + "B"


@dataclass(frozen=True, slots=True)
class CgroupValues:
    """What a cgroup's files say; ``None`` leaves a file as the kernel made it.

    Attributes:
        cpu_shares: relative weight (v1 scale).
        cpu_quota_us: microseconds per period; -1 means no limit.
        memory_limit_bytes: hard limit; -1 means none.
        pids_max: most processes; -1 means no limit.
        hugepages: page size (``2MB``) to bytes.
    """

    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    memory_limit_bytes: int | None = None
    pids_max: int | None = None
    hugepages: tuple[tuple[str, int], ...] = ()


def decide_pod_cgroup(pod: Pod, *, pids_max: int = 0) -> CgroupValues:
    """Return what the Pod's own cgroup holds.

    Limits count only where every container declares them; overhead is included.

    Args:
        pod: the Pod.
        pids_max: the node's limit of processes a Pod; 0 means none.

    Raises:
        QuantityError: an amount is no quantity.
    """
    document = pod.document
    requests, limits = pod_requests(document), pod_limits(document)
    milli = requests.get(CPU, limits.get(CPU, ZERO)).milli_value
    pids = pids_max if pids_max > 0 else None
    hugepages = tuple(
        (page_size_name(name), amount.value)
        for name, amount in sorted(limits.items())
        if is_hugepage(name)
    )
    qos = qos_class(document)
    if qos == BEST_EFFORT:
        return CgroupValues(MIN_SHARES, pids_max=pids, hugepages=hugepages)
    shares = milli_to_shares(milli)
    cpu = limits[CPU].milli_value if _all_limit(document, CPU) else 0
    memory = limits[MEMORY].value if _all_limit(document, MEMORY) else 0
    return CgroupValues(
        shares,
        milli_to_quota(cpu) if cpu else None,
        memory or None,
        pids,
        hugepages,
    )


def _all_limit(document: Document, resource: str) -> bool:
    spec = document.get("spec") or {}
    own = parse_resources((spec.get("resources") or {}).get("limits"))
    if own.get(resource):
        return True
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return bool(containers) and all(
        parse_resources((c.get("resources") or {}).get("limits")).get(resource)
        for c in containers
    )


def qos_path(root: str, qos: str, *, driver: str) -> str:
    """Return the cgroup that holds all Pods of a QoS class.

    Args:
        root: ours on this machine, as ``/podyard-NAME``; empty or ``/`` is the top.
        qos: the QoS class.
        driver: ``cgroupfs`` or ``systemd``.
    """
    return _render(_components(root, qos), driver)


def pod_cgroup_path(root: str, qos: str, uid: str, *, driver: str) -> str:
    """Return the full literal path of a Pod's cgroup, in the driver's notation."""
    return _render([*_components(root, qos), f"pod{uid}"], driver)


def kubepods_path(root: str, *, driver: str) -> str:
    """Return the cgroup above all Pods."""
    return _render(_components(root, GUARANTEED), driver)


def _components(root: str, qos: str) -> list[str]:
    parts = [part for part in root.split("/") if part]
    tier = [] if qos == GUARANTEED else [qos.lower()]
    return [*parts, _KUBEPODS, *tier]


def _render(components: list[str], driver: str) -> str:
    if driver != SYSTEMD:
        return "/" + "/".join(components)
    slices: list[str] = []
    for component in components:
        escaped = component.replace("-", "_")
        slices.append(f"{slices[-1]}-{escaped}" if slices else escaped)
    return "/" + "/".join(f"{name}.slice" for name in slices)


def uid_of_cgroup(name: str, *, driver: str) -> str:
    """Return the Pod uid a directory below a QoS cgroup is named after, or empty."""
    if driver == SYSTEMD:
        stem, _, rest = name.removesuffix(".slice").rpartition("-pod")
        return rest.replace("_", "-") if stem and name.endswith(".slice") else ""
    return name.removeprefix("pod") if name.startswith("pod") else ""


def decide_oom_score_adj(
    pod: Pod, container: Container, *, memory_capacity_bytes: int, floor: int | None
) -> int:
    """Return how willingly the kernel may kill this container (-1000…1000).

    Args:
        pod: the Pod.
        container: any of its containers; a sidecar is never likelier than the
            regular containers it serves.
        memory_capacity_bytes: the node's memory.
        floor: our own value where we lack CAP_SYS_RESOURCE and so may not go below
            it; ``None`` where anything goes.

    Raises:
        QuantityError: an amount is no quantity.
    """
    score = _oom_score(pod, container, memory_capacity_bytes)
    if container.is_sidecar and container in pod.spec.init_containers:
        score = min(
            [
                score,
                *(
                    _oom_score(pod, regular, memory_capacity_bytes)
                    for regular in pod.spec.containers
                ),
            ]
        )
    return score if floor is None else max(score, floor)


def _oom_score(pod: Pod, container: Container, capacity: int) -> int:
    qos = qos_class(pod.document)
    critical = (pod.spec.priority or 0) >= SYSTEM_NODE_CRITICAL
    if qos == GUARANTEED or critical:
        return GUARANTEED_OOM_SCORE_ADJ
    if qos == BEST_EFFORT:
        return BEST_EFFORT_OOM_SCORE_ADJ
    resources = container.document.get("resources") or {}
    limits = parse_resources(resources.get("limits"))
    requested = (
        parse_resources(resources.get("requests"))
        .get(MEMORY, limits.get(MEMORY, ZERO))
        .value
    )
    score = 1000 - 1000 * requested // capacity if capacity > 0 else 999
    return max(3, min(999, score))
