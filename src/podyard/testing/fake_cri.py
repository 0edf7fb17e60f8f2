"""An in-memory container runtime: both CRI services, no processes.

It passes the contract suite that a real containerd passes, keeps its promises (name
reservations, states, exit codes, times) and can be told to fail or to be slow.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from podyard.api.observed import (
    ContainerEvent,
    ContainerEventType,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    FilesystemUsage,
    Image,
    PodSandbox,
    RuntimeCondition,
    RuntimeHandler,
    RuntimeStatus,
    RuntimeVersion,
    SandboxState,
)
from podyard.api.runtime import (
    NETWORK_READY,
    RUNTIME_READY,
    ContainerConfig,
    ImageAuth,
    Label,
    LinuxResources,
    NamespaceMode,
    SandboxConfig,
)
from podyard.cri.services import (
    CRIError,
    CRINotFoundError,
    CRIUnavailableError,
    CRIUnimplementedError,
)
from podyard.lib.values import dataclass
from podyard.testing.fake_programs import KILLED, TERMINATED, Program, parse_program

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: An answer to an exec; ``None`` lets the fake interpret the command.
ExecHandler = Callable[[ContainerStatus, Sequence[str]], ExecResult | None]


@dataclass(slots=True)
class _Sandbox:
    status: PodSandbox
    config: SandboxConfig


@dataclass(slots=True)
class _Container:
    status: ContainerStatus
    config: ContainerConfig
    sandbox: SandboxConfig
    program: Program
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Trouble:
    error: Exception
    times: int


class FakeRuntime:
    """``RuntimeService`` and ``ImageService`` in one object.

    Attributes:
        images: what is on the node, by image id.
        registry: what a pull finds, by name.
        credentials: image name → the username it takes.
        programs: image id or name → what a container without known command does.
        handlers: runtime handlers besides the default one.
        events_supported: whether ``container_events`` is implemented.
        calls: the names of the methods called, in order.
        pulls: every pull that was tried, with its credential.
        exec_handler: answers execs before the fake does.
    """

    def __init__(self, *, host_files: bool = False) -> None:
        """Begin with nothing on the node.

        Args:
            host_files: write container logs and mounted files, as a runtime does.
        """
        self.images: dict[str, Image] = {}
        self.registry: dict[str, Image] = {}
        self.credentials: dict[str, str] = {}
        self.programs: dict[str, Program] = {}
        self.handlers: tuple[str, ...] = ("runc",)
        self.events_supported = True
        self.network_ready = True
        self.pull_s = 0.0
        self.calls: list[str] = []
        self.pulls: list[tuple[str, ImageAuth | None]] = []
        self.most_pulls_at_once = 0
        self.exec_handler: ExecHandler | None = None
        self.pod_cidr = ""
        self._host_files = host_files
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._listeners: list[asyncio.Queue[ContainerEvent | None]] = []
        self._trouble: dict[str, list[_Trouble]] = {}
        self._delays_s: dict[str, float] = {}
        self._is_down = False
        self._last_at = _START
        self._number = 0
        self._pulling = 0

    # -- what a test tells it

    def add_image(
        self, name: str, *, user: int | None = None, username: str = ""
    ) -> Image:
        """Put an image on the node; return it."""
        image = make_image(name, user=user, username=username)
        self.images[image.id] = image
        return image

    def fail(
        self, call: str, error: Exception | None = None, *, times: int = 1
    ) -> None:
        """Let the next calls of a CRI method (``RunPodSandbox``) raise."""
        made = error or CRIError(call, "UNKNOWN", f"{call} was told to fail")
        self._trouble.setdefault(call, []).append(_Trouble(made, times))

    def delay(self, call: str, seconds: float) -> None:
        """Let every call of a CRI method take so long; 0 ends it."""
        self._delays_s[call] = seconds

    def go_down(self) -> None:
        """Answer nothing any more; event streams break. Containers run on."""
        self._is_down = True
        for listener in self._listeners:
            listener.put_nowait(None)

    def come_up(self) -> None:
        """Answer again."""
        self._is_down = False

    def exit_container(
        self, container_id: str, exit_code: int, *, reason: str = ""
    ) -> None:
        """Let a running container end by itself."""
        container = self._containers[container_id]
        self._exit(container, exit_code, reason=reason)

    def cut_start(self, container_id: str, *, by_runtime: bool = False) -> None:
        """Let a container be as if its start's asker had died meanwhile.

        Args:
            container_id: the container.
            by_runtime: the runtime itself had died.
        """
        container = self._containers[container_id]
        container.status = replace(
            container.status,
            state=ContainerState.EXITED,
            started_at=None,
            finished_at=self._now(),
            exit_code=1 if by_runtime else 128,
            reason="Error" if by_runtime else "StartError",
            message=""
            if by_runtime
            else "failed to create shim task: context canceled: unknown",
        )

    def kill_sandbox(self, sandbox_id: str) -> None:
        """Let a sandbox die, with all that runs in it."""
        for container in self._in_sandbox(sandbox_id):
            self._exit(container, KILLED)
        self._end_sandbox(self._sandboxes[sandbox_id])

    # -- RuntimeService

    async def version(self) -> RuntimeVersion:
        """Return name and versions."""
        await self._enter("Version")
        return RuntimeVersion("fake", "1.0", "v1")

    async def status(self) -> RuntimeStatus:
        """Return conditions, handlers and features."""
        await self._enter("Status")
        return RuntimeStatus(
            conditions=(
                RuntimeCondition(RUNTIME_READY, status=True),
                RuntimeCondition(NETWORK_READY, status=self.network_ready),
            ),
            handlers=tuple(RuntimeHandler(name) for name in ("", *self.handlers)),
            cgroup_driver="cgroupfs",
        )

    async def run_pod_sandbox(self, config: SandboxConfig, handler: str) -> str:
        """Create and start a sandbox; return its id."""
        await self._enter("RunPodSandbox")
        if handler and handler not in self.handlers:
            message = f'no runtime for "{handler}" is configured'
            raise CRIError("RunPodSandbox", "UNKNOWN", message)
        key = (config.name, config.namespace, config.uid, config.attempt)
        for sandbox in self._sandboxes.values():
            known = sandbox.config
            if key == (known.name, known.namespace, known.uid, known.attempt):
                name = "_".join(str(part) for part in key)
                message = f'name "{name}" is reserved for "{sandbox.status.id}"'
                raise CRIError("RunPodSandbox", "UNKNOWN", message)
        network = config.security.namespaces.network
        sandbox_id = self._new_id()
        ips = (
            ()
            if network is NamespaceMode.NODE
            else (f"10.0.0.{self._number % 250 + 2}",)
        )
        status = PodSandbox(
            id=sandbox_id,
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            state=SandboxState.READY,
            created_at=self._now(),
            runtime_handler=handler,
            labels=dict(config.labels),
            annotations=dict(config.annotations),
            ips=ips,
            network=network,
        )
        self._sandboxes[sandbox_id] = _Sandbox(status, config)
        self._tell(ContainerEventType.CREATED, sandbox_id, config.uid)
        self._tell(ContainerEventType.STARTED, sandbox_id, config.uid)
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox and all in it; a missing one is stopped already."""
        await self._enter("StopPodSandbox")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._in_sandbox(sandbox_id):
            self._exit(container, KILLED)
        self._end_sandbox(sandbox)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox and all in it; a missing one is removed already."""
        await self._enter("RemovePodSandbox")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._in_sandbox(sandbox_id):
            self._remove(container)
        self._end_sandbox(sandbox)
        del self._sandboxes[sandbox_id]
        self._tell(ContainerEventType.DELETED, sandbox_id, sandbox.config.uid)

    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandbox:
        """Return one sandbox with its addresses; CRINotFoundError when absent."""
        await self._enter("PodSandboxStatus")
        if sandbox_id not in self._sandboxes:
            raise _not_found("PodSandboxStatus", "sandbox", sandbox_id)
        return self._sandboxes[sandbox_id].status

    async def list_pod_sandboxes(self, *, pod_uid: str = "") -> tuple[PodSandbox, ...]:
        """List sandboxes, of one Pod or all (without addresses)."""
        await self._enter("ListPodSandbox")
        return tuple(
            replace(sandbox.status, ips=(), network=NamespaceMode.POD)
            for sandbox in self._sandboxes.values()
            if not pod_uid or sandbox.status.labels.get(Label.POD_UID) == pod_uid
        )

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig
    ) -> str:
        """Create a container; return its id."""
        await self._enter("CreateContainer")
        call = "CreateContainer"
        found = self._sandboxes.get(sandbox_id)
        if found is None:
            raise _not_found(call, "sandbox", sandbox_id)
        if found.status.state is not SandboxState.READY:
            message = f'sandbox container "{sandbox_id}" is not running'
            raise CRIError(call, "UNKNOWN", message)
        for known in self._in_sandbox(sandbox_id):
            if (known.config.name, known.config.attempt) == (
                config.name,
                config.attempt,
            ):
                message = f'name "{config.name}" is reserved for "{known.status.id}"'
                raise CRIError(call, "UNKNOWN", message)
        image = self._find_image(config.image)
        if image is None:
            raise _not_found(call, "image", config.image)
        status = ContainerStatus(
            id=self._new_id(),
            name=config.name,
            sandbox_id=sandbox_id,
            attempt=config.attempt,
            state=ContainerState.CREATED,
            created_at=self._now(),
            image=next(iter(image.repo_tags), image.id),
            image_id=next(iter(image.repo_digests), image.id),
            log_path=_log_path(config, sandbox),
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )
        program = self._program(config, image)
        container = _Container(status, config, sandbox, program)
        self._containers[status.id] = container
        self._tell(ContainerEventType.CREATED, status.id, found.config.uid)
        return status.id

    def config_of(self, container_id: str) -> ContainerConfig:
        """Return what a container was created with."""
        return self._get("ContainerStatus", container_id).config

    async def start_container(self, container_id: str) -> None:
        """Start a created container."""
        await self._enter("StartContainer")
        container = self._get("StartContainer", container_id)
        if container.status.state is not ContainerState.CREATED:
            message = f"container is in {container.status.state.name} state"
            raise CRIError("StartContainer", "UNKNOWN", message)
        container.status = replace(
            container.status, state=ContainerState.RUNNING, started_at=self._now()
        )
        self._write_files(container)
        self._tell(ContainerEventType.STARTED, container_id, self._uid(container))
        runs_s = container.program.runs_s
        if runs_s is not None:
            code = container.program.exit_code
            loop = asyncio.get_running_loop()
            container.timer = loop.call_later(runs_s, self._exit, container, code)

    async def stop_container(self, container_id: str, *, grace_s: int) -> None:
        """Stop signal, wait ``grace_s``, then SIGKILL. Missing is stopped."""
        await self._enter("StopContainer")
        container = self._containers.get(container_id)
        if container is None or container.status.state is not ContainerState.RUNNING:
            return
        code = container.program.on_term
        alone = container.config.security.namespaces.pid is NamespaceMode.CONTAINER
        if code is None and not alone:
            code = TERMINATED
        if grace_s > 0 and code is not None:
            self._exit(container, code)
        elif grace_s > 0:
            try:
                async with asyncio.timeout(grace_s):
                    await container.exited.wait()
            except TimeoutError:
                self._exit(container, KILLED)
        else:
            self._exit(container, KILLED)

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, killing it if it runs. Missing is removed."""
        await self._enter("RemoveContainer")
        container = self._containers.get(container_id)
        if container is not None:
            self._remove(container)

    async def list_containers(
        self, *, pod_uid: str = ""
    ) -> tuple[ContainerStatus, ...]:
        """List containers (state, labels, annotations; no exit details)."""
        await self._enter("ListContainers")
        return tuple(
            replace(
                container.status,
                started_at=None,
                finished_at=None,
                exit_code=0,
                reason="",
                message="",
                log_path="",
            )
            for container in self._containers.values()
            if not pod_uid or container.status.pod_uid == pod_uid
        )

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Return one container in full; CRINotFoundError when absent."""
        await self._enter("ContainerStatus")
        return self._get("ContainerStatus", container_id).status

    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change the limits of a running container."""
        await self._enter("UpdateContainerResources")
        container = self._get("UpdateContainerResources", container_id)
        container.config = replace(container.config, resources=resources)

    async def reopen_container_log(self, container_id: str) -> None:
        """Make the runtime open the log file anew, after rotation."""
        await self._enter("ReopenContainerLog")
        container = self._get("ReopenContainerLog", container_id)
        if container.status.state is not ContainerState.RUNNING:
            message = "container is not running"
            raise CRIError("ReopenContainerLog", "UNKNOWN", message)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, timeout_s: float
    ) -> ExecResult:
        """Run a command; ``timeout_s`` 0 means none."""
        await self._enter("ExecSync")
        container = self._get_running("ExecSync", container_id)
        if self.exec_handler is not None:
            answer = self.exec_handler(container.status, command)
            if answer is not None:
                return answer
        program = parse_program(command)
        runs_s = program.runs_s
        if timeout_s and (runs_s is None or runs_s > timeout_s):
            await asyncio.sleep(timeout_s)
            raise TimeoutError(f"timeout {timeout_s:g}s exceeded")
        await asyncio.sleep(0 if runs_s is None else runs_s)
        stdout = "".join(f"{line}\n" for line in program.stdout).encode()
        return ExecResult(stdout=stdout, stderr=b"", exit_code=program.exit_code)

    async def exec_url(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> str:
        """Return a URL that nobody serves."""
        await self._enter("Exec")
        self._get_running("Exec", container_id)
        return f"http://127.0.0.1:1/exec/{self._new_id()[:8]}"

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Return a URL that nobody serves."""
        await self._enter("Attach")
        self._get_running("Attach", container_id)
        return f"http://127.0.0.1:1/attach/{self._new_id()[:8]}"

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Return a URL that nobody serves."""
        await self._enter("PortForward")
        if sandbox_id not in self._sandboxes:
            raise _not_found("PortForward", "sandbox", sandbox_id)
        return f"http://127.0.0.1:1/portforward/{self._new_id()[:8]}"

    async def container_stats(self) -> tuple[ContainerStats, ...]:
        """Return the usage of all running containers."""
        await self._enter("ListContainerStats")
        now = self._now()
        return tuple(
            ContainerStats(
                id=container.status.id,
                name=container.status.name,
                pod_uid=container.status.pod_uid,
                at=now,
                cpu_usage_core_ns=0,
                memory_working_set_bytes=0,
                memory_usage_bytes=0,
                memory_rss_bytes=0,
                rootfs_used_bytes=0,
                rootfs_inodes_used=0,
            )
            for container in self._containers.values()
            if container.status.state is ContainerState.RUNNING
        )

    async def container_events(self) -> AsyncGenerator[ContainerEvent, None]:
        """Stream events for ever; CRIUnimplementedError where there are none."""
        await self._enter("GetContainerEvents")
        if not self.events_supported:
            message = "unknown method GetContainerEvents"
            raise CRIUnimplementedError("GetContainerEvents", "UNIMPLEMENTED", message)
        queue: asyncio.Queue[ContainerEvent | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.remove(queue)
        raise _unavailable("GetContainerEvents")

    async def update_runtime_config(self, *, pod_cidr: str) -> None:
        """Tell the runtime the node's Pod CIDR."""
        await self._enter("UpdateRuntimeConfig")
        self.pod_cidr = pod_cidr

    # -- ImageService

    async def list_images(self) -> tuple[Image, ...]:
        """List the images on the node."""
        await self._enter("ListImages")
        return tuple(self.images.values())

    async def image_status(self, image: str) -> Image | None:
        """Return the image, or ``None`` where it is absent."""
        await self._enter("ImageStatus")
        return self._find_image(image)

    async def pull_image(
        self,
        image: str,
        *,
        auth: ImageAuth | None,
        sandbox: SandboxConfig | None = None,
        handler: str = "",
    ) -> str:
        """Pull from ``registry``; the wait is ``pull_s``."""
        self.pulls.append((image, auth))
        self._pulling += 1
        self.most_pulls_at_once = max(self.most_pulls_at_once, self._pulling)
        try:
            await self._enter("PullImage")
            await asyncio.sleep(self.pull_s)
        finally:
            self._pulling -= 1
        found = self.registry.get(image)
        if found is None:
            message = f'failed to pull image "{image}": not found'
            raise CRINotFoundError("PullImage", "NOT_FOUND", message)
        wanted = self.credentials.get(image)
        if wanted is not None and (auth is None or auth.username != wanted):
            message = f'failed to pull image "{image}": authorization failed'
            raise CRIError("PullImage", "UNKNOWN", message)
        self.images[found.id] = found
        return next(iter(found.repo_digests), found.id)

    async def remove_image(self, image: str) -> None:
        """Remove an image; a missing one is removed already."""
        await self._enter("RemoveImage")
        found = self._find_image(image)
        if found is not None:
            del self.images[found.id]

    async def image_fs_info(self) -> tuple[FilesystemUsage, ...]:
        """Return the usage of the image filesystems."""
        await self._enter("ImageFsInfo")
        used = sum(image.size_bytes for image in self.images.values())
        return (FilesystemUsage("/fake/images", used, len(self.images)),)

    # -- inside

    async def _enter(self, call: str) -> None:
        """Note a call; be slow, down or failing as told."""
        self.calls.append(call)
        await asyncio.sleep(self._delays_s.get(call, 0.0))
        if self._is_down:
            raise _unavailable(call)
        pending = self._trouble.get(call)
        if pending:
            trouble = pending[0]
            trouble.times -= 1
            if trouble.times <= 0:
                pending.pop(0)
            raise trouble.error

    def _now(self) -> datetime:
        """Return the loop's time as wall time, never the same twice."""
        at = _START + timedelta(seconds=asyncio.get_running_loop().time())
        self._last_at = max(at, self._last_at + timedelta(microseconds=1))
        return self._last_at

    def _new_id(self) -> str:
        self._number += 1
        return hashlib.sha256(str(self._number).encode()).hexdigest()

    def _get(self, call: str, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise _not_found(call, "container", container_id)
        return container

    def _get_running(self, call: str, container_id: str) -> _Container:
        container = self._get(call, container_id)
        if container.status.state is not ContainerState.RUNNING:
            message = f"container is in {container.status.state.name} state"
            raise CRIError(call, "UNKNOWN", message)
        return container

    def _in_sandbox(self, sandbox_id: str) -> list[_Container]:
        return [
            container
            for container in self._containers.values()
            if container.status.sandbox_id == sandbox_id
        ]

    def _uid(self, container: _Container) -> str:
        return container.status.pod_uid or container.sandbox.uid

    def _find_image(self, name: str) -> Image | None:
        for image in self.images.values():
            if name in {image.id, *image.repo_tags, *image.repo_digests}:
                return image
        return None

    def _program(self, config: ContainerConfig, image: Image) -> Program:
        for name in (config.user_specified_image, image.id, *image.repo_tags):
            if name in self.programs:
                return self.programs[name]
        return parse_program((*config.command, *config.args))

    def _exit(self, container: _Container, code: int, *, reason: str = "") -> None:
        if container.status.state is not ContainerState.RUNNING:
            return
        if container.timer is not None:
            container.timer.cancel()
        container.status = replace(
            container.status,
            state=ContainerState.EXITED,
            finished_at=self._now(),
            exit_code=code,
            reason=reason or ("Error" if code else "Completed"),
        )
        container.exited.set()
        uid = self._uid(container)
        self._tell(ContainerEventType.STOPPED, container.status.id, uid)

    def _remove(self, container: _Container) -> None:
        self._exit(container, KILLED)
        del self._containers[container.status.id]
        uid = self._uid(container)
        self._tell(ContainerEventType.DELETED, container.status.id, uid)

    def _end_sandbox(self, sandbox: _Sandbox) -> None:
        if sandbox.status.state is SandboxState.NOT_READY:
            return
        sandbox.status = replace(sandbox.status, state=SandboxState.NOT_READY, ips=())
        self._tell(ContainerEventType.STOPPED, sandbox.status.id, sandbox.config.uid)

    def _tell(self, kind: ContainerEventType, container_id: str, uid: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(ContainerEvent(kind, container_id, uid))

    def _write_files(self, container: _Container) -> None:
        if not self._host_files:
            return
        log = Path(container.status.log_path)
        if container.status.log_path:
            log.parent.mkdir(parents=True, exist_ok=True)
            at = self._now().strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            with log.open("a") as file:
                file.writelines(
                    f"{at} stdout F {line}\n" for line in container.program.stdout
                )
        for path, text in container.program.writes:
            for mount in container.config.mounts:
                if path == mount.container_path:
                    Path(mount.host_path).write_text(text)
                elif path.startswith(f"{mount.container_path}/"):
                    rest = path.removeprefix(f"{mount.container_path}/")
                    Path(mount.host_path, rest).write_text(text)


def make_image(name: str, *, user: int | None = None, username: str = "") -> Image:
    """Return an image with an id made from its name; digests are left out."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Image(
        id=f"sha256:{digest}",
        repo_tags=(name,),
        size_bytes=1_000_000,
        user=user,
        username=username,
    )


def _log_path(config: ContainerConfig, sandbox: SandboxConfig) -> str:
    if not config.log_path or not sandbox.log_directory:
        return ""
    return f"{sandbox.log_directory}/{config.log_path}"


def _not_found(call: str, what: str, name: str) -> CRINotFoundError:
    return CRINotFoundError(call, "NOT_FOUND", f'{what} "{name}": not found')


def _unavailable(call: str) -> CRIUnavailableError:
    return CRIUnavailableError(call, "UNAVAILABLE", "connection refused")
