"""What the API server must know of a kind beyond its schema.

A kind is one module in ``server/resources`` that ends in ``PART: Final =
Resource(...)``; everything here is data and pure functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from podyard.api.documents import Document
from podyard.api.scheme import ALL_VERBS, Kind
from podyard.lib.values import dataclass

#: One cell of a table row.
Cell: TypeAlias = str | int | bool | None
#: Computes a row's cells, one for each column, at a time.
Cells: TypeAlias = Callable[[Document, datetime], Sequence[Cell]]
#: Reads one selectable field.
FieldReader: TypeAlias = Callable[[Document], str]
#: Changes a new document in place before it is validated.
Prepare: TypeAlias = Callable[[Document], None]
#: Changes a new document in place, given the stored one.
PrepareUpdate: TypeAlias = Callable[[Document, Document], None]


@dataclass(frozen=True, slots=True)
class Column:
    """One table column, as kubectl prints it.

    Attributes:
        name: the header; kubectl prints it in capitals.
        type: ``string``, ``integer`` or ``boolean``.
        format: ``name`` for the object's name.
        priority: 0 always, 1 only with ``-o wide``.
        description: one line.
    """

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""

    def to_document(self) -> Document:
        """Return the ``TableColumnDefinition``."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or self.name,
            "priority": self.priority,
        }


class Propagation(StrEnum):
    """What becomes of dependants when nothing is said."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


def _leave(_: Document) -> None:
    """Change nothing."""


def _leave_update(_: Document, __: Document) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a kind behaves when it is written.

    Attributes:
        has_status: it has a status that only the status subresource may write.
        status_on_create: a create may bring its status along (Nodes).
        has_generation: ``metadata.generation`` counts changes of what is wanted.
        unconditional_update: an update may leave the resourceVersion out.
        create_on_update: an update of an absent object creates it.
        graceful: a delete first marks it and waits (Pods).
        returns_deleted: a delete answers with the object instead of a Status.
        propagation: what becomes of dependants by default.
        status_metadata: the metadata fields a status update may change.
        prepare_create: changes a new object before validation.
        prepare_update: changes an update before validation.
        prepare_status: changes a status update before validation.
    """

    has_status: bool = False
    status_on_create: bool = False
    has_generation: bool = False
    unconditional_update: bool = True
    create_on_update: bool = False
    graceful: bool = False
    returns_deleted: bool = False
    propagation: Propagation = Propagation.BACKGROUND
    status_metadata: frozenset[str] = frozenset()
    prepare_create: Prepare = _leave
    prepare_update: PrepareUpdate = _leave_update
    prepare_status: PrepareUpdate = _leave_update


@dataclass(frozen=True, slots=True)
class Subresource:
    """One subresource of a kind.

    Attributes:
        name: ``status`` …
        verbs: what may be done with it.
        kind: the kind of its document; empty is the parent's.
        group: that kind's group, where it is not the parent's.
        version: that kind's version, where it is not the parent's.
    """

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


#: Read, replace and patch, as a status has.
STATUS_VERBS: Final = ("get", "patch", "update")
STATUS: Final = Subresource("status", STATUS_VERBS)
SCALE: Final = Subresource("scale", STATUS_VERBS, "Scale", "autoscaling", "v1")


@dataclass(frozen=True, slots=True)
class View:
    """How a kind is seen of another kind's store.

    Attributes:
        to_stored: this kind's document → the stored one.
        from_stored: the stored document → this kind's.
    """

    to_stored: Callable[[Document], Document]
    from_stored: Callable[[Document], Document]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API server serves it.

    Attributes:
        kind: the kind.
        columns: the table columns, in order.
        cells: computes a row.
        strategy: how it behaves when written.
        subresources: what it has below it.
        selectable_fields: field selectors beyond name and namespace.
        view: set where it is a view of another kind's store.
        verbs: what may be done with it.
    """

    kind: Kind
    columns: tuple[Column, ...]
    cells: Cells
    strategy: Strategy = field(default_factory=Strategy)
    subresources: tuple[Subresource, ...] = ()
    selectable_fields: Mapping[str, FieldReader] = field(default_factory=dict)
    view: View | None = None
    verbs: tuple[str, ...] = ALL_VERBS

    def subresource(self, name: str) -> Subresource | None:
        """Return the subresource of that name, if there is one."""
        for subresource in self.subresources:
            if subresource.name == name:
                return subresource
        return None


def read_path(path: str) -> FieldReader:
    """Return a reader of a dotted path; absent is empty, booleans are lower case."""
    parts = tuple(path.split("."))

    def read(document: Document) -> str:
        value: object = document
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return read


def fields(*paths: str) -> dict[str, FieldReader]:
    """Return the readers of several dotted paths."""
    return {path: read_path(path) for path in paths}
