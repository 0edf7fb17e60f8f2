"""Rules of Leases.

Source: ``pkg/apis/coordination/validation`` (v1.36).
"""

from collections.abc import Iterator

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid, required


def check_lease(lease: Document) -> Iterator[FieldError]:
    """Check the numbers of a Lease."""
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        yield invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        yield invalid(
            "spec.leaseTransitions",
            transitions,
            "must be greater than or equal to 0",
        )
    if spec.get("strategy") == "":
        yield required("spec.strategy")
