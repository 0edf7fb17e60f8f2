"""StorageClasses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import STORAGE_CLASS
from podyard.api.storage import DEFAULT_CLASS
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    name = table.name(document)
    annotations = table.metadata(document).get("annotations") or {}
    if annotations.get(DEFAULT_CLASS) == "true":
        name += " (default)"
    return (
        name,
        document.get("provisioner") or "",
        document.get("reclaimPolicy") or "Delete",
        document.get("volumeBindingMode") or "Immediate",
        bool(document.get("allowVolumeExpansion")),
        table.age(document, now),
    )


PART: Final = Resource(
    STORAGE_CLASS,
    columns=(
        table.NAME_COLUMN,
        Column("Provisioner", description="Who makes the volumes."),
        Column("ReclaimPolicy", description="What becomes of them in the end."),
        Column("VolumeBindingMode", description="When they are made."),
        Column(
            "AllowVolumeExpansion",
            type="boolean",
            description="Whether claims may ask for more later.",
        ),
        table.AGE_COLUMN,
    ),
    cells=_cells,
)
