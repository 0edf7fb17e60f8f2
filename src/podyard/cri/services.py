"""The seam: what the agent may ask of a container runtime.

Two small services in our own types, after CRI v1. Every call may be repeated
safely where CRI demands it; the docstrings say which error means what.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from podyard.api.observed import (
    ContainerEvent,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    FilesystemUsage,
    Image,
    PodSandbox,
    RuntimeStatus,
    RuntimeVersion,
)
from podyard.api.runtime import (
    ContainerConfig,
    ImageAuth,
    LinuxResources,
    SandboxConfig,
)


class CRIError(Exception):
    """A CRI call failed.

    Attributes:
        call: the method, ``RunPodSandbox``.
        code: the gRPC status name, ``UNKNOWN``.
        message: the runtime's own words.
    """

    def __init__(self, call: str, code: str, message: str) -> None:
        super().__init__(message)
        self.call = call
        self.code = code
        self.message = message

    @property
    def rpc_text(self) -> str:
        """The text as a kubelet shows it."""
        name = "".join(part.capitalize() for part in self.code.split("_"))
        return f"rpc error: code = {name} desc = {self.message}"


class CRINotFoundError(CRIError):
    """The sandbox, container or image does not exist."""


class CRIUnavailableError(CRIError):
    """Nobody answers at the socket, or not within the deadline."""


class CRIUnimplementedError(CRIError):
    """This runtime does not have the call."""


class RuntimeService(Protocol):
    """``runtime.v1.RuntimeService``. Every method may raise :class:`CRIError`."""

    async def version(self) -> RuntimeVersion:
        """Return name and versions."""

    async def status(self) -> RuntimeStatus:
        """Return conditions, handlers and features."""

    async def run_pod_sandbox(self, config: SandboxConfig, handler: str) -> str:
        """Create and start a sandbox; return its id."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox and all in it; a missing one is stopped already."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox and all in it; a missing one is removed already."""

    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandbox:
        """Return one sandbox with its addresses; CRINotFoundError when absent."""

    async def list_pod_sandboxes(self, *, pod_uid: str = "") -> tuple[PodSandbox, ...]:
        """List sandboxes, of one Pod or all (without addresses)."""

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig
    ) -> str:
        """Create a container; return its id."""

    async def start_container(self, container_id: str) -> None:
        """Start a created container."""

    async def stop_container(self, container_id: str, *, grace_s: int) -> None:
        """Stop signal, wait ``grace_s``, then SIGKILL. Missing is stopped."""

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, killing it if it runs. Missing is removed."""

    async def list_containers(
        self, *, pod_uid: str = ""
    ) -> tuple[ContainerStatus, ...]:
        """List containers (state, labels, annotations; no exit details)."""

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Return one container in full; CRINotFoundError when absent."""

    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change the limits of a running container."""

    async def reopen_container_log(self, container_id: str) -> None:
        """Make the runtime open the log file anew, after rotation."""

    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, timeout_s: float
    ) -> ExecResult:
        """Run a command; ``timeout_s`` 0 means none.

        Raises:
            TimeoutError: the command ran longer than ``timeout_s``.
        """

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

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Return a one-time streaming URL for an attach."""

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Return a one-time streaming URL for port forwarding."""

    async def container_stats(self) -> tuple[ContainerStats, ...]:
        """Return the usage of all running containers."""

    def container_events(self) -> AsyncIterator[ContainerEvent]:
        """Stream events for ever; CRIUnimplementedError where there are none."""

    async def update_runtime_config(self, *, pod_cidr: str) -> None:
        """Tell the runtime the node's Pod CIDR."""


class ImageService(Protocol):
    """``runtime.v1.ImageService``. Every method may raise :class:`CRIError`."""

    async def list_images(self) -> tuple[Image, ...]:
        """List the images on the node."""

    async def image_status(self, image: str) -> Image | None:
        """Return the image, or ``None`` where it is absent."""

    async def pull_image(
        self,
        image: str,
        *,
        auth: ImageAuth | None,
        sandbox: SandboxConfig | None = None,
        handler: str = "",
    ) -> str:
        """Pull; return the image ref. Cancelling the call cancels the pull."""

    async def remove_image(self, image: str) -> None:
        """Remove an image; a missing one is removed already."""

    async def image_fs_info(self) -> tuple[FilesystemUsage, ...]:
        """Return the usage of the image filesystems."""
