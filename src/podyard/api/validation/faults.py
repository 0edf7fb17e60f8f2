"""Field errors beyond those every house raises, and small repeated checks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from podyard.api.errors import (
    FieldError,
    FieldErrorType,
    invalid,
    not_supported,
    required,
)

IMMUTABLE: Final = "field is immutable"
NEGATIVE: Final = "must be greater than or equal to 0"
NOT_POSITIVE: Final = "must be greater than zero"


def too_long(field: str, limit: int) -> FieldError:
    """Return the error for text over its limit in bytes."""
    unit = "byte" if limit == 1 else "bytes"
    return FieldError(
        FieldErrorType.TOO_LONG, field, f"may not be more than {limit} {unit}"
    )


def too_many(field: str, count: int, limit: int) -> FieldError:
    """Return the error for a list with too many entries."""
    unit = "item" if limit == 1 else "items"
    detail = f"must have at most {limit} {unit}"
    return FieldError(FieldErrorType.TOO_MANY, field, detail, count)


def missing(field: str, value: object, detail: str = "") -> FieldError:
    """Return the error for a reference to something that is not there."""
    return FieldError(FieldErrorType.NOT_FOUND, field, detail, value)


def check_text(
    field: str, value: str, check: Callable[[str], list[str]]
) -> Iterator[FieldError]:
    """Yield every fault a syntax check finds in one value."""
    for text in check(value):
        yield invalid(field, value, text)


def check_required_text(
    field: str, value: str | None, check: Callable[[str], list[str]]
) -> Iterator[FieldError]:
    """Yield that the value is missing, or the faults in it."""
    if not value:
        yield required(field)
    else:
        yield from check_text(field, value, check)


def check_not_negative(field: str, value: int | None) -> Iterator[FieldError]:
    """Yield an error where a number is below zero; absent is fine."""
    if value is not None and value < 0:
        yield invalid(field, value, NEGATIVE)


def check_positive(field: str, value: int | None) -> Iterator[FieldError]:
    """Yield an error where a number is not above zero; absent counts as zero."""
    if (value or 0) <= 0:
        yield invalid(field, value or 0, NOT_POSITIVE)


def check_choice(
    field: str, value: str | None, choices: Iterable[str]
) -> Iterator[FieldError]:
    """Yield an error where a value is missing or outside its enumeration."""
    known = list(choices)
    if not value:
        yield required(field)
    elif value not in known:
        yield not_supported(field, value, known)


def check_immutable(field: str, new: object, old: object) -> Iterator[FieldError]:
    """Yield an error where a value changed that may not."""
    if (new or None) != (old or None):
        yield invalid(field, new, IMMUTABLE)
