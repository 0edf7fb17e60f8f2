"""PodDisruptionBudgets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import POD_DISRUPTION_BUDGET
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy

_UNSAID: Final = "N/A"


def _amount(value: int | str | None) -> str:
    return _UNSAID if value is None else str(value)


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    return (
        table.name(document),
        _amount(spec.get("minAvailable")),
        _amount(spec.get("maxUnavailable")),
        status.get("disruptionsAllowed") or 0,
        table.age(document, now),
    )


PART: Final = Resource(
    POD_DISRUPTION_BUDGET,
    columns=(
        table.NAME_COLUMN,
        Column(
            "Min Available",
            description="The minimum number of pods that must be available.",
        ),
        Column(
            "Max Unavailable",
            description="The maximum number of pods that may be unavailable.",
        ),
        table.number(
            "Allowed Disruptions",
            "Calculated number of pods that may be disrupted at this time.",
        ),
        table.AGE_COLUMN,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, has_generation=True, unconditional_update=False),
    subresources=(STATUS,),
)
