"""What the agent asks of a runtime: views of CRI's configs, in our own types.

Field meanings are those of CRI v1 (``runtime.v1.RuntimeService``); ``podyard.cri``
alone turns them into wire messages.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import Enum, StrEnum
from typing import Final

from podyard.lib.values import dataclass


class NamespaceMode(Enum):
    """Who a container shares a namespace with."""

    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class MountPropagation(Enum):
    """Whether mounts made later are seen across a bind mount."""

    PRIVATE = 0
    HOST_TO_CONTAINER = 1
    BIDIRECTIONAL = 2


class ProfileType(Enum):
    """Kind of a seccomp or AppArmor profile."""

    RUNTIME_DEFAULT = 0
    UNCONFINED = 1
    LOCALHOST = 2


class SupplementalGroupsPolicy(Enum):
    """Whether groups of the image's /etc/group count."""

    MERGE = 0
    STRICT = 1


@dataclass(frozen=True, slots=True)
class IdMapping:
    """A range of a user namespace."""

    host_id: int
    container_id: int
    length: int


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """The user namespace of a sandbox; ``None`` in its place means the node's."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """Namespaces of a sandbox or container."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    userns: UserNamespace | None = None


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    """A seccomp or AppArmor profile; ``localhost_ref`` is an absolute path or name."""

    type: ProfileType
    localhost_ref: str = ""


@dataclass(frozen=True, slots=True)
class SELinuxOptions:
    """SELinux label parts."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capability names without ``CAP_``."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxSecurity:
    """Security context of a sandbox. ``None`` ids mean the runtime's choice."""

    namespaces: NamespaceOptions = field(default_factory=NamespaceOptions)
    privileged: bool = False
    readonly_rootfs: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: SupplementalGroupsPolicy = (
        SupplementalGroupsPolicy.MERGE
    )
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None
    selinux: SELinuxOptions | None = None


@dataclass(frozen=True, slots=True)
class ContainerSecurity:
    """Security context of a container. ``None`` ids mean the image's user."""

    namespaces: NamespaceOptions = field(default_factory=NamespaceOptions)
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privs: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: SupplementalGroupsPolicy = (
        SupplementalGroupsPolicy.MERGE
    )
    capabilities: Capabilities = field(default_factory=Capabilities)
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None
    selinux: SELinuxOptions | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits as the runtime takes them; 0 means not set.

    Attributes:
        cpu_period_us: length of a CFS period, microseconds.
        cpu_quota_us: CFS quota in that period, microseconds; -1 means none.
        cpu_shares: relative weight (cgroup v1 scale).
        memory_limit_bytes: hard limit.
        oom_score_adj: -1000…1000.
        hugepage_limits: page size (``2MB``) to bytes.
        unified: cgroup v2 file to value.
    """

    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    memory_swap_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: tuple[tuple[str, int], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DNSConfig:
    """What the runtime writes to ``/etc/resolv.conf``."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One host port. ``protocol`` is ``TCP``, ``UDP`` or ``SCTP``."""

    protocol: str
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """``PodSandboxConfig``.

    Attributes:
        hostname: empty for Pods on the host's network (runc refuses one there).
        log_directory: absolute path on the node.
        cgroup_parent: full path, in the driver's own notation.
    """

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: DNSConfig | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: SandboxSecurity = field(default_factory=SandboxSecurity)
    overhead: LinuxResources | None = None
    resources: LinuxResources | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount into a container, or an image mount when ``image`` is set."""

    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    selinux_relabel: bool = False
    propagation: MountPropagation = MountPropagation.PRIVATE
    image: str = ""
    image_sub_path: str = ""
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A device node given to a container; ``permissions`` of ``rwm``."""

    container_path: str
    host_path: str
    permissions: str


@dataclass(frozen=True, slots=True)
class EnvVar:
    """One variable; the value is bytes because Secrets may hold any."""

    name: str
    value: bytes

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r}, <{len(self.value)} bytes>)"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """``ContainerConfig``.

    Attributes:
        attempt: the restart count.
        image: the resolved image ref or id.
        user_specified_image: what the Pod said.
        log_path: relative to the sandbox's log directory.
        stop_signal: a name such as ``SIGUSR1``; empty for the image's own.
    """

    name: str
    attempt: int
    image: str
    user_specified_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[EnvVar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: LinuxResources = field(default_factory=LinuxResources)
    security: ContainerSecurity = field(default_factory=ContainerSecurity)
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class ImageAuth:
    """One registry credential, as CRI takes it. Its repr hides every secret."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return (
            f"ImageAuth(username={self.username!r}, "
            f"server_address={self.server_address!r})"
        )


class Label(StrEnum):
    """Labels that let the agent remember nothing (kuberuntime/labels.go)."""

    POD_NAME = "io.kubernetes.pod.name"
    POD_NAMESPACE = "io.kubernetes.pod.namespace"
    POD_UID = "io.kubernetes.pod.uid"
    CONTAINER_NAME = "io.kubernetes.container.name"


class Annotation(StrEnum):
    """Annotations of a container (kuberuntime/labels.go)."""

    HASH = "io.kubernetes.container.hash"
    RESTART_COUNT = "io.kubernetes.container.restartCount"
    TERMINATION_MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
    TERMINATION_MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
    POD_TERMINATION_GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"
    POD_DELETION_GRACE_PERIOD = "io.kubernetes.pod.deletionGracePeriod"
    PRE_STOP_HANDLER = "io.kubernetes.container.preStopHandler"
    PORTS = "io.kubernetes.container.ports"


#: CRI condition types of ``Status``.
RUNTIME_READY: Final = "RuntimeReady"
NETWORK_READY: Final = "NetworkReady"
