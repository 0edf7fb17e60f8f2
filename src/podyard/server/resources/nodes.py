"""Nodes."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import NODE
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

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE_LABEL: Final = "kubernetes.io/role"


def _status(document: Document) -> str:
    texts = []
    for condition in table.status(document).get("conditions") or ():
        if condition.get("type") == "Ready":
            ready = condition.get("status") == "True"
            texts.append("Ready" if ready else "NotReady")
    if not texts:
        texts.append("Unknown")
    if table.spec(document).get("unschedulable"):
        texts.append("SchedulingDisabled")
    return ",".join(texts)


def _roles(document: Document) -> Iterator[str]:
    for key, value in (table.metadata(document).get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX) and key != _ROLE_PREFIX:
            yield key.removeprefix(_ROLE_PREFIX)
        elif key == _ROLE_LABEL and value:
            yield value


def _address(document: Document, kind: str) -> str:
    for address in table.status(document).get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address"))
    return table.NONE


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    info = table.status(document).get("nodeInfo") or {}
    return (
        table.name(document),
        _status(document),
        ",".join(sorted(set(_roles(document)))) or table.NONE,
        table.age(document, now),
        info.get("kubeletVersion") or "",
        _address(document, "InternalIP"),
        _address(document, "ExternalIP"),
        info.get("osImage") or table.UNKNOWN,
        info.get("kernelVersion") or table.UNKNOWN,
        info.get("containerRuntimeVersion") or table.UNKNOWN,
    )


PART: Final = Resource(
    NODE,
    columns=(
        table.NAME_COLUMN,
        Column("Status", description="The status of the node"),
        Column("Roles", description="The roles of the node"),
        table.AGE_COLUMN,
        Column("Version", description="Kubelet Version reported by the node."),
        table.wide("Internal-IP"),
        table.wide("External-IP"),
        table.wide("OS-Image"),
        table.wide("Kernel-Version"),
        table.wide("Container-Runtime"),
    ),
    cells=_cells,
    strategy=Strategy(
        has_status=True,
        status_on_create=True,
        status_metadata=frozenset({"labels", "annotations"}),
    ),
    subresources=(
        STATUS,
        Subresource(
            "proxy",
            ("create", "delete", "get", "patch", "update"),
            kind="NodeProxyOptions",
        ),
    ),
    selectable_fields=fields("spec.unschedulable"),
)
