"""What every cluster has from its first second.

Namespaces, the system's PriorityClasses, a StorageClass, its own Service and DNS.

Asks before it writes, so that a later start writes nothing; safe to repeat after a
crash at any line.

Source: kubernetes ``pkg/controlplane/controller/{systemnamespaces,kubernetesservice}``
and ``pkg/registry/scheduling/rest`` (v1.36).
"""

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Final

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.priority import build_system_classes
from podyard.api.scheme import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    NAMESPACE,
    PRIORITY_CLASS,
    SERVICE,
    STORAGE_CLASS,
    Kind,
)
from podyard.api.storage import CLASS_NAME, DEFAULT_CLASS, PROVISIONER
from podyard.client.services import ApiClient
from podyard.lib.values import dataclass

log = structlog.get_logger()

#: The namespaces every cluster has.
NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
#: The Service by which Pods reach the API server.
SERVICE_NAME: Final = "kubernetes"
#: The Service by which Pods reach the cluster's DNS.
DNS_NAMESPACE: Final = "kube-system"
DNS_NAME: Final = "kube-dns"
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_MANAGER: Final = "podyard"


@dataclass(frozen=True, slots=True)
class ApiServerAddress:
    """Where the API server is.

    Attributes:
        service_ip: the ClusterIP of the ``kubernetes`` Service.
        ip: where it listens, as Pods reach it; never a loopback address.
        port: where it listens.
    """

    service_ip: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class DnsAddress:
    """Where the cluster's DNS is.

    Attributes:
        service_ip: its ClusterIP.
        ip: where it listens.
        port: where it listens, UDP and TCP.
    """

    service_ip: str
    ip: str
    port: int


async def bootstrap(client: ApiClient, address: ApiServerAddress) -> int:
    """Make what is missing, and correct where the API server is.

    Args:
        client: may write everywhere.
        address: where the API server is.

    Returns:
        How many objects were written; 0 on every start but the first.

    Raises:
        ApiError: the API server refuses.
        ApiUnreachableError: it cannot be reached.
    """
    present = await client.list(NAMESPACE)
    there = {item["metadata"]["name"] for item in present.get("items") or ()}
    written = await _create_namespaces(
        client, (name for name in NAMESPACES if name not in there)
    )
    written += await _create_priority_classes(client)
    written += await _create_storage_class(client)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_ensure(client, kind, document))
            for kind, document in build_documents(address)
        ]
    written += sum(task.result() for task in tasks)
    if written:
        log.info("bootstrapped", objects=written)
    return written


async def bootstrap_dns(client: ApiClient, address: DnsAddress | None) -> None:
    """Make the Service of the built-in DNS, or remove it where there is none.

    Somebody else's Service of that name is left alone.

    Args:
        client: may write everywhere.
        address: where DNS is; ``None`` when it is switched off.

    Raises:
        ApiUnreachableError: the API server cannot be reached.
    """
    try:
        present = await client.get(SERVICE, DNS_NAME, DNS_NAMESPACE)
    except ApiError:
        present = None
    labels = (present or {}).get("metadata", {}).get("labels") or {}
    if present is not None and labels.get(_MANAGED_BY) != _MANAGER:
        log.info("dns_service_is_not_ours", service=f"{DNS_NAMESPACE}/{DNS_NAME}")
        return
    try:
        if address is not None:
            for kind, document in build_dns_documents(address):
                await _ensure(client, kind, document)
        elif present is not None:
            for kind in (SERVICE, ENDPOINTS, ENDPOINT_SLICE):
                await client.delete(kind, DNS_NAME, DNS_NAMESPACE)
    except ApiError as error:
        # The cluster works without; an address that is taken is somebody's wish.
        log.warning("dns_service_refused", error=str(error))


async def _create_namespaces(client: ApiClient, names: Iterable[str]) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_create(client, NAMESPACE, {"metadata": {"name": name}}))
            for name in names
        ]
    return sum(task.result() for task in tasks)


async def _create_priority_classes(client: ApiClient) -> int:
    present = await client.list(PRIORITY_CLASS)
    there = {item["metadata"]["name"] for item in present.get("items") or ()}
    written = 0
    for document in build_system_classes():
        if document["metadata"]["name"] not in there:
            written += await _create(client, PRIORITY_CLASS, document)
    return written


async def _create_storage_class(client: ApiClient) -> bool:
    """Make the built-in class where there is none of its name."""
    try:
        await client.get(STORAGE_CLASS, CLASS_NAME)
    except ApiError as error:
        if error.code != 404:
            raise
        return await _create(client, STORAGE_CLASS, build_storage_class())
    return False


