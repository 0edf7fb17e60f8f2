"""The CRI runtime an instance uses: its private containerd, or a given endpoint."""

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self

import structlog

from podyard.api.observed import RuntimeVersion
from podyard.app.config import Config
from podyard.app.guarded_images import GuardedImages
from podyard.app.host import Host
from podyard.app.instances import Instance
from podyard.app.private_runtime import (
    PROXY_VARIABLES,
    PrivateRuntime,
    RuntimeWishes,
)
from podyard.app.registries import write_hosts
from podyard.app.runtime_events import ContainerdRuntimeService
from podyard.containerd.client import ContainerdError
from podyard.containerd.events import ContainerdEvents
from podyard.containerd.own_images import (
    ImageSpec,
    busybox_image,
    is_static_program,
)
from podyard.containerd.supervise import ContainerdStartError
from podyard.cri.client import CriChannel, GrpcImageService, GrpcRuntimeService
from podyard.cri.services import CRIError, RuntimeService
from podyard.lib.aio import supervise
from podyard.lib.clock import Clock

log = structlog.get_logger()

#: Made from a static busybox; the examples and the first steps run it.
DEMO_IMAGE: Final = "podyard.local/busybox:1.35"


#: The first containerd and CRI-O that mount images as volumes.
_IMAGE_VOLUMES: Final = {"containerd": (2, 1), "cri-o": (1, 31)}


def mounts_images(version: RuntimeVersion) -> bool:
    """Say whether a runtime mounts images as volumes, as far as is known."""
    first = _IMAGE_VOLUMES.get(version.runtime_name)
    if first is None:
        return False
    numbers = version.runtime_version.removeprefix("v").split(".")[:2]
    return tuple(int(part) for part in numbers if part.isdigit()) >= first


class RuntimeStartError(Exception):
    """The runtime cannot be used; the message says why and what to do."""


class Runtime:
    """A runtime that answers; use it as an async context manager.

    Attributes:
        runtime: containers.
        images: images.
        private: the private containerd, or ``None`` with a given endpoint.
        description: one line for people.
    """

    def __init__(
        self,
        channel: CriChannel,
        runtime: RuntimeService,
        *,
        config: Config,
        private: PrivateRuntime | None,
        description: str,
    ) -> None:
        self._channel = channel
        self.runtime = runtime
        self.images = GuardedImages(GrpcImageService(channel), config)
        self.private = private
        self.description = description
        self._stack = AsyncExitStack()

    async def image_environment(self, image: str) -> tuple[str, ...]:
        """Return an image's own variables, ``NAME=value``; none where unknown.

        Raises:
            CRIError: the runtime could not be asked.
        """
        return await GrpcImageService(self._channel).image_environment(image)

    async def container_environment(self, container_id: str) -> tuple[str, ...]:
        """Return a container's variables, ``NAME=value``; none where unknown.

        Raises:
            CRIError: the runtime could not be asked.
        """
        service = GrpcRuntimeService(self._channel)
        return await service.container_environment(container_id)

    async def __aenter__(self) -> Self:
        """Begin to watch over a private containerd."""
        self._stack.push_async_callback(self._channel.close)
        if self.private is not None:
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            watching = group.create_task(
                supervise(
                    self.private.watch,
                    restart_after_s=1,
                    on_crash=partial(log.error, "containerd_watch_crashed"),
                )
            )
            self._stack.callback(watching.cancel)
            group.create_task(_bring_demo_image(self.private))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the channel; a private containerd and its containers run on."""
        await self._stack.aclose()


async def open_runtime(
    config: Config, row: Instance, host: Host, *, clock: Clock
) -> Runtime:
    """Start or adopt the private containerd, or connect to the given endpoint.

    Raises:
        RuntimeStartError: it does not come up or does not answer.
    """
    if config.runtime_endpoint:
        return await _open_endpoint(config)
    try:
        private = await asyncio.to_thread(
            partial(PrivateRuntime, row, host, clock=clock, wishes=_wishes(config))
        )
        hosts = Path(private.containerd.config.registry_dir)
        await asyncio.to_thread(write_hosts, hosts, config.registries)
        started = await private.start()
    except (ContainerdStartError, ContainerdError, OSError) as error:
        raise RuntimeStartError(str(error)) from error
    channel = CriChannel(private.endpoint)
    runtime = ContainerdRuntimeService(
        channel, ContainerdEvents(private.containerd.config.socket)
    )
    what = "adopted" if started.adopted else "started"
    return Runtime(
        channel,
        runtime,
        config=config,
        private=private,
        description=f"containerd {what}",
    )


async def _bring_demo_image(private: PrivateRuntime) -> None:
    """Have the demo image in the private runtime, where a static busybox is found."""
    try:
        image = await asyncio.to_thread(demo_image)
        if image is not None:
            await private.importer.ensure(image, labels={})
    except (ContainerdError, OSError, subprocess.SubprocessError):
        # Nothing but the demo needs it.
        log.warning("demo_image_missing", exc_info=True)


def demo_image() -> ImageSpec | None:
    """Return the demo image, or ``None`` where no static busybox is found (blocking).

    Set-up unpacks one beside the virtual environment.
    """
    for path in (Path(sys.prefix) / "tools" / "busybox", Path("/bin/busybox")):
        if path.is_file() and is_static_program(path):
            listed = subprocess.run(
                [path, "--list"], capture_output=True, text=True, check=True, timeout=10
            )
            return busybox_image(path, listed.stdout.split(), name=DEMO_IMAGE)
    return None


async def _open_endpoint(config: Config) -> Runtime:
    endpoint = config.runtime_endpoint
    if not endpoint.startswith(("unix://", "/")):
        raise RuntimeStartError(
            f'--runtime-endpoint: "{endpoint}" must be a unix socket, such as '
            "unix:///run/containerd/containerd.sock"
        )
    url = endpoint if endpoint.startswith("unix://") else f"unix://{endpoint}"
    socket = url.removeprefix("unix://")
    if not await asyncio.to_thread(Path(socket).is_socket):
        raise RuntimeStartError(f"--runtime-endpoint: there is no socket at {socket}")
    channel = CriChannel(url)
    runtime: RuntimeService = GrpcRuntimeService(channel)
    try:
        version = await runtime.version()
    except CRIError as error:
        await channel.close()
        raise RuntimeStartError(
            f"--runtime-endpoint: {socket} does not speak CRI v1: {error.message}"
        ) from error
    if version.runtime_name == "containerd":
        runtime = ContainerdRuntimeService(channel, ContainerdEvents(socket))
    return Runtime(
        channel,
        runtime,
        config=config,
        private=None,
        description=f"{version.runtime_name} {version.runtime_version} at {socket}",
    )


def _wishes(config: Config) -> RuntimeWishes:
    return RuntimeWishes(
        cgroup_driver=config.cgroup_driver,
        cni_bin_dir=Path(config.runtime_cni_bin_dir)
        if config.runtime_cni_bin_dir
        else None,
        runtimes=config.runtimes,
        environment={
            name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ
        },
    )
