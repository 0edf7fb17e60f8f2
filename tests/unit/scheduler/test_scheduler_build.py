"""What the scheduler writes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.scheduler.build import build_binding, build_failure
from support.admission import pod

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PRESENT = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "no room",
    "lastTransitionTime": "2026-05-01T11:00:00Z",
}


def test_a_binding_names_the_very_pod() -> None:
    assert build_binding(pod(), "n1") == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p", "namespace": "web", "uid": "uid-p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    }


@pytest.mark.parametrize(
    ("conditions", "since"),
    [
        pytest.param([], "2026-05-01T12:00:00Z", id="first"),
        pytest.param([PRESENT], None, id="told-already"),
        pytest.param(
            [{**PRESENT, "message": "another"}],
            "2026-05-01T11:00:00Z",
            id="another-message-keeps-the-time",
        ),
        pytest.param(
            [{**PRESENT, "status": "True"}], "2026-05-01T12:00:00Z", id="it-was-true"
        ),
    ],
)
def test_the_condition_is_written_when_it_changes(
    conditions: Any, since: str | None
) -> None:
    document = {**pod(), "status": {"conditions": conditions}}

    patch = build_failure(document, reason="Unschedulable", message="no room", now=NOW)

    if since is None:
        assert patch is None
        return
    assert patch == {
        "metadata": {"uid": "uid-p"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "no room",
                    "lastProbeTime": None,
                    "lastTransitionTime": since,
                }
            ]
        },
    }
