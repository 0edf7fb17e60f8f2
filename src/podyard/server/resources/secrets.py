"""Secrets: printed without a value."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import SECRET
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, fields


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    return (
        table.name(document),
        document.get("type") or "",
        len(document.get("data") or {}),
        table.age(document, now),
    )


PART: Final = Resource(
    SECRET,
    columns=(
        table.NAME_COLUMN,
        Column("Type"),
        table.number("Data"),
        table.AGE_COLUMN,
    ),
    cells=_cells,
    selectable_fields=fields("type"),
)
