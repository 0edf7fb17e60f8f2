"""What Podyard's houses ask of the Kubernetes API: verbs over kinds and documents."""

from collections.abc import AsyncGenerator, Mapping
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass

#: The type of a watch event.
WatchEventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

#: A patch body: a document, or for a JSON patch a list of operations.
Patch: TypeAlias = Document | list[Document]


class PatchType(StrEnum):
    """The patch formats, by their media type."""

    STRATEGIC = "application/strategic-merge-patch+json"
    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch.

    Attributes:
        type: what happened; an ``ERROR`` line is raised instead.
        object: the object; of a bookmark only its resourceVersion.
    """

    type: WatchEventType
    object: Document


class ApiUnreachableError(Exception):
    """The API server could not be reached, or the connection broke.

    A write may or may not have happened.

    Attributes:
        server: the server's URL.
    """

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server = server


class ApiClient(Protocol):
    """A Kubernetes API, ours or another.

    Every call raises ``podyard.api.errors.ApiError`` when the server answered with a
    Status, and ``ApiUnreachableError`` when there was no usable answer. ``namespace``
    is empty for cluster-scoped kinds and for "all namespaces" of a list or watch.
    """

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        """Return one object."""

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        resource_version: str = "",
    ) -> Document:
        """Return the List document, with every page of it.

        Args:
            kind: the kind.
            namespace: the namespace, or all of them.
            label_selector: as in kubectl's ``-l``.
            field_selector: as in kubectl's ``--field-selector``.
            limit: page size; 0 asks for everything at once.
            resource_version: ``"0"`` for any age, empty for the newest.
        """

    def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int = 0,
        allow_bookmarks: bool = True,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Iterate over changes until the server ends the stream.

        Close the iterator (``aclosing``) to end it early. An ERROR event is raised
        as ``ApiError`` (410 when the resource version is too old).

        Args:
            kind: the kind.
            namespace: the namespace, or all of them.
            resource_version: changes after it; empty starts with all objects.
            label_selector: as in kubectl's ``-l``.
            field_selector: as in kubectl's ``--field-selector``.
            timeout_s: whole seconds after which the server ends it; 0 is its default.
            allow_bookmarks: ask for bookmarks.
        """

    async def create(
        self, kind: Kind, document: Document, namespace: str = ""
    ) -> Document:
        """Create an object; its own ``metadata.namespace`` counts where none is given.

        Returns:
            The object as stored.
        """

    async def update(
        self, kind: Kind, document: Document, namespace: str = ""
    ) -> Document:
        """Replace the object that ``document`` names."""

    async def update_status(
        self, kind: Kind, document: Document, namespace: str = ""
    ) -> Document:
        """Replace the status of the object that ``document`` names."""

    async def update_subresource(
        self, kind: Kind, document: Document, subresource: str, namespace: str = ""
    ) -> Document:
        """PUT a subresource of the object that ``document`` names: ``finalize``."""

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Patch,
        namespace: str = "",
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
    ) -> Document:
        """Patch an object, or one of its subresources."""

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "",
    ) -> Document:
        """Delete an object.

        Args:
            kind: the kind.
            name: the object's name.
            namespace: its namespace.
            grace_period_s: whole seconds; ``None`` is the object's own.
            uid: a precondition; a different uid is a 409.
            resource_version: a precondition.
            propagation: ``Background``, ``Foreground`` or ``Orphan``.

        Returns:
            The object while it is being deleted, or a Status.
        """

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation: str = "",
    ) -> Document:
        """Delete the objects of a namespace (or of all of them) that are selected.

        Returns:
            The List of what was deleted, or is being deleted.
        """

    async def get_subresource(
        self, kind: Kind, name: str, subresource: str, namespace: str = ""
    ) -> Document:
        """Return a subresource that is a document."""

    async def create_subresource(
        self,
        kind: Kind,
        name: str,
        subresource: str,
        document: Document,
        namespace: str = "",
    ) -> Document:
        """POST to a subresource: ``binding``, ``token``, ``eviction``."""

    async def get_raw(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """GET any path (``/readyz``, ``…/log``) and return the body."""
