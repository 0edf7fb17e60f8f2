"""The kinds that are served, and their objects in the store.

The bytes at rest begin with the kind's own head (``{"kind":…,"apiVersion":…,
"metadata":{``), so that a resourceVersion is put into an answer by splicing, without
decoding the object.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request, internal, not_found
from podyard.api.labels import FieldSelector, Selector
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass
from podyard.server.resource import Resource
from podyard.store.backend import (
    Backend,
    FutureRevisionError,
    Row,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)

#: How many decoded selections are remembered.
_REMEMBERED: Final = 8192
#: How long a read waits for a revision that has not happened yet, seconds.
_WAIT_FOR_REV_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What selectors look at.

    Attributes:
        labels: the object's labels.
        fields: its selectable fields.
    """

    labels: dict[str, str]
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind are asked for.

    Attributes:
        labels: the label selector.
        fields: the field selector.
        name: the one name the field selector allows, or ``None``.
    """

    labels: Selector
    fields: FieldSelector
    name: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether every object is asked for."""
        return self.labels.is_empty and self.fields.is_empty

    def matches(self, facts: Facts) -> bool:
        """Say whether an object is asked for."""
        return self.labels.matches(facts.labels) and self.fields.matches(facts.fields)


class Registry:
    """The served kinds over the store.

    Args:
        store: where the objects are.
        resources: the kinds.
    """

    def __init__(self, store: Backend, resources: Sequence[Resource]) -> None:
        self.store = store
        self.resources = tuple(resources)
        self._by_path = {
            (part.kind.group, part.kind.version, part.kind.resource): part
            for part in resources
        }
        self._by_kind = {part.kind: part for part in resources}
        self._heads = {part.kind: _head(part.kind) for part in resources}
        self._facts: OrderedDict[tuple[Kind, int], Facts] = OrderedDict()

    def add_unstored(self, resources: Sequence[Resource]) -> None:
        """Serve kinds that have no objects."""
        for part in resources:
            kind = part.kind
            self._by_path[kind.group, kind.version, kind.resource] = part

    def find(self, group: str, version: str, resource: str) -> Resource | None:
        """Return the kind behind a path, if it is served."""
        return self._by_path.get((group, version, resource))

    def of(self, kind: Kind) -> Resource:
        """Return what is known of a served kind."""
        return self._by_kind[kind]

    # -- bytes and documents

    def encode(self, resource: Resource, document: Document) -> bytes:
        """Return a document as it is stored: kind, apiVersion, metadata first.

        Raises:
            ApiError: 400, it nests too deep or holds what JSON cannot.
        """
        if resource.view is not None:
            document = resource.view.to_stored(document)
        metadata = dict(document.get("metadata") or {})
        metadata.pop("resourceVersion", None)
        ordered: Document = {
            "kind": resource.kind.kind,
            "apiVersion": document["apiVersion"],
            "metadata": metadata,
        }
        for field, value in document.items():
            if field not in ordered:
                ordered[field] = value
        try:
            # orjson leaves room for what it might have had to escape, eight times the
            # text, and never gives it back: what is kept is a copy of the right size.
            return bytes(memoryview(orjson.dumps(ordered)))
        except TypeError as error:
            raise bad_request(f"the object cannot be stored: {error}") from error

    def decode(self, resource: Resource, value: bytes, rev: int) -> Document:
        """Return stored bytes as a document, with its resourceVersion."""
        document: Document = orjson.loads(value)
        document["metadata"]["resourceVersion"] = str(rev)
        if resource.view is not None:
            document = resource.view.from_stored(document)
        return document

    def splice(self, resource: Resource, value: bytes, rev: int) -> bytes:
        """Return stored bytes as an answer, with the resourceVersion put in."""
        head = self._heads[resource.kind]
        if resource.view is None and value.startswith(head):
            return b'%b"resourceVersion":"%d",%b' % (head, rev, value[len(head) :])
        return orjson.dumps(self.decode(resource, value, rev))

    def facts(self, resource: Resource, value: bytes, rev: int) -> Facts:
        """Return what selectors look at; remembered by revision."""
        key = (resource.kind, rev)
        known = self._facts.get(key)
        if known is None:
            known = read_facts(resource, self.decode(resource, value, rev))
            self._facts[key] = known
            if len(self._facts) > _REMEMBERED:
                self._facts.popitem(last=False)
        return known

    # -- reading

    async def row(self, resource: Resource, namespace: str, name: str) -> Row:
        """Return an object's row.

        Raises:
            ApiError: 404, there is none.
        """
        row = await self.store.get(resource.kind.key(namespace, name))
        if row is None:
            raise not_found(resource.kind.group, resource.kind.resource, name)
        return row

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it is absent."""
        resource = self._by_kind[kind]
        row = await self.store.get(kind.key(namespace, name))
        return None if row is None else self.decode(resource, row.value, row.rev)

    async def list(self, kind: Kind, namespace: str) -> Sequence[Document]:
        """Return the objects of a namespace, or of all where it is empty."""
        resource = self._by_kind[kind]
        page = await self.store.list(prefix_of(kind, namespace))
        return [self.decode(resource, row.value, row.rev) for row in page.rows]

    async def wait_for_rev(self, rev: int) -> None:
        """Wait shortly until the store has reached a revision a client names.

        Raises:
            ApiError: 504, it has not.
        """
        try:
            await self.store.wait_for_rev(rev, within_s=_WAIT_FOR_REV_S)
        except FutureRevisionError as error:
            raise too_large_rev(error.rev, error.current_rev) from error


def _head(kind: Kind) -> bytes:
    text = f'{{"kind":"{kind.kind}","apiVersion":"{kind.api_version}","metadata":{{'
    return text.encode()


def prefix_of(kind: Kind, namespace: str) -> str:
    """Return the key prefix of a namespace, or of the whole kind."""
    if kind.namespaced and namespace:
        return f"{kind.storage_prefix}{namespace}/"
    return kind.storage_prefix


def read_facts(resource: Resource, document: Document) -> Facts:
    """Return what selectors look at in a document."""
    metadata: dict[str, Any] = document.get("metadata") or {}
    found = {
        "metadata.name": metadata.get("name") or "",
        "metadata.namespace": metadata.get("namespace") or "",
    }
    for field, read in resource.selectable_fields.items():
        found[field] = read(document)
    return Facts(metadata.get("labels") or {}, found)


def too_large_rev(rev: int, current: int) -> ApiError:
    """504: the client knows of a revision that has not happened here."""
    message = f"Too large resource version: {rev}, current: {current}"
    return ApiError(
        504,
        "Timeout",
        f"Timeout: {message}",
        {
            "causes": [
                {
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }
            ],
            "retryAfterSeconds": 1,
        },
    )


def store_failure(error: StoreError) -> ApiError:
    """Return the Status of a store that could not do its work."""
    if isinstance(error, StoreFullError | StoreReadOnlyError):
        return ApiError(
            507, "InsufficientStorage", f"the store cannot be written: {error}"
        )
    if isinstance(error, StoreClosedError):
        return ApiError(503, "ServiceUnavailable", "the server is shutting down")
    return internal(str(error))


def join_items(items: Iterable[bytes]) -> bytes:
    """Return encoded documents as the inside of a JSON array."""
    return b",".join(items)
