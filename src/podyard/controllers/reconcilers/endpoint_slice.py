"""EndpointSlices of Services follow the Pods they select.

Source: kubernetes ``pkg/controller/endpointslice`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import ENDPOINT_SLICE, POD, SERVICE, Kind
from podyard.controllers.kept_slices import KeptSlices
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue
from podyard.controllers.selected_pods import Key, SelectedPods
from podyard.controllers.service_endpoints import (
    SLICE_MANAGER,
    build_slices,
    is_selecting,
)

_WORKERS: Final = 5


class EndpointSliceController:
    """Keeps the EndpointSlices of Services with a selector.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._selected = SelectedPods()
        self._queue: WorkQueue[Key] = WorkQueue("endpoint-slice")
        self._slices = KeptSlices(context.client, SLICE_MANAGER, self._queue.add)

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Service, a Pod or a slice."""
        if kind is SERVICE:
            self._queue.add(self._selected.take_service(old, new))
        elif kind is POD:
            for key in self._selected.take_pod(old, new):
                self._queue.add(key)
        else:
            self._slices.on_change(old, new)

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=_WORKERS)

    async def _sync(self, key: Key) -> float | None:
        service = self._selected.service(key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return None  # the garbage collector takes the slices
        if not is_selecting(service):
            return None
        present = self._slices.of(key)
        plan = build_slices(service, self._selected.pods_of(service), present)
        await self._slices.write(key, plan)
        return None


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return EndpointSliceController(context)


PART: Final = Controller(
    name="endpoint-slice", watches=(SERVICE, POD, ENDPOINT_SLICE), make=make
)
