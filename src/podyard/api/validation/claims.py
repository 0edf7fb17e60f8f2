"""Rules of the claims that StatefulSets and ephemeral volumes carry inside.

Source: ``pkg/apis/core/validation`` (v1.36).
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
from podyard.api.syntax import check_dns1123_subdomain
from podyard.api.validation.faults import NOT_POSITIVE, check_text
from podyard.api.validation.object_meta import (
    check_annotations,
    check_label_selector,
    check_labels,
)

_ACCESS_MODES: Final = (
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
)
_VOLUME_MODES: Final = ("Block", "Filesystem")
_TEMPLATE_METADATA: Final = frozenset({"annotations", "labels"})


def check_claim_template(template: Document, field: str) -> Iterator[FieldError]:
    """Check the claim template of an ephemeral volume."""
    metadata = template.get("metadata") or {}
    where = f"{field}.metadata"
    yield from check_annotations(metadata.get("annotations"), f"{where}.annotations")
    yield from check_labels(metadata.get("labels"), f"{where}.labels")
    for key, value in metadata.items():
        if key not in _TEMPLATE_METADATA and value:
            yield forbidden_field(f"{where}.{key}", "cannot be set")
    yield from check_claim_spec(template.get("spec") or {}, f"{field}.spec")


def check_claim_spec(spec: Document, field: str) -> Iterator[FieldError]:
    """Check the spec of a PersistentVolumeClaim."""
    modes = spec.get("accessModes") or []
    if not modes:
        yield required(f"{field}.accessModes", "at least 1 access mode is required")
    yield from check_label_selector(spec.get("selector"), f"{field}.selector")
    for mode in modes:
        if mode not in _ACCESS_MODES:
            yield not_supported(f"{field}.accessModes", mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield forbidden_field(
            f"{field}.accessModes",
            "may not use ReadWriteOncePod with other access modes",
        )
    requests = (spec.get("resources") or {}).get("requests") or {}
    storage = f"{field}.resources[storage]"
    if requests.get("storage") is None:
        yield required(storage)
    elif parse_quantity(requests["storage"]).nano <= 0:
        yield invalid(storage, requests["storage"], NOT_POSITIVE)
    if spec.get("storageClassName"):
        yield from check_text(
            f"{field}.storageClassName",
            spec["storageClassName"],
            check_dns1123_subdomain,
        )
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        yield not_supported(f"{field}.volumeMode", mode, _VOLUME_MODES)
