"""The floor: the same CRI calls made directly, with CNI, on the same containerd."""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from podyard.api.runtime import ContainerConfig, Label, SandboxConfig
from podyard.cri.client import CriChannel, GrpcRuntimeService

IMAGE = "podyard.local/busybox:1.35"


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

    async def start(self) -> FloorPod:
        """Run a sandbox and a container in it; the time is until it runs."""
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
