"""PriorityClasses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import PRIORITY_CLASS
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    return (
        table.name(document),
        document.get("value") or 0,
        bool(document.get("globalDefault")),
        table.age(document, now),
        document.get("preemptionPolicy") or "",
    )


PART: Final = Resource(
    PRIORITY_CLASS,
    columns=(
        table.NAME_COLUMN,
        table.number("Value", "The integer value of the priority class."),
        Column(
            "Global-Default",
            type="boolean",
            description="Whether Pods without a class are of this one.",
        ),
        table.AGE_COLUMN,
        Column("PreemptionPolicy", description="Whether its Pods preempt others."),
    ),
    cells=_cells,
)
