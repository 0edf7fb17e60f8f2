"""Limits as the runtime takes them: of containers, sandboxes and their overhead.

Source: ``pkg/kubelet/kuberuntime`` (v1.36) and
https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from collections.abc import Mapping
from dataclasses import field

from podyard.api.core_v1 import Container, Pod
from podyard.api.quantity import ZERO, Quantity
from podyard.api.resources import (
    CPU,
    MEMORY,
    is_hugepage,
    parse_resources,
    pod_limits,
    pod_requests,
)
from podyard.api.runtime import LinuxResources
from podyard.lib.values import dataclass
from podyard.node.resources.decide import (
    CPU_PERIOD_US,
    MIN_SHARES,
    decide_oom_score_adj,
    milli_to_quota,
    milli_to_shares,
    page_size_name,
)


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What resources are built against.

    Attributes:
        memory_capacity_bytes: the node's memory.
        oom_score_adj_floor: our own oom_score_adj where we may not go below it;
            ``None`` where we may.
        cgroup_version: 1 or 2.
        hugepage_sizes: page sizes the kernel has, as cgroups name them (``2MB``).
        swap_controller: whether ``memory.swap.max`` exists.
        single_process_oom_kill: kill one process, not the whole container (v2).
    """

    memory_capacity_bytes: int
    oom_score_adj_floor: int | None = None
    cgroup_version: int = 1
    hugepage_sizes: tuple[str, ...] = field(default=())
    swap_controller: bool = False
    single_process_oom_kill: bool = False


def build_container_resources(
    pod: Pod, container: Container, host: HostLimits
) -> LinuxResources:
    """Return the limits of one container.

    Raises:
        QuantityError: an amount is no quantity.
    """
    resources = container.document.get("resources") or {}
    requests = parse_resources(resources.get("requests"))
    limits = parse_resources(resources.get("limits"))
    own = parse_resources(pod.spec.resources.limits) if pod.spec.resources else {}
    cpu_limit = limits.get(CPU) or own.get(CPU, ZERO)
    memory_limit = limits.get(MEMORY) or own.get(MEMORY, ZERO)
    return LinuxResources(
        cpu_period_us=CPU_PERIOD_US,
        cpu_quota_us=milli_to_quota(cpu_limit.milli_value),
        cpu_shares=milli_to_shares(_requested_milli(requests, limits)),
        memory_limit_bytes=memory_limit.value,
        oom_score_adj=decide_oom_score_adj(
            pod,
            container,
            memory_capacity_bytes=host.memory_capacity_bytes,
            floor=host.oom_score_adj_floor,
        ),
        hugepage_limits=_hugepage_limits(limits, host.hugepage_sizes),
        unified=_unified(host),
    )


def _requested_milli(
    requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]
) -> int:
    if CPU in requests:
        return requests[CPU].milli_value
    return limits.get(CPU, ZERO).milli_value


def _hugepage_limits(
    limits: Mapping[str, Quantity], sizes: tuple[str, ...]
) -> tuple[tuple[str, int], ...]:
    wanted = {
        page_size_name(name): amount.value
        for name, amount in limits.items()
        if is_hugepage(name)
    }
    return tuple((size, wanted.get(size, 0)) for size in sizes)


def _unified(host: HostLimits) -> dict[str, str]:
    if host.cgroup_version != 2:
        return {}
    unified = {} if host.single_process_oom_kill else {"memory.oom.group": "1"}
    if host.swap_controller:
        unified["memory.swap.max"] = "0"
    return unified


def build_sandbox_resources(pod: Pod) -> LinuxResources:
    """Return the totals of a Pod without its overhead.

    Raises:
        QuantityError: an amount is no quantity.
    """
    requests = pod_requests(pod.document, include_overhead=False)
    limits = pod_limits(pod.document, include_overhead=False)
    return _totals(requests, limits)


def build_overhead_resources(pod: Pod) -> LinuxResources | None:
    """Return what the sandbox itself costs; ``None`` where the Pod has no overhead.

    Raises:
        QuantityError: an amount is no quantity.
    """
    if not pod.spec.overhead:
        return None
    overhead = parse_resources(pod.spec.overhead)
    return _totals(overhead, overhead)


def _totals(
    requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]
) -> LinuxResources:
    milli = _requested_milli(requests, limits)
    return LinuxResources(
        cpu_period_us=CPU_PERIOD_US,
        cpu_quota_us=milli_to_quota(limits.get(CPU, ZERO).milli_value),
        cpu_shares=milli_to_shares(milli) if milli else MIN_SHARES,
        memory_limit_bytes=limits.get(MEMORY, ZERO).value,
    )
