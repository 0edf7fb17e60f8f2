"""Rules of ``metadata``, and of labels, annotations and selectors.

Source: apimachinery ``api/validation`` and ``apis/meta/v1/validation`` (v1.36).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.go_text import string_slice
from podyard.api.syntax import (
    check_dns1123_label,
    check_label_value,
    check_qualified_name,
)
from podyard.api.validation.faults import (
    check_immutable,
    check_not_negative,
    check_text,
    too_long,
)

#: Returns the faults of an object's name.
NameCheck = Callable[[str], list[str]]

MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
_MAX_MANAGER: Final = 128
_MAX_SUBRESOURCE: Final = 256
_STANDARD_FINALIZERS: Final = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


def check_labels(labels: Mapping[str, str] | None, field: str) -> Iterator[FieldError]:
    """Check the keys and values of a map of labels."""
    for key, value in (labels or {}).items():
        yield from check_text(field, key, check_qualified_name)
        yield from check_text(field, value, check_label_value)


def check_annotations(
    annotations: Mapping[str, str] | None, field: str
) -> Iterator[FieldError]:
    """Check the keys of a map of annotations, and its size."""
    size = 0
    for key, value in (annotations or {}).items():
        for text in check_qualified_name(key.lower()):
            yield invalid(field, key, text)
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS_BYTES:
        yield too_long(field, MAX_ANNOTATIONS_BYTES)


def check_label_selector(selector: Document | None, field: str) -> Iterator[FieldError]:
    """Check a ``LabelSelector``; an absent one is fine."""
    if selector is None:
        return
    yield from check_labels(selector.get("matchLabels"), f"{field}.matchLabels")
    for index, entry in enumerate(selector.get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        values = entry.get("values") or []
        operator = entry.get("operator") or ""
        if operator in {"In", "NotIn"}:
            if not values:
                yield required(
                    f"{where}.values",
                    "must be specified when `operator` is 'In' or 'NotIn'",
                )
        elif operator in {"Exists", "DoesNotExist"}:
            if values:
                yield forbidden_field(
                    f"{where}.values",
                    "may not be specified when `operator` is 'Exists' or "
                    "'DoesNotExist'",
                )
        else:
            yield invalid(
                f"{where}.operator", operator, "not a valid selector operator"
            )
        yield from check_text(
            f"{where}.key", entry.get("key") or "", check_qualified_name
        )
        for number, value in enumerate(values):
            yield from check_text(f"{where}.values[{number}]", value, check_label_value)


def validate_object_meta(
    metadata: Document,
    *,
    namespaced: bool,
    check_name: NameCheck,
    field: str = "metadata",
) -> Iterator[FieldError]:
    """Check the metadata of a new object, after a name was generated."""
    prefix = metadata.get("generateName") or ""
    if prefix:
        for text in check_name(_mask_trailing_dash(prefix)):
            yield invalid(f"{field}.generateName", prefix, text)
    name = metadata.get("name") or ""
    if not name:
        yield required(f"{field}.name", "name or generateName is required")
    else:
        yield from check_text(f"{field}.name", name, check_name)
    namespace = metadata.get("namespace") or ""
    if not namespaced:
        if namespace:
            yield forbidden_field(f"{field}.namespace", "not allowed on this type")
    elif not namespace:
        yield required(f"{field}.namespace")
    else:
        yield from check_text(f"{field}.namespace", namespace, check_dns1123_label)
    yield from check_not_negative(f"{field}.generation", metadata.get("generation"))
    yield from _check_common(metadata, field)
    yield from _check_finalizers(metadata.get("finalizers") or [], field)


def _mask_trailing_dash(name: str) -> str:
    return f"{name[:-2]}a" if len(name) > 1 and name.endswith("-") else name


def _check_common(metadata: Document, field: str) -> Iterator[FieldError]:
    yield from check_labels(metadata.get("labels"), f"{field}.labels")
    yield from check_annotations(metadata.get("annotations"), f"{field}.annotations")
    references = metadata.get("ownerReferences") or []
    yield from _check_owners(references, f"{field}.ownerReferences")
    entries = metadata.get("managedFields") or []
    yield from _check_managed_fields(entries, f"{field}.managedFields")


def _check_owners(references: Sequence[Document], field: str) -> Iterator[FieldError]:
    controller = ""
    for index, reference in enumerate(references):
        where = f"{field}[{index}]"
        version = reference.get("apiVersion") or ""
        if not version:
            yield required(f"{where}.apiVersion", "must not be empty")
        elif version.count("/") > 1 or not version.rpartition("/")[2]:
            yield invalid(
                f"{where}.apiVersion",
                version,
                "must be <group>/<version> or <version>",
            )
        for key in ("kind", "name", "uid"):
            if not reference.get(key):
                yield required(f"{where}.{key}", "must not be empty")
        if version == "v1" and reference.get("kind") == "Event":
            yield invalid(
                where,
                reference,
                "/v1, Kind=Event is disallowed from being an owner",
            )
        if reference.get("controller"):
            current = f"{reference.get('kind')}/{reference.get('name')}"
            if controller:
                yield invalid(
                    field,
                    list(references),
                    "Only one reference can have Controller set to true. Found "
                    f'"true" in references for {controller} and {current}',
                )
            else:
                controller = current


def _check_finalizers(finalizers: Sequence[str], field: str) -> Iterator[FieldError]:
    where = f"{field}.finalizers"
    for finalizer in finalizers:
        yield from check_text(where, finalizer, check_qualified_name)
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        yield invalid(
            where,
            list(finalizers),
            "finalizer orphan and foregroundDeletion cannot be both set",
        )
    for index, finalizer in enumerate(finalizers):
        yield from check_kube_finalizer(f"{where}[{index}]", finalizer)


def check_kube_finalizer(field: str, finalizer: str) -> Iterator[FieldError]:
    """Check that a finalizer without a domain is one of Kubernetes' own."""
    if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
        yield invalid(
            field,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        )


