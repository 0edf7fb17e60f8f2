"""The Node object and its Lease as documents.

Source: Kubernetes docs "Node Status", "Reserve Compute Resources", and
``pkg/kubelet/nodestatus`` (v1.36).
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import format_micro_time, format_time
from podyard.api.documents import Document
from podyard.api.observed import Image, RuntimeStatus, RuntimeVersion
from podyard.api.quantity import Format, Quantity, parse_quantity
from podyard.lib.values import dataclass

#: The Lease is renewed this often and counts this long, seconds.
LEASE_RENEW_S: Final = 10
LEASE_DURATION_S: Final = 40
LEASE_NAMESPACE: Final = "kube-node-lease"
#: Images shown in the status, the largest first; names shown of each.
MAX_IMAGES: Final = 50
MAX_IMAGE_NAMES: Final = 5
#: The part of the disk that Pods may not fill.
_DISK_KEPT_PERCENT: Final = 10
_NO_PRESSURE: Final = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the machine is and has.

    Attributes:
        cpus: processors.
        memory_bytes: memory.
        disk_bytes: size of the filesystem that Pods write to.
        hugepages: page size as resources name it (``2Mi``) to bytes reserved.
        arch: as Go names it (``amd64``).
    """

    cpus: int
    memory_bytes: int
    disk_bytes: int
    arch: str
    hostname: str
    kernel_version: str = ""
    os_image: str = ""
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    hugepages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How the node presents itself.

    Attributes:
        name: the Node's name.
        ips: its addresses, the primary family first.
        kubelet_version: the version shown as ``kubeletVersion``.
        kubelet_port: of the node's own endpoints.
        max_pods: how many Pods it takes.
        labels: beside the usual ones.
        taints: as documents; set when the Node is made.
        pod_cidrs: the addresses of its Pods, a range a family, or empty.
        reserved: kept from Pods, by resource (system and kube reserved together).
        eviction_memory: the memory kept as the hard eviction threshold.
        annotations: set when the Node is made, and kept so.
    """

    name: str
    ips: tuple[str, ...]
    kubelet_version: str
    kubelet_port: int
    max_pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Document, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)
    eviction_memory: str = "100Mi"
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """How the node is doing.

    Attributes:
        errors: why it is not ready; empty where it is.
        pressures: condition types that are True (``DiskPressure``).
    """

    errors: tuple[str, ...] = ()
    pressures: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What the runtime says of itself; ``None`` before it was reached."""

    version: RuntimeVersion | None = None
    status: RuntimeStatus | None = None


def build_labels(settings: NodeSettings, facts: MachineFacts) -> dict[str, str]:
    """Return the labels of the Node."""
    return {
        "beta.kubernetes.io/arch": facts.arch,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.arch,
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        **settings.labels,
    }


def build_node(settings: NodeSettings, facts: MachineFacts) -> Document:
    """Return the Node object as it is first created, without status."""
    spec: Document = {}
    if settings.pod_cidrs:
        spec["podCIDR"] = settings.pod_cidrs[0]
        spec["podCIDRs"] = list(settings.pod_cidrs)
    if settings.taints:
        spec["taints"] = list(settings.taints)
    metadata: Document = {
        "name": settings.name,
        "labels": build_labels(settings, facts),
    }
    if settings.annotations:
        metadata["annotations"] = dict(settings.annotations)
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}


def build_capacity(settings: NodeSettings, facts: MachineFacts) -> Document:
    """Return what the node has."""
    capacity: Document = {
        "cpu": str(facts.cpus),
        "ephemeral-storage": _binary(facts.disk_bytes),
    }
    for size, amount in sorted(facts.hugepages.items()):
        capacity[f"hugepages-{size}"] = _binary(amount)
    capacity["memory"] = _binary(facts.memory_bytes)
    capacity["pods"] = str(settings.max_pods)
    return capacity


def build_allocatable(settings: NodeSettings, facts: MachineFacts) -> Document:
    """Return what Pods may have of it.

    Raises:
        QuantityError: a reservation is no quantity.
    """
    allocatable = build_capacity(settings, facts)
    kept = {name: parse_quantity(text) for name, text in settings.reserved.items()}
    eviction = {
        "memory": parse_quantity(settings.eviction_memory),
        "ephemeral-storage": Quantity.of(
            facts.disk_bytes * _DISK_KEPT_PERCENT // 100, Format.BINARY_SI
        ),
    }
    hugepages = sum(facts.hugepages.values())
    for name, text in list(allocatable.items()):
        amount = parse_quantity(text)
        for part in (kept.get(name), eviction.get(name)):
            if part is not None:
                amount -= part
        if name == "memory" and hugepages:
            amount -= Quantity.of(hugepages)
        floor = Quantity.of(0)
        allocatable[name] = str(max(amount, floor))
    return allocatable


