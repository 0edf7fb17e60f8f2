"""Why the node itself refuses a Pod that was given to it.

Source: ``pkg/kubelet/lifecycle``, ``pkg/kubelet/sysctl`` and
``pkg/security/apparmor`` (v1.36); Kubernetes docs "Using sysctls".
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.predicates import (
    Rejection,
    admission_shortfalls,
    decide_admission,
    requested_amount,
    tolerates,
    usage_of,
)
from podyard.api.priority import CRITICAL
from podyard.api.resources import BEST_EFFORT, BURSTABLE, GUARANTEED, qos_class
from podyard.lib.values import dataclass
from podyard.node.sync.build import normalize_sysctl

#: Sysctls that are namespaced and cannot harm others.
SAFE_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_MEMORY_TAINT: Final = "node.kubernetes.io/memory-pressure"
_NET: Final = ("net.",)
_IPC: Final = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")


@dataclass(frozen=True, slots=True)
class HostAbilities:
    """What this host can enforce, and what its owner allows.

    Attributes:
        apparmor: AppArmor is enabled.
        unsafe_sysctls: allowed beside the safe ones; a trailing ``*`` is a prefix.
    """

    apparmor: bool = False
    unsafe_sysctls: tuple[str, ...] = ()


def decide_node_admission(
    pod: Pod, node: Document, others: Iterable[Document], host: HostAbilities
) -> Rejection | None:
    """Return why the Pod is not run here, or ``None``.

    Args:
        pod: the Pod.
        node: the Node with its status.
        others: the other Pods that are active here.
        host: what the host can do.

    Raises:
        QuantityError: an amount is no quantity.
    """
    refusal = decide_admission(
        pod.document, node, usage_of(others), is_static=pod.is_static
    )
    if refusal is not None:
        return refusal
    if not host.apparmor and _wants_apparmor(pod):
        return Rejection(
            "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"
        )
    for sysctl in pod.spec.security_context.get("sysctls") or ():
        message = _refuse_sysctl(pod, normalize_sysctl(sysctl.get("name", "")), host)
        if message:
            return Rejection("SysctlForbidden", message)
    return None


def decide_critical_preemption(
    pod: Pod, node: Document, others: Sequence[Pod], host: HostAbilities
) -> tuple[str, ...]:
    """Return the Pods to end so that a critical one is let in; none where it is no use.

    As few as possible of the best QoS class go: Guaranteed ones only for what the end
    of all others does not give, then Burstable ones, then BestEffort ones; of each
    class those that come nearest to what is lacking.

    Source: ``pkg/kubelet/preemption`` (v1.36).

    Args:
        pod: the Pod that was refused.
        node: the Node with its status.
        others: the other Pods that are active here.
        host: what the host can do.

    Returns:
        Their uids.

    Raises:
        QuantityError: an amount is no quantity.
    """
    if not _is_critical(pod):
        return ()
    usage = usage_of(other.document for other in others)
    lacking = {
        short.resource: short.requested - (short.capacity - short.used)
        for short in admission_shortfalls(pod.document, node, usage)
    }
    classes: dict[str, list[Pod]] = {GUARANTEED: [], BURSTABLE: [], BEST_EFFORT: []}
    for other in others:
        if _may_preempt(pod, other):
            classes[qos_class(other.document)].append(other)
    chosen: list[Pod] = []
    for qos, lower in (
        (GUARANTEED, (BURSTABLE, BEST_EFFORT)),
        (BURSTABLE, (BEST_EFFORT,)),
        (BEST_EFFORT, ()),
    ):
        given = [*chosen, *(other for name in lower for other in classes[name])]
        chosen += _nearest(classes[qos], _left(lacking, given))
    gone = {other.uid for other in chosen}
    stay = [other.document for other in others if other.uid not in gone]
    if not chosen or decide_node_admission(pod, node, stay, host) is not None:
        return ()
    return tuple(other.uid for other in chosen)


def _is_critical(pod: Pod) -> bool:
    return pod.is_static or (pod.spec.priority or 0) >= CRITICAL


def _may_preempt(pod: Pod, other: Pod) -> bool:
    if _is_critical(pod) and not _is_critical(other):
        return True
    mine, theirs = pod.spec.priority, other.spec.priority
    return mine is not None and theirs is not None and mine > theirs


def _left(lacking: Mapping[str, int], gone: Iterable[Pod]) -> dict[str, int]:
    """Return what still lacks when some Pods have gone."""
    left = dict(lacking)
    for pod in gone:
        for resource in left:
            left[resource] -= requested_amount(pod.document, resource)
    return {resource: amount for resource, amount in left.items() if amount > 0}


def _nearest(pods: Iterable[Pod], lacking: Mapping[str, int]) -> list[Pod]:
    """Choose Pods until nothing lacks, always the one nearest to what does."""
    remaining, chosen = list(pods), []
    left = dict(lacking)
    while left and remaining:
        best = min(remaining, key=partial(_distance, left))
        remaining.remove(best)
        chosen.append(best)
        left = _left(left, [best])
    return chosen


def _distance(lacking: Mapping[str, int], pod: Pod) -> tuple[float, int, str]:
    """Return how far a Pod is from giving what lacks, then how much it takes."""
    amounts = [
        (amount, requested_amount(pod.document, resource))
        for resource, amount in lacking.items()
    ]
    missing = sum(max(need - has, 0) ** 2 / need**2 for need, has in amounts)
    return missing, sum(has for _, has in amounts), pod.uid


def decide_pressure_admission(pod: Pod, pressures: frozenset[str]) -> Rejection | None:
    """Return why a node that is short of something does not run the Pod, or ``None``.

    Critical Pods are always let in. Short of memory alone, whoever requested some is
    let in, and so is who tolerates the taint.

    Source: ``pkg/kubelet/eviction/eviction_manager.go`` (v1.36, Admit).

    Args:
        pod: the Pod.
        pressures: the node's pressure conditions that are true.
    """
    if not pressures or _is_critical(pod):
        return None
    if pressures == {"MemoryPressure"}:
        taint = {"key": _MEMORY_TAINT, "effect": "NoSchedule"}
        tolerations = (pod.document.get("spec") or {}).get("tolerations") or ()
        if qos_class(pod.document) != BEST_EFFORT or tolerates(tolerations, taint):
            return None
    shown = " ".join(sorted(pressures))
    return Rejection("Evicted", f"The node had condition: [{shown}]. ")


def _wants_apparmor(pod: Pod) -> bool:
    contexts = [pod.spec.security_context]
    contexts += [c.security_context or {} for c in pod.all_containers()]
    return any(
        (context.get("appArmorProfile") or {}).get("type")
        in {"RuntimeDefault", "Localhost"}
        for context in contexts
    )


def _refuse_sysctl(pod: Pod, name: str, host: HostAbilities) -> str:
    if pod.spec.host_network and name.startswith(_NET):
        return f'forbidden sysctl: "{name}" not allowed with host net enabled'
    if pod.spec.host_ipc and name.startswith(_IPC):
        return f'forbidden sysctl: "{name}" not allowed with host ipc enabled'
    if name in SAFE_SYSCTLS or any(
        name.startswith(allowed[:-1]) if allowed.endswith("*") else name == allowed
        for allowed in host.unsafe_sysctls
    ):
        return ""
    return f'forbidden sysctl: "{name}" not allowlisted'
