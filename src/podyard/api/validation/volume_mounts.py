"""Rules of how containers use the volumes of their Pod.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/storage/volumes/#mount-propagation
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.validation.faults import missing
from podyard.api.validation.paths import check_descending

#: The kinds of source of every volume of a Pod.
_VolumeKinds: TypeAlias = Mapping[str, frozenset[str]]


def check_volume_mounts(
    container: Document, kinds: _VolumeKinds, field: str
) -> Iterator[FieldError]:
    """Check the ``volumeMounts`` of a container.

    Args:
        container: the container.
        kinds: the kinds of source of every volume of the Pod.
        field: the path of the list.
    """
    devices = container.get("volumeDevices") or ()
    device_names = {device.get("name") for device in devices}
    device_paths = {device.get("devicePath") for device in devices}
    taken: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{field}[{index}]"
        name, path = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield required(f"{where}.name")
        if name not in kinds:
            yield missing(f"{where}.name", name)
        if not path:
            yield required(f"{where}.mountPath")
        if path in taken:
            yield invalid(f"{where}.mountPath", path, "must be unique")
        taken.add(path)
        if name in device_names:
            yield invalid(
                f"{where}.name", name, "must not already exist in volumeDevices"
            )
        if path in device_paths:
            yield invalid(
                f"{where}.mountPath",
                path,
                "must not already exist as a path in volumeDevices",
            )
        yield from _check_sub_path(mount, field, where)
        yield from _check_propagation(mount, container, field)
        yield from _check_recursive_read_only(mount, field)


def _check_sub_path(mount: Document, field: str, where: str) -> Iterator[FieldError]:
    path, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    if path:
        yield from check_descending(f"{field}.subPath", path)
    if expression:
        if path:
            yield invalid(
                f"{where}.subPathExpr",
                expression,
                "subPathExpr and subPath are mutually exclusive",
            )
        yield from check_descending(f"{field}.subPathExpr", expression)


def _check_propagation(
    mount: Document, container: Document, field: str
) -> Iterator[FieldError]:
    mode = mount.get("mountPropagation")
    if mode is None:
        return
    where = f"{field}.mountPropagation"
    known = ("Bidirectional", "HostToContainer", "None")
    if mode not in known:
        yield not_supported(where, mode, known)
    privileged = (container.get("securityContext") or {}).get("privileged")
    if mode == "Bidirectional" and not privileged:
        yield forbidden_field(
            where,
            "Bidirectional mount propagation is available only to privileged "
            "containers",
        )


def _check_recursive_read_only(mount: Document, field: str) -> Iterator[FieldError]:
    mode = mount.get("recursiveReadOnly")
    where = f"{field}.recursiveReadOnly"
    if mode in {None, "Disabled"}:
        return
    if mode not in {"Enabled", "IfPossible"}:
        yield not_supported(where, mode, ("Disabled", "Enabled", "IfPossible"))
        return
    if not mount.get("readOnly"):
        yield forbidden_field(where, "may only be specified when readOnly is true")
    if mount.get("mountPropagation") not in {None, "None"}:
        yield forbidden_field(
            where,
            "may only be specified when mountPropagation is None or not specified",
        )


def check_volume_devices(
    container: Document, kinds: _VolumeKinds, field: str
) -> Iterator[FieldError]:
    """Check the ``volumeDevices`` of a container."""
    mounts = container.get("volumeMounts") or ()
    mount_names = {mount.get("name") for mount in mounts}
    mount_paths = {mount.get("mountPath") for mount in mounts}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        where = f"{field}[{index}]"
        name, path = device.get("name") or "", device.get("devicePath") or ""
        yield from _check_device_name(name, f"{where}.name", kinds, names)
        yield from _check_device_path(path, f"{where}.devicePath", paths)
        if name in mount_names:
            yield invalid(
                f"{where}.name", name, "must not already exist in volumeMounts"
            )
        if path in mount_paths:
            yield invalid(
                f"{where}.devicePath",
                path,
                "must not already exist as a path in volumeMounts",
            )
        names.add(name)
        paths.add(path)


def _check_device_name(
    name: str, field: str, kinds: _VolumeKinds, names: set[str]
) -> Iterator[FieldError]:
    if not name:
        yield required(field)
    elif name in names:
        yield invalid(field, name, "must be unique")
    if name not in kinds:
        yield missing(field, name)
    elif not kinds[name] & {"persistentVolumeClaim", "ephemeral"}:
        yield invalid(
            field,
            name,
            "can only use volume source type of PersistentVolumeClaim or Ephemeral "
            "for block mode",
        )


def _check_device_path(path: str, field: str, paths: set[str]) -> Iterator[FieldError]:
    if not path:
        yield required(field)
    elif path in paths:
        yield invalid(field, path, "must be unique")
    if ".." in path.split("/"):
        yield invalid(field, path, "can not contain backsteps ('..')")
