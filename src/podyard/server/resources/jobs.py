"""Jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import parse_time
from podyard.api.documents import Document
from podyard.api.scheme import JOB
from podyard.server import table
from podyard.server.resource import (
    STATUS,
    Cell,
    Column,
    Propagation,
    Resource,
    Strategy,
)


def _status(document: Document) -> str:
    for condition in ("Complete", "Failed"):
        if table.has_condition(document, condition):
            return condition
    if table.metadata(document).get("deletionTimestamp"):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if table.has_condition(document, condition):
            return condition
    return "Running"


def _completions(document: Document) -> str:
    spec = table.spec(document)
    done = table.status(document).get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(document: Document, now: datetime) -> str:
    status = table.status(document)
    start = parse_time(status.get("startTime"))
    if start is None:
        return ""
    return table.human_duration(
        (parse_time(status.get("completionTime")) or now) - start
    )


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    return (
        table.name(document),
        _status(document),
        _completions(document),
        _duration(document, now),
        table.age(document, now),
        *table.template_cells(document),
        table.show_selector(table.spec(document).get("selector")),
    )


PART: Final = Resource(
    JOB,
    columns=(
        table.NAME_COLUMN,
        Column("Status"),
        Column("Completions"),
        Column("Duration"),
        table.AGE_COLUMN,
        table.CONTAINERS,
        table.IMAGES,
        table.SELECTOR,
    ),
    cells=_cells,
    strategy=Strategy(
        has_status=True, has_generation=True, propagation=Propagation.ORPHAN
    ),
    subresources=(STATUS,),
    selectable_fields={
        "status.successful": lambda document: str(
            table.status(document).get("succeeded") or 0
        )
    },
)
