"""Events of the runtime: each one says *look again at this Pod*, nothing more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from podyard.api.observed import ContainerEvent, ContainerEventType
from podyard.cri.services import CRIError, CRIUnimplementedError
from podyard.lib.backoff import Backoff

log = structlog.get_logger()

_RETRY: Final = Backoff(base_s=0.2, cap_s=5)
#: Only what ends comes unasked; whatever begins was begun by this agent.
_UNASKED: Final = frozenset({ContainerEventType.STOPPED, ContainerEventType.DELETED})


class EventedPleg:
    """Follows a stream of container events.

    Args:
        events: opens the stream.
        uid_of: returns the Pod of a container id, or an empty string.
        tell: called with the uid of a Pod to look at.
        look_soon: asks for a look at everything, where the Pod is not known.
    """

    def __init__(
        self,
        events: Callable[[], AsyncIterator[ContainerEvent]],
        uid_of: Callable[[str], str],
        tell: Callable[[str], None],
        look_soon: Callable[[], None],
    ) -> None:
        self._events = events
        self._uid_of = uid_of
        self._tell = tell
        self._look_soon = look_soon
        self._following = False

    @property
    def works(self) -> bool:
        """Whether events arrive."""
        return self._following

    async def run(self) -> None:
        """Follow events; end only where the runtime has none."""
        delay_s = 0.0
        while True:
            try:
                self._following = True
                async for event in self._events():
                    delay_s = 0.0
                    self._take(event)
            except CRIUnimplementedError:
                log.info("no_container_events")
                return
            except CRIError as error:
                if delay_s == 0:
                    log.warning("container_events_broke", error=error.message)
            finally:
                self._following = False
            # What happened while nobody listened is found by a look.
            self._look_soon()
            delay_s = _RETRY.after(delay_s)
            await asyncio.sleep(delay_s)

    def _take(self, event: ContainerEvent) -> None:
        if event.type not in _UNASKED:
            return
        uid = event.pod_uid or self._uid_of(event.container_id)
        if uid:
            self._tell(uid)
        else:
            self._look_soon()
