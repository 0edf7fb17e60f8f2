"""The doors a Pod's sync knocks at: what it needs, nothing of how it is done.

Every call may be cancelled (a Pod is being deleted) and must then leave nothing
half done that a later call would not mend.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Literal, Protocol

from podyard.api.core_v1 import Container, Pod, Volume
from podyard.api.documents import Document
from podyard.api.observed import ObservedPod
from podyard.api.runtime import EnvVar, Mount, SandboxConfig
from podyard.node.images.parts import EnsuredImage
from podyard.node.probes.parts import ProbeVerdicts
from podyard.node.volumes.parts import MountedVolume


class Volumes(Protocol):
    """Volumes of Pods (``node/volumes``)."""

    async def mount_pod(self, pod: Pod) -> Mapping[str, MountedVolume]:
        """Make every volume of the Pod ready, idempotently; refresh live content.

        Called at each sync.

        Raises:
            VolumeError: one cannot be had now.
        """

    async def unmount_pod(self, uid: str) -> None:
        """Take all volumes of a Pod down; one that is gone is down already.

        Raises:
            VolumeError: one cannot be taken down now.
        """

    def known_uids(self) -> frozenset[str]:
        """Return the Pods that have anything on disk or mounted."""

    async def build_mounts(
        self,
        pod: Pod,
        container: Container,
        volumes: Mapping[str, MountedVolume],
        env: Sequence[EnvVar],
        pod_ips: tuple[str, ...],
        *,
        extra: tuple[Mount, ...] = (),
    ) -> tuple[Mount, ...]:
        """Return the container's mounts in spec order, ``extra`` after them.

        ``extra`` holds the managed hosts file and the termination log.

        Raises:
            VolumeError: a mount cannot be made (subPath, a missing volume, a
                feature the runtime lacks); CreateContainerConfigError.
        """


class Environment(Protocol):
    """Variables of containers (``node/environment``)."""

    async def build(
        self,
        pod: Pod,
        container: Container,
        *,
        pod_ips: tuple[str, ...],
        host_ips: tuple[str, ...],
        node_allocatable: Mapping[str, str],
    ) -> tuple[EnvVar, ...]:
        """Return all variables the runtime is given.

        Raises:
            EnvironmentBuildError: a source is missing.
        """


class Images(Protocol):
    """Images of containers (``node/images``)."""

    async def ensure_image(
        self, pod: Pod, container: Container, sandbox: SandboxConfig, handler: str
    ) -> EnsuredImage:
        """Make the container's image be there and allowed, by its pull policy.

        Emits its own events. Cancelling ends this caller's wait.

        Raises:
            ImageError: not now, or never.
        """

    async def ensure_volume_image(self, pod: Pod, volume: Volume) -> str:
        """Make an image volume's image be there; return what the runtime mounts.

        Raises:
            ImageError: not now, or never.
        """

    def progress_of(self, uid: str, image: str) -> str:
        """Return how far a Pod's pull is, for people; empty where there is none."""


class PodCgroups(Protocol):
    """The cgroups above the containers (``node/resources``)."""

    async def ensure(self, pod: Pod) -> str:
        """Make the Pod's cgroup and return the ``cgroup_parent`` for CRI.

        Raises:
            OSError: the kernel refused.
        """

    async def remove(self, uid: str) -> None:
        """Remove the Pod's cgroup; a missing one is removed already."""

    async def uids(self) -> frozenset[str]:
        """Return the Pods that have a cgroup."""


class RuntimeClasses(Protocol):
    """RuntimeClass to handler (``node/runtime_classes``)."""

    def handler_for(self, pod: Pod) -> str:
        """Return the handler; empty is the runtime's default.

        Raises:
            RuntimeClassError: the class does not exist.
        """


class Hooks(Protocol):
    """Lifecycle hooks (``node/hooks``). Only called for containers that have them."""

    async def expect_post_start(
        self, pod: Pod, container: Container, container_id: str
    ) -> None:
        """Write down that this created container is owed its PostStart.

        Called before ``StartContainer``, so that a crash after it loses no hook.
        """

    async def owed_post_starts(self, pod_uid: str) -> frozenset[str]:
        """Return the container ids whose PostStart nobody has brought to an end.

        Asked after a restart of the agent, and after a start of which it is not
        known how far it came.
        """

    async def settle(self, pod_uid: str, alive: AbstractSet[str]) -> None:
        """Write down that what is owed to containers not in ``alive`` is lost."""

    async def settle_others(self, is_known: Callable[[str], bool]) -> None:
        """Write down the same of Pods that are no longer here."""

    async def post_start(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
    ) -> None:
        """Deliver the PostStart and wait for it; no time limit.

        Cancelled when the container is gone or the Pod is being ended: the
        delivery is then closed as given up.

        Raises:
            HookError: it failed.
        """

    async def pre_stop(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
        *,
        deadline_at: datetime,
    ) -> None:
        """Deliver the PreStop and wait for it.

        The caller cancels the wait at the deadline, which may move nearer while it
        runs. A delivery that came to its end before a restart is not repeated; one
        that was cut by the death of the agent is, with the next attempt.

        Raises:
            HookError: it failed.
        """


class Probes(Protocol):
    """Probes (``node/probes``). Calls are cheap and never wait."""

    def add_pod(self, pod: Pod) -> None:
        """Begin, or go on, to probe this Pod; a newer object replaces the older."""

    def look(
        self,
        pod: Pod,
        observed: ObservedPod,
        pod_ips: tuple[str, ...],
        *,
        held: frozenset[str],
        terminating: bool,
        started: frozenset[str] = frozenset(),
    ) -> None:
        """Tell what was just seen of the Pod.

        Args:
            pod: the Pod.
            observed: its containers.
            pod_ips: its addresses; empty while there are none.
            held: ids of containers whose PostStart has not returned: not probed.
            terminating: liveness and startup probes stop, readiness goes on.
            started: ids of containers that have started by what the API shows: an
                agent that takes them over does not ask their startup probe again.
        """

    def remove_pod(self, uid: str) -> None:
        """End all probing of a Pod."""

    def verdicts(self, uid: str) -> ProbeVerdicts:
        """Return what the probes say now."""

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Have ``tell(uid)`` called whenever a verdict changes."""


class Events(Protocol):
    """Kubernetes Events; never waits, never fails."""

    def event(
        self,
        document: Document,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Tell users something about an object."""
