"""ReplicaSets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import REPLICA_SET
from podyard.server import table
from podyard.server.resource import SCALE, STATUS, Cell, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    return (
        table.name(document),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        table.age(document, now),
        *table.template_cells(document),
        table.show_selector(spec.get("selector")),
    )


PART: Final = Resource(
    REPLICA_SET,
    columns=(
        table.NAME_COLUMN,
        table.number("Desired"),
        table.number("Current"),
        table.number("Ready"),
        table.AGE_COLUMN,
        table.CONTAINERS,
        table.IMAGES,
        table.SELECTOR,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, has_generation=True),
    subresources=(SCALE, STATUS),
    selectable_fields={
        "status.replicas": lambda document: str(
            table.status(document).get("replicas") or 0
        )
    },
)
