"""PersistentVolumeClaims."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import PERSISTENT_VOLUME_CLAIM
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    phase = str(status.get("phase") or "")
    if table.metadata(document).get("deletionTimestamp"):
        phase = "Terminating"
    volume = spec.get("volumeName") or ""
    return (
        table.name(document),
        phase,
        volume,
        (status.get("capacity") or {}).get("storage") or "" if volume else "",
        table.access_modes(status.get("accessModes")) if volume else "",
        spec.get("storageClassName") or "",
        table.attributes_class(document),
        table.age(document, now),
        spec.get("volumeMode") or table.UNSET,
    )


def _prepare_create(document: Document) -> None:
    document["status"] = {"phase": "Pending"}


PART: Final = Resource(
    PERSISTENT_VOLUME_CLAIM,
    columns=(
        table.NAME_COLUMN,
        Column("Status", description="Whether it has a volume."),
        Column("Volume", description="The volume it has."),
        Column("Capacity", description="How much the volume holds."),
        Column("Access Modes", description="How the volume may be used."),
        Column("StorageClass", description="The class it asks for."),
        Column("VolumeAttributesClass", description="The attributes it asks for."),
        table.AGE_COLUMN,
        table.wide("VolumeMode", "Whether it is a file system or a block device."),
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, prepare_create=_prepare_create),
    subresources=(STATUS,),
)
