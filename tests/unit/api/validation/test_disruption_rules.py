"""Rules of PodDisruptionBudgets and PriorityClasses."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import POD_DISRUPTION_BUDGET, PRIORITY_CLASS
from podyard.api.validation import (
    validate_create,
    validate_status_update,
    validate_update,
)


def budget(**spec: Any) -> Document:
    return {
        "metadata": {"name": "b", "namespace": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, **spec},
    }


def priority_class(name: str = "gold", value: int = 5, **fields: Any) -> Document:
    return {"metadata": {"name": name}, "value": value, **fields}


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({"minAvailable": 1}, [], id="number"),
        pytest.param({"maxUnavailable": "100%"}, [], id="share"),
        pytest.param({"selector": None}, [], id="no-selector"),
        pytest.param(
            {"minAvailable": 1, "maxUnavailable": 1},
            ["spec: "],
            id="both",
        ),
        pytest.param({"minAvailable": -1}, ["spec.minAvailable: "], id="negative"),
        pytest.param({"minAvailable": "x"}, ["spec.minAvailable: "], id="no-share"),
        pytest.param({"maxUnavailable": "101%"}, ["spec.maxUnavailable: "], id="more"),
        pytest.param(
            {"selector": {"matchLabels": {"a b": "c"}}},
            ["spec.selector.matchLabels: "],
            id="selector",
        ),
        pytest.param(
            {"unhealthyPodEvictionPolicy": "Maybe"},
            [
                (
                    'spec.unhealthyPodEvictionPolicy: Unsupported value: "Maybe": supported '
                    'values: "AlwaysAllow", "IfHealthyBudget"'
                )
            ],
            id="policy",
        ),
    ],
)
def test_budgets(spec: Document, faults: list[str]) -> None:
    found = [str(f) for f in validate_create(POD_DISRUPTION_BUDGET, budget(**spec))]

    assert len(found) == len(faults)
    assert all(
        text.startswith(wanted) for text, wanted in zip(found, faults, strict=True)
    )


def test_counts_are_not_negative() -> None:
    new = {**budget(), "status": {"currentHealthy": -1}}

    (fault,) = validate_status_update(POD_DISRUPTION_BUDGET, new, budget())

    assert fault.field == "status.currentHealthy"


RESERVED = (
    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved "
    "for system use only. error: "
)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        pytest.param(priority_class(), "", id="good"),
        pytest.param(priority_class(value=-7), "", id="negative-is-fine"),
        pytest.param(
            priority_class("system-node-critical", 2_000_001_000), "", id="system"
        ),
        pytest.param(
            priority_class("system-mine"),
            f"{RESERVED}system-mine is not a known system priority class",
            id="reserved",
        ),
        pytest.param(
            priority_class("system-node-critical", 5),
            f"{RESERVED}value of system-node-critical PriorityClass must be 2000001000",
            id="another-value",
        ),
        pytest.param(
            priority_class("system-node-critical", 2_000_001_000, globalDefault=True),
            f"{RESERVED}globalDefault of system-node-critical PriorityClass must be "
            "false",
            id="system-default",
        ),
        pytest.param(
            priority_class(value=1_000_000_001),
            "value: Forbidden: maximum allowed value of a user defined priority is "
            "1000000000",
            id="too-high",
        ),
        pytest.param(
            priority_class(preemptionPolicy="Sometimes"),
            'preemptionPolicy: Unsupported value: "Sometimes": supported values: '
            '"PreemptLowerPriority", "Never"',
            id="policy",
        ),
    ],
)
def test_priority_classes(document: Document, fault: str) -> None:
    found = [str(item) for item in validate_create(PRIORITY_CLASS, document)]

    assert found == ([fault] if fault else [])


def test_value_and_policy_stay() -> None:
    old = priority_class(preemptionPolicy="Never")
    new = priority_class(value=6, preemptionPolicy="PreemptLowerPriority")
    for document in (old, new):
        document["metadata"]["resourceVersion"] = "1"

    found = [str(item) for item in validate_update(PRIORITY_CLASS, new, old)]

    assert found == [
        "value: Forbidden: may not be changed in an update.",
        'preemptionPolicy: Invalid value: "PreemptLowerPriority": field is immutable',
    ]
