"""How many Pods a budget expects, and lets go."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.controllers.disruption_budgets import (
    Expected,
    ScaleError,
    decide_budget,
    decide_expected,
    show_selector,
    stale_in_s,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: int) -> str:
    return datetime.fromtimestamp(NOW.timestamp() - seconds, UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def owned(name: str, kind: str = "ReplicaSet", owner: str = "rs") -> Document:
    reference = {
        "apiVersion": {"Job": "batch/v1"}.get(kind, "apps/v1"),
        "kind": kind,
        "name": owner,
        "uid": f"uid-{owner}",
        "controller": True,
    }
    return pod(name, ownerReferences=[reference])


def pod(name: str, *, ready: bool = True, **metadata: Any) -> Document:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": "d", **metadata},
        "status": {"conditions": conditions},
    }


def find(kind: Kind, _namespace: str, name: str) -> Document | None:
    known: dict[str, Document] = {
        "rs": {"metadata": {"uid": "uid-rs"}, "spec": {"replicas": 4}},
        "one": {"metadata": {"uid": "uid-one"}, "spec": {}},
        "deploy": {"metadata": {"uid": "uid-deploy"}, "spec": {"replicas": 9}},
        "of-deploy": {
            "metadata": {
                "uid": "uid-of-deploy",
                "ownerReferences": [
                    {
                        "apiVersion": "apps/v1",
                        "kind": "Deployment",
                        "name": "deploy",
                        "uid": "uid-deploy",
                        "controller": True,
                    }
                ],
            },
            "spec": {"replicas": 1},
        },
    }
    return known.get(name)


@pytest.mark.parametrize(
    ("spec", "pods", "expected"),
    [
        pytest.param({"minAvailable": 2}, [pod("a")], Expected(1, 2), id="number"),
        pytest.param({}, [pod("a")], Expected(0, 0), id="nothing-said"),
        pytest.param(
            {"minAvailable": "60%"}, [owned("a")], Expected(4, 3), id="share-rounds-up"
        ),
        pytest.param(
            {"maxUnavailable": 1},
            [owned("a"), owned("b")],
            Expected(4, 3),
            id="missing",
        ),
        pytest.param(
            {"maxUnavailable": "30%"}, [owned("a")], Expected(4, 2), id="missing-share"
        ),
        pytest.param(
            {"maxUnavailable": 9}, [owned("a")], Expected(4, 0), id="never-below-none"
        ),
        pytest.param(
            {"minAvailable": "100%"},
            [owned("a"), owned("b", owner="one")],
            Expected(5, 5),
            id="several-controllers",
        ),
        pytest.param(
            {"maxUnavailable": 1},
            [owned("a", owner="of-deploy")],
            Expected(9, 8),
            id="the-deployment-above",
        ),
        pytest.param(
            {"maxUnavailable": 1}, [pod("a")], Expected(0, 0, ("a",)), id="unmanaged"
        ),
    ],
)
def test_what_a_budget_expects(
    spec: Document, pods: list[Document], expected: Expected
) -> None:
    assert decide_expected({"spec": spec}, pods, find) == expected


@pytest.mark.parametrize(
    ("document", "text"),
    [
        pytest.param(
            owned("a", "Job", "j"),
            "jobs.batch does not implement the scale subresource",
            id="job",
        ),
        pytest.param(
            owned("a", owner="gone"), 'found no controllers for pod "a"', id="gone"
        ),
    ],
)
def test_what_nobody_can_count(document: Document, text: str) -> None:
    with pytest.raises(ScaleError, match=text):
        decide_expected({"spec": {"maxUnavailable": 1}}, [document], find)


@pytest.mark.parametrize(
    ("pods", "noted", "expected", "allowed", "healthy"),
    [
        pytest.param([pod("a"), pod("b")], {}, Expected(2, 1), 1, 2, id="one-may-go"),
        pytest.param(
            [pod("a"), pod("b", ready=False)], {}, Expected(2, 1), 0, 1, id="not-ready"
        ),
        pytest.param(
            [pod("a"), pod("b", deletionTimestamp=ago(0))],
            {},
            Expected(2, 1),
            0,
            1,
            id="going",
        ),
        pytest.param(
            [pod("a"), pod("b")],
            {"b": ago(10)},
            Expected(2, 1),
            0,
            1,
            id="evicted-and-awaited",
        ),
        pytest.param(
            [pod("a"), pod("b")], {"b": ago(121)}, Expected(2, 1), 1, 2, id="too-long"
        ),
        pytest.param([pod("a")], {}, Expected(0, 0), 0, 1, id="nobody-is-expected"),
    ],
)
def test_how_many_may_go(
    pods: list[Document],
    noted: dict[str, str],
    expected: Expected,
    allowed: int,
    healthy: int,
) -> None:
    document = {
        "metadata": {"name": "b", "generation": 3},
        "status": {"disruptedPods": noted},
    }

    look = decide_budget(document, pods, expected, now=NOW)

    status = look.status
    assert (status["disruptionsAllowed"], status["currentHealthy"]) == (
        allowed,
        healthy,
    )
    assert status["observedGeneration"] == 3
    if noted:
        late = noted["b"] == ago(121)
        assert look.not_deleted == (("b",) if late else ())
        assert look.again_in_s == (None if late else 110)
        assert status.get("disruptedPods") == (None if late else noted)


@pytest.mark.parametrize(
    ("condition", "metadata", "left_s"),
    [
        pytest.param({"reason": "PreemptionByScheduler"}, {}, 110, id="fresh"),
        pytest.param({"lastTransitionTime": ago(300)}, {}, 0, id="stale"),
        pytest.param({"reason": "TerminationByKubelet"}, {}, None, id="by-its-node"),
        pytest.param({"status": "False"}, {}, None, id="no-more"),
        pytest.param({}, {"deletionTimestamp": ago(0)}, None, id="going"),
    ],
)
def test_when_a_mark_is_stale(
    condition: Document, metadata: Document, left_s: float | None
) -> None:
    document = pod("a", **metadata)
    document["status"]["conditions"].append(
        {
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": ago(10),
            **condition,
        }
    )

    assert stale_in_s(document, NOW) == left_s


def test_selectors_are_shown_as_go_shows_them() -> None:
    assert show_selector({"matchLabels": {"app": "web"}}) == (
        "&LabelSelector{MatchLabels:map[string]string{app: web,},"
        "MatchExpressions:[]LabelSelectorRequirement{},}"
    )
