"""Endpoints."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import ENDPOINTS
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, Strategy


def _hosts(document: Document) -> Iterator[str]:
    for subset in document.get("subsets") or ():
        addresses = [entry.get("ip") or "" for entry in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            yield from addresses
        for port in ports:
            for address in addresses:
                host = f"[{address}]" if ":" in address else address
                yield f"{host}:{port.get('port')}"


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    hosts = table.first_three(_hosts(document)) or table.NONE
    return table.name(document), hosts, table.age(document, now)


PART: Final = Resource(
    ENDPOINTS,
    columns=(table.NAME_COLUMN, Column("Endpoints"), table.AGE_COLUMN),
    cells=_cells,
    strategy=Strategy(create_on_update=True),
)
