"""Services: how they are printed and which fields go with which type."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import SERVICE
from podyard.server import table
from podyard.server.resource import STATUS, Cell, Column, Resource, Strategy, fields


def _external_ips(document: Document) -> str:
    spec = table.spec(document)
    external = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName") or "")
        case "LoadBalancer":
            ingress = (table.status(document).get("loadBalancer") or {}).get("ingress")
            found = [
                entry.get("ip") or entry.get("hostname") or ""
                for entry in ingress or ()
            ]
            return ",".join([*found, *external]) or "<pending>"
        case _:
            return ",".join(external) or table.NONE


def _port(port: Document) -> str:
    text = str(port.get("port"))
    if port.get("nodePort"):
        text += f":{port['nodePort']}"
    return f"{text}/{port.get('protocol') or 'TCP'}"


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec = table.spec(document)
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return (
        table.name(document),
        spec.get("type") or "",
        addresses[0] or table.NONE,
        _external_ips(document),
        ",".join(map(_port, spec.get("ports") or ())) or table.NONE,
        table.age(document, now),
        table.show_labels(spec.get("selector")),
    )


PART: Final = Resource(
    SERVICE,
    columns=(
        table.NAME_COLUMN,
        Column("Type"),
        Column("Cluster-IP"),
        Column("External-IP"),
        Column("Port(s)"),
        table.AGE_COLUMN,
        table.SELECTOR,
    ),
    cells=_cells,
    strategy=Strategy(
        has_status=True,
        create_on_update=True,
        returns_deleted=True,
    ),
    subresources=(STATUS,),
    selectable_fields=fields("spec.clusterIP", "spec.type"),
)
