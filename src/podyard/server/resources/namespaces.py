"""Namespaces: kept until their contents are gone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import NAMESPACE
from podyard.server import table
from podyard.server.resource import (
    STATUS,
    Cell,
    Column,
    Resource,
    Strategy,
    Subresource,
    fields,
)


def _prepare_update(new: Document, old: Document) -> None:
    new["spec"] = {
        **(new.get("spec") or {}),
        "finalizers": (old.get("spec") or {}).get("finalizers") or [],
    }


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    phase = table.status(document).get("phase") or ""
    return table.name(document), phase, table.age(document, now)


PART: Final = Resource(
    NAMESPACE,
    columns=(
        table.NAME_COLUMN,
        Column("Status", description="The status of the namespace"),
        table.AGE_COLUMN,
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, prepare_update=_prepare_update),
    subresources=(STATUS, Subresource("finalize", ("update",))),
    selectable_fields=fields("status.phase"),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
)
