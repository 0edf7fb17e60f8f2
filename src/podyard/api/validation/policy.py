"""Rules of PodDisruptionBudgets.

Source: ``pkg/apis/policy/validation`` (v1.36).
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid, not_supported
from podyard.api.validation.apps import check_amount, check_at_most_all
from podyard.api.validation.faults import check_not_negative
from podyard.api.validation.object_meta import check_label_selector

#: What may become of running Pods that are not ready.
UNHEALTHY_POLICIES: Final = ("AlwaysAllow", "IfHealthyBudget")
_AMOUNTS: Final = ("minAvailable", "maxUnavailable")
_COUNTS: Final = (
    "disruptionsAllowed",
    "currentHealthy",
    "desiredHealthy",
    "expectedPods",
)


def check_budget(budget: Document) -> Iterator[FieldError]:
    """Check what has to be available, the selector and the policy."""
    spec = budget.get("spec") or {}
    if all(spec.get(field) is not None for field in _AMOUNTS):
        text = "minAvailable and maxUnavailable cannot be both set"
        yield invalid("spec", spec, text)
    for field in _AMOUNTS:
        yield from check_amount(f"spec.{field}", spec.get(field))
        yield from check_at_most_all(f"spec.{field}", spec.get(field))
    if spec.get("selector") is not None:
        yield from check_label_selector(spec["selector"], "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in UNHEALTHY_POLICIES:
        field = "spec.unhealthyPodEvictionPolicy"
        yield not_supported(field, policy, UNHEALTHY_POLICIES)


def check_budget_status(budget: Document) -> Iterator[FieldError]:
    """Check that no count is below zero."""
    status = budget.get("status") or {}
    for field in _COUNTS:
        yield from check_not_negative(f"status.{field}", status.get(field))
