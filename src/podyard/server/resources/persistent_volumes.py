"""PersistentVolumes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import PERSISTENT_VOLUME
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    claim = spec.get("claimRef") or {}
    phase = str(status.get("phase") or "")
    if table.metadata(document).get("deletionTimestamp"):
        phase = "Terminating"
    return (
        table.name(document),
        (spec.get("capacity") or {}).get("storage") or "",
        table.access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        phase,
        f"{claim.get('namespace')}/{claim.get('name')}" if claim else "",
        spec.get("storageClassName") or "",
        table.attributes_class(document),
        status.get("reason") or "",
        table.age(document, now),
        spec.get("volumeMode") or table.UNSET,
    )


def _prepare_create(document: Document) -> None:
    document["status"] = {"phase": "Pending"}


PART: Final = Resource(
    PERSISTENT_VOLUME,
    columns=(
        table.NAME_COLUMN,
        Column("Capacity", description="How much it holds."),
        Column("Access Modes", description="How it may be used."),
        Column("Reclaim Policy", description="What becomes of it without its claim."),
        Column("Status", description="Whether it is free, bound or released."),
        Column("Claim", description="The claim that has it."),
        Column("StorageClass", description="The class it is of."),
        Column("VolumeAttributesClass", description="The attributes it has."),
        Column("Reason", description="Why its status is what it is."),
        table.AGE_COLUMN,
        table.wide("VolumeMode", "Whether it is a file system or a block device."),
    ),
    cells=_cells,
    strategy=Strategy(has_status=True, prepare_create=_prepare_create),
    subresources=(STATUS,),
)
