"""Rules of PersistentVolumeClaims, and of those that other objects carry inside.

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
from podyard.api.validation.differences import show_differences
from podyard.api.validation.faults import (
    NOT_POSITIVE,
    check_not_negative,
    check_text,
)
from podyard.api.validation.object_meta import (
    check_annotations,
    check_label_selector,
    check_labels,
)

ACCESS_MODES: Final = (
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
)
VOLUME_MODES: Final = ("Block", "Filesystem")
_TEMPLATE_METADATA: Final = frozenset({"annotations", "labels"})
_FIXED: Final = (
    "spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)
_NO_SHRINKING: Final = (
    "field can not be less than status.capacity, and can not be less than previous "
    "value"
)


def check_claim(claim: Document) -> Iterator[FieldError]:
    """Check a PersistentVolumeClaim."""
    yield from check_claim_spec(claim.get("spec") or {}, "spec")


def check_claim_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that a claim asks for what it asked for.

    A volume is chosen once; a claim without a class may get one while it waits; a
    bound claim may ask for more room.
    """
    wanted, present = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    if not present.get("volumeName"):
        wanted.pop("volumeName", None)
        present.pop("volumeName", None)
    if present.get("storageClassName") is None:
        wanted.pop("storageClassName", None)
    is_bound = (old.get("status") or {}).get("phase") == "Bound"
    if is_bound:
        yield from _check_growth(wanted, present, old)
        for spec in (wanted, present):
            spec.pop("volumeAttributesClassName", None)
            spec["resources"] = {
                key: value
                for key, value in (spec.get("resources") or {}).items()
                if key != "requests"
            }
    if wanted != present:
        detail = f"{_FIXED}\n{show_differences(present, wanted)}"
        yield forbidden_field("spec", detail)


def _check_growth(
    wanted: Document, present: Document, claim: Document
) -> Iterator[FieldError]:
    size, before = _storage(wanted), _storage(present)
    if size is None or before is None or size == before:
        return
    capacity = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
    least = parse_quantity(capacity if capacity is not None else before)
    if parse_quantity(size).nano < least.nano:
        yield forbidden_field("spec.resources.requests.storage", _NO_SHRINKING)


def _storage(spec: Document) -> str | None:
    requests = (spec.get("resources") or {}).get("requests") or {}
    amount: str | None = requests.get("storage")
    return amount


def check_claim_status(claim: Document) -> Iterator[FieldError]:
    """Check that no capacity is below zero."""
    capacity = (claim.get("status") or {}).get("capacity") or {}
    for name, amount in capacity.items():
        yield from check_not_negative(
            f"status.capacity[{name}]", parse_quantity(amount).nano
        )


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
        if mode not in ACCESS_MODES:
            yield not_supported(f"{field}.accessModes", mode, ACCESS_MODES)
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
    if mode is not None and mode not in VOLUME_MODES:
        yield not_supported(f"{field}.volumeMode", mode, VOLUME_MODES)
