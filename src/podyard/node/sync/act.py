"""Carries out what was decided: sandboxes and containers, in the documented order.

A CRI call that makes something is never cut in the middle: when the Pod is being
ended meanwhile, the call is waited for, and then the cancel passes.

Source: ``startContainer`` and ``createPodSandbox`` of ``pkg/kubelet/kuberuntime``
(v1.36).
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Final, TypeVar

import structlog

from podyard.api.core_v1 import Container, Pod
from podyard.api.observed import ContainerState, ContainerStatus, ObservedPod
from podyard.api.quantity import QuantityError
from podyard.api.runtime import Mount, SandboxConfig
from podyard.cri.services import CRIError, CRINotFoundError, RuntimeService
from podyard.lib.aio import finish
from podyard.lib.values import dataclass
from podyard.node.environment.build import (
    DNSSettings,
    build_dns_config,
    build_hostname,
    build_hosts_file,
)
from podyard.node.environment.parts import EnvironmentBuildError
from podyard.node.images.parts import ImageError
from podyard.node.resources.build import (
    HostLimits,
    build_container_resources,
    build_overhead_resources,
    build_sandbox_resources,
)
from podyard.node.runtime_classes.decide import cannot_run, list_handlers
from podyard.node.runtime_classes.parts import RuntimeClassError
from podyard.node.sync.build import (
    BuildSettings,
    ContainerConfigError,
    ContainerParts,
    SandboxParts,
    build_container_config,
    build_sandbox_config,
    container_log_link,
    hook_of,
)
from podyard.node.sync.files import Blocking, PodFiles
from podyard.node.sync.parts import (
    Environment,
    Events,
    Hooks,
    Images,
    PodCgroups,
    RuntimeClasses,
    Volumes,
)
from podyard.node.sync.userns import UserNamespaceError, UserNamespaces
from podyard.node.volumes.parts import MountedVolume, VolumeError

log = structlog.get_logger()

_T = TypeVar("_T")

HOSTS_PATH: Final = "/etc/hosts"
#: The longest a CRI call that makes something may take, seconds.
_SANDBOX_S: Final = 240.0
_CALL_S: Final = 120.0


class PodActionError(Exception):
    """Something the whole Pod needs failed; it is tried again later.

    Attributes:
        message: what failed, for the records.
        refused: it will never work: the Pod is over (``semantics: documented``).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.refused = refused


