"""Files that change, as events of the loop: inotify(7) through libc."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from podyard.lib.values import dataclass

IN_MODIFY: Final = 0x2
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
_IN_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_header = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to ``name`` in a watched directory (or to the file itself)."""

    mask: int
    name: str


class FileWatch:
    """Watches some paths; wakes whoever waits. Use as a context manager.

    Raises:
        OSError: the limit of instances or watches is reached, or a path is absent.
    """

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._woken.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, path: Path, mask: int) -> int:
        """Watch a file or directory; return the watch's number."""
        number = int(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
        return number

    async def wait(self) -> tuple[FileEvent, ...]:
        """Wait until something happened; return all that did."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            events = tuple(self._read())
            if events:
                return events

    def close(self) -> None:
        """Stop watching. Calling it twice is harmless."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> Iterator[FileEvent]:
        try:
            content = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(content):
            _, mask, _, length = _header.unpack_from(content, offset)
            offset += _header.size
            name = content[offset : offset + length].rstrip(b"\0")
            offset += length
            yield FileEvent(mask, os.fsdecode(name))
