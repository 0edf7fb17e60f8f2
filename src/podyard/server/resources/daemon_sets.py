"""DaemonSets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import DAEMON_SET
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    return (
        table.name(document),
        status.get("desiredNumberScheduled") or 0,
        status.get("currentNumberScheduled") or 0,
        status.get("numberReady") or 0,
        status.get("updatedNumberScheduled") or 0,
        status.get("numberAvailable") or 0,
        table.show_labels(pod_spec.get("nodeSelector")),
        table.age(document, now),
        *table.template_cells(document),
        table.show_selector(spec.get("selector")),
    )


PART: Final = Resource(
    DAEMON_SET,
    columns=(
        table.NAME_COLUMN,
        table.number("Desired"),
        table.number("Current"),
        table.number("Ready"),
        table.number("Up-to-date"),
        table.number("Available"),
        Column("Node Selector"),
        table.AGE_COLUMN,
        table.CONTAINERS,
        table.IMAGES,
        table.SELECTOR,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, has_generation=True),
    subresources=(STATUS,),
)
