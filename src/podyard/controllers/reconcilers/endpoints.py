"""Endpoints, the older form of EndpointSlices, follow the Pods of a Service.

Source: kubernetes ``pkg/controller/endpoint`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import ENDPOINTS, POD, SERVICE, Kind
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue
from podyard.controllers.selected_pods import Key, SelectedPods, key_of
from podyard.controllers.service_endpoints import (
    ENDPOINTS_MANAGED_BY,
    ENDPOINTS_MANAGER,
    build_endpoints,
    is_selecting,
)

_WORKERS: Final = 5


class EndpointsController:
    """Keeps the Endpoints of Services with a selector.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._selected = SelectedPods()
        self._queue: WorkQueue[Key] = WorkQueue("endpoints")
        self._present: dict[Key, Document] = {}
        #: Services that went: their Endpoints go along, whoever wrote them.
        self._bereft: set[Key] = set()

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Service, a Pod or an Endpoints."""
        if kind is SERVICE:
            key = self._selected.take_service(old, new)
            (self._bereft.add if new is None else self._bereft.discard)(key)
            self._queue.add(key)
        elif kind is POD:
            for key in self._selected.take_pod(old, new):
                self._queue.add(key)
        elif new is not None:
            if self._is_news(new):
                self._queue.add(key_of(new))
        else:
            assert old is not None
            self._present.pop(key_of(old), None)
            self._queue.add(key_of(old))

    def _is_news(self, document: Document) -> bool:
        present = self._present.get(key_of(document))
        if present is not None and _rev(document) <= _rev(present):
            return False
        self._present[key_of(document)] = document
        return True

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=_WORKERS)

    async def _sync(self, key: Key) -> float | None:
        service, present = self._selected.service(key), self._present.get(key)
        if service is None:
            if present is not None and (key in self._bereft or _is_ours(present)):
                await self._delete(key, present)
            self._bereft.discard(key)
        elif not service["metadata"].get("deletionTimestamp") and is_selecting(service):
            wanted = build_endpoints(service, self._selected.pods_of(service), present)
            if wanted is not None:
                await self._write(wanted, is_new=present is None)
        return None

    async def _write(self, wanted: Document, *, is_new: bool) -> None:
        try:
            if is_new:
                written = await self._client.create(ENDPOINTS, wanted)
            else:
                written = await self._client.update(ENDPOINTS, wanted)
        except ApiError as error:
            causes = (error.details or {}).get("causes") or ()
            ending = any(c.get("reason") == "NamespaceTerminating" for c in causes)
            if ending or (is_new and error.code == 404):
                return
            raise
        self._is_news(written)

    async def _delete(self, key: Key, present: Document) -> None:
        try:
            await self._client.delete(
                ENDPOINTS, key[1], key[0], uid=present["metadata"]["uid"]
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise


def _is_ours(document: Document) -> bool:
    labels = document["metadata"].get("labels") or {}
    return labels.get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_MANAGER


def _rev(document: Document) -> int:
    # Revisions can be compared since v1.35 (KEP-5504).
    return int(document["metadata"].get("resourceVersion") or 0)


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return EndpointsController(context)


PART: Final = Controller(name="endpoints", watches=(SERVICE, POD, ENDPOINTS), make=make)
