"""StatefulSets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import STATEFUL_SET
from podyard.server import table
from podyard.server.resource import SCALE, STATUS, Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    return (
        table.name(document),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        table.age(document, now),
        *table.template_cells(document),
    )


PART: Final = Resource(
    STATEFUL_SET,
    columns=(
        table.NAME_COLUMN,
        Column("Ready", description="Number of the pod with ready state"),
        table.AGE_COLUMN,
        table.CONTAINERS,
        table.IMAGES,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, has_generation=True),
    subresources=(SCALE, STATUS),
)
