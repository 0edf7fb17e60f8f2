"""On which node a Pod goes, or why on none."""

from typing import Any

import pytest

import podyard.scheduler.plugins
from podyard.api.documents import Document
from podyard.api.predicates import usage_of
from podyard.lib.parts import load_parts
from podyard.scheduler.decide import Placement, Unschedulable, decide_placement
from podyard.scheduler.parts import NodeInfo, Scale, SchedulerPlugin, Unfit
from support.admission import pod
from support.stored_objects import make

PLUGINS = load_parts(podyard.scheduler.plugins, SchedulerPlugin)
HELPLESS = "Preemption is not helpful for scheduling"
VICTIMLESS = "No preemption victims found for incoming pod"


def _node(name: str, *pods: Document, **spec: Any) -> NodeInfo:
    allocatable = spec.pop("allocatable", {"cpu": "2", "memory": "4Gi", "pods": "110"})
    labels = {"kubernetes.io/hostname": name, **spec.pop("labels", {})}
    node = make(
        "Node",
        name,
        metadata={"labels": labels},
        spec=spec,
        status={"allocatable": allocatable},
    )
    return NodeInfo(node, usage_of(pods))


def _asking(
    cpu: str = "", memory: str = "", *, name: str = "p", **spec: Any
) -> Document:
    requests = {k: v for k, v in {"cpu": cpu, "memory": memory}.items() if v}
    container: Document = {"name": "c", "resources": {"requests": requests}}
    if "host_port" in spec:
        container["ports"] = [{"hostPort": spec.pop("host_port"), "containerPort": 1}]
    return pod(name, containers=[container], **spec)


def _taint(effect: str, key: str = "k", value: str = "v") -> Document:
    return {"key": key, "value": value, "effect": effect}


def test_the_plugins_are_these() -> None:
    assert [
        (part.order, part.name) for part in sorted(PLUGINS, key=lambda p: p.order)
    ] == [
        (10, "NodeUnschedulable"),
        (15, "VolumeBinding"),
        (20, "NodeName"),
        (30, "TaintToleration"),
        (40, "NodeAffinity"),
        (50, "NodePorts"),
        (60, "NodeResourcesFit"),
        (70, "PodTopologySpread"),
        (80, "InterPodAffinity"),
    ]


BUSY = _asking("1500m", name="busy")
PORT = _asking(name="port", host_port=80)


@pytest.mark.parametrize(
    ("asked", "nodes", "message"),
    [
        pytest.param(_asking(), [], "no nodes available to schedule pods", id="none"),
        pytest.param(
            _asking("1"),
            [_node("a", BUSY)],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are "
            f"available: 1 {VICTIMLESS}.",
            id="cpu",
        ),
        pytest.param(
            _asking("8", "64Gi"),
            [_node("a")],
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. "
            f"preemption: 0/1 nodes are available: 1 {HELPLESS}.",
            id="more-than-the-node-has",
        ),
        pytest.param(
            _asking("600m", overhead={"cpu": "1"}),
            [_node("a", BUSY)],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are "
            f"available: 1 {VICTIMLESS}.",
            id="overhead",
        ),
        pytest.param(
            _asking(),
            [_node("a", BUSY, allocatable={"cpu": "2", "pods": "1"})],
            "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are "
            f"available: 1 {VICTIMLESS}.",
            id="count",
        ),
        pytest.param(
            _asking("1"),
            [
                _node("a", BUSY),
                _node("b", taints=[_taint("NoSchedule")]),
                _node("c", taints=[_taint("NoExecute")]),
            ],
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated "
            "taint {k: v}. preemption: 0/3 nodes are available: 1 "
            f"{VICTIMLESS}, 2 {HELPLESS}.",
            id="several",
        ),
        pytest.param(
            _asking(),
            [_node("a", unschedulable=True)],
            "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 "
            f"nodes are available: 1 {HELPLESS}.",
            id="cordoned",
        ),
        pytest.param(
            _asking(nodeSelector={"disk": "ssd"}),
            [_node("a")],
            "0/1 nodes are available: 1 node(s) didn't match Pod's node "
            f"affinity/selector. preemption: 0/1 nodes are available: 1 {HELPLESS}.",
            id="selector",
        ),
        pytest.param(
            _asking(host_port=80),
            [_node("a", PORT)],
            "0/1 nodes are available: 1 node(s) didn't have free ports for the "
            "requested pod ports. preemption: 0/1 nodes are available: 1 "
            f"{VICTIMLESS}.",
            id="port",
        ),
        pytest.param(
            _asking("1", preemptionPolicy="Never"),
            [_node("a", BUSY)],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due "
            "to preemptionPolicy=Never.",
            id="never-preempts",
        ),
        pytest.param(
            _asking(nodeName="z"),
            [_node("a")],
            "0/1 nodes are available: 1 node(s) didn't match the requested node name. "
            f"preemption: 0/1 nodes are available: 1 {HELPLESS}.",
            id="name",
        ),
    ],
)
def test_why_no_node_takes_a_pod(
    asked: Document, nodes: list[NodeInfo], message: str
) -> None:
    verdict = decide_placement(asked, nodes, PLUGINS)

    assert isinstance(verdict, Unschedulable)
    assert verdict.message == message


