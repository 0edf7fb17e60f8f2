"""Events of events.k8s.io: a view of the core group's store.

Source: kubernetes ``pkg/apis/events/v1/conversion.go`` (v1.36).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import EVENT, EVENT_V1
from podyard.server.resource import Cell, Resource, Strategy, View, read_path
from podyard.server.table import AGE_COLUMN, NAME_COLUMN, age, name

#: The name in events.k8s.io → the name in core.
_RENAMED: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_BACK: Final = {core: renamed for renamed, core in _RENAMED.items()}


def to_core(document: Document) -> Document:
    """Return the stored form of an events.k8s.io Event."""
    fields = {_RENAMED.get(field, field): value for field, value in document.items()}
    return {**fields, "kind": EVENT.kind, "apiVersion": EVENT.api_version}


def from_core(document: Document) -> Document:
    """Return a stored Event as events.k8s.io shows it."""
    fields = {_BACK.get(field, field): value for field, value in document.items()}
    return {**fields, "kind": EVENT_V1.kind, "apiVersion": EVENT_V1.api_version}


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    return name(document), age(document, now)


_PATHS: Final = {
    "regarding.kind": "regarding.kind",
    "regarding.namespace": "regarding.namespace",
    "regarding.name": "regarding.name",
    "regarding.uid": "regarding.uid",
    "regarding.apiVersion": "regarding.apiVersion",
    "regarding.resourceVersion": "regarding.resourceVersion",
    "regarding.fieldPath": "regarding.fieldPath",
    "reason": "reason",
    "type": "type",
    "reportingController": "reportingController",
}

PART: Final = Resource(
    EVENT_V1,
    columns=(NAME_COLUMN, AGE_COLUMN),
    cells=_cells,
    strategy=Strategy(create_on_update=True),
    selectable_fields={field: read_path(path) for field, path in _PATHS.items()},
    view=View(to_stored=to_core, from_stored=from_core),
)
