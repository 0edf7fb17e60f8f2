"""Why the node itself refuses a Pod that was given to it.

Source: ``pkg/kubelet/lifecycle``, ``pkg/kubelet/sysctl`` and
``pkg/security/apparmor`` (v1.36); Kubernetes docs "Using sysctls".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.predicates import (
    Rejection,
    decide_admission,
    tolerates,
    usage_of,
)
from podyard.api.priority import CRITICAL
from podyard.api.resources import BEST_EFFORT, qos_class
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


def decide_pressure_admission(pod: Pod, pressures: frozenset[str]) -> Rejection | None:
    """Return why a node that is short of something does not run the Pod, or ``None``.

    Critical Pods are always let in. Short of memory alone, whoever requested some is
    let in, and so is who tolerates the taint.

    Source: ``pkg/kubelet/eviction/eviction_manager.go`` (v1.36, Admit).

    Args:
        pod: the Pod.
        pressures: the node's pressure conditions that are true.
    """
    critical = pod.is_static or (pod.spec.priority or 0) >= CRITICAL
    if not pressures or critical:
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
