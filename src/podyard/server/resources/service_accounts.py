"""ServiceAccounts; their tokens are asked for below them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.server import table
from podyard.server.resource import Cell, Resource, Strategy, Subresource


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    secrets = len(document.get("secrets") or [])
    return table.name(document), secrets, table.age(document, now)


PART: Final = Resource(
    SERVICE_ACCOUNT,
    columns=(table.NAME_COLUMN, table.number("Secrets"), table.AGE_COLUMN),
    cells=_cells,
    strategy=Strategy(returns_deleted=True),
    subresources=(
        Subresource(
            "token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"
        ),
    ),
)
