"""Reading container logs: whole, the tail, or as they grow.

A log lies in a directory that a privileged Pod might reach, so it is opened below
the node's log directory without following any link.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

from podyard.lib.inotify import (
    IN_CREATE,
    IN_MODIFY,
    IN_MOVED_TO,
    FileWatch,
)
from podyard.lib.linux import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from podyard.lib.values import dataclass
from podyard.node.endpoints.build import LogFormatter, LogOptions
from podyard.node.endpoints.parts import EndpointError

_CHUNK_BYTES: Final = 256 * 1024
#: How long a follower waits for a change before it asks whether the container lives.
_LOOK_S: Final = 1.0


def open_log(root: Path, path: Path) -> BinaryIO:
    """Open a log file below ``root``.

    Raises:
        FileNotFoundError: it does not exist (yet).
        EndpointError: 403, it is not a plain file below the log directory.
    """
    try:
        relative = path.relative_to(root)
    except ValueError as error:
        raise EndpointError(403, f"{path} is not below {root}") from error
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(
            root_fd,
            str(relative),
            os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK,
            RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EndpointError(403, f"log file refused: {error.strerror}") from error
    finally:
        os.close(root_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise EndpointError(403, "log file refused: not a regular file")
    return os.fdopen(fd, "rb", buffering=0)


def seek_tail(file: BinaryIO, lines: int) -> None:
    """Move to the start of the last ``lines`` lines."""
    position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return
    # A last line without its newline counts as a line.
    file.seek(max(position - 1, 0))
    found = 0 if file.read(1) == b"\n" else 1
    found -= 1
    while position > 0:
        step = min(65536, position)
        position -= step
        file.seek(position)
        chunk = file.read(step)
        offset = len(chunk)
        while (offset := chunk.rfind(b"\n", 0, offset)) >= 0:
            found += 1
            if found >= lines:
                file.seek(position + offset + 1)
                return
    file.seek(0)


@dataclass(frozen=True, slots=True)
class LogSource:
    """A container's log file and the directory it must be below."""

    root: Path
    path: Path

    async def open(self) -> BinaryIO:
        """Open the file.

        Raises:
            EndpointError: it is gone, or refused.
        """
        try:
            return await asyncio.to_thread(open_log, self.root, self.path)
        except FileNotFoundError as error:
            raise EndpointError(
                404, f"the log file {self.path.name} of the container is gone"
            ) from error

    def reopened(self, file: BinaryIO) -> BinaryIO | None:
        """Return the new file where the log has been rotated, else ``None``."""
        try:
            newer = open_log(self.root, self.path)
        except (FileNotFoundError, EndpointError):
            return None
        if os.fstat(newer.fileno()).st_ino == os.fstat(file.fileno()).st_ino:
            newer.close()
            return None
        return newer


async def read_log(
    source: LogSource,
    file: BinaryIO,
    options: LogOptions,
    *,
    running: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[bytes, None]:
    """Yield a log, formatted; with ``follow`` until the container has ended.

    Args:
        source: where the log is.
        file: the log, opened; it is closed here.
        options: what is wanted.
        running: tells whether more may come.
    """
    formatter = LogFormatter(options)
    try:
        if options.tail_lines is not None:
            await asyncio.to_thread(seek_tail, file, options.tail_lines)
        if not options.follow:
            async for text in _to_end(file, formatter):
                yield text
            return
        with FileWatch() as watch:
            # The directory tells of rotation, the files in it of growth.
            watch.add(source.path.parent, IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            rest = _Rest()
            while True:
                alive = await running()
                async for text in _to_end(file, formatter, rest):
                    yield text
                if formatter.full:
                    return
                newer = await asyncio.to_thread(source.reopened, file)
                if newer is not None:
                    file.close()
                    file = newer
                    continue
                if not alive:
                    return
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await watch.wait()
                except TimeoutError:
                    continue
    finally:
        file.close()


class _Rest:
    """The beginning of a line whose end is not written yet."""

    def __init__(self) -> None:
        self.content = b""


async def _to_end(
    file: BinaryIO, formatter: LogFormatter, rest: _Rest | None = None
) -> AsyncGenerator[bytes, None]:
    rest = _Rest() if rest is None else rest
    while not formatter.full:
        chunk = await asyncio.to_thread(file.read, _CHUNK_BYTES)
        if not chunk:
            return
        *lines, rest.content = (rest.content + chunk).split(b"\n")
        text = b"".join(formatter.feed(line + b"\n") for line in lines)
        if text:
            yield text