def build_storage_class() -> Document:
    """Return the class whose volumes are directories of a node."""
    return {
        "metadata": {"name": CLASS_NAME, "annotations": {DEFAULT_CLASS: "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


async def _create(client: ApiClient, kind: Kind, document: Document) -> bool:
    document = {"apiVersion": kind.api_version, "kind": kind.kind, **document}
    try:
        await client.create(kind, document)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        return False
    return True


async def _ensure(client: ApiClient, kind: Kind, wanted: Document) -> bool:
    """Create a document, or correct what differs in the present one."""
    metadata = wanted["metadata"]
    try:
        present = await client.get(kind, metadata["name"], metadata["namespace"])
    except ApiError as error:
        if error.code != 404:
            raise
        return await _create(client, kind, wanted)
    changed = _correct(present, wanted)
    if changed is None:
        return False
    try:
        await client.update(kind, changed)
    except ApiError as error:
        if error.code != 422:
            raise
        # The ClusterIP cannot change; another range of addresses was allocated.
        await client.delete(kind, metadata["name"], metadata["namespace"])
        return await _create(client, kind, wanted)
    return True


def _correct(present: Document, wanted: Document) -> Document | None:
    """Return the present document as it should be, or ``None`` where it is so."""
    changed = {**present, "metadata": dict(present["metadata"])}
    labels = {
        **(present["metadata"].get("labels") or {}),
        **wanted["metadata"]["labels"],
    }
    changed["metadata"]["labels"] = labels
    for field, value in wanted.items():
        if field in {"apiVersion", "kind", "metadata"}:
            continue
        if field == "spec":
            changed["spec"] = {**present.get("spec", {}), **value}
        else:
            changed[field] = value
    return None if changed == present else changed


def build_documents(address: ApiServerAddress) -> tuple[tuple[Kind, Document], ...]:
    """Return the Service ``kubernetes`` with what stands behind it."""
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Document = {
        "metadata": _metadata(labels),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.service_ip,
            "clusterIPs": [address.service_ip],
            "sessionAffinity": "None",
            "ports": [
                {
                    "name": "https",
                    "protocol": "TCP",
                    "port": 443,
                    "targetPort": address.port,
                }
            ],
        },
    }
    port = {"name": "https", "port": address.port, "protocol": "TCP"}
    endpoints: Document = {
        "metadata": _metadata({"endpointslice.kubernetes.io/skip-mirror": "true"}),
        "subsets": [{"addresses": [{"ip": address.ip}], "ports": [port]}],
    }
    endpoint_slice: Document = {
        "metadata": _metadata({"kubernetes.io/service-name": SERVICE_NAME}),
        "addressType": f"IPv{ipaddress.ip_address(address.ip).version}",
        "endpoints": [{"addresses": [address.ip], "conditions": {"ready": True}}],
        "ports": [port],
    }
    return (
        (SERVICE, service),
        (ENDPOINTS, endpoints),
        (ENDPOINT_SLICE, endpoint_slice),
    )


def _metadata(labels: dict[str, str]) -> Document:
    return {"name": SERVICE_NAME, "namespace": "default", "labels": labels}


def build_dns_documents(address: DnsAddress) -> tuple[tuple[Kind, Document], ...]:
    """Return the Service ``kube-dns`` with what stands behind it."""
    named = (("dns", "UDP"), ("dns-tcp", "TCP"))
    behind = [
        {"name": name, "port": address.port, "protocol": protocol}
        for name, protocol in named
    ]
    service: Document = {
        "metadata": _dns_metadata(
            {"k8s-app": DNS_NAME, "kubernetes.io/cluster-service": "true"}
        ),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.service_ip,
            "clusterIPs": [address.service_ip],
            "sessionAffinity": "None",
            "ports": [
                {
                    "name": name,
                    "protocol": protocol,
                    "port": 53,
                    "targetPort": address.port,
                }
                for name, protocol in named
            ],
        },
    }
    endpoints: Document = {
        "metadata": _dns_metadata({"endpointslice.kubernetes.io/skip-mirror": "true"}),
        "subsets": [{"addresses": [{"ip": address.ip}], "ports": behind}],
    }
    endpoint_slice: Document = {
        "metadata": _dns_metadata({"kubernetes.io/service-name": DNS_NAME}),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.ip], "conditions": {"ready": True}}],
        "ports": behind,
    }
    return (
        (SERVICE, service),
        (ENDPOINTS, endpoints),
        (ENDPOINT_SLICE, endpoint_slice),
    )


def _dns_metadata(labels: dict[str, str]) -> Document:
    labels = {**labels, _MANAGED_BY: _MANAGER}
    return {"name": DNS_NAME, "namespace": DNS_NAMESPACE, "labels": labels}
