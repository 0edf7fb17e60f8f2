"""Disruption budgets: which Pods they hold, and what they say of themselves. Pure.

Source: kubernetes ``pkg/registry/core/pod/storage/eviction.go`` and
``component-helpers/apps/poddisruptionbudget`` (v1.36);
https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import format_time
from podyard.api.documents import Document
from podyard.api.errors import ApiError, forbidden
from podyard.api.labels import SelectorError, selector_from_object

#: The condition type of a Pod that is about to be ended for a reason not its own.
DISRUPTION_TARGET: Final = "DisruptionTarget"
#: The condition type of a budget.
DISRUPTION_ALLOWED: Final = "DisruptionAllowed"


def budget_holds(budget: Document, pod: Document) -> bool:
    """Say whether a budget is about a Pod; a selector in error is about none."""
    if budget["metadata"].get("namespace") != pod["metadata"].get("namespace"):
        return False
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    try:
        return selector_from_object(selector).matches(
            pod["metadata"].get("labels") or {}
        )
    except SelectorError:
        return False


def budgets_of(pod: Document, budgets: Iterable[Document]) -> list[Document]:
    """Return the budgets that are about a Pod."""
    return [budget for budget in budgets if budget_holds(budget, pod)]


def is_ready(pod: Document) -> bool:
    """Say whether a Pod's ``Ready`` condition is true."""
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def set_allowed_condition(
    status: Document, *, now: datetime, failure: str = ""
) -> Document:
    """Return a budget's status with its condition as its numbers say.

    Args:
        status: with ``disruptionsAllowed`` and ``observedGeneration``.
        now: dates the condition where its status flips.
        failure: why the numbers could not be found; empty where they were.
    """
    allowed = (status.get("disruptionsAllowed") or 0) > 0 and not failure
    reason = "SufficientPods" if allowed else "InsufficientPods"
    wanted = "True" if allowed else "False"
    conditions = list(status.get("conditions") or ())
    old: Document = next(
        (c for c in conditions if c.get("type") == DISRUPTION_ALLOWED), {}
    )
    since = old.get("lastTransitionTime")
    if old.get("status") != wanted or not since:
        since = format_time(now)
    condition: Document = {
        "type": DISRUPTION_ALLOWED,
        "status": wanted,
        "reason": "SyncFailed" if failure else reason,
        "message": failure,
        "lastTransitionTime": since,
    }
    if status.get("observedGeneration"):
        condition["observedGeneration"] = status["observedGeneration"]
    others = [c for c in conditions if c.get("type") != DISRUPTION_ALLOWED]
    return {**status, "conditions": [*others, condition]}


def with_disruption_target(
    pod: Document, *, reason: str, message: str, now: datetime
) -> list[Document]:
    """Return a Pod's conditions with the one that says why it is being ended."""
    conditions = list((pod.get("status") or {}).get("conditions") or ())
    old: Document = next(
        (c for c in conditions if c.get("type") == DISRUPTION_TARGET), {}
    )
    since = old.get("lastTransitionTime")
    if old.get("status") != "True" or not since:
        since = format_time(now)
    condition: Document = {
        "type": DISRUPTION_TARGET,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }
    generation = pod["metadata"].get("generation")
    if generation:
        condition["observedGeneration"] = generation
    others = [c for c in conditions if c.get("type") != DISRUPTION_TARGET]
    return [*others, condition]


# --- the eviction API -------------------------------------------------------------

#: The cause of a refusal for a budget's sake.
_BUDGET_CAUSE: Final = "DisruptionBudget"
#: Evicted Pods a budget may hold that nobody has seen go yet.
_MOST_DISRUPTED: Final = 2000
#: What a client whose budget is still being looked at should wait, seconds.
_RETRY_AFTER_S: Final = 10
_FINISHED: Final = frozenset({"Succeeded", "Failed"})


def is_past_budgets(pod: Document) -> bool:
    """Say whether ending a Pod disturbs nobody any more, or not yet."""
    phase = (pod.get("status") or {}).get("phase")
    return (
        phase in {*_FINISHED, "Pending"}
        or pod["metadata"].get("deletionTimestamp") is not None
    )


def is_over(pod: Document) -> bool:
    """Say whether a Pod has ended, or is on its way there."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in _FINISHED or bool(pod["metadata"].get("deletionTimestamp"))


def may_go_unready(pod: Document, budget: Document) -> bool:
    """Say whether a Pod may go without a charge on its budget, for it is not ready."""
    if is_ready(pod):
        return False
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    desired = status.get("desiredHealthy") or 0
    return 0 < desired <= (status.get("currentHealthy") or 0)


def charge_budget(budget: Document, pod_name: str, *, now: datetime) -> Document:
    """Return the budget with one disruption less and the Pod noted.

    Raises:
        ApiError: 429 where it allows none, 403 where it cannot be trusted.
    """
    metadata, status = budget["metadata"], budget.get("status") or {}
    name = metadata["name"]
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        raise budget_in_progress(name)
    allowed = status.get("disruptionsAllowed") or 0
    disrupted = dict(status.get("disruptedPods") or {})
    if allowed < 0:
        why = "pdb disruptions allowed is negative"
        raise forbidden("policy", "poddisruptionbudget", name, why)
    if len(disrupted) > _MOST_DISRUPTED:
        why = (
            "DisruptedPods map too big - too many evictions not confirmed by PDB "
            "controller"
        )
        raise forbidden("policy", "poddisruptionbudget", name, why)
    if allowed == 0:
        raise _violated(_why_none(name, status))
    disrupted[pod_name] = format_time(now)
    charged = {
        **status,
        "disruptionsAllowed": allowed - 1,
        "disruptedPods": disrupted,
    }
    if allowed == 1:
        charged = set_allowed_condition(charged, now=now)
    return {**budget, "status": charged}


def _why_none(name: str, status: Document) -> str:
    current = status.get("currentHealthy") or 0
    desired = status.get("desiredHealthy") or 0
    if current <= desired:
        return (
            f"The disruption budget {name} needs {desired} healthy pods and has "
            f"{current} currently"
        )
    text = f"The disruption budget {name} does not allow evicting pods currently"
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "SyncFailed":
            return f"{text} because it failed sync: {condition.get('message') or ''}"
    return text


def _violated(cause: str, retry_after_s: int = 0) -> ApiError:
    details: Document = {"causes": [{"reason": _BUDGET_CAUSE, "message": cause}]}
    if retry_after_s:
        details["retryAfterSeconds"] = retry_after_s
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return ApiError(429, "TooManyRequests", message, details)


def budget_in_progress(name: str) -> ApiError:
    """429: what a budget allows is not known yet; ask again a little later."""
    text = f"The disruption budget {name} is still being processed by the server."
    return _violated(text, _RETRY_AFTER_S)
