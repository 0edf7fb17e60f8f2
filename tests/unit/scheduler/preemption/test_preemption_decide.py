"""Who ends so that a more important Pod fits."""

from typing import Any

import pytest

import podyard.scheduler.plugins
from podyard.api.documents import Document
from podyard.api.predicates import usage_of
from podyard.lib.parts import load_parts
from podyard.scheduler.decide import Unschedulable, decide_placement
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin
from podyard.scheduler.preemption.decide import (
    NoPreemption,
    PlacedPod,
    Preemption,
    decide_preemption,
)
from support.admission import pod
from support.stored_objects import make

PLUGINS = load_parts(podyard.scheduler.plugins, SchedulerPlugin)
MARK = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
}


def victim(
    name: str,
    cpu: str = "1",
    *,
    priority: int = 0,
    started: int = 0,
    ending: bool = False,
    **labels: str,
) -> Document:
    document = pod(
        name,
        priority=priority,
        containers=[{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
    )
    document["metadata"] |= {"uid": f"uid-{name}", "labels": labels or {"app": name}}
    document["status"] = {"startTime": f"2026-01-01T00:00:{started:02}Z"}
    if ending:
        document["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
        document["status"]["conditions"] = [MARK]
    return document


def budget(allowed: int, disrupted: tuple[str, ...] = (), **labels: str) -> Document:
    return make(
        "PodDisruptionBudget",
        "b",
        "web",
        spec={"selector": {"matchLabels": labels}},
        status={
            "disruptionsAllowed": allowed,
            "disruptedPods": dict.fromkeys(disrupted, "2026-01-01T00:00:00Z"),
        },
    )


def decide(
    asked: Document,
    nodes: dict[str, list[Document]],
    *,
    budgets: tuple[Document, ...] = (),
    nominated: str = "",
    **spec: Any,
) -> Preemption | NoPreemption:
    placed = {
        name: tuple(PlacedPod(item, usage_of((item,))) for item in pods)
        for name, pods in nodes.items()
    }
    infos = [
        NodeInfo(
            make(
                "Node",
                name,
                spec=spec.get(name, {}),
                status={"allocatable": {"cpu": "2", "pods": "10"}},
            ),
            usage_of(pods),
        )
        for name, pods in nodes.items()
    ]
    verdict = decide_placement(asked, infos, PLUGINS)
    assert isinstance(verdict, Unschedulable)
    return decide_preemption(
        asked,
        infos,
        verdict.unfit,
        pods_on=placed.__getitem__,
        budgets=budgets,
        plugins=PLUGINS,
        nominated=nominated,
    )


def asking(cpu: str = "1", priority: int = 100, **spec: Any) -> Document:
    return pod(
        "asking",
        priority=priority,
        containers=[{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        **spec,
    )


@pytest.mark.parametrize(
    ("nodes", "node_name", "names"),
    [
        pytest.param(
            {"n": [victim("a"), victim("b", priority=5)]}, "n", ["a"], id="the-lower"
        ),
        pytest.param(
            {"n": [victim("a", started=1), victim("b", started=9)]},
            "n",
            ["b"],
            id="the-younger",
        ),
        pytest.param(
            {"n": [victim("big", "2")], "m": [victim("a", "2", priority=1)]},
            "n",
            ["big"],
            id="the-lowest-highest-priority",
        ),
        pytest.param(
            {
                "n": [victim("a", "500m", priority=1), victim("b", "1500m")],
                "m": [victim("c", "2")],
            },
            "m",
            ["c"],
            id="lowest-victims-before-fewest",
        ),
        pytest.param(
            {
                "n": [victim("a", "700m"), victim("b", "700m"), victim("c", "600m")],
                "m": [victim("d", "2")],
            },
            "m",
            ["d"],
            id="the-fewest",
        ),
        pytest.param(
            {"n": [victim("a", "2", started=1)], "m": [victim("b", "2", started=9)]},
            "m",
            ["b"],
            id="who-started-last",
        ),
    ],
)
def test_the_least_harm_is_done(
    nodes: dict[str, list[Document]], node_name: str, names: list[str]
) -> None:
    decision = decide(asking(), nodes)

    assert isinstance(decision, Preemption)
    assert decision.node_name == node_name
    assert [item["metadata"]["name"] for item in decision.victims] == names


@pytest.mark.parametrize(
    ("allowed", "disrupted", "names", "violations"),
    [
        pytest.param(0, (), ["b"], 0, id="the-guarded-stays"),
        pytest.param(1, (), ["a"], 0, id="the-budget-allows-it"),
        pytest.param(0, ("a",), ["a"], 0, id="it-goes-already"),
    ],
)
def test_budgets_are_kept_where_that_is_possible(
    allowed: int, disrupted: tuple[str, ...], names: list[str], violations: int
) -> None:
    nodes = {"n": [victim("a", app="web"), victim("b", priority=5)]}

    decision = decide(asking(), nodes, budgets=(budget(allowed, disrupted, app="web"),))

    assert isinstance(decision, Preemption)
    assert [item["metadata"]["name"] for item in decision.victims] == names
    assert decision.violations == violations


def test_a_budget_is_broken_where_nothing_else_helps() -> None:
    nodes = {"n": [victim("a", "2", app="web")]}

    decision = decide(asking(), nodes, budgets=(budget(0, app="web"),))

    assert isinstance(decision, Preemption)
    assert decision.violations == 1


@pytest.mark.parametrize(
    ("asked", "nodes", "message"),
    [
        pytest.param(
            asking(priority=0),
            {"n": [victim("a", "2")]},
            "0/1 nodes are available: 1 No preemption victims found for incoming pod.",
            id="equals-stay",
        ),
        pytest.param(
            asking("2"),
            {"n": [victim("a"), victim("b", priority=1000)]},
            "0/1 nodes are available: 1 Insufficient cpu.",
            id="not-enough",
        ),
        pytest.param(
            asking("3"),
            {"n": [victim("a")]},
            "0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
            id="more-than-there-is",
        ),
        pytest.param(
            asking(preemptionPolicy="Never"),
            {"n": [victim("a", "2")]},
            "not eligible due to preemptionPolicy=Never.",
            id="never",
        ),
    ],
)
def test_why_nobody_goes(
    asked: Document, nodes: dict[str, list[Document]], message: str
) -> None:
    decision = decide(asked, nodes)

    assert isinstance(decision, NoPreemption)
    assert decision.message == message


def test_who_made_room_waits_until_it_is_free() -> None:
    nodes = {"n": [victim("a", "2", ending=True)], "m": [victim("b", "2")]}

    decision = decide(asking(), nodes, nominated="n")

    assert decision == NoPreemption(
        "not eligible due to a terminating pod on the nominated node."
    )


def test_a_node_that_became_hopeless_is_given_up() -> None:
    nodes = {"n": [victim("a", "2", ending=True)], "m": [victim("b", "2")]}

    decision = decide(asking(), nodes, nominated="n", n={"unschedulable": True})

    assert isinstance(decision, Preemption)
    assert decision.node_name == "m"
