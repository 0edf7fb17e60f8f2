"""Leases."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import LEASE
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    holder = table.spec(document).get("holderIdentity") or ""
    return table.name(document), holder, table.age(document, now)


PART: Final = Resource(
    LEASE,
    columns=(table.NAME_COLUMN, Column("Holder"), table.AGE_COLUMN),
    cells=_cells,
    strategy=Strategy(create_on_update=True, unconditional_update=False),
)
