"""A CRI client that makes good what containerd's CRI lacks: events, and an end of all.

CRI's own events where the runtime has them; else containerd's. Those may be ahead of
what CRI reports, so an exit is passed on once CRI tells of it too: whoever looks upon
an event sees what it was about.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import structlog

from podyard.api.observed import (
    ContainerEvent,
    ContainerEventType,
    ContainerState,
    SandboxState,
)
from podyard.containerd.client import ContainerdError
from podyard.containerd.events import ContainerdEvents
from podyard.containerd.tasks import end_task
from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.cri.services import (
    CRIError,
    CRINotFoundError,
    CRIUnavailableError,
    CRIUnimplementedError,
)

log = structlog.get_logger()

#: Pauses between looks whether CRI knows of an exit; half a second in all.
_SETTLE_STEPS_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)


class ContainerdRuntimeService(GrpcRuntimeService):
    """``RuntimeService`` of a containerd of ours."""

    def __init__(self, channel: CriChannel, events: ContainerdEvents) -> None:
        """Speak over ``channel``; take events from ``events`` where CRI has none."""
        super().__init__(channel)
        self._events = events
        self._cri_has_events = True

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, killing it if it runs. Missing is removed.

        A start that was cut off may leave a task of which CRI knows nothing: to CRI the
        container has ended, and cannot be removed because it runs.
        """
        try:
            await super().remove_container(container_id)
        except CRIError as refusal:
            if refusal.code != "FAILED_PRECONDITION":
                raise
            try:
                await end_task(self._events.socket, container_id)
            except ContainerdError:
                raise refusal from None
            log.info("task_ended", container_id=container_id, error=refusal.message)
            await super().remove_container(container_id)

    async def container_events(self) -> AsyncGenerator[ContainerEvent, None]:
        """Stream events until the connection breaks (``CRIUnavailableError``)."""
        if self._cri_has_events:
            try:
                async for event in super().container_events():
                    yield event
            except CRIUnimplementedError:
                self._cri_has_events = False
        if self._cri_has_events:
            return
        try:
            async for event in self._events.stream():
                if event.type is ContainerEventType.STOPPED:
                    await self._settle(event.container_id)
                yield event
        except ContainerdError as error:
            raise CRIUnavailableError(
                "GetContainerEvents", error.code, str(error)
            ) from error

    async def _settle(self, container_id: str) -> None:
        """Wait until CRI reports the exit; at most half a second."""
        for wait_s in _SETTLE_STEPS_S:
            try:
                if await self._is_over(container_id):
                    return
            except CRIError:
                return
            await asyncio.sleep(wait_s)

    async def _is_over(self, container_id: str) -> bool:
        try:
            status = await self.container_status(container_id)
        except CRINotFoundError:
            try:
                sandbox = await self.pod_sandbox_status(container_id)
            except CRINotFoundError:
                return True
            return sandbox.state is SandboxState.NOT_READY
        return status.state is not ContainerState.RUNNING