class StartError(Exception):
    """A container could not be started.

    Attributes:
        reason: the waiting reason.
        message: the waiting message.
        look_in_s: no later than this it is tried again, seconds; ``None`` where there
            is no such time.
    """

    def __init__(
        self, reason: str, message: str, *, look_in_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.look_in_s = look_in_s


@dataclass(frozen=True, slots=True)
class ActSettings:
    """What of the node goes into its Pods.

    Attributes:
        build: for the configs.
        dns: the resolver's settings.
        limits: what the host can limit.
        node_hosts: the node's own hosts file.
        fail_refused_handlers: a RuntimeClass that does not exist, or a handler that
            the runtime lacks or cannot run, ends the Pod (``semantics:
            documented``) instead of being tried for ever.
    """

    build: BuildSettings
    dns: DNSSettings
    limits: HostLimits
    node_hosts: Path = Path(HOSTS_PATH)
    fail_refused_handlers: bool = True


@dataclass(frozen=True, slots=True)
class NodeNow:
    """What of the node may change while it runs."""

    host_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    handlers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ActParts:
    """The doors starting a Pod knocks at."""

    runtime: RuntimeService
    images: Images
    volumes: Volumes
    environment: Environment
    cgroups: PodCgroups
    runtime_classes: RuntimeClasses
    hooks: Hooks
    events: Events


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox containers are started in.

    Attributes:
        id: empty while it is only a config.
        config: as it was, or would be, created.
        handler: the runtime handler.
    """

    id: str
    config: SandboxConfig
    handler: str


@dataclass(frozen=True, slots=True)
class StartedContainer:
    """A container that has just been started, and its log."""

    id: str
    log: Path


class PodActor:
    """Makes sandboxes and containers.

    Args:
        parts: the doors.
        files: the Pods' own files.
        settings: what does not change.
        node_now: returns what does.
        blocking: runs file work.
    """

    def __init__(
        self,
        parts: ActParts,
        files: PodFiles,
        settings: ActSettings,
        node_now: Callable[[], NodeNow],
        blocking: Blocking,
    ) -> None:
        self._parts = parts
        self._files = files
        self._settings = settings
        self._node_now = node_now
        self._blocking = blocking
        self._userns = UserNamespaces(files.pods_dir)

    # --- before the sandbox ----------------------------------------------------------

    async def prepare_pod(self, pod: Pod) -> Mapping[str, MountedVolume]:
        """Make directories and volumes ready.

        Raises:
            PodActionError: they cannot be, now.
        """
        try:
            await self._blocking(self._files.make_pod_dirs, pod)
        except OSError as error:
            message = f"error making pod data directories: {error}"
            self._warn(pod, "Failed", message)
            raise PodActionError(message) from error
        return await self.mount_volumes(pod)

    async def mount_volumes(self, pod: Pod) -> Mapping[str, MountedVolume]:
        """Make volumes ready, or refresh them.

        Raises:
            PodActionError: they cannot be, now.
        """
        try:
            return await self._parts.volumes.mount_pod(pod)
        except VolumeError as error:
            self._warn(pod, error.reason, error.message)
            raise PodActionError(error.message) from error

    # --- sandbox ---

    async def create_sandbox(self, pod: Pod, sandbox: Sandbox) -> Sandbox:
        """Create and start a sandbox that has been described.

        Raises:
            PodActionError: it failed; the event is out.
        """
        try:
            sandbox_id = await _whole(
                self._parts.runtime.run_pod_sandbox(sandbox.config, sandbox.handler),
                within_s=_SANDBOX_S,
            )
        except (CRIError, TimeoutError) as error:
            text = _rpc_text(error)
            raise self._sandbox_failed(
                pod, text, refused=cannot_run(sandbox.handler, text)
            ) from error
        return Sandbox(sandbox_id, sandbox.config, sandbox.handler)

    async def describe_sandbox(
        self,
        pod: Pod,
        attempt: int,
        *,
        sandbox_id: str = "",
        handler: str | None = None,
        announce: bool = False,
    ) -> Sandbox:
        """Return the Pod's sandbox as a config, with its cgroup made sure of.

        Args:
            pod: the Pod.
            attempt: the sandbox's number.
            sandbox_id: its id, where it is there already.
            handler: what it runs with, where it is there already; ``None`` to ask
                the Pod's class.
            announce: whether remarks on its resolver become events.

        Raises:
            PodActionError: it cannot be described; the event is out.
        """
        try:
            parent = await self._parts.cgroups.ensure(pod)
        except (OSError, QuantityError) as error:
            message = f"unable to ensure pod container exists: {error}"
            self._warn(pod, "FailedCreatePodContainer", message)
            raise PodActionError(message) from error
        try:
            if handler is None:
                handler = self._parts.runtime_classes.handler_for(pod)
            hostname = build_hostname(
                pod, cluster_domain=self._settings.dns.cluster_domain
            )
            userns = None
            if pod.spec.host_users is False:
                userns = await self._blocking(self._userns.ensure, pod)
        except RuntimeClassError as error:
            raise self._sandbox_failed(pod, error.message, refused=True) from error
        except EnvironmentBuildError as error:
            raise self._sandbox_failed(pod, error.message) from error
        except (OSError, UserNamespaceError) as error:
            raise self._sandbox_failed(pod, str(error)) from error
        dns, remarks = build_dns_config(pod, self._settings.dns)
        if announce:
            for remark in remarks:
                self._warn(pod, remark.reason, remark.message)
        logs = self._files.pod_logs(pod.namespace, pod.name, pod.uid)
        config = build_sandbox_config(
            pod,
            SandboxParts(
                attempt=attempt,
                hostname=hostname.kernel,
                dns=dns,
                log_directory=str(logs),
                cgroup_parent=parent,
                userns=userns,
                resources=build_sandbox_resources(pod),
                overhead=build_overhead_resources(pod),
            ),
        )
        return Sandbox(sandbox_id, config, handler)

    def _sandbox_failed(
        self, pod: Pod, text: str, *, refused: bool = False
    ) -> PodActionError:
        if refused:
            text += list_handlers(self._node_now().handlers)
        message = f"Failed to create pod sandbox: {text}"
        self._warn(pod, "FailedCreatePodSandBox", message)
        refused = refused and self._settings.fail_refused_handlers
        return PodActionError(message, refused=refused)

    # --- containers ---

    async def start_container(
        self,
        pod: Pod,
        container: Container,
        sandbox: Sandbox,
        volumes: Mapping[str, MountedVolume],
        observed: ObservedPod,
        pod_ips: tuple[str, ...],
    ) -> StartedContainer:
        """Pull, create and start one container.

        What comes after that (status, event, log link, PostStart) is the caller's.

        Raises:
            StartError: it failed; the event is out.
        """
        parts = self._parts
        try:
            volumes = await self._pull_volumes(pod, container, volumes)
            ensured = await parts.images.ensure_image(
                pod, container, sandbox.config, sandbox.handler
            )
        except ImageError as error:
            raise StartError(
                error.reason, error.message, look_in_s=error.look_in_s
            ) from error
        newest = observed.newest(container.name)
        try:
            attempt, extra = await self._prepare(pod, container, newest, pod_ips)
            env = await parts.environment.build(
                pod,
                container,
                pod_ips=pod_ips,
                host_ips=self._node_now().host_ips,
                node_allocatable=self._node_now().allocatable,
            )
            mounts = await parts.volumes.build_mounts(
                pod, container, volumes, env, pod_ips, extra=extra
            )
            # The class may be gone by now: then its Pod's containers cannot start.
            parts.runtime_classes.handler_for(pod)
            config = build_container_config(
                pod,
                container,
                ContainerParts(
                    attempt=attempt,
                    image_ref=ensured.ref,
                    image=ensured.image,
                    env=env,
                    mounts=mounts,
                    resources=build_container_resources(
                        pod, container, self._settings.limits
                    ),
                    userns=sandbox.config.security.namespaces.userns,
                    target_id=_target_id(container, observed),
                ),
                self._settings.build,
            )
        except (
            ContainerConfigError,
            EnvironmentBuildError,
            VolumeError,
        ) as error:
            raise self._fail(
                pod, container, "CreateContainerConfigError", error.message
            ) from error
        except RuntimeClassError as error:
            message = error.message + list_handlers(self._node_now().handlers)
            raise self._fail(
                pod, container, "CreateContainerConfigError", message
            ) from error
        except (OSError, QuantityError) as error:
            raise self._fail(
                pod, container, "CreateContainerConfigError", str(error)
            ) from error
        log_file = self._files.log_file(
            pod.namespace, pod.name, pod.uid, container.name, attempt
        )
        try:
            if newest is not None and await self._runs_after_all(newest):
                return StartedContainer(newest.id, log_file)
            container_id = await _whole(
                parts.runtime.create_container(sandbox.id, config, sandbox.config),
                within_s=_CALL_S,
            )
        except (CRIError, TimeoutError) as error:
            message = _text(error)
            if cannot_run(sandbox.handler, message):
                message += list_handlers(self._node_now().handlers)
            raise self._fail(pod, container, "CreateContainerError", message) from error
        self._tell(pod, container, "Created", "Container created")
        await self._start(pod, container, container_id)
        return StartedContainer(container_id, log_file)

    async def _runs_after_all(self, newest: ContainerStatus) -> bool:
        """Take away a container that an agent made and, ending, left unstarted.

        Its name is taken and its number is free. The runtime may have gone on with
        the start all the same: then it is as good as any, and not run twice.

        Raises:
            CRIError: it cannot be asked for or removed.
        """
        if newest.state is not ContainerState.CREATED:
            return False
        try:
            now = await self._parts.runtime.container_status(newest.id)
        except CRINotFoundError:
            return False
        if now.started_at is not None:
            return True
        await self._parts.runtime.remove_container(newest.id)
        return False

    def pull_progress(self, pod: Pod, container: Container) -> str:
        """Return how far a container's pull is; empty where there is none."""
        return self._parts.images.progress_of(pod.uid, container.image)

    async def _pull_volumes(
        self, pod: Pod, container: Container, volumes: Mapping[str, MountedVolume]
    ) -> Mapping[str, MountedVolume]:
        """Have the images there that a container mounts as volumes.

        Raises:
            ImageError: one of them is not there, and cannot be now.
        """
        names = {mount.name for mount in container.volume_mounts}
        wanted = [v for v in pod.spec.volumes if v.source == "image"]
        pulled: dict[str, MountedVolume] = {}
        for volume in wanted:
            if volume.name in names and volume.name in volumes:
                ref = await self._parts.images.ensure_volume_image(pod, volume)
                pulled[volume.name] = replace(volumes[volume.name], image=ref)
        return {**volumes, **pulled} if pulled else volumes

    async def _prepare(
        self,
        pod: Pod,
        container: Container,
        newest: ContainerStatus | None,
        pod_ips: tuple[str, ...],
    ) -> tuple[int, tuple[Mount, ...]]:
        hosts = self._hosts_wanted(pod, container, pod_ips)
        return await self._blocking(
            self._prepare_files, pod, container, newest, pod_ips if hosts else None
        )

    def _hosts_wanted(
        self, pod: Pod, container: Container, pod_ips: tuple[str, ...]
    ) -> bool:
        taken = any(m.mount_path == HOSTS_PATH for m in container.volume_mounts)
        return bool(pod_ips or pod.spec.host_network) and not taken

    def _prepare_files(
        self,
        pod: Pod,
        container: Container,
        newest: ContainerStatus | None,
        pod_ips: tuple[str, ...] | None,
    ) -> tuple[int, tuple[Mount, ...]]:
        """Make an instance's files; blocking.

        Returns:
            Its restart count, and the mounts that are not volumes.
        """
        if newest is not None:
            has_run = newest.state is not ContainerState.CREATED
            attempt = newest.restart_count + (1 if has_run else 0)
        else:
            attempt = self._files.next_attempt(pod, container.name)
        message = self._files.prepare_container(pod, container.name, attempt)
        extra: list[Mount] = []
        if pod_ips is not None:
            hostname = build_hostname(
                pod, cluster_domain=self._settings.dns.cluster_domain
            )
            node_hosts = ""
            if pod.spec.host_network and self._settings.node_hosts.exists():
                node_hosts = self._settings.node_hosts.read_text()
            content = build_hosts_file(
                pod, pod_ips=pod_ips, hostname=hostname, node_hosts=node_hosts
            )
            path = self._files.write_hosts(pod.uid, content)
            extra.append(Mount(HOSTS_PATH, str(path), selinux_relabel=True))
        if container.termination_message_path:
            extra.append(
                Mount(
                    container.termination_message_path,
                    str(message),
                    selinux_relabel=True,
                )
            )
        return attempt, tuple(extra)

    async def _start(self, pod: Pod, container: Container, container_id: str) -> None:
        if hook_of(container, "post_start") is not None:
            # Written down before the container lives, so that no crash in between
            # can lose the hook.
            await self._parts.hooks.expect_post_start(pod, container, container_id)
        try:
            await _whole(
                self._parts.runtime.start_container(container_id), within_s=_CALL_S
            )
        except (CRIError, TimeoutError) as error:
            raise self._fail(
                pod, container, "RunContainerError", _text(error)
            ) from error

    async def link_log(
        self, pod: Pod, container: Container, started: StartedContainer
    ) -> None:
        """Make a started container's log found under its well-known name."""
        name = container_log_link(pod, container.name, started.id)
        try:
            await self._blocking(self._files.link_log, name, started.log)
        except OSError as error:
            log.warning("log_not_linked", container=container.name, error=str(error))

    # --- events ---

    def _fail(
        self, pod: Pod, container: Container, reason: str, message: str
    ) -> StartError:
        self._parts.events.event(
            pod.document,
            "Warning",
            "Failed",
            f"Error: {message}",
            field_path=pod.field_path(container.name),
        )
        return StartError(reason, message)

    def _tell(self, pod: Pod, container: Container, reason: str, message: str) -> None:
        self._parts.events.event(
            pod.document,
            "Normal",
            reason,
            message,
            field_path=pod.field_path(container.name),
        )

    def _warn(self, pod: Pod, reason: str, message: str) -> None:
        self._parts.events.event(pod.document, "Warning", reason, message)


async def _whole(work: Coroutine[object, object, _T], *, within_s: float) -> _T:
    return await finish(work, within_s=within_s)


def _text(error: CRIError | TimeoutError) -> str:
    return error.message if isinstance(error, CRIError) else "context deadline exceeded"


def _rpc_text(error: CRIError | TimeoutError) -> str:
    if isinstance(error, CRIError):
        return error.rpc_text
    return "rpc error: code = DeadlineExceeded desc = context deadline exceeded"


def _target_id(container: Container, observed: ObservedPod) -> str:
    if not container.target_container:
        return ""
    target = observed.newest(container.target_container)
    return target.id if target is not None else ""
