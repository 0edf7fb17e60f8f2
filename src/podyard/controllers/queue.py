"""A queue of keys to look at: each once, however often it was added.

A key whose handling failed comes back after a growing delay; one that was added
while it was being handled is handled again. Nothing is polled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import structlog

from podyard.api.errors import ApiError
from podyard.client.services import ApiUnreachableError
from podyard.lib.backoff import Backoff

log = structlog.get_logger()

_K = TypeVar("_K", bound=Hashable)

RETRY: Final = Backoff(base_s=0.05, cap_s=60.0)


class WorkQueue(Generic[_K]):
    """Keys to look at.

    Args:
        name: for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: dict[_K, None] = {}
        self._busy: set[_K] = set()
        self._again: set[_K] = set()
        self._timers: dict[_K, asyncio.TimerHandle] = {}
        self._failed_s: dict[_K, float] = {}
        self._more = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def add(self, key: _K) -> None:
        """Look at a key as soon as a worker is free."""
        self._cancel(key)
        if key in self._busy:
            self._again.add(key)
            return
        self._waiting[key] = None
        self._more.set()

    def add_after(self, key: _K, delay_s: float) -> None:
        """Look at a key after so many seconds, or sooner if it was to be sooner."""
        loop = asyncio.get_running_loop()
        present = self._timers.get(key)
        if present is not None and present.when() <= loop.time() + delay_s:
            return
        self._cancel(key)
        self._timers[key] = loop.call_later(delay_s, self._ring, key)

    def _ring(self, key: _K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel(self, key: _K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def work(
        self, handle: Callable[[_K], Awaitable[float | None]], *, workers: int = 1
    ) -> None:
        """Hand each key to ``handle``, for ever.

        Args:
            handle: looks at one key; returns the seconds after which to look again,
                or ``None``. What it raises brings the key back later.
            workers: how many keys may be handled at once.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(
                        self._worker(handle), name=f"{self._name} worker {number}"
                    )
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            for key in self._busy:  # whoever starts over begins with these
                self._waiting[key] = None
            self._busy.clear()

    async def _worker(self, handle: Callable[[_K], Awaitable[float | None]]) -> None:
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._busy.add(key)
            delay_s = await self._handle(key, handle)
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay_s is not None:
                self.add_after(key, delay_s)

    async def _handle(
        self, key: _K, handle: Callable[[_K], Awaitable[float | None]]
    ) -> float | None:
        try:
            delay_s = await handle(key)
        except (ApiError, ApiUnreachableError) as error:
            log.info(
                "will_look_again", queue=self._name, key=str(key), error=str(error)
            )
        except Exception:  # one bad object must not stop all others
            log.exception("controller_fault", queue=self._name, key=str(key))
        else:
            self._failed_s.pop(key, None)
            return delay_s
        delay_s = RETRY.after(self._failed_s.get(key, 0.0))
        self._failed_s[key] = delay_s
        return delay_s
