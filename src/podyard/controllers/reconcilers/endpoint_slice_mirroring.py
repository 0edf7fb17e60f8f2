"""Endpoints that a person wrote are shown as EndpointSlices, which others read.

Source: kubernetes ``pkg/controller/endpointslicemirroring`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import ENDPOINT_SLICE, ENDPOINTS, SERVICE, Kind
from podyard.controllers.kept_slices import KeptSlices
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue
from podyard.controllers.selected_pods import Key, key_of
from podyard.controllers.service_endpoints import (
    MIRROR_MANAGER,
    SlicePlan,
    build_mirrors,
    is_mirrored,
)


class EndpointSliceMirroring:
    """Keeps the slices of Services without a selector that have Endpoints.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._caches = context.caches
        self._queue: WorkQueue[Key] = WorkQueue("endpoint-slice-mirroring")
        self._slices = KeptSlices(context.client, MIRROR_MANAGER, self._queue.add)

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Service, an Endpoints or a slice."""
        if kind is ENDPOINT_SLICE:
            self._slices.on_change(old, new)
            return
        document = new or old
        assert document is not None
        self._queue.add(key_of(document))

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync)

    async def _sync(self, key: Key) -> float | None:
        endpoints = self._caches.get(ENDPOINTS, *key)
        service = self._caches.get(SERVICE, *key)
        present = self._slices.of(key)
        if endpoints is not None and is_mirrored(endpoints, service):
            plan = build_mirrors(endpoints, present)
        else:
            plan = SlicePlan(delete=tuple(present))
        await self._slices.write(key, plan)
        return None


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return EndpointSliceMirroring(context)


PART: Final = Controller(
    name="endpoint-slice-mirroring",
    watches=(SERVICE, ENDPOINTS, ENDPOINT_SLICE),
    make=make,
)
