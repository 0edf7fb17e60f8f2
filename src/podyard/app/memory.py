"""What the process keeps of the memory it has asked for.

The allocator keeps what a burst needed, for the next one: after a thousand watches a
hundred megabytes. Once the process is calm again, it gives back what is free.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Final

#: mallopt(3)'s parameter numbers.
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
#: From this size on an allocation goes back when it is freed. Said, because otherwise
#: the allocator raises it to the size of the first large answer; and each connection
#: under TLS has a buffer of 256 KB, of which little is ever touched.
_LARGE_BYTES: Final = 128 * 1024
#: When the collector looks at the young, the older and all. Most of what a request
#: makes is gone at its end, without the collector.
GC_THRESHOLDS: Final = (10_000, 20, 20)
#: Between two looks where nothing else is said, seconds.
EVERY_S: Final = 5.0
#: Memory is given back when so much has come since the last time, bytes,
GROWN_BY: Final = 6 * 1024 * 1024
#: and when less than this share of a core was used since the last look.
CALM: Final = 0.1


def set_up_allocator() -> None:
    """Have no arena for each thread, and keep what is large out of all of them."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class MemoryKeeper:
    """Gives memory back while there is little to do.

    Args:
        loop: where it looks now and then; it ends with the loop.
        every_s: between two looks, seconds.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, every_s: float = EVERY_S
    ) -> None:
        self._loop = loop
        self._every_s = every_s
        self._kept_bytes = 0
        self._is_settled = False
        self._cpu_s = _cpu_s()
        with contextlib.suppress(OSError):
            self._libc = ctypes.CDLL(None)

    def start(self) -> None:
        """Begin, once the start of the program is over."""
        self._loop.call_later(self._every_s, self._look)

    def _look(self) -> None:
        before_s, self._cpu_s = self._cpu_s, _cpu_s()
        calm = self._cpu_s - before_s < CALM * self._every_s
        if calm and not self._is_settled:
            self._settle()
        if calm:
            # It reads a file, and takes 20 ms for a hundred megabytes: not here.
            done = self._loop.run_in_executor(None, self._give_back)
            done.add_done_callback(lambda _: self._again())
        else:
            self._again()

    def _settle(self) -> None:
        """Have the collector look once more at what the start has left, and no more.

        Until then it looks seldom, see ``__main__``: a start makes what stays.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._is_settled = True

    def _again(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_later(self._every_s, self._look)

    def _give_back(self) -> None:
        if _own_bytes() <= self._kept_bytes + GROWN_BY:
            return
        with contextlib.suppress(AttributeError):  # another libc
            self._libc.malloc_trim(0)
        self._kept_bytes = _own_bytes()


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _own_bytes() -> int:
    """Return what is resident and ours alone, not a file's."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text("ascii").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
