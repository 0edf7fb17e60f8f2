"""EndpointSlices."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import ENDPOINT_SLICE
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    ports = [
        "*" if port.get("port") is None else str(port["port"])
        for port in document.get("ports") or ()
    ]
    addresses = [
        address
        for endpoint in document.get("endpoints") or ()
        for address in endpoint.get("addresses") or ()
    ]
    return (
        table.name(document),
        document.get("addressType") or "",
        table.first_three(ports) or table.UNSET,
        table.first_three(addresses) or table.UNSET,
        table.age(document, now),
    )


PART: Final = Resource(
    ENDPOINT_SLICE,
    columns=(
        table.NAME_COLUMN,
        Column("AddressType"),
        Column("Ports"),
        Column("Endpoints"),
        table.AGE_COLUMN,
    ),
    cells=_cells,
    strategy=Strategy(has_generation=True),
)
