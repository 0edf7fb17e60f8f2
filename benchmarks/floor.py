"""The floor: the same CRI calls made directly, with CNI, on a containerd of its own.

A second private containerd with the same settings, because an agent would end Pods
that nobody has told it of.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from podyard.api.runtime import ContainerConfig, EnvVar, Label, SandboxConfig
from podyard.app.config import Config
from podyard.app.host import observe_host
from podyard.app.instances import InstanceTable, Wishes
from podyard.app.private_runtime import PrivateRuntime, prepare_network
from podyard.app.runtimes import DEMO_IMAGE, demo_image
from podyard.app.teardown import remove_instance
from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.lib.clock import SystemClock
from podyard.network.bridge import HostSysctls

IMAGE = DEMO_IMAGE
NAME = "bench-floor"


@dataclass
class FloorPod:
    """A sandbox with one container."""

    sandbox_id: str
    container_id: str
    start_s: float


class Floor:
    """Makes and removes Pods by CRI alone."""

    def __init__(self, socket: Path, cgroup_root: str, logs: Path) -> None:
        self._channel = CriChannel(f"unix://{socket}")
        self._runtime = GrpcRuntimeService(self._channel)
        self._cgroup = f"{cgroup_root}/floor"
        self._logs = logs

    async def start(self, envs: Sequence[EnvVar] = ()) -> FloorPod:
        """Run a sandbox and a container in it; the time is until it runs.

        Args:
            envs: the variables of the container.
        """
        uid = str(uuid.uuid4())
        labels = {
            Label.POD_NAME: f"floor-{uid}",
            Label.POD_NAMESPACE: "floor",
            Label.POD_UID: uid,
        }
        sandbox = SandboxConfig(
            name=f"floor-{uid}",
            namespace="floor",
            uid=uid,
            hostname="floor",
            log_directory=str(self._logs / uid),
            labels=labels,
            cgroup_parent=self._cgroup,
        )
        container = ContainerConfig(
            name="c",
            attempt=0,
            image=IMAGE,
            command=("sleep", "3600"),
            labels={**labels, Label.CONTAINER_NAME: "c"},
            log_path="c/0.log",
            envs=tuple(envs),
        )
        (self._logs / uid / "c").mkdir(parents=True)
        begin = time.perf_counter()
        sandbox_id = await self._runtime.run_pod_sandbox(sandbox, "")
        container_id = await self._runtime.create_container(
            sandbox_id, container, sandbox
        )
        await self._runtime.start_container(container_id)
        return FloorPod(sandbox_id, container_id, time.perf_counter() - begin)

    async def remove(self, pod: FloorPod) -> None:
        """Stop and remove it, without grace."""
        await self._runtime.stop_container(pod.container_id, grace_s=0)
        await self._runtime.remove_container(pod.container_id)
        await self._runtime.stop_pod_sandbox(pod.sandbox_id)
        await self._runtime.remove_pod_sandbox(pod.sandbox_id)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


@asynccontextmanager
async def floor_runtime(scratch: Path) -> AsyncIterator[Floor]:
    """Start a private containerd and take it away again."""
    data_dir = scratch / "floor"
    data_dir.mkdir()
    table = InstanceTable()
    row = table.allocate(NAME, Wishes(data_dir, 0, 0))
    try:
        prepare_network(row, HostSysctls(table.sysctl_record))
        runtime = PrivateRuntime(row, observe_host(), clock=SystemClock())
        await runtime.start()
        image = demo_image()
        if image is None:
            raise RuntimeError("a static busybox is needed: run scripts/setup run")
        await runtime.importer.ensure(image, labels={})
        floor = Floor(row.containerd_socket, row.cgroup_root, data_dir / "logs")
        try:
            yield floor
        finally:
            await floor.close()
            await runtime.containerd.stop()
    finally:
        await remove_instance(Config(name=NAME, data_dir=data_dir), grace_s=0)
        await asyncio.sleep(0)
