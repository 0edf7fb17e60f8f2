"""ConfigMaps."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import CONFIG_MAP
from podyard.server import table
from podyard.server.resource import Cell, Resource


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    entries = len(document.get("data") or {}) + len(document.get("binaryData") or {})
    return table.name(document), entries, table.age(document, now)


PART: Final = Resource(
    CONFIG_MAP,
    columns=(table.NAME_COLUMN, table.number("Data"), table.AGE_COLUMN),
    cells=_cells,
)
