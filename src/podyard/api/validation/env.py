"""Rules of environment variables.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
"""

from collections.abc import Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid, not_supported, required
from podyard.api.quantity import parse_quantity
from podyard.api.syntax import (
    check_config_key,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_env_name,
    check_qualified_name,
)
from podyard.api.validation.faults import check_required_text, check_text
from podyard.api.validation.paths import check_no_backsteps
from podyard.api.validation.scope import Scope

ENV_FIELDS: Final = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
VOLUME_FIELDS: Final = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.labels",
        "metadata.annotations",
        "metadata.uid",
    }
)
#: Fields the conversion knows, whether or not they may be used here.
_KNOWN_FIELDS: Final = (
    ENV_FIELDS
    | VOLUME_FIELDS
    | {"spec.restartPolicy", "spec.schedulerName", "status.phase"}
)
_RESOURCES: Final = frozenset(
    f"{which}.{name}"
    for which in ("limits", "requests")
    for name in ("cpu", "memory", "ephemeral-storage")
)
_HUGEPAGES: Final = ("limits.hugepages-", "requests.hugepages-")
_CPU_DIVISORS: Final = frozenset({"1m", "1"})
_BYTE_DIVISORS: Final = frozenset(
    ["1", *(f"1{unit}" for unit in "kMGTPE"), *(f"1{unit}i" for unit in "KMGTPE")]
)
_BYTE_DIVISOR_TEXT: Final = (
    "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei "
    "are supported with the {} resource"
)
_SOURCES: Final = (
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
)


def check_env(
    variables: Sequence[Document], field: str, scope: Scope
) -> Iterator[FieldError]:
    """Check the ``env`` of a container."""
    for index, variable in enumerate(variables):
        where = f"{field}[{index}]"
        name = variable.get("name") or ""
        yield from check_required_text(f"{where}.name", name, check_env_name)
        if variable.get("valueFrom") is not None:
            yield from _check_value_from(variable, f"{where}.valueFrom", scope)


def _check_value_from(
    variable: Document, field: str, scope: Scope
) -> Iterator[FieldError]:
    source = variable["valueFrom"]
    present = [name for name in _SOURCES if source.get(name) is not None]
    for name in present:
        yield from _check_source(name, source[name], f"{field}.{name}")
    if not present:
        known = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`"
        last = ", `secretKeyRef` or `fileKeyRef`"
        if not scope.gates.enabled("EnvFiles"):
            last = " or `secretKeyRef`"
        yield invalid(field, "", f"must specify one of: {known}{last}")
    elif variable.get("value"):
        yield invalid(field, "", "may not be specified when `value` is not empty")
    elif len(present) > 1:
        yield invalid(field, "", "may not have more than one field specified at a time")


def _check_source(name: str, source: Document, field: str) -> Iterator[FieldError]:
    match name:
        case "fieldRef":
            yield from check_field_ref(source, field, ENV_FIELDS)
        case "resourceFieldRef":
            yield from check_resource_field_ref(source, field, in_volume=False)
        case "fileKeyRef":
            yield from _check_file_key(source, field)
        case _:
            yield from check_text(
                f"{field}.name", source.get("name") or "", check_dns1123_subdomain
            )
            yield from check_required_text(
                f"{field}.key", source.get("key"), check_config_key
            )


def _check_file_key(source: Document, field: str) -> Iterator[FieldError]:
    yield from check_required_text(f"{field}.key", source.get("key"), check_env_name)
    yield from check_required_text(
        f"{field}.volumeName", source.get("volumeName"), check_dns1123_label
    )
    path = source.get("path") or ""
    if not path:
        yield required(f"{field}.path")
    else:
        yield from check_no_backsteps(f"{field}.path", path)


def split_subscript(path: str) -> tuple[str, str] | None:
    """Split ``metadata.labels['a']`` into field and key; ``None`` without one."""
    if not path.endswith("']"):
        return None
    field, separator, key = path.removesuffix("']").partition("['")
    return (field, key) if separator and field else None


def check_field_ref(
    reference: Document, field: str, allowed: frozenset[str]
) -> Iterator[FieldError]:
    """Check a ``fieldRef``."""
    version, path = reference.get("apiVersion") or "", reference.get("fieldPath") or ""
    if not version:
        yield required(f"{field}.apiVersion")
        return
    if not path:
        yield required(f"{field}.fieldPath")
        return
    subscript = split_subscript(path)
    problem = _conversion_fault(version, path, subscript)
    if problem:
        yield invalid(
            f"{field}.fieldPath", path, f"error converting fieldPath: {problem}"
        )
    elif subscript is not None:
        key = subscript[1]
        if subscript[0] == "metadata.annotations":
            key = key.lower()
        yield from check_text(field, key, check_qualified_name)
    elif path not in allowed:
        yield not_supported(f"{field}.fieldPath", path, sorted(allowed))


def _conversion_fault(
    version: str, path: str, subscript: tuple[str, str] | None
) -> str:
    if version != "v1":
        return f"unsupported pod version: {version}"
    if subscript is not None:
        if subscript[0] in {"metadata.annotations", "metadata.labels"}:
            return ""
        return f"field label does not support subscript: {path}"
    return "" if path in _KNOWN_FIELDS else f"field label not supported: {path}"


def check_resource_field_ref(
    reference: Document, field: str, *, in_volume: bool
) -> Iterator[FieldError]:
    """Check a ``resourceFieldRef``."""
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        yield required(f"{field}.containerName")
    elif not resource:
        yield required(f"{field}.resource")
    elif resource not in _RESOURCES and not resource.startswith(_HUGEPAGES):
        yield not_supported(f"{field}.resource", resource, sorted(_RESOURCES))
    divisor = parse_quantity(reference.get("divisor") or "0")
    if not divisor:
        return
    if resource.endswith(".cpu"):
        if str(divisor) not in _CPU_DIVISORS:
            yield invalid(
                f"{field}.divisor",
                resource,
                "only divisor's values 1m and 1 are supported with the cpu resource",
            )
    elif str(divisor) not in _BYTE_DIVISORS:
        what = _byte_resource(resource)
        if what:
            yield invalid(f"{field}.divisor", resource, _BYTE_DIVISOR_TEXT.format(what))


def _byte_resource(resource: str) -> str:
    if resource.startswith(_HUGEPAGES):
        return "hugepages"
    if resource.endswith(".memory"):
        return "memory"
    is_storage = resource.endswith(".ephemeral-storage")
    return "local ephemeral storage" if is_storage else ""


def check_env_from(sources: Sequence[Document], field: str) -> Iterator[FieldError]:
    """Check the ``envFrom`` of a container."""
    for index, source in enumerate(sources):
        where = f"{field}[{index}]"
        if source.get("prefix"):
            yield from check_text(f"{where}.prefix", source["prefix"], check_env_name)
        present = 0
        for name in ("configMapRef", "secretRef"):
            if source.get(name) is not None:
                present += 1
                yield from check_required_text(
                    f"{where}.{name}.name",
                    source[name].get("name"),
                    _check_reference_name,
                )
        if not present:
            yield invalid(
                field, "", "must specify one of: `configMapRef` or `secretRef`"
            )
        elif present > 1:
            yield invalid(
                field, "", "may not have more than one field specified at a time"
            )


def _check_reference_name(name: str) -> list[str]:
    masked = f"{name[:-2]}a" if len(name) > 1 and name.endswith("-") else name
    return check_dns1123_subdomain(masked)
