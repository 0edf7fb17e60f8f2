"""EndpointSlices of Services follow the Pods they select.

Source: kubernetes ``pkg/controller/endpointslice`` (v1.36).
"""

from typing import Final

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import ENDPOINT_SLICE, POD, SERVICE, Kind
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue
from podyard.controllers.selected_pods import Key, SelectedPods, key_of
from podyard.controllers.service_endpoints import (
    MANAGED_BY,
    SERVICE_NAME,
    SLICE_MANAGER,
    build_slices,
    is_selecting,
)

log = structlog.get_logger()

_WORKERS: Final = 5


class EndpointSliceController:
    """Keeps the EndpointSlices of Services with a selector.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._selected = SelectedPods()
        self._queue: WorkQueue[Key] = WorkQueue("endpoint-slice")
        #: By Service, then name: as heard of, or as the API answered a later write.
        self._slices: dict[Key, dict[str, Document]] = {}

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Service, a Pod or a slice."""
        if kind is SERVICE:
            self._queue.add(self._selected.take_service(old, new))
        elif kind is POD:
            for key in self._selected.take_pod(old, new):
                self._queue.add(key)
        else:
            for document in (old, new):
                if document is not None and _is_ours(document):
                    self._take(document, is_there=document is new)

    def _take(self, document: Document, *, is_there: bool) -> None:
        key = _service_of(document)
        slices = self._slices.setdefault(key, {})
        name = document["metadata"]["name"]
        present = slices.get(name)
        if not is_there:
            if present is not None and _rev(present) <= _rev(document):
                del slices[name]
                self._queue.add(key)
        elif present is None or _rev(present) < _rev(document):
            slices[name] = document
            self._queue.add(key)
        if not slices:
            del self._slices[key]

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=_WORKERS)

    async def _sync(self, key: Key) -> float | None:
        service = self._selected.service(key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return None  # the garbage collector takes the slices
        if not is_selecting(service):
            return None
        present = list(self._slices.get(key, {}).values())
        plan = build_slices(service, self._selected.pods_of(service), present)
        for document in plan.create:
            await self._create(key, document)
        for document in plan.update:
            self._wrote(key, await self._client.update(ENDPOINT_SLICE, document))
        for document in plan.delete:
            await self._delete(key, document)
        return None

    async def _create(self, key: Key, document: Document) -> None:
        try:
            self._wrote(key, await self._client.create(ENDPOINT_SLICE, document))
        except ApiError as error:
            if not _is_ending(error):
                raise

    async def _delete(self, key: Key, document: Document) -> None:
        metadata = document["metadata"]
        try:
            await self._client.delete(
                ENDPOINT_SLICE, metadata["name"], key[0], uid=metadata["uid"]
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        self._slices.get(key, {}).pop(metadata["name"], None)

    def _wrote(self, key: Key, document: Document) -> None:
        """Remember what was written until it is heard of, or newer news is."""
        slices = self._slices.setdefault(key, {})
        name = document["metadata"]["name"]
        if name not in slices or _rev(slices[name]) < _rev(document):
            slices[name] = document


def _is_ours(document: Document) -> bool:
    labels = document["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY) == SLICE_MANAGER and bool(labels.get(SERVICE_NAME))


def _service_of(document: Document) -> Key:
    return key_of(document)[0], str(document["metadata"]["labels"][SERVICE_NAME])


def _rev(document: Document) -> int:
    # Revisions can be compared since v1.35 (KEP-5504).
    return int(document["metadata"].get("resourceVersion") or 0)


def _is_ending(error: ApiError) -> bool:
    """Tell of a refusal because the Namespace is going or gone."""
    causes = (error.details or {}).get("causes") or ()
    is_terminating = any(c.get("reason") == "NamespaceTerminating" for c in causes)
    return error.code == 404 or is_terminating


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return EndpointSliceController(context)


PART: Final = Controller(
    name="endpoint-slice", watches=(SERVICE, POD, ENDPOINT_SLICE), make=make
)