def _check_managed_fields(
    entries: Sequence[Document], field: str
) -> Iterator[FieldError]:
    for index, entry in enumerate(entries):
        where = f"{field}[{index}]"
        operation = entry.get("operation") or ""
        if not operation:
            yield required(f"{where}.operation", "must not be empty")
        elif operation not in {"Apply", "Update"}:
            yield not_supported(f"{where}.operation", operation, ("Apply", "Update"))
        if entry.get("fieldsType") not in {None, "", "FieldsV1"}:
            yield invalid(
                f"{where}.fieldsType", entry["fieldsType"], "must be `FieldsV1`"
            )
        yield from check_field_manager(entry.get("manager") or "", f"{where}.manager")
        if len(entry.get("subresource") or "") > _MAX_SUBRESOURCE:
            yield too_long(f"{where}.subresource", _MAX_SUBRESOURCE)


def check_field_manager(manager: str, field: str) -> Iterator[FieldError]:
    """Check the name of a field manager: at most 128 bytes, printable."""
    if len(manager.encode()) > _MAX_MANAGER:
        yield too_long(field, _MAX_MANAGER)
    for index, char in enumerate(manager):
        if not char.isprintable():
            yield invalid(
                field,
                manager,
                f"invalid character U+{ord(char):04X} (at position {index})",
            )


def validate_object_meta_update(
    new: Document, old: Document, field: str = "metadata"
) -> Iterator[FieldError]:
    """Check how metadata changed.

    What the new object leaves out of the server's own fields counts as unchanged.
    """
    if old.get("deletionTimestamp") is not None:
        before = set(old.get("finalizers") or ())
        added = sorted(set(new.get("finalizers") or ()) - before)
        if added:
            yield forbidden_field(
                f"{field}.finalizers",
                "no new finalizers can be added if the object is being deleted, found "
                f"new finalizers {string_slice(added)}",
            )
    yield from check_not_negative(f"{field}.generation", new.get("generation"))
    if (new.get("generation") or 0) < (old.get("generation") or 0) and new.get(
        "generation"
    ):
        yield invalid(
            f"{field}.generation", new["generation"], "must not be decremented"
        )
    for key in ("name", "namespace"):
        yield from check_immutable(f"{field}.{key}", new.get(key), old.get(key))
    for key in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        if new.get(key) is not None:
            yield from check_immutable(f"{field}.{key}", new[key], old.get(key))
    yield from _check_common(new, field)
    for index, finalizer in enumerate(new.get("finalizers") or ()):
        yield from check_kube_finalizer(f"{field}.finalizers[{index}]", finalizer)
