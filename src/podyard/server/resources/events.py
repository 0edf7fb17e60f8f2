"""Events of the core group: the stored form."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import EVENT
from podyard.server import table
from podyard.server.resource import (
    Cell,
    Column,
    Resource,
    Strategy,
    fields,
    read_path,
)


def _source(document: Document) -> str:
    source = document.get("source") or {}
    component = source.get("component") or document.get("reportingComponent") or ""
    host = source.get("host") or document.get("reportingInstance") or ""
    return ", ".join(part for part in (component, host) if part)


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    about = document.get("involvedObject") or {}
    first = document.get("firstTimestamp") or document.get("eventTime")
    last = document.get("lastTimestamp") or first
    series = document.get("series")
    count = document.get("count") or 1
    if series:
        last = series.get("lastObservedTime") or last
        count = series.get("count") or 0
    target = about.get("name") or ""
    if about.get("kind"):
        target = f"{about['kind'].lower()}/{target}"
    return (
        table.since(last, now),
        document.get("type") or "",
        document.get("reason") or "",
        target,
        about.get("fieldPath") or "",
        _source(document),
        (document.get("message") or "").strip(),
        table.since(first, now),
        count,
        table.name(document),
    )


def _component(document: Document) -> str:
    source = document.get("source") or {}
    return str(source.get("component") or document.get("reportingComponent") or "")


PART: Final = Resource(
    EVENT,
    columns=(
        Column("Last Seen", description="Time when this event was last observed"),
        Column("Type"),
        Column("Reason"),
        Column("Object"),
        table.wide("Subobject"),
        table.wide("Source"),
        Column("Message"),
        table.wide("First Seen"),
        Column("Count", type="integer", priority=1),
        Column("Name", format="name", priority=1),
    ),
    cells=_cells,
    strategy=Strategy(create_on_update=True),
    selectable_fields={
        **fields(
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
        ),
        "reportingComponent": read_path("reportingComponent"),
        "source": _component,
    },
)
