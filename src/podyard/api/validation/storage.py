"""Rules of PersistentVolumes and StorageClasses.

Source: ``pkg/apis/core/validation`` and ``pkg/apis/storage/validation`` (v1.36).
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.quantity import parse_quantity
from podyard.api.syntax import check_dns1123_subdomain, check_qualified_name
from podyard.api.validation.claims import ACCESS_MODES, VOLUME_MODES
from podyard.api.validation.differences import show_differences
from podyard.api.validation.driver_volumes import check_driver_source
from podyard.api.validation.faults import (
    NOT_POSITIVE,
    check_choice,
    check_immutable,
    check_text,
)
from podyard.api.validation.paths import HOST_PATH_TYPES, check_no_backsteps
from podyard.api.validation.scheduling import check_node_selector

_RECLAIM_POLICIES: Final = ("Delete", "Recycle", "Retain")
_CLASS_POLICIES: Final = ("Delete", "Retain")
_BINDING_MODES: Final = ("Immediate", "WaitForFirstConsumer")
#: What a volume may be made of.
VOLUME_SOURCES: Final = (
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "iscsi",
    "cinder",
    "cephfs",
    "fc",
    "flocker",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)
_MOST_PARAMETERS: Final = 512
_MOST_PARAMETER_BYTES: Final = 256 * 1024


def check_volume(volume: Document) -> Iterator[FieldError]:
    """Check a PersistentVolume."""
    spec: Document = volume.get("spec") or {}
    yield from _check_access_modes(spec)
    yield from _check_capacity(spec)
    yield from _check_sources(spec)
    affinity = (spec.get("nodeAffinity") or {}).get("required")
    if affinity is not None:
        yield from check_node_selector(affinity, "spec.nodeAffinity.required")
    elif spec.get("nodeAffinity") is not None:
        detail = "must specify required node constraints"
        yield required("spec.nodeAffinity.required", detail)
    elif spec.get("local") is not None:
        yield required("spec.nodeAffinity", "Local volume requires node affinity")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy is not None:
        field = "spec.persistentVolumeReclaimPolicy"
        yield from check_choice(field, policy, _RECLAIM_POLICIES)
        path = (spec.get("hostPath") or {}).get("path")
        if policy == "Recycle" and path == "/":
            detail = "may not be 'recycle' for a hostPath mount of '/'"
            yield forbidden_field(field, detail)
    name = spec.get("storageClassName")
    if name:
        yield from check_text("spec.storageClassName", name, check_dns1123_subdomain)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        yield not_supported("spec.volumeMode", mode, VOLUME_MODES)


def _check_access_modes(spec: Document) -> Iterator[FieldError]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield required("spec.accessModes")
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield not_supported("spec.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        yield forbidden_field("spec.accessModes", detail)


def _check_capacity(spec: Document) -> Iterator[FieldError]:
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    elif "storage" not in capacity or len(capacity) > 1:
        yield not_supported("spec.capacity", capacity, ("storage",))
    for name, amount in capacity.items():
        if parse_quantity(amount).nano <= 0:
            yield invalid(f"spec.capacity[{name}]", amount, NOT_POSITIVE)


def _check_sources(spec: Document) -> Iterator[FieldError]:
    present = [name for name in VOLUME_SOURCES if spec.get(name) is not None]
    if not present:
        yield required("spec", "must specify a volume type")
    for index, name in enumerate(present):
        where, source = f"spec.{name}", spec[name]
        if index:
            yield forbidden_field(where, "may not specify more than 1 volume type")
        elif name in {"hostPath", "local"}:
            yield from _check_path(source, where)
        elif name == "csi":
            for key in ("driver", "volumeHandle"):
                if not source.get(key):
                    yield required(f"{where}.{key}")
        else:
            yield from check_driver_source(name, source, where)


def _check_path(source: Document, field: str) -> Iterator[FieldError]:
    path = source.get("path") or ""
    if not path:
        yield required(f"{field}.path")
        return
    yield from check_no_backsteps(f"{field}.path", path)
    kind = source.get("type") or ""
    if kind not in HOST_PATH_TYPES:
        yield not_supported(f"{field}.type", kind, HOST_PATH_TYPES)


def check_volume_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that a volume stays what it is and where it is."""
    wanted, present = new.get("spec") or {}, old.get("spec") or {}
    before = {name: present.get(name) for name in VOLUME_SOURCES if name in present}
    after = {name: wanted.get(name) for name in VOLUME_SOURCES if name in wanted}
    if before != after:
        detail = "spec.persistentvolumesource is immutable after creation"
        changes = show_differences(before, after)
        yield forbidden_field("spec.persistentvolumesource", f"{detail}\n{changes}")
    yield from check_immutable(
        "spec.volumeMode", wanted.get("volumeMode"), present.get("volumeMode")
    )
    if present.get("nodeAffinity") is not None:
        yield from check_immutable(
            "spec.nodeAffinity", wanted.get("nodeAffinity"), present["nodeAffinity"]
        )


def check_storage_class(storage_class: Document) -> Iterator[FieldError]:
    """Check a StorageClass."""
    provisioner = storage_class.get("provisioner") or ""
    if not provisioner:
        yield required("provisioner", provisioner)
    else:
        for text in check_qualified_name(provisioner.lower()):
            yield invalid("provisioner", provisioner, text)
    yield from _check_parameters(storage_class.get("parameters") or {})
    yield from check_choice(
        "reclaimPolicy", storage_class.get("reclaimPolicy") or "", _CLASS_POLICIES
    )
    mode = storage_class.get("volumeBindingMode")
    if mode is None:
        yield required("volumeBindingMode")
    else:
        yield from check_choice("volumeBindingMode", mode, _BINDING_MODES)


def _check_parameters(parameters: Document) -> Iterator[FieldError]:
    if len(parameters) > _MOST_PARAMETERS:
        detail = f"must have at most {_MOST_PARAMETERS} items"
        yield invalid("parameters", len(parameters), detail)
        return
    if "" in parameters:
        yield invalid("parameters", 0, "field can not be empty.")
    size = sum(len(key) + len(value) for key, value in parameters.items())
    if size > _MOST_PARAMETER_BYTES:
        detail = f"must have at most {_MOST_PARAMETER_BYTES} bytes"
        yield invalid("parameters", size, detail)


def check_storage_class_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that what volumes were made by stays."""
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if (new.get(field) or None) != (old.get(field) or None):
            yield forbidden_field(field, f"updates to {field} are forbidden.")
    yield from check_immutable(
        "volumeBindingMode",
        new.get("volumeBindingMode"),
        old.get("volumeBindingMode"),
    )
