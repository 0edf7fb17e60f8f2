"""Tables as kubectl prints them: pure functions from documents to cells.

Source: kubernetes ``pkg/printers/internalversion/printers.go`` and apimachinery
``util/duration`` (v1.36).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from podyard.api.core_v1 import parse_time
from podyard.api.documents import Document
from podyard.api.labels import SelectorError, selector_from_labels, selector_from_object
from podyard.server.resource import Cell, Column, Resource

NONE: Final = "<none>"
UNSET: Final = "<unset>"
UNKNOWN: Final = "<unknown>"

NAME_COLUMN: Final = Column(
    "Name",
    format="name",
    description="Name must be unique within a namespace.",
)
AGE_COLUMN: Final = Column(
    "Age",
    description="Time since the object was created.",
)
CONTAINERS: Final = Column(
    "Containers", priority=1, description="Names of each container in the template."
)
IMAGES: Final = Column(
    "Images", priority=1, description="Images of each container in the template."
)
SELECTOR: Final = Column("Selector", priority=1, description="The label selector.")


def wide(name: str, description: str = "") -> Column:
    """Return a column that only ``-o wide`` shows."""
    return Column(name, priority=1, description=description)


def number(name: str, description: str = "") -> Column:
    """Return an integer column."""
    return Column(name, type="integer", description=description)


def human_duration(span: timedelta) -> str:
    """Return a span as ``5m3s``, ``3h``, ``12d``: two units where it is young."""
    seconds = int(span.total_seconds())
    if span.total_seconds() < -1:
        return "<invalid>"
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    minutes = seconds // 60
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    if small == 0:
        return f"{large}{large_unit}"
    return f"{large}{large_unit}{small}{small_unit}"


def since(text: str | None, now: datetime) -> str:
    """Return how long ago a timestamp is, or ``<unknown>``."""
    at = parse_time(text)
    return UNKNOWN if at is None else human_duration(now - at)


def age(document: Document, now: datetime) -> str:
    """Return the age of an object."""
    return since(metadata(document).get("creationTimestamp"), now)


def metadata(document: Document) -> dict[str, Any]:
    """Return the metadata of an object, possibly empty."""
    return document.get("metadata") or {}


def spec(document: Document) -> dict[str, Any]:
    """Return the spec of an object, possibly empty."""
    return document.get("spec") or {}


def status(document: Document) -> dict[str, Any]:
    """Return the status of an object, possibly empty."""
    return document.get("status") or {}


def name(document: Document) -> str:
    """Return the name of an object."""
    return str(metadata(document).get("name") or "")


def containers_and_images(pod_spec: Document | None) -> tuple[str, str]:
    """Return the joined names and images of a Pod spec's containers."""
    containers = (pod_spec or {}).get("containers") or []
    return (
        ",".join(container.get("name") or "" for container in containers),
        ",".join(container.get("image") or "" for container in containers),
    )


def template_cells(document: Document) -> tuple[str, str]:
    """Return the containers and images of an object's Pod template."""
    return containers_and_images((spec(document).get("template") or {}).get("spec"))


def show_selector(selector: Document | None) -> str:
    """Return a ``LabelSelector`` as text."""
    if selector is None:
        return NONE
    try:
        return str(selector_from_object(selector)) or NONE
    except SelectorError:
        return "<error>"


def show_labels(labels: dict[str, str] | None) -> str:
    """Return a plain map of labels as text."""
    return str(selector_from_labels(labels)) or NONE


def has_condition(document: Document, kind: str) -> bool:
    """Say whether a condition of that type is true."""
    return any(
        condition.get("type") == kind and condition.get("status") == "True"
        for condition in status(document).get("conditions") or ()
    )


def first_three(values: Iterable[str], *, separator: str = ",") -> str:
    """Return up to three values and how many more there are."""
    known = list(values)
    shown = separator.join(known[:3])
    return f"{shown} + {len(known) - 3} more..." if len(known) > 3 else shown


def partial_metadata(document: Document) -> Document:
    """Return the ``PartialObjectMetadata`` of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": document.get("metadata") or {},
    }


def build_row(
    resource: Resource, document: Document, now: datetime, *, include: str
) -> Document:
    """Return one table row.

    Args:
        resource: the kind.
        document: the object.
        now: the time ages are counted to.
        include: ``Metadata``, ``Object`` or ``None``, what goes along with the cells.
    """
    row: Document = {"cells": list(resource.cells(document, now))}
    conditions = _row_conditions(resource, document)
    if conditions:
        row["conditions"] = conditions
    match include:
        case "None":
            row["object"] = None
        case "Object":
            row["object"] = document
        case _:
            row["object"] = partial_metadata(document)
    return row


def _row_conditions(resource: Resource, document: Document) -> list[Document]:
    """Return the mark by which ``kubectl`` knows a finished Pod."""
    if resource.kind.resource != "pods":
        return []
    phase = status(document).get("phase")
    if phase == "Succeeded":
        text = "The pod has completed successfully."
    elif phase == "Failed":
        text = "The pod failed."
    else:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": text}]


def build_table(
    rows: Sequence[object],
    *,
    columns: Sequence[Column] | None,
    list_metadata: Document,
) -> Document:
    """Return a ``Table``; ``columns`` is ``None`` where they were sent before."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": None
        if columns is None
        else [column.to_document() for column in columns],
        "rows": list(rows),
    }


#: Columns of a kind that has none of its own.
PLAIN_COLUMNS: Final = (NAME_COLUMN, AGE_COLUMN)


def plain_cells(document: Document, now: datetime) -> Sequence[Cell]:
    """Return name and age."""
    return name(document), age(document, now)


_ACCESS_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Sequence[str] | None) -> str:
    """Return access modes as kubectl abbreviates them."""
    listed = modes or ()
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in listed)


def attributes_class(document: Document) -> str:
    """Return the name of the VolumeAttributesClass, or kubectl's word for none."""
    name = spec(document).get("volumeAttributesClassName")
    return str(name) if name else "<unset>"
