"""What exec hooks put out: a log beside the container's own.

Events must not carry it, for it may hold anything. The log is read under the same
permission as the container's.
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final

import structlog

from podyard.api.core_v1 import Container, Pod
from podyard.lib.clock import Clock
from podyard.lib.linux import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from podyard.node.hooks.build import build_log_records
from podyard.node.hooks.parts import LOG_NAME

log = structlog.get_logger()

#: A log that would grow beyond this is put aside; one older log is kept, bytes.
MAX_LOG_BYTES: Final = 1024 * 1024
_MODE: Final = 0o640
_RESOLVE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class HookLog:
    """Writes the logs of hooks.

    Args:
        logs_dir: holds a directory of logs for each Pod, as ``/var/log/pods`` does.
        clock: dates the records.
    """

    def __init__(self, logs_dir: Path, clock: Clock) -> None:
        self._logs_dir = logs_dir
        self._clock = clock

    async def keep(
        self, pod: Pod, container: Container, heading: str, output: tuple[bytes, bytes]
    ) -> None:
        """Add a delivery's stdout and stderr; a full disk never fails a hook."""
        records = build_log_records(heading, *output, at=self._clock.now())
        where = f"{pod.namespace}_{pod.name}_{pod.uid}/{container.name}"
        try:
            await asyncio.to_thread(_append, self._logs_dir, where, records)
        except OSError as error:
            log.warning("hook_output_not_kept", pod=pod.full_name, error=error.strerror)


def _append(root: Path, where: str, records: bytes) -> None:
    """Append to a log below ``root``, following no link on the way; blocking."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = openat2(
            root_fd, where, os.O_RDONLY | os.O_DIRECTORY, _RESOLVE, mode=0
        )
    finally:
        os.close(root_fd)
    try:
        _rotate(directory, len(records))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(LOG_NAME, flags | os.O_CLOEXEC, _MODE, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(22, "not a regular file", LOG_NAME)
            os.fchmod(handle, _MODE)
            os.write(handle, records)
        finally:
            os.close(handle)
    finally:
        os.close(directory)


def _rotate(directory: int, more: int) -> None:
    try:
        size = os.stat(LOG_NAME, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return
    if size + more > MAX_LOG_BYTES:
        os.rename(LOG_NAME, f"{LOG_NAME}.1", src_dir_fd=directory, dst_dir_fd=directory)
