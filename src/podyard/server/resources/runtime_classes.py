"""RuntimeClasses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import RUNTIME_CLASS
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    handler = document.get("handler") or ""
    return table.name(document), handler, table.age(document, now)


PART: Final = Resource(
    RUNTIME_CLASS,
    columns=(table.NAME_COLUMN, Column("Handler"), table.AGE_COLUMN),
    cells=_cells,
    strategy=Strategy(create_on_update=True, unconditional_update=False),
)
