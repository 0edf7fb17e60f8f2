"""Sleep until a moment together with all others that wait for about the same one.

A thousand timers a second wake a process a thousand times a second, which costs more
than most of what they are for. Moments are rounded up to a common step instead, and
the loop wakes once for all of them.
"""

import asyncio
import math
from typing import Final

#: How far a moment may be put off, seconds.
STEP_S: Final = 0.02


class Ticks:
    """Moments of one running loop.

    Args:
        step_s: how far a moment may be put off, seconds.
    """

    def __init__(self, step_s: float = STEP_S) -> None:
        self._step_s = step_s
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}

    async def sleep(self, delay_s: float) -> None:
        """Wait ``delay_s`` seconds and at most one step more."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + delay_s) / self._step_s)
        waiting = self._waiting.get(tick)
        if waiting is None:
            waiting = self._waiting[tick] = []
            loop.call_at(tick * self._step_s, self._wake, tick)
        future = loop.create_future()
        waiting.append(future)
        await future

    def _wake(self, tick: int) -> None:
        for future in self._waiting.pop(tick):
            if not future.done():
                future.set_result(None)
