"""ControllerRevisions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import CONTROLLER_REVISION
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource


def _controller(document: Document) -> str:
    for owner in table.metadata(document).get("ownerReferences") or ():
        if owner.get("controller"):
            group = str(owner.get("apiVersion") or "").rpartition("/")[0]
            kind = str(owner.get("kind") or "").lower()
            return f"{kind}{'.' if group else ''}{group}/{owner.get('name')}"
    return table.NONE


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    return (
        table.name(document),
        _controller(document),
        document.get("revision") or 0,
        table.age(document, now),
    )


PART: Final = Resource(
    CONTROLLER_REVISION,
    columns=(
        table.NAME_COLUMN,
        Column("Controller", description="Controller of the object"),
        table.number("Revision"),
        table.AGE_COLUMN,
    ),
    cells=_cells,
)
