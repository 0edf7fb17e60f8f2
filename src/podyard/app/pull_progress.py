"""How far pulls are, from containerd's own account of what it is writing."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from podyard.app.images import PullMeter
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.content import ContentStore, Ingest
from podyard.lib.clock import Clock
from podyard.node.images.parts import PullProgress

log = structlog.get_logger()

_EVERY_S: Final = 1.0


class ContainerdProgress:
    """Asks containerd once a second for all pulls, and only while one goes on.

    Args:
        socket: containerd's; another runtime there tells nothing.
        clock: tells what was begun when.
    """

    def __init__(self, socket: str, clock: Clock) -> None:
        self._client = ContainerdClient(socket)
        self._clock = clock
        self._asked_at_s = float("-inf")
        self._ingests: tuple[Ingest, ...] = ()
        self._silent = False

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()

    async def watch(self, tell: Callable[[PullProgress], None]) -> None:
        """Tell of what is being pulled from now on, until cancelled."""
        meter = PullMeter(self._clock.now() - timedelta(seconds=1))
        while not self._silent:
            await asyncio.sleep(_EVERY_S)
            try:
                seen = meter.update(await self._ask())
            except ContainerdError as error:
                self._silent = error.code == "UNIMPLEMENTED"
                log.debug("no_pull_progress", error=str(error))
                continue
            tell(PullProgress(seen.done_bytes, seen.total_bytes))

    async def _ask(self) -> tuple[Ingest, ...]:
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_at_s >= _EVERY_S * 0.9:
            self._asked_at_s = now_s
            self._ingests = await ContentStore(self._client).ingests()
        return self._ingests
