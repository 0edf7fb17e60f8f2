"""What a runtime reports, in our own types (CRI v1 statuses)."""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum

from podyard.api.runtime import Annotation, Label, NamespaceMode
from podyard.lib.values import dataclass


class SandboxState(Enum):
    """A sandbox is usable, or it is not."""

    READY = 0
    NOT_READY = 1


class ContainerState(Enum):
    """Life of a container as CRI tells it."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class PodSandbox:
    """One sandbox. ``ips`` is filled by a status look, not by a list."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_at: datetime
    runtime_handler: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ips: tuple[str, ...] = ()
    network: NamespaceMode = NamespaceMode.POD


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """The ids a container's first process was given."""

    uid: int
    gid: int
    supplemental_groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container, dead or alive.

    Attributes:
        image: the image as the runtime names it (containerd: first repo tag).
        image_id: what status shows as imageID (containerd: first repo digest).
        attempt: metadata attempt, the restart count.
        exit_code: meaningful once exited.
    """

    id: str
    name: str
    sandbox_id: str
    attempt: int
    state: ContainerState
    created_at: datetime
    image: str = ""
    image_id: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    user: ContainerUser | None = None

    @property
    def pod_uid(self) -> str:
        """The Pod this container belongs to."""
        return self.labels.get(Label.POD_UID, "")

    @property
    def restart_count(self) -> int:
        """The restart count it was made with."""
        text = self.annotations.get(Annotation.RESTART_COUNT, "")
        return int(text) if text.isdigit() else self.attempt

    @property
    def spec_hash(self) -> str:
        """The hash of the container's name and image at creation."""
        return self.annotations.get(Annotation.HASH, "")


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """All the runtime knows of one Pod; the newest first in both tuples."""

    uid: str
    name: str
    namespace: str
    sandboxes: tuple[PodSandbox, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    def newest(self, container: str) -> ContainerStatus | None:
        """Return the newest container of that name, or ``None``."""
        return next((c for c in self.containers if c.name == container), None)

    def all_of(self, container: str) -> tuple[ContainerStatus, ...]:
        """Return every container of that name, newest first."""
        return tuple(c for c in self.containers if c.name == container)

    @property
    def running(self) -> tuple[ContainerStatus, ...]:
        """Containers that run now."""
        return tuple(c for c in self.containers if c.state is ContainerState.RUNNING)


@dataclass(frozen=True, slots=True)
class Image:
    """One image on the node.

    Attributes:
        id: the config digest (containerd's image id).
        user: numeric user of the image config, ``None`` when it is a name or unset.
        username: the named user of the image config, or empty.
        pinned: never garbage-collected.
    """

    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size_bytes: int = 0
    user: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeCondition:
    """A condition of the runtime (``RuntimeReady``, ``NetworkReady``)."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeHandler:
    """A handler and its features; name ``""`` is the default handler."""

    name: str
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """``Status``: conditions, handlers, features."""

    conditions: tuple[RuntimeCondition, ...]
    handlers: tuple[RuntimeHandler, ...] = ()
    supplemental_groups_policy: bool = False
    cgroup_driver: str = ""

    def condition(self, kind: str) -> RuntimeCondition:
        """Return the condition of that type; a missing one is false."""
        for condition in self.conditions:
            if condition.type == kind:
                return condition
        return RuntimeCondition(kind, status=False, reason="Missing")


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """``Version``."""

    runtime_name: str
    runtime_version: str
    runtime_api_version: str


class ContainerEventType(Enum):
    """What happened to a container or sandbox."""

    CREATED = 0
    STARTED = 1
    STOPPED = 2
    DELETED = 3


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Look again at this Pod. ``pod_uid`` is empty when the source cannot tell."""

    type: ContainerEventType
    container_id: str
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """Usage of one container at one time; ``None`` where the runtime is silent."""

    id: str
    name: str
    pod_uid: str
    at: datetime
    cpu_usage_core_ns: int | None = None
    memory_working_set_bytes: int | None = None
    memory_usage_bytes: int | None = None
    memory_rss_bytes: int | None = None
    rootfs_used_bytes: int | None = None
    rootfs_inodes_used: int | None = None


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """Usage of an image filesystem."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What an ``ExecSync`` gave."""

    stdout: bytes
    stderr: bytes
    exit_code: int
