"""Container logs that grow: rotate, compress, drop the oldest.

Source: Kubernetes docs "Logging Architecture" (log rotation) and
``pkg/kubelet/logs`` (v1.36).
"""

import asyncio
import gzip
import shutil
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from podyard.cri.services import CRIError
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass

log = structlog.get_logger()

_T = TypeVar("_T")

#: Between looks at the sizes of logs, seconds.
CHECK_S: Final = 10.0
_STAMP: Final = "%Y%m%d-%H%M%S"


@dataclass(frozen=True, slots=True)
class RotationSettings:
    """When logs are rotated (``containerLogMaxSize``, ``containerLogMaxFiles``)."""

    max_bytes: int = 10 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """The log of a running container."""

    container_id: str
    path: Path


class LogReopener(Protocol):
    """Who has the runtime open a log anew."""

    async def reopen_container_log(self, container_id: str) -> None:
        """Make the runtime open the log file anew, after rotation."""


class Blocking(Protocol):
    """Runs a blocking function where it does not block the loop."""

    def __call__(self, function: Callable[..., _T], /, *args: object) -> Awaitable[_T]:
        """Return the function's result once it is there."""


class LogRotation:
    """Rotates logs that have become too large.

    Args:
        runtime: opens the new file.
        logs: returns the logs of all running containers.
        settings: when.
        clock: names the rotated files.
        blocking: runs file work.
    """

    def __init__(
        self,
        runtime: LogReopener,
        logs: Callable[[], Iterable[ContainerLog]],
        settings: RotationSettings,
        *,
        clock: Clock,
        blocking: Blocking,
    ) -> None:
        self._runtime = runtime
        self._logs = logs
        self._settings = settings
        self._clock = clock
        self._blocking = blocking

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(CHECK_S)
            await self.look()

    async def look(self) -> None:
        """Rotate every log that is too large now."""
        large = await self._blocking(self._too_large, tuple(self._logs()))
        for found in large:
            try:
                await self.rotate(found)
            except (OSError, CRIError) as error:
                log.warning("log_not_rotated", file=str(found.path), error=str(error))

    def _too_large(self, logs: Iterable[ContainerLog]) -> tuple[ContainerLog, ...]:
        return tuple(f for f in logs if _size(f.path) > self._settings.max_bytes)

    async def rotate(self, found: ContainerLog) -> None:
        """Rotate one log.

        Raises:
            OSError: a file could not be moved.
            CRIError: the runtime did not open the new file; the old one is back.
        """
        await self._blocking(tidy_rotated, found.path, self._settings.max_files)
        rotated = await self._blocking(move_away, found.path, self._clock.now())
        try:
            await self._runtime.reopen_container_log(found.container_id)
        except CRIError:
            # The runtime goes on writing to the moved file: give it its name back.
            await self._blocking(rotated.rename, found.path)
            raise
        log.info("log_rotated", file=str(found.path))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotated_files(path: Path) -> list[Path]:
    """Return the rotated parts of a log, oldest first."""
    parts = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix != ".tmp"]
    return sorted(parts, key=lambda p: p.name.removesuffix(".gz"))


def tidy_rotated(path: Path, max_files: int) -> None:
    """Make room for one more rotated part, and compress those that lie there."""
    for leftover in path.parent.glob(f"{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    parts = rotated_files(path)
    # The log itself and the part that is made next count as files, too.
    keep = max(max_files - 2, 0)
    for part in parts[: max(len(parts) - keep, 0)]:
        part.unlink(missing_ok=True)
    for part in parts[max(len(parts) - keep, 0) :]:
        if part.suffix != ".gz":
            compress(part)


def compress(part: Path) -> None:
    """Compress a rotated part; a crash on the way leaves the part as it was."""
    target = part.with_name(f"{part.name}.gz")
    unfinished = part.with_name(f"{part.name}.gz.tmp")
    with part.open("rb") as source, gzip.open(unfinished, "wb") as packed:
        shutil.copyfileobj(source, packed)
    unfinished.chmod(0o640)
    unfinished.rename(target)
    part.unlink()


def move_away(path: Path, now: datetime) -> Path:
    """Rename the log to its rotated name and return that."""
    rotated = path.with_name(f"{path.name}.{now.strftime(_STAMP)}")
    number = 0
    while rotated.exists() or rotated.with_name(f"{rotated.name}.gz").exists():
        number += 1
        rotated = path.with_name(f"{path.name}.{now.strftime(_STAMP)}-{number}")
    path.rename(rotated)
    return rotated
