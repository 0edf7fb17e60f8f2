"""Conditions, taints and evictions."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.controllers.node_health import (
    EvictAfter,
    Stay,
    build_silent,
    decide_eviction,
    decide_taints,
)
from support.admission import pod
from support.stored_objects import make

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AT = "2026-05-01T12:00:00Z"
NR, UR = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def _node(conditions: dict[str, str], taints: Any = None, **spec: Any) -> Any:
    if taints is not None:
        spec["taints"] = taints
    listed = [{"type": name, "status": status} for name, status in conditions.items()]
    return make("Node", "n", spec=spec, status={"conditions": listed})


def _no_schedule(key: str) -> dict[str, str]:
    return {"key": key, "effect": "NoSchedule"}


def _no_execute(key: str, at: str = AT) -> dict[str, str]:
    return {"key": key, "effect": "NoExecute", "timeAdded": at}


OWN = {"key": "mine", "effect": "NoExecute"}
EARLIER = "2026-05-01T11:58:20Z"


@pytest.mark.parametrize(
    ("node", "taints"),
    [
        pytest.param(_node({"Ready": "True"}), None, id="healthy"),
        pytest.param(
            _node({"Ready": "True"}, [_no_schedule(NR), OWN]), [OWN], id="became-ready"
        ),
        pytest.param(
            _node({"Ready": "False"}, [OWN]),
            [OWN, _no_schedule(NR), _no_execute(NR)],
            id="not-ready",
        ),
        pytest.param(
            _node({"Ready": "Unknown"}, [_no_schedule(NR), _no_execute(NR)]),
            [_no_schedule(UR), _no_execute(UR)],
            id="from-not-ready-to-unreachable",
        ),
        pytest.param(
            _node({"Ready": "Unknown"}, [_no_schedule(UR), _no_execute(UR, EARLIER)]),
            None,
            id="still-unreachable",
        ),
        pytest.param(_node({}, [_no_schedule(NR)]), None, id="new"),
        pytest.param(_node({}), [_no_schedule(NR)], id="new-without-taint"),
        pytest.param(
            _node({"Ready": "True", "MemoryPressure": "True", "DiskPressure": "False"}),
            [_no_schedule("node.kubernetes.io/memory-pressure")],
            id="memory",
        ),
        pytest.param(
            _node({"Ready": "True"}, unschedulable=True),
            [_no_schedule("node.kubernetes.io/unschedulable")],
            id="cordoned",
        ),
        pytest.param(
            _node(
                {"Ready": "True"}, [_no_schedule("node.kubernetes.io/unschedulable")]
            ),
            [],
            id="uncordoned",
        ),
    ],
)
def test_conditions_become_taints(node: Any, taints: Any) -> None:
    assert decide_taints(node, now=NOW) == taints


def test_a_silent_node_is_vouched_for_by_nobody() -> None:
    node = _node({"Ready": "True", "DiskPressure": "Unknown"})
    node["status"]["conditions"][0]["lastHeartbeatTime"] = EARLIER

    conditions = {c["type"]: c for c in build_silent(node, now=NOW)}

    assert conditions["Ready"] == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastHeartbeatTime": EARLIER,
        "lastTransitionTime": AT,
    }
    assert conditions["PIDPressure"]["reason"] == "NodeStatusNeverUpdated"
    assert conditions["PIDPressure"]["message"] == "Kubelet never posted node status."
    assert "DiskPressure" not in conditions


def _tolerates(seconds: int | None = None, key: str = UR) -> dict[str, Any]:
    toleration: dict[str, Any] = {
        "key": key,
        "operator": "Exists",
        "effect": "NoExecute",
    }
    return (
        toleration if seconds is None else {**toleration, "tolerationSeconds": seconds}
    )


@pytest.mark.parametrize(
    ("taints", "tolerations", "eviction"),
    [
        pytest.param([], [], Stay(), id="no-taint"),
        pytest.param([_no_schedule(UR)], [], Stay(), id="only-for-scheduling"),
        pytest.param([_no_execute(UR)], [], EvictAfter(0.0), id="intolerant"),
        pytest.param([_no_execute(UR)], [_tolerates()], Stay(), id="for-ever"),
        pytest.param(
            [_no_execute(UR, EARLIER)],
            [_tolerates(300)],
            EvictAfter(200.0),
            id="a-while",
        ),
        pytest.param(
            [_no_execute(UR, EARLIER)], [_tolerates(60)], EvictAfter(0.0), id="overdue"
        ),
        pytest.param(
            [_no_execute(UR)], [_tolerates(-5)], EvictAfter(0.0), id="negative"
        ),
        pytest.param(
            [_no_execute(UR), OWN],
            [
                _tolerates(300),
                {"key": "mine", "operator": "Exists", "tolerationSeconds": 7},
            ],
            EvictAfter(7.0),
            id="the-shortest",
        ),
        pytest.param(
            [_no_execute(UR), OWN], [_tolerates(300)], EvictAfter(0.0), id="one-of-two"
        ),
    ],
)
def test_taints_drive_pods_away(taints: Any, tolerations: Any, eviction: Any) -> None:
    document = pod(tolerations=tolerations)

    assert decide_eviction(document, _node({}, taints), now=NOW) == eviction
