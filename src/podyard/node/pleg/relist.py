"""Looks at the whole node now and then: the safety net under the events."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from podyard.cri.services import CRIError, RuntimeService
from podyard.lib.clock import Clock
from podyard.node.pleg.decide import Look, diff_looks

log = structlog.get_logger()

#: Between looks while events arrive, and while they do not, seconds.
CALM_S: Final = 10.0
ALONE_S: Final = 1.0
#: Looks asked for come at most so often, seconds.
SOON_S: Final = 0.05
#: Without a look for so long, the node is not healthy, seconds.
UNHEALTHY_AFTER_S: Final = 180.0


class Relister:
    """Lists everything in the runtime and tells which Pods changed.

    Args:
        runtime: the runtime.
        tell: called with the uid of each Pod that changed.
        has_events: returns whether events arrive, so that looks may be rare.
        clock: measures.
    """

    def __init__(
        self,
        runtime: RuntimeService,
        tell: Callable[[str], None],
        has_events: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._runtime = runtime
        self._tell = tell
        self._has_events = has_events
        self._clock = clock
        self._soon = asyncio.Event()
        self._began_s = clock.monotonic_s()
        #: The newest look; ``None`` before the first.
        self.look: Look | None = None

    @property
    def error(self) -> str:
        """Why the node is not healthy, as its Ready condition says; else empty."""
        last_s = self.look.at_s if self.look else self._began_s
        age_s = self._clock.monotonic_s() - last_s
        if age_s < UNHEALTHY_AFTER_S:
            return ""
        if self.look is None:
            return "PLEG is not healthy: pleg has yet to be successful"
        return (
            f"PLEG is not healthy: pleg was last seen active {age_s:.0f}s ago; "
            f"threshold is {UNHEALTHY_AFTER_S:.0f}s"
        )

    def look_soon(self) -> None:
        """Have a look before its time."""
        self._soon.set()

    async def relist(self) -> Look:
        """Look now, and tell what changed since the last look.

        Raises:
            CRIError: the runtime cannot be asked.
        """
        at_s = self._clock.monotonic_s()
        sandboxes = await self._runtime.list_pod_sandboxes()
        containers = await self._runtime.list_containers()
        look = Look.of(sandboxes, containers, at_s=at_s)
        before, self.look = self.look, look
        if before is not None:
            for uid in {event.uid for event in diff_looks(before, look)}:
                self._tell(uid)
        return look

    async def run(self) -> None:
        """Look for ever."""
        away = False
        while True:
            try:
                await self.relist()
            except CRIError as error:
                if not away:
                    log.warning("relist_failed", error=error.message)
                away = True
            else:
                if away:
                    log.info("relist_works_again")
                    for uid in self.look.uids if self.look else ():
                        self._tell(uid)
                away = False
            pause_s = CALM_S if self._has_events() and not away else ALONE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._soon.wait()
                    await asyncio.sleep(SOON_S)
            self._soon.clear()
