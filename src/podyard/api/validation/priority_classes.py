"""Rules of PriorityClasses.

Source: ``pkg/apis/scheduling/validation`` (v1.36).
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, forbidden_field
from podyard.api.priority import (
    HIGHEST_OF_USERS,
    NEVER,
    PREEMPT,
    SYSTEM_CLASSES,
    SYSTEM_PREFIX,
)
from podyard.api.validation.faults import check_choice, check_immutable

_POLICIES: Final = (PREEMPT, NEVER)


def check_priority_class(priority_class: Document) -> Iterator[FieldError]:
    """Check the name, the value and the preemption policy."""
    name = str(priority_class["metadata"].get("name") or "")
    value = priority_class.get("value") or 0
    if name.startswith(SYSTEM_PREFIX):
        why = _no_system_class(
            name, value, is_default=bool(priority_class.get("globalDefault"))
        )
        if why:
            yield forbidden_field(
                "metadata.name",
                f"priority class names with '{SYSTEM_PREFIX}' prefix are reserved for "
                f"system use only. error: {why}",
            )
    elif value > HIGHEST_OF_USERS:
        yield forbidden_field(
            "value",
            f"maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}",
        )
    policy = priority_class.get("preemptionPolicy")
    if policy is not None:
        yield from check_choice("preemptionPolicy", policy, _POLICIES)


def _no_system_class(name: str, value: int, *, is_default: bool) -> str:
    """Return why a class is none of the system's, or an empty string."""
    known = SYSTEM_CLASSES.get(name)
    if known is None:
        return f"{name} is not a known system priority class"
    if value != known.value:
        return f"value of {name} PriorityClass must be {known.value}"
    if is_default:
        return f"globalDefault of {name} PriorityClass must be false"
    return ""


def check_priority_class_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that value and policy stay."""
    if (new.get("value") or 0) != (old.get("value") or 0):
        yield forbidden_field("value", "may not be changed in an update.")
    yield from check_immutable(
        "preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy")
    )