def _binary(amount_bytes: int) -> str:
    """Return bytes in Ki, as a kubelet shows memory and disk."""
    return f"{amount_bytes // 1024}Ki"


def build_node_status(
    settings: NodeSettings,
    facts: MachineFacts,
    runtime: RuntimeFacts,
    condition: NodeCondition,
    images: Sequence[Image],
    *,
    previous: Document,
    now: datetime,
) -> Document:
    """Return the Node's status.

    Args:
        settings: how it presents itself.
        facts: what it has.
        runtime: what its runtime says.
        condition: how it is doing.
        images: what is on it.
        previous: the status last shown, for the times of transitions.
        now: the wall time.
    """
    version = runtime.version
    status: Document = {
        "addresses": [
            *({"type": "InternalIP", "address": ip} for ip in settings.ips),
            {"type": "Hostname", "address": facts.hostname},
        ],
        "capacity": build_capacity(settings, facts),
        "allocatable": build_allocatable(settings, facts),
        "conditions": _conditions(condition, previous, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.kubelet_port}},
        "nodeInfo": {
            "architecture": facts.arch,
            "bootID": facts.boot_id,
            "containerRuntimeVersion": f"{version.runtime_name}://"
            f"{version.runtime_version.removeprefix('v')}"
            if version
            else "unknown",
            "kernelVersion": facts.kernel_version,
            "kubeProxyVersion": "",
            "kubeletVersion": settings.kubelet_version,
            "machineID": facts.machine_id,
            "operatingSystem": "linux",
            "osImage": facts.os_image,
            "systemUUID": facts.system_uuid,
        },
        "images": _images(images),
    }
    if runtime.status is not None:
        status["runtimeHandlers"] = [
            {
                "name": handler.name,
                "features": {
                    "recursiveReadOnlyMounts": handler.recursive_read_only_mounts,
                    "userNamespaces": handler.user_namespaces,
                },
            }
            for handler in runtime.status.handlers
        ]
        status["features"] = {
            "supplementalGroupsPolicy": runtime.status.supplemental_groups_policy
        }
    return status


def _images(images: Sequence[Image]) -> list[Document]:
    ordered = sorted(images, key=lambda image: (-image.size_bytes, image.id))
    return [
        {
            "names": [*image.repo_digests, *image.repo_tags][:MAX_IMAGE_NAMES],
            "sizeBytes": image.size_bytes,
        }
        for image in ordered[:MAX_IMAGES]
        if image.repo_digests or image.repo_tags
    ]


def _conditions(
    condition: NodeCondition, previous: Document, now: datetime
) -> list[Document]:
    old = {c["type"]: c for c in previous.get("conditions") or ()}
    own: list[Document] = []
    for kind, (calm, pressed) in _NO_PRESSURE.items():
        is_pressed = kind in condition.pressures
        reason, message = pressed if is_pressed else calm
        own.append(_condition(kind, is_pressed, (reason, message), old, now))
    if condition.errors:
        message = (
            condition.errors[0]
            if len(condition.errors) == 1
            else f"[{', '.join(condition.errors)}]"
        )
        why = ("KubeletNotReady", message)
    else:
        why = ("KubeletReady", "kubelet is posting ready status")
    own.append(_condition("Ready", not condition.errors, why, old, now))
    kinds = {c["type"] for c in own}
    return [c for c in old.values() if c["type"] not in kinds] + own


def _condition(
    kind: str,
    is_true: bool,  # noqa: FBT001 - a table row
    why: tuple[str, str],
    old: Mapping[str, Document],
    now: datetime,
) -> Document:
    status = "True" if is_true else "False"
    before = old.get(kind)
    since = before.get("lastTransitionTime") if before else None
    flipped = before is None or before.get("status") != status or not since
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": format_time(now),
        "lastTransitionTime": format_time(now) if flipped else since,
        "reason": why[0],
        "message": why[1],
    }


def without_heartbeats(status: Document) -> Document:
    """Return a status without what changes by time alone."""
    return {
        **status,
        "conditions": [
            {k: v for k, v in c.items() if k != "lastHeartbeatTime"}
            for c in status.get("conditions") or ()
        ],
    }


def build_lease(settings: NodeSettings, *, node_uid: str, now: datetime) -> Document:
    """Return the Lease that says the node lives."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": settings.name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": settings.name,
                    "uid": node_uid,
                }
            ],
        },
        "spec": {
            "holderIdentity": settings.name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": format_micro_time(now),
        },
    }
