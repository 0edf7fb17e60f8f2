"""The EndpointSlices that one controller keeps, and its writes of them."""

from collections.abc import Callable

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import ENDPOINT_SLICE
from podyard.client.services import ApiClient
from podyard.controllers.selected_pods import Key, key_of
from podyard.controllers.service_endpoints import MANAGED_BY, SERVICE_NAME, SlicePlan


class KeptSlices:
    """Slices by Service, as heard of or as the API answered a later write.

    Args:
        client: the API.
        manager: who keeps them, by their label.
        look: called with a Service whose slices somebody changed.
    """

    def __init__(
        self, client: ApiClient, manager: str, look: Callable[[Key], None]
    ) -> None:
        self._client = client
        self._manager = manager
        self._look = look
        self._slices: dict[Key, dict[str, Document]] = {}

    def of(self, key: Key) -> list[Document]:
        """Return the slices of a Service."""
        return list(self._slices.get(key, {}).values())

    def on_change(self, old: Document | None, new: Document | None) -> None:
        """Hear of a slice."""
        for document in (old, new):
            if document is not None and self._is_ours(document):
                self._take(document, is_there=document is new)

    def _is_ours(self, document: Document) -> bool:
        labels = document["metadata"].get("labels") or {}
        return labels.get(MANAGED_BY) == self._manager and bool(
            labels.get(SERVICE_NAME)
        )

    def _take(self, document: Document, *, is_there: bool) -> None:
        key = _service_of(document)
        slices = self._slices.setdefault(key, {})
        name = document["metadata"]["name"]
        present = slices.get(name)
        if not is_there:
            if present is not None and _rev(present) <= _rev(document):
                del slices[name]
                self._look(key)
        elif present is None or _rev(present) < _rev(document):
            slices[name] = document
            self._look(key)
        if not slices:
            del self._slices[key]

    async def write(self, key: Key, plan: SlicePlan) -> None:
        """Carry out a plan.

        Raises:
            ApiError: the API refuses, or has something newer.
            ApiUnreachableError: it cannot be reached.
        """
        for document in plan.create:
            await self._create(key, document)
        for document in plan.update:
            self._wrote(key, await self._client.update(ENDPOINT_SLICE, document))
        for document in plan.delete:
            await self._delete(key, document)

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
