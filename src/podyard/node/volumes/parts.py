"""What the volume room hands to others, and what makes a volume plugin."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from podyard.api.core_v1 import Pod, Volume
from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that stands ready on the node.

    Attributes:
        name: the volume's name in the Pod.
        host_path: where it is on the node; empty for an image volume.
        read_only: whether the volume itself is read-only, whatever a mount says.
        selinux_relabel: whether the runtime may relabel it.
        image: the image of an image volume, as the Pod has it; else empty. It is
            pulled for the containers that mount it.
    """

    name: str
    host_path: str
    read_only: bool = False
    selinux_relabel: bool = False
    image: str = ""


class VolumeError(Exception):
    """A volume could not be made ready; tried again at the next sync.

    Attributes:
        reason: the event reason, ``FailedMount``.
        message: the event message.
    """

    def __init__(self, message: str, *, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SetUpError(Exception):
    """Why one volume cannot be had; the manager names the volume.

    Attributes:
        message: upstream's words, never with a secret value.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A ServiceAccount token. Its repr hides it.

    Attributes:
        text: the token.
        refresh_at_s: when to ask for a new one, on the clock's monotonic seconds.
    """

    text: str
    refresh_at_s: float

    def __repr__(self) -> str:
        return f"IssuedToken(refresh_at_s={self.refresh_at_s})"


class ObjectReader(Protocol):
    """Reads what Pods refer to, and tells of changes (``client/referenced``)."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it does not exist.

        Raises:
            ReferencedObjectError: it could not be read.
        """

    def pods_of(self, kind: Kind, namespace: str, name: str) -> frozenset[str]:
        """Return the uids of Pods that refer to an object."""

    def on_change(self, listener: Callable[[Kind, str, str], None]) -> None:
        """Have ``listener(kind, namespace, name)`` called after each change."""


class TokenIssuer(Protocol):
    """Gives Pods ServiceAccount tokens."""

    async def get(self, pod: Pod, *, audience: str, expiration_s: int) -> IssuedToken:
        """Return a token bound to the Pod, the same one until it must be renewed.

        Raises:
            SetUpError: the API gave none.
        """

    def forget(self, uid: str) -> None:
        """Drop the tokens of a Pod."""


@dataclass(frozen=True, slots=True)
class VolumeServices:
    """What volumes are made of.

    Attributes:
        objects: ConfigMaps and Secrets.
        tokens: ServiceAccount tokens.
        node_allocatable: what the node has to give, by resource name.
        mounts_images: whether the runtime can mount images.
        volumes_dir: where volumes are kept that outlive their Pods; ``None`` where
            none are.
    """

    objects: ObjectReader
    tokens: TokenIssuer
    node_allocatable: Callable[[], Mapping[str, str]]
    mounts_images: bool = False
    volumes_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """One volume of one Pod, about to be made ready.

    Attributes:
        pod: the Pod.
        volume: the volume.
        path: the directory that is its own on the node.
        services: what it is made of.
    """

    pod: Pod
    volume: Volume
    path: Path
    services: VolumeServices

    @property
    def fs_group(self) -> int | None:
        """The group the Pod's volumes belong to, if it names one."""
        value = self.pod.spec.security_context.get("fsGroup")
        return None if value is None else int(value)


class VolumeMounter(Protocol):
    """Makes one volume ready: first gather, then write."""

    @property
    def refresh_at_s(self) -> float | None:
        """When its content must be gathered anew without a change (tokens)."""

    async def prepare(self) -> bytes:
        """Gather the content; return a fingerprint of what ``set_up`` would make.

        Raises:
            SetUpError: something is missing.
        """

    def set_up(self) -> None:
        """Make it so on disk, idempotently. Blocks; called in a thread.

        Raises:
            SetUpError: it cannot be.
            OSError: the kernel refused.
        """

    def is_set_up(self) -> bool:
        """Return whether an earlier content is on disk. Blocks."""

    def mounted(self) -> MountedVolume:
        """Return how containers get it."""


@dataclass(frozen=True, slots=True)
class VolumePlugin:
    """A kind of volume.

    Attributes:
        name: upstream's plugin name; also the directory of its volumes.
        claims: whether a volume is of this kind; pure, and true for one plugin only.
        make: makes the mounter of a volume.
    """

    name: str
    claims: Callable[[Volume], bool]
    make: Callable[[VolumeContext], VolumeMounter]
