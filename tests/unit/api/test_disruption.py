"""Which budgets hold a Pod, and what an eviction takes from one."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.api.disruption import (
    budget_holds,
    charge_budget,
    is_past_budgets,
    may_go_unready,
    set_allowed_condition,
    with_disruption_target,
)
from podyard.api.documents import Document
from podyard.api.errors import ApiError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW_TEXT = "2026-01-01T12:00:00Z"
VIOLATED = "Cannot evict pod as it would violate the pod's disruption budget."


def pod(*, ready: bool = True, namespace: str = "d", **status: Any) -> Document:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": "p", "namespace": namespace, "labels": {"app": "web"}},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def budget(selector: Any = None, **status: Any) -> Document:
    found = {"matchLabels": {"app": "web"}} if selector is None else selector
    return {
        "metadata": {"name": "b", "namespace": "d", "generation": 2},
        "spec": {"selector": found} if found != "none" else {},
        "status": {"observedGeneration": 2, **status},
    }


@pytest.mark.parametrize(
    ("selector", "namespace", "holds"),
    [
        pytest.param(None, "d", True, id="match"),
        pytest.param(None, "other", False, id="elsewhere"),
        pytest.param({}, "d", True, id="an-empty-selector-is-about-all"),
        pytest.param("none", "d", False, id="no-selector-is-about-none"),
        pytest.param({"matchLabels": {"app": "x"}}, "d", False, id="no-match"),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "?"}]}, "d", False, id="bad"
        ),
    ],
)
def test_whom_a_budget_is_about(selector: Any, namespace: str, holds: bool) -> None:
    assert budget_holds(budget(selector), pod(namespace=namespace)) is holds


@pytest.mark.parametrize(
    ("status", "deleting", "expected"),
    [
        pytest.param({}, False, False, id="running"),
        pytest.param({}, True, True, id="on-its-way"),
        pytest.param({"phase": "Pending"}, False, True, id="not-there-yet"),
        pytest.param({"phase": "Failed"}, False, True, id="ended"),
    ],
)
def test_who_disturbs_nobody(status: Any, deleting: bool, expected: bool) -> None:
    document = pod(**status)
    if deleting:
        document["metadata"]["deletionTimestamp"] = NOW_TEXT

    assert is_past_budgets(document) is expected


@pytest.mark.parametrize(
    ("ready", "policy", "current", "desired", "expected"),
    [
        pytest.param(True, "AlwaysAllow", 5, 1, False, id="ready-ones-are-guarded"),
        pytest.param(False, "AlwaysAllow", 0, 1, True, id="always"),
        pytest.param(False, None, 1, 1, True, id="enough-are-healthy"),
        pytest.param(False, None, 0, 1, False, id="too-few-are-healthy"),
        pytest.param(False, "IfHealthyBudget", 1, 0, False, id="nothing-is-desired"),
    ],
)
def test_who_goes_without_a_charge(
    ready: bool, policy: str | None, current: int, desired: int, expected: bool
) -> None:
    document = budget(currentHealthy=current, desiredHealthy=desired)
    document["spec"]["unhealthyPodEvictionPolicy"] = policy

    assert may_go_unready(pod(ready=ready), document) is expected


@pytest.mark.parametrize(
    ("status", "code", "message", "cause"),
    [
        pytest.param(
            {"observedGeneration": 1, "disruptionsAllowed": 5},
            429,
            VIOLATED,
            "The disruption budget b is still being processed by the server.",
            id="not-looked-at-yet",
        ),
        pytest.param(
            {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2},
            429,
            VIOLATED,
            "The disruption budget b needs 2 healthy pods and has 1 currently",
            id="too-few",
        ),
        pytest.param(
            {
                "currentHealthy": 2,
                "desiredHealthy": 1,
                "conditions": [{"reason": "SyncFailed", "message": "no scale"}],
            },
            429,
            VIOLATED,
            "The disruption budget b does not allow evicting pods currently because it "
            "failed sync: no scale",
            id="nobody-can-count",
        ),
        pytest.param(
            {"currentHealthy": 2, "desiredHealthy": 1},
            429,
            VIOLATED,
            "The disruption budget b does not allow evicting pods currently",
            id="spent",
        ),
        pytest.param(
            {"disruptionsAllowed": -1},
            403,
            'poddisruptionbudget.policy "b" is forbidden: pdb disruptions allowed is '
            "negative",
            "",
            id="negative",
        ),
        pytest.param(
            {
                "disruptionsAllowed": 1,
                "disruptedPods": {str(n): NOW_TEXT for n in range(2001)},
            },
            403,
            'poddisruptionbudget.policy "b" is forbidden: DisruptedPods map too big - '
            "too many evictions not confirmed by PDB controller",
            "",
            id="too-many-unconfirmed",
        ),
    ],
)
def test_why_a_budget_refuses(status: Any, code: int, message: str, cause: str) -> None:
    with pytest.raises(ApiError) as caught:
        charge_budget(budget(**status), "p", now=NOW)

    error = caught.value
    assert (error.code, error.message) == (code, message)
    causes = (error.details or {}).get("causes") or [{}]
    assert causes[0].get("message", "") == cause


def test_a_charge_is_written_down() -> None:
    charged = charge_budget(budget(disruptionsAllowed=1), "p", now=NOW)

    status = charged["status"]
    assert status["disruptionsAllowed"] == 0
    assert status["disruptedPods"] == {"p": NOW_TEXT}
    assert status["conditions"] == [
        {
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "message": "",
            "lastTransitionTime": NOW_TEXT,
            "observedGeneration": 2,
        }
    ]


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    earlier = {"type": "DisruptionAllowed", "status": "True"}
    earlier["lastTransitionTime"] = "2025-01-01T00:00:00Z"

    same = set_allowed_condition(
        {"disruptionsAllowed": 2, "conditions": [earlier]}, now=NOW
    )
    flipped = set_allowed_condition(
        {"disruptionsAllowed": 0, "conditions": [earlier]}, now=NOW
    )

    assert same["conditions"][0]["lastTransitionTime"] == "2025-01-01T00:00:00Z"
    assert flipped["conditions"][0]["lastTransitionTime"] == NOW_TEXT


def test_a_target_keeps_its_other_conditions() -> None:
    conditions = with_disruption_target(
        pod(), reason="EvictionByEvictionAPI", message="x", now=NOW
    )

    assert [c["type"] for c in conditions] == ["Ready", "DisruptionTarget"]
    assert conditions[1]["lastTransitionTime"] == NOW_TEXT
