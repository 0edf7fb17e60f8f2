"""CRI v1 over gRPC on a unix socket: one channel, two services.

Deadlines are the kubelet's (two minutes; four for a sandbox; grace or timeout on top
where the call waits for a process). A call made while nobody answers fails at once
with ``CRIUnavailableError``: the agent reports a runtime that is down rather than
hanging on it. The channel itself keeps trying, 50 ms to one second apart, so that a
restarted runtime is met again quickly.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from podyard.api.observed import (
    ContainerEvent,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    FilesystemUsage,
    Image,
    PodSandbox,
    RuntimeHandler,
    RuntimeStatus,
    RuntimeVersion,
)
from podyard.api.runtime import (
    ContainerConfig,
    ImageAuth,
    Label,
    LinuxResources,
    SandboxConfig,
)
from podyard.cri import convert
from podyard.cri.errors import to_cri_error
from podyard.cri.proto import podyard_cri_pb2 as pb
from podyard.cri.services import (
    CRIError,
    CRINotFoundError,
    CRIUnavailableError,
    CRIUnimplementedError,
)

_Answer = TypeVar("_Answer", bound=Message)

#: Deadline of a call that says nothing else, seconds.
CALL_TIMEOUT_S: Final = 120.0
#: Deadline of RunPodSandbox, seconds.
SANDBOX_TIMEOUT_S: Final = 240.0

_RUNTIME: Final = "/runtime.v1.RuntimeService/"
_IMAGE: Final = "/runtime.v1.ImageService/"
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

_CHANNEL_OPTIONS: Final = (
    # A socket path is no valid authority; Go servers answer it with a protocol error.
    ("grpc.default_authority", "localhost"),
    # The "min" backoff is gRPC's deadline of a connection attempt (20 s): left alone,
    # so that a busy runtime that is slow to greet is waited for.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)


class CriChannel:
    """One gRPC channel to a runtime; both services share it.

    Make and close it in the same event loop.
    """

    def __init__(self, endpoint: str) -> None:
        """Open lazily: the first call connects.

        Args:
            endpoint: ``unix:///run/x.sock`` or a bare path.
        """
        target = endpoint if "://" in endpoint else f"unix://{endpoint}"
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._calls: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}

    async def close(self) -> None:
        """End the channel; calls under way are cancelled."""
        await self._channel.close()

    async def call(
        self,
        path: str,
        request: Message,
        answer: type[_Answer],
        *,
        timeout_s: float | None = CALL_TIMEOUT_S,
    ) -> _Answer:
        """Make one call.

        Raises:
            CRIError: of the family in ``cri.services``.
        """
        call = self._calls.get(path)
        if call is None:
            call = self._channel.unary_unary(
                path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            self._calls[path] = call
        try:
            reply = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as failure:
            raise to_cri_error(path.rpartition("/")[2], failure) from failure
        assert isinstance(reply, answer)
        return reply

    async def stream(
        self, path: str, request: Message, answer: type[_Answer]
    ) -> AsyncGenerator[_Answer, None]:
        """Iterate over a server's stream, without deadline.

        Raises:
            CRIError: of the family in ``cri.services``.
        """
        call = self._channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request)
        try:
            async for item in call:
                yield item
        except grpc.aio.AioRpcError as failure:
            raise to_cri_error(path.rpartition("/")[2], failure) from failure
        finally:
            call.cancel()


class GrpcRuntimeService:
    """``RuntimeService`` over gRPC."""

    def __init__(self, channel: CriChannel) -> None:
        """Speak over ``channel``, which the caller closes."""
        self._channel = channel
        self._handlers: tuple[RuntimeHandler, ...] | None = None
        self._cgroup_driver = ""
        self._sandbox_of: dict[str, str] = {}

    async def version(self) -> RuntimeVersion:
        """Return name and versions."""
        reply = await self._call("Version", pb.VersionRequest(), pb.VersionResponse)
        return RuntimeVersion(
            runtime_name=reply.runtime_name,
            runtime_version=reply.runtime_version,
            runtime_api_version=reply.runtime_api_version,
        )

    async def status(self) -> RuntimeStatus:
        """Return conditions, handlers and features.

        What only the verbose form tells is asked once per runtime start.
        """
        first = self._handlers is None
        try:
            reply = await self._call(
                "Status", pb.StatusRequest(verbose=first), pb.StatusResponse
            )
            if first:
                await self._learn(reply)
        except CRIUnavailableError:
            self._handlers = None
            raise
        return convert.from_status(
            reply,
            known_handlers=self._handlers or (),
            cgroup_driver=self._cgroup_driver,
        )

    async def _learn(self, reply: pb.StatusResponse) -> None:
        handlers, driver = convert.runtime_info(reply.info)
        try:
            config = await self._call(
                "RuntimeConfig", pb.RuntimeConfigRequest(), pb.RuntimeConfigResponse
            )
            if config.HasField("linux"):
                systemd = config.linux.cgroup_driver == pb.CgroupDriver.SYSTEMD
                driver = "systemd" if systemd else "cgroupfs"
        except CRIUnimplementedError:
            pass  # before containerd 2.0
        self._handlers = handlers
        self._cgroup_driver = driver

    async def run_pod_sandbox(self, config: SandboxConfig, handler: str) -> str:
        """Create and start a sandbox; return its id."""
        request = pb.RunPodSandboxRequest(
            config=convert.to_sandbox_config(config), runtime_handler=handler
        )
        reply = await self._call(
            "RunPodSandbox",
            request,
            pb.RunPodSandboxResponse,
            timeout_s=SANDBOX_TIMEOUT_S,
        )
        return reply.pod_sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox and all in it; a missing one is stopped already."""
        request = pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._call_gone("StopPodSandbox", request, pb.StopPodSandboxResponse)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox and all in it; a missing one is removed already."""
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._call_gone("RemovePodSandbox", request, pb.RemovePodSandboxResponse)

    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandbox:
        """Return one sandbox with its addresses; CRINotFoundError when absent."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        reply = await self._call(
            "PodSandboxStatus", request, pb.PodSandboxStatusResponse
        )
        return convert.from_sandbox_status(reply.status)

    async def list_pod_sandboxes(self, *, pod_uid: str = "") -> tuple[PodSandbox, ...]:
        """List sandboxes, of one Pod or all (without addresses)."""
        request = pb.ListPodSandboxRequest()
        if pod_uid:
            request.filter.label_selector[Label.POD_UID] = pod_uid
        reply = await self._call("ListPodSandbox", request, pb.ListPodSandboxResponse)
        return tuple(convert.from_sandbox(item) for item in reply.items)

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig
    ) -> str:
        """Create a container; return its id."""
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=convert.to_container_config(config),
            sandbox_config=convert.to_sandbox_config(sandbox),
        )
        reply = await self._call("CreateContainer", request, pb.CreateContainerResponse)
        self._sandbox_of[reply.container_id] = sandbox_id
        return reply.container_id

    async def start_container(self, container_id: str) -> None:
        """Start a created container."""
        request = pb.StartContainerRequest(container_id=container_id)
        await self._call("StartContainer", request, pb.StartContainerResponse)

    async def stop_container(self, container_id: str, *, grace_s: int) -> None:
        """Stop signal, wait ``grace_s``, then SIGKILL. Missing is stopped."""
        request = pb.StopContainerRequest(container_id=container_id, timeout=grace_s)
        await self._call_gone(
            "StopContainer",
            request,
            pb.StopContainerResponse,
            timeout_s=CALL_TIMEOUT_S + grace_s,
        )

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, killing it if it runs. Missing is removed."""
        request = pb.RemoveContainerRequest(container_id=container_id)
        await self._call_gone("RemoveContainer", request, pb.RemoveContainerResponse)
        self._sandbox_of.pop(container_id, None)

    async def list_containers(
        self, *, pod_uid: str = ""
    ) -> tuple[ContainerStatus, ...]:
        """List containers (state, labels, annotations; no exit details)."""
        request = pb.ListContainersRequest()
        if pod_uid:
            request.filter.label_selector[Label.POD_UID] = pod_uid
        reply = await self._call("ListContainers", request, pb.ListContainersResponse)
        if not pod_uid:
            self._sandbox_of.clear()
        self._sandbox_of.update((c.id, c.pod_sandbox_id) for c in reply.containers)
        return tuple(convert.from_container(item) for item in reply.containers)

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Return one container in full; CRINotFoundError when absent."""
        request = pb.ContainerStatusRequest(container_id=container_id)
        reply = await self._call("ContainerStatus", request, pb.ContainerStatusResponse)
        sandbox_id = self._sandbox_of.get(container_id)
        if sandbox_id is None:
            sandbox_id = await self._find_sandbox(container_id)
        return convert.from_container_status(reply.status, sandbox_id=sandbox_id)

    async def container_environment(self, container_id: str) -> tuple[str, ...]:
        """Return a container's variables, ``NAME=value``; none where unknown.

        Not a field of CRI: containerd and CRI-O tell it in the verbose status. It
        holds values of Secrets.
        """
        request = pb.ContainerStatusRequest(container_id=container_id, verbose=True)
        reply = await self._call("ContainerStatus", request, pb.ContainerStatusResponse)
        return convert.container_environment(reply.info)

    async def _find_sandbox(self, container_id: str) -> str:
        """Ask a list, since the status message does not name the sandbox."""
        request = pb.ListContainersRequest()
        request.filter.id = container_id
        reply = await self._call("ListContainers", request, pb.ListContainersResponse)
        for item in reply.containers:
            self._sandbox_of[item.id] = item.pod_sandbox_id
            return item.pod_sandbox_id
        message = f"no container {container_id} in the list"
        raise CRINotFoundError("ContainerStatus", "NOT_FOUND", message)

    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change the limits of a running container."""
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, linux=convert.to_resources(resources)
        )
        await self._call(
            "UpdateContainerResources", request, pb.UpdateContainerResourcesResponse
        )

    async def reopen_container_log(self, container_id: str) -> None:
        """Make the runtime open the log file anew, after rotation."""
        request = pb.ReopenContainerLogRequest(container_id=container_id)
        await self._call("ReopenContainerLog", request, pb.ReopenContainerLogResponse)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, timeout_s: float
    ) -> ExecResult:
        """Run a command; ``timeout_s`` 0 means none.

        CRI counts whole seconds, so a fraction is rounded up.

        Raises:
            TimeoutError: the command ran longer than ``timeout_s``.
        """
        whole_s = math.ceil(timeout_s)
        request = pb.ExecSyncRequest(
            container_id=container_id, cmd=command, timeout=whole_s
        )
        deadline_s = CALL_TIMEOUT_S + whole_s if whole_s else None
        try:
            reply = await self._call(
                "ExecSync", request, pb.ExecSyncResponse, timeout_s=deadline_s
            )
        except CRIError as error:
            if error.code == grpc.StatusCode.DEADLINE_EXCEEDED.name:
                raise TimeoutError(error.message) from error
            raise
        return ExecResult(
            stdout=reply.stdout, stderr=reply.stderr, exit_code=reply.exit_code
        )

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
        """Return a one-time streaming URL for an exec."""
        request = pb.ExecRequest(
            container_id=container_id,
            cmd=command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
        )
        return (await self._call("Exec", request, pb.ExecResponse)).url

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Return a one-time streaming URL for an attach."""
        request = pb.AttachRequest(
            container_id=container_id,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
        )
        return (await self._call("Attach", request, pb.AttachResponse)).url

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Return a one-time streaming URL for port forwarding."""
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        return (await self._call("PortForward", request, pb.PortForwardResponse)).url

    async def container_stats(self) -> tuple[ContainerStats, ...]:
        """Return the usage of all running containers."""
        reply = await self._call(
            "ListContainerStats",
            pb.ListContainerStatsRequest(),
            pb.ListContainerStatsResponse,
        )
        return tuple(convert.from_stats(item) for item in reply.stats)

    async def container_events(self) -> AsyncGenerator[ContainerEvent, None]:
        """Stream events for ever; CRIUnimplementedError where there are none."""
        stream = self._channel.stream(
            _RUNTIME + "GetContainerEvents",
            pb.GetEventsRequest(),
            pb.ContainerEventResponse,
        )
        async for item in stream:
            yield convert.from_event(item)

    async def update_runtime_config(self, *, pod_cidr: str) -> None:
        """Tell the runtime the node's Pod CIDR."""
        request = pb.UpdateRuntimeConfigRequest(
            runtime_config=pb.RuntimeConfig(
                network_config=pb.NetworkConfig(pod_cidr=pod_cidr)
            )
        )
        await self._call("UpdateRuntimeConfig", request, pb.UpdateRuntimeConfigResponse)

    async def _call(
        self,
        method: str,
        request: Message,
        answer: type[_Answer],
        *,
        timeout_s: float | None = CALL_TIMEOUT_S,
    ) -> _Answer:
        return await self._channel.call(
            _RUNTIME + method, request, answer, timeout_s=timeout_s
        )

    async def _call_gone(
        self,
        method: str,
        request: Message,
        answer: type[_Answer],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Make a call whose purpose is met when the thing does not exist."""
        try:
            await self._call(method, request, answer, timeout_s=timeout_s)
        except CRINotFoundError:
            return


class GrpcImageService:
    """``ImageService`` over gRPC."""

    def __init__(self, channel: CriChannel) -> None:
        """Speak over ``channel``, which the caller closes."""
        self._channel = channel

    async def list_images(self) -> tuple[Image, ...]:
        """List the images on the node."""
        reply = await self._channel.call(
            _IMAGE + "ListImages", pb.ListImagesRequest(), pb.ListImagesResponse
        )
        return tuple(convert.from_image(image) for image in reply.images)

    async def image_status(self, image: str) -> Image | None:
        """Return the image, or ``None`` where it is absent."""
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
        try:
            reply = await self._channel.call(
                _IMAGE + "ImageStatus", request, pb.ImageStatusResponse
            )
        except CRINotFoundError:
            return None
        return convert.from_image(reply.image) if reply.HasField("image") else None

    async def image_environment(self, image: str) -> tuple[str, ...]:
        """Return an image's own variables, ``NAME=value``; none where unknown.

        Not a field of CRI: containerd and CRI-O tell it in the verbose status.
        """
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image), verbose=True)
        try:
            reply = await self._channel.call(
                _IMAGE + "ImageStatus", request, pb.ImageStatusResponse
            )
        except CRINotFoundError:
            return ()
        return convert.image_environment(reply.info)

    async def pull_image(
        self,
        image: str,
        *,
        auth: ImageAuth | None,
        sandbox: SandboxConfig | None = None,
        handler: str = "",
    ) -> str:
        """Pull; return the image ref. Cancelling the call cancels the pull.

        There is no deadline: only the caller knows how large an image may be.
        """
        config = None if sandbox is None else convert.to_sandbox_config(sandbox)
        request = pb.PullImageRequest(
            image=pb.ImageSpec(image=image, runtime_handler=handler),
            auth=convert.to_auth(auth),
            sandbox_config=config,
        )
        reply = await self._channel.call(
            _IMAGE + "PullImage", request, pb.PullImageResponse, timeout_s=None
        )
        return reply.image_ref

    async def remove_image(self, image: str) -> None:
        """Remove an image; a missing one is removed already."""
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=image))
        try:
            await self._channel.call(
                _IMAGE + "RemoveImage", request, pb.RemoveImageResponse
            )
        except CRINotFoundError:
            return

    async def image_fs_info(self) -> tuple[FilesystemUsage, ...]:
        """Return the usage of the image filesystems."""
        reply = await self._channel.call(
            _IMAGE + "ImageFsInfo", pb.ImageFsInfoRequest(), pb.ImageFsInfoResponse
        )
        return tuple(convert.from_filesystem(item) for item in reply.image_filesystems)
