"""CronJobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import CRON_JOB
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy


def _suspend(value: bool | None) -> str:  # noqa: FBT001 - a field's value
    return table.UNSET if value is None else str(value)


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    return (
        table.name(document),
        spec.get("schedule") or "",
        spec.get("timeZone") or table.NONE,
        _suspend(spec.get("suspend")),
        len(status.get("active") or []),
        table.since(last, now) if last else table.NONE,
        table.age(document, now),
        *table.containers_and_images((job.get("template") or {}).get("spec")),
        table.show_selector(job.get("selector")),
    )


PART: Final = Resource(
    CRON_JOB,
    columns=(
        table.NAME_COLUMN,
        Column("Schedule"),
        Column("Timezone"),
        Column("Suspend", type="boolean"),
        table.number("Active"),
        Column("Last Schedule"),
        table.AGE_COLUMN,
        table.CONTAINERS,
        table.IMAGES,
        table.SELECTOR,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, has_generation=True),
    subresources=(STATUS,),
)
