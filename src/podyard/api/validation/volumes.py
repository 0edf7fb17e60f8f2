"""Rules of Pod volumes.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/storage/volumes/
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.go_text import quote
from podyard.api.quantity import parse_quantity
from podyard.api.syntax import check_dns1123_label, check_dns1123_subdomain
from podyard.api.validation.claims import check_claim_template
from podyard.api.validation.driver_volumes import (
    check_csi,
    check_driver_source,
)
from podyard.api.validation.env import (
    VOLUME_FIELDS,
    check_field_ref,
    check_resource_field_ref,
)
from podyard.api.validation.faults import check_choice, check_required_text
from podyard.api.validation.paths import (
    HOST_PATH_TYPES,
    check_local,
    check_no_backsteps,
)
from podyard.api.validation.projections import check_projections
from podyard.api.validation.scope import Scope

_MODE_TEXT: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_ONE_TYPE: Final = "may not specify more than 1 volume type"
#: Every source in the order upstream looks at them.
SOURCES: Final = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
)


def check_volumes(
    volumes: Sequence[Document], field: str, scope: Scope
) -> Iterator[FieldError]:
    """Check the volumes of a Pod spec."""
    names: set[str] = set()
    created = {
        f"{scope.pod_name}-{volume.get('name')}"
        for volume in volumes
        if scope.pod_name and volume.get("ephemeral") is not None
    }
    for index, volume in enumerate(volumes):
        where = f"{field}[{index}]"
        name = volume.get("name") or ""
        yield from _check_source(volume, where, scope)
        yield from check_required_text(f"{where}.name", name, check_dns1123_label)
        if name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in created:
            yield invalid(
                f"{where}.persistentVolumeClaim.claimName",
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            )


def volume_sources(volumes: Sequence[Document]) -> Mapping[str, frozenset[str]]:
    """Return the kinds of source of every named volume."""
    return {
        volume.get("name") or "": frozenset(
            name for name in SOURCES if volume.get(name) is not None
        )
        for volume in volumes
    }


def _check_source(volume: Document, field: str, scope: Scope) -> Iterator[FieldError]:
    present = [name for name in SOURCES if volume.get(name) is not None]
    for index, name in enumerate(present):
        where = f"{field}.{name}"
        if index:
            yield forbidden_field(where, _ONE_TYPE)
            continue
        check = _CHECKS.get(name)
        if check is not None:
            yield from check(volume[name], where, scope)
        else:
            yield from check_driver_source(name, volume[name], where)
    if present[:1] == ["ephemeral"] and scope.pod_name and volume.get("name"):
        claim = f"{scope.pod_name}-{volume['name']}"
        for text in check_dns1123_subdomain(claim):
            detail = f"PVC name {quote(claim)}: {text}"
            yield invalid(f"{field}.name", volume["name"], detail)
    if not present:
        yield required(field, "must specify a volume type")


def check_mode(source: Document, key: str, field: str) -> Iterator[FieldError]:
    """Check the permission bits of a file or of all files of a volume."""
    mode = source.get(key)
    if mode is not None and not 0 <= mode <= 0o777:
        yield invalid(f"{field}.{key}", mode, _MODE_TEXT)


def _check_empty_dir(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    limit = source.get("sizeLimit")
    if limit is not None and parse_quantity(limit).nano < 0:
        yield forbidden_field(
            f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity"
        )


def _check_host_path(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    path = source.get("path") or ""
    if not path:
        yield required(f"{field}.path")
        return
    yield from check_no_backsteps(f"{field}.path", path)
    type_ = source.get("type") or ""
    if type_ not in HOST_PATH_TYPES:
        yield not_supported(f"{field}.type", type_, HOST_PATH_TYPES)


def _check_git_repo(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    if not source.get("repository"):
        yield required(f"{field}.repository")
    # Hooks in a repository ran as root on the node; no gate brings it back here.
    yield forbidden_field(field, "git-repo volume plugin has been disabled")


def _check_secret(source: Document, field: str, _scope: Scope) -> Iterator[FieldError]:
    if not source.get("secretName"):
        yield required(f"{field}.secretName")
    yield from _check_files(source, field)


def _check_config_map(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    if not source.get("name"):
        yield required(f"{field}.name")
    yield from _check_files(source, field)


def _check_files(source: Document, field: str) -> Iterator[FieldError]:
    yield from check_mode(source, "defaultMode", field)
    for index, item in enumerate(source.get("items") or ()):
        yield from check_key_to_path(item, f"{field}.items[{index}]")


def check_key_to_path(item: Document, field: str) -> Iterator[FieldError]:
    """Check one ``items`` entry of a ConfigMap or Secret volume."""
    if not item.get("key"):
        yield required(f"{field}.key")
    path = item.get("path") or ""
    if not path:
        yield required(f"{field}.path")
    yield from check_local(f"{field}.path", path)
    yield from check_mode(item, "mode", field)


def _check_downward_api(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    yield from check_mode(source, "defaultMode", field)
    for item in source.get("items") or ():
        yield from check_downward_file(item, field)


def check_downward_file(item: Document, field: str) -> Iterator[FieldError]:
    """Check one file of a downward API volume."""
    path = item.get("path") or ""
    if not path:
        yield required(f"{field}.path")
    yield from check_local(f"{field}.path", path)
    reference, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if reference is not None:
        yield from check_field_ref(reference, f"{field}.fieldRef", VOLUME_FIELDS)
        if resource is not None:
            yield invalid(
                field,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )
    elif resource is not None:
        where = f"{field}.resourceFieldRef"
        yield from check_resource_field_ref(resource, where, in_volume=True)
    else:
        yield required(field, "one of fieldRef and resourceFieldRef is required")
    yield from check_mode(item, "mode", field)


def _check_projected(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    yield from check_mode(source, "defaultMode", field)
    sources = source.get("sources") or ()
    yield from check_projections(sources, field, check_key_to_path, check_downward_file)


def _check_claim(source: Document, field: str, _scope: Scope) -> Iterator[FieldError]:
    if not source.get("claimName"):
        yield required(f"{field}.claimName")


def _check_ephemeral(
    source: Document, field: str, _scope: Scope
) -> Iterator[FieldError]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield required(f"{field}.volumeClaimTemplate")
    else:
        yield from check_claim_template(template, f"{field}.volumeClaimTemplate")


def _check_image(source: Document, field: str, scope: Scope) -> Iterator[FieldError]:
    reference = source.get("reference") or ""
    if scope.is_pod and not reference:
        yield required(f"{field}.reference")
    policies = ("Always", "IfNotPresent", "Never")
    yield from check_choice(f"{field}.pullPolicy", source.get("pullPolicy"), policies)


def _check_csi(source: Document, field: str, _scope: Scope) -> Iterator[FieldError]:
    yield from check_csi(source, field)


_CHECKS: Final[dict[str, Callable[[Document, str, Scope], Iterator[FieldError]]]] = {
    "emptyDir": _check_empty_dir,
    "hostPath": _check_host_path,
    "gitRepo": _check_git_repo,
    "secret": _check_secret,
    "configMap": _check_config_map,
    "persistentVolumeClaim": _check_claim,
    "downwardAPI": _check_downward_api,
    "projected": _check_projected,
    "csi": _check_csi,
    "ephemeral": _check_ephemeral,
    "image": _check_image,
}
