"""What is left on this machine, and what Pods use of it.

The machine is asked with a few small reads. What each Pod uses is asked only when
somebody has to go, or where a Pod has a limit on its disk use.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog

from podyard.api.core_v1 import Pod
from podyard.cri.services import CRIError, ImageService, RuntimeService
from podyard.node.eviction.decide import (
    IMAGEFS_AVAILABLE,
    IMAGEFS_INODES,
    MEMORY_AVAILABLE,
    NODEFS_AVAILABLE,
    NODEFS_INODES,
    PID_AVAILABLE,
    ContainerUse,
    Observation,
    PodUse,
    empty_dirs,
)

log = structlog.get_logger()

_PROC: Final = Path("/proc")
_BLOCK_BYTES: Final = 512  # the unit of st_blocks


class Signals(Protocol):
    """Tells what is left, and who uses what."""

    async def observe(self) -> Mapping[str, Observation]:
        """Return what is left, by signal; what cannot be told is left out."""

    async def measure(self, pods: Sequence[Pod]) -> Mapping[str, PodUse]:
        """Return what Pods use, by uid; expensive."""


class Places(Protocol):
    """Where things of Pods are."""

    def logs_of(self, pod: Pod) -> Path:
        """Return the directory of a Pod's logs."""

    def empty_dir(self, uid: str, volume: str) -> Path:
        """Return where a Pod's emptyDir is."""

    def process_count(self, pod: Pod) -> int:
        """Return how many processes a Pod has. Blocks."""


class HostSignals:
    """This machine.

    Args:
        runtime: tells what containers use.
        images: tells where images are.
        nodefs: a directory on the filesystem of volumes and logs.
        places: where things of Pods are.
        proc: where the kernel tells of itself.
    """

    def __init__(
        self,
        runtime: RuntimeService,
        images: ImageService,
        nodefs: Path,
        places: Places,
        *,
        proc: Path = _PROC,
    ) -> None:
        self._runtime = runtime
        self._images = images
        self._nodefs = nodefs
        self._places = places
        self._proc = proc
        self._imagefs: tuple[str, ...] | None = None

    async def observe(self) -> Mapping[str, Observation]:
        """Return what is left, by signal; what cannot be told is left out."""
        if self._imagefs is None:
            try:
                found = await self._images.image_fs_info()
                self._imagefs = tuple(item.mountpoint for item in found)
            except CRIError as error:
                log.warning("imagefs_unknown", error=error.message)
        return await asyncio.to_thread(self._observe, self._imagefs or ())

    def _observe(self, imagefs: Iterable[str]) -> dict[str, Observation]:
        seen: dict[str, Observation] = {}
        readers: list[tuple[Callable[[], Observation | None], str]] = [
            (self._memory, MEMORY_AVAILABLE),
            (self._pids, PID_AVAILABLE),
            (partial(_space, self._nodefs), NODEFS_AVAILABLE),
            (partial(_inodes, self._nodefs), NODEFS_INODES),
        ]
        for place in imagefs:
            readers.append((partial(_space, Path(place)), IMAGEFS_AVAILABLE))
            readers.append((partial(_inodes, Path(place)), IMAGEFS_INODES))
        for read, signal in readers:
            try:
                found = read()
            except (OSError, ValueError) as error:
                log.warning("signal_unknown", signal=signal, error=str(error))
                continue
            if found is not None:
                seen[signal] = found
        return seen

    def _memory(self) -> Observation:
        fields: dict[str, int] = {}
        for line in (self._proc / "meminfo").read_text().splitlines()[:5]:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0]) * 1024
        return Observation(fields["MemAvailable"], fields["MemTotal"])

    def _pids(self) -> Observation:
        kernel = self._proc / "sys/kernel"
        most = min(
            int((kernel / "pid_max").read_text()),
            int((kernel / "threads-max").read_text()),
        )
        tasks = (self._proc / "loadavg").read_text().split()[3].partition("/")[2]
        return Observation(most - int(tasks), most)

    async def measure(self, pods: Sequence[Pod]) -> Mapping[str, PodUse]:
        """Return what Pods use, by uid; expensive."""
        uids = {pod.uid for pod in pods}
        containers: dict[str, dict[str, ContainerUse]] = {}
        try:
            for stats in await self._runtime.container_stats():
                if stats.pod_uid in uids:
                    containers.setdefault(stats.pod_uid, {})[stats.name] = ContainerUse(
                        stats.memory_working_set_bytes or 0,
                        stats.rootfs_used_bytes or 0,
                        stats.rootfs_inodes_used or 0,
                    )
        except CRIError as error:
            log.warning("usage_unknown", error=error.message)
        return await asyncio.to_thread(self._measure, tuple(pods), containers)

    def _measure(
        self, pods: Iterable[Pod], containers: Mapping[str, dict[str, ContainerUse]]
    ) -> dict[str, PodUse]:
        return {
            pod.uid: self._measure_pod(pod, containers.get(pod.uid, {})) for pod in pods
        }

    def _measure_pod(self, pod: Pod, containers: dict[str, ContainerUse]) -> PodUse:
        logs = self._places.logs_of(pod)
        for name, use in list(containers.items()):
            written, _ = measure_tree(logs / name)
            containers[name] = ContainerUse(
                use.memory_bytes, use.rootfs_bytes, use.rootfs_inodes, written
            )
        volumes: dict[str, int] = {}
        inodes = 0
        for name, _source in empty_dirs(pod):
            volumes[name], files = measure_tree(self._places.empty_dir(pod.uid, name))
            inodes += files
        return PodUse(containers, volumes, inodes, self._places.process_count(pod))


def _space(path: Path) -> Observation | None:
    found = os.statvfs(path)
    if not found.f_blocks:
        return None
    return Observation(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _inodes(path: Path) -> Observation | None:
    found = os.statvfs(path)
    # Some filesystems (btrfs) make inodes as they need them and count none.
    return Observation(found.f_favail, found.f_files) if found.f_files else None


def measure_tree(top: Path) -> tuple[int, int]:
    """Return the bytes on disk and the files below a directory. Blocks.

    Other filesystems mounted inside do not count, files with several names once.
    What vanishes meanwhile, or may not be read, is left out.
    """
    try:
        device = top.stat().st_dev
    except OSError:
        return 0, 0
    used, files = 0, 0
    seen: set[int] = set()
    waiting = [str(top)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if found.st_ino in seen:
                            continue
                        seen.add(found.st_ino)
                    used += found.st_blocks * _BLOCK_BYTES
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return used, files
