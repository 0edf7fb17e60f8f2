"""Rules of the volume sources that need a driver on the node.

The API accepts them; a node without the driver says so when it mounts.

Source: ``pkg/apis/core/validation`` (v1.36).
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid, not_supported, required
from podyard.api.syntax import (
    check_dns1123_label,
    check_dns1123_subdomain,
    in_range,
)
from podyard.api.validation.faults import check_required_text, check_text, too_long

#: What may not be left out, by source.
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "nfs": ("server", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "glusterfs": ("endpoints", "path"),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "cephfs": ("monitors",),
    "quobyte": ("registry", "volume"),
    "flexVolume": ("driver",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
}
_IQN = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9.\-]+)(:[^,;*&$|\s]+)$"),
    "eui": re.compile(r"^eui.[a-zA-Z0-9]{16}$"),
    "naa": re.compile(r"^naa.[a-zA-Z0-9]{32}$"),
}
_AZURE_CACHING: Final = ("None", "ReadOnly", "ReadWrite")
_AZURE_KINDS: Final = ("Dedicated", "Managed", "Shared")


def check_driver_source(
    name: str, source: Document, field: str
) -> Iterator[FieldError]:
    """Check one source whose driver the node may lack."""
    for key in _REQUIRED.get(name, ()):
        if not source.get(key):
            yield required(f"{field}.{key}")
    check = _CHECKS.get(name)
    if check is not None:
        yield from check(source, field)


def check_csi(source: Document, field: str) -> Iterator[FieldError]:
    """Check an inline CSI volume."""
    driver = source.get("driver") or ""
    if len(driver) > 63:
        yield too_long(f"{field}.driver", 63)
    if not driver:
        yield required(f"{field}.driver")
    else:
        for text in check_dns1123_subdomain(driver.lower()):
            yield invalid(f"{field}.driver", driver, text)
    reference = source.get("nodePublishSecretRef")
    if reference is not None:
        yield from check_required_text(
            f"{field}.nodePublishSecretRef.name",
            reference.get("name"),
            check_dns1123_subdomain,
        )


def _check_partition(source: Document, field: str) -> Iterator[FieldError]:
    partition = source.get("partition") or 0
    if not 0 <= partition <= 255:
        yield invalid(f"{field}.partition", partition, in_range(1, 255))


def _check_nfs(source: Document, field: str) -> Iterator[FieldError]:
    path = source.get("path") or ""
    if not path.startswith("/"):
        yield invalid(f"{field}.path", path, "must be an absolute path")


def _check_iscsi(source: Document, field: str) -> Iterator[FieldError]:
    if source.get("iqn"):
        yield from _check_iqn(source["iqn"], f"{field}.iqn")
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        yield invalid(f"{field}.lun", lun, in_range(0, 255))
    has_chap = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    if has_chap and source.get("secretRef") is None:
        yield required(f"{field}.secretRef")
    if source.get("initiatorName") is not None:
        yield from _check_iqn(source["initiatorName"], f"{field}.initiatorname")


def _check_iqn(name: str, field: str) -> Iterator[FieldError]:
    rule = _IQN.get(name[:3])
    if rule is None:
        text = "must be valid format starting with iqn, eui, or naa"
        yield invalid(field, name, text)
    elif not rule.search(name):
        yield invalid(field, name, "must be valid format")


def _check_fc(source: Document, field: str) -> Iterator[FieldError]:
    names, ids = source.get("targetWWNs") or [], source.get("wwids") or []
    where = f"{field}.targetWWNs"
    if not names and not ids:
        yield required(where, "must specify either targetWWNs or wwids, but not both")
    if names and ids:
        yield invalid(
            where, names, "targetWWNs and wwids can not be specified simultaneously"
        )
    lun = source.get("lun")
    if names and lun is None:
        yield required(f"{field}.lun", "lun is required if targetWWNs is specified")
    elif names and not 0 <= (lun or 0) <= 255:
        yield invalid(f"{field}.lun", lun, in_range(0, 255))


def _check_flocker(source: Document, field: str) -> Iterator[FieldError]:
    name, uuid = source.get("datasetName") or "", source.get("datasetUUID") or ""
    if not name and not uuid:
        yield required(field, "one of datasetName and datasetUUID is required")
    if name and uuid:
        yield invalid(
            field,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        )
    if "/" in name:
        yield invalid(f"{field}.datasetName", name, "must not contain '/'")


def _check_quobyte(source: Document, field: str) -> Iterator[FieldError]:
    registry = source.get("registry") or ""
    pairs = registry.split(",") if registry else []
    if any(":" not in pair for pair in pairs):
        yield invalid(
            f"{field}.registry",
            registry,
            "must be a host:port pair or multiple pairs separated by commas",
        )
    if len(source.get("tenant") or "") >= 65:
        yield required(
            f"{field}.tenant",
            "must be a UUID and may not exceed a length of 64 characters",
        )


def _check_flex(source: Document, field: str) -> Iterator[FieldError]:
    for key in source.get("options") or {}:
        namespace = f".{key.partition('/')[0].lower()}"
        if namespace.endswith((".kubernetes.io", ".k8s.io")):
            yield invalid(
                f"{field}.options[{key}]",
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            )


def _check_azure_disk(source: Document, field: str) -> Iterator[FieldError]:
    caching, kind = source.get("cachingMode"), source.get("kind")
    if caching is not None and caching not in _AZURE_CACHING:
        yield not_supported(f"{field}.cachingMode", caching, _AZURE_CACHING)
    if kind is not None and kind not in _AZURE_KINDS:
        yield not_supported(f"{field}.kind", kind, _AZURE_KINDS)


def _check_storage_os(source: Document, field: str) -> Iterator[FieldError]:
    yield from check_required_text(
        f"{field}.volumeName", source.get("volumeName"), check_dns1123_label
    )
    if source.get("volumeNamespace"):
        yield from check_text(
            f"{field}.volumeNamespace", source["volumeNamespace"], check_dns1123_label
        )


_CHECKS: Final[dict[str, Callable[[Document, str], Iterator[FieldError]]]] = {
    "gcePersistentDisk": _check_partition,
    "awsElasticBlockStore": _check_partition,
    "nfs": _check_nfs,
    "iscsi": _check_iscsi,
    "fc": _check_fc,
    "flocker": _check_flocker,
    "quobyte": _check_quobyte,
    "flexVolume": _check_flex,
    "azureDisk": _check_azure_disk,
    "storageos": _check_storage_os,
}
