"""The conditions an agent owns, as a table."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.node.status.conditions.decide import ConditionFacts, decide_conditions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_pod(*, init: tuple[Document, ...] = ()) -> Pod:
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": list(init),
            },
        }
    )


READY: tuple[Document, ...] = (
    {"name": "a", "ready": True},
    {"name": "b", "ready": True},
)
SIDECAR: Document = {"name": "s", "restartPolicy": "Always"}


def facts(pod: Pod | None = None, **more: Any) -> ConditionFacts:
    known: dict[str, Any] = {"phase": "Running", "statuses": READY, **more}
    return ConditionFacts(pod=pod or make_pod(), **known)


@pytest.mark.parametrize(
    ("given", "kind", "status", "reason", "message"),
    [
        pytest.param(facts(), "Ready", "True", None, None, id="ready"),
        pytest.param(
            facts(statuses=()),
            "ContainersReady",
            "False",
            "UnknownContainerStatuses",
            None,
            id="nothing-known",
        ),
        pytest.param(
            facts(statuses=READY[:1]),
            "ContainersReady",
            "False",
            "ContainersNotReady",
            "containers with unknown status: [b]",
            id="one-unknown",
        ),
        pytest.param(
            facts(statuses=({"name": "a", "ready": False},)),
            "ContainersReady",
            "False",
            "ContainersNotReady",
            "containers with unknown status: [b], containers with unready status: [a]",
            id="unknown-and-unready",
        ),
        pytest.param(
            facts(
                make_pod(init=(SIDECAR,)),
                init_statuses=({"name": "s", "ready": False, "started": True},),
            ),
            "Ready",
            "False",
            "ContainersNotReady",
            "containers with unready status: [s]",
            id="a-sidecar-counts",
        ),
        pytest.param(
            facts(
                make_pod(init=({"name": "i"},)),
                init_statuses=({"name": "i", "ready": False},),
            ),
            "Ready",
            "True",
            None,
            None,
            id="a-plain-init-container-does-not",
        ),
        pytest.param(
            facts(
                make_pod(init=(SIDECAR, {"name": "i"})),
                init_statuses=(
                    {"name": "s", "started": False},
                    {"name": "i", "ready": False},
                ),
                has_initialized=False,
            ),
            "Initialized",
            "False",
            "ContainersNotInitialized",
            "containers with incomplete status: [s i]",
            id="not-initialized",
        ),
        pytest.param(
            facts(
                make_pod(init=({"name": "i"},)),
                init_statuses=({"name": "i", "ready": False},),
                has_initialized=True,
            ),
            "Initialized",
            "True",
            None,
            None,
            id="initialized-once-is-initialized",
        ),
        pytest.param(
            facts(phase="Succeeded"),
            "Ready",
            "False",
            "PodCompleted",
            None,
            id="completed",
        ),
        pytest.param(
            facts(phase="Failed"),
            "ContainersReady",
            "False",
            "PodFailed",
            None,
            id="failed",
        ),
        pytest.param(
            facts(sandbox_ready=True),
            "PodReadyToStartContainers",
            "True",
            None,
            None,
            id="sandbox",
        ),
        pytest.param(
            facts(wants_restart_all=True, resetting=True),
            "AllContainersRestarting",
            "True",
            "RestartAllContainersStarted",
            "container exited with restart policy rule",
            id="restarting-all",
        ),
        pytest.param(
            facts(wants_restart_all=True, phase="Failed"),
            "AllContainersRestarting",
            "False",
            "PodFailed",
            None,
            id="restarting-no-more",
        ),
        pytest.param(
            facts(phase="Failed", failure_message="low on memory"),
            "DisruptionTarget",
            "True",
            "TerminationByKubelet",
            "low on memory",
            id="disrupted",
        ),
    ],
)
def test_a_condition(
    given: ConditionFacts,
    kind: str,
    status: str,
    reason: str | None,
    message: str | None,
) -> None:
    found = next(c for c in decide_conditions(given, now=NOW) if c["type"] == kind)

    shown = (found["status"], found.get("reason"), found.get("message"))
    assert shown == (status, reason, message)


def test_a_pod_without_such_a_rule_has_no_such_condition() -> None:
    kinds = [c["type"] for c in decide_conditions(facts(), now=NOW)]

    assert "AllContainersRestarting" not in kinds
    assert "DisruptionTarget" not in kinds