PREFERS_B = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 1,
                "preference": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/hostname",
                            "operator": "In",
                            "values": ["b"],
                        }
                    ]
                },
            }
        ]
    }
}
TOLERATES = [{"key": "k", "operator": "Exists"}]


@pytest.mark.parametrize(
    ("asked", "nodes", "name"),
    [
        pytest.param(_asking(), [_node("b"), _node("a")], "a", id="first-by-name"),
        pytest.param(_asking("1"), [_node("a", BUSY), _node("b")], "b", id="only-room"),
        pytest.param(
            _asking("100m"), [_node("a", BUSY), _node("b")], "b", id="the-emptier"
        ),
        pytest.param(
            _asking(affinity=PREFERS_B), [_node("a"), _node("b")], "b", id="preferred"
        ),
        pytest.param(
            _asking(),
            [_node("a", taints=[_taint("PreferNoSchedule")]), _node("b")],
            "b",
            id="soft-taint",
        ),
        pytest.param(
            _asking(tolerations=TOLERATES),
            [_node("a", taints=[_taint("NoSchedule")])],
            "a",
            id="tolerated",
        ),
        pytest.param(
            _asking(tolerations=[{"operator": "Exists"}]),
            [_node("a", unschedulable=True)],
            "a",
            id="tolerates-the-cordon",
        ),
        pytest.param(_asking(host_port=81), [_node("a", PORT)], "a", id="another-port"),
        pytest.param(
            _asking(nodeSelector={"disk": "ssd"}),
            [_node("a"), _node("b", labels={"disk": "ssd"})],
            "b",
            id="selector",
        ),
    ],
)
def test_which_node_takes_a_pod(
    asked: Document, nodes: list[NodeInfo], name: str
) -> None:
    verdict = decide_placement(asked, nodes, PLUGINS)

    assert isinstance(verdict, Placement)
    assert verdict.node_name == name


def test_scores_are_stretched_weighted_and_added() -> None:
    def raw(asked: Document, info: NodeInfo) -> float:
        return {"a": 2.0, "b": 4.0}[info.name]

    plugins = [
        SchedulerPlugin("keep", 1, score=raw, weight=3),
        SchedulerPlugin("more", 2, score=raw, scale=Scale.HIGHER_IS_BETTER),
        SchedulerPlugin("less", 3, score=raw, scale=Scale.LOWER_IS_BETTER, weight=2),
    ]

    verdict = decide_placement(pod(), [_node("a"), _node("b")], plugins)

    assert verdict == Placement("a", 2.0 * 3 + 50 + 50 * 2, 2)


def test_the_first_filter_to_object_is_named() -> None:
    plugins = [
        SchedulerPlugin("late", 2, filter=lambda p, n: Unfit(("late",))),
        SchedulerPlugin("early", 1, filter=lambda p, n: Unfit(("early",))),
    ]

    verdict = decide_placement(pod(), [_node("a")], plugins)

    assert isinstance(verdict, Unschedulable)
    assert verdict.unfit == (("a", Unfit(("early",))),)
