"""Pods near those they want, far from those they do not, and spread."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import podyard.scheduler.plugins
from podyard.api.documents import Document
from podyard.lib.parts import load_parts
from podyard.scheduler.accounts import NodeAccounts
from podyard.scheduler.decide import Placement, Unschedulable, decide_placement
from podyard.scheduler.neighbours import look_around, terms_of
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin
from podyard.scheduler.plugins.inter_pod_affinity import (
    KEPT_AWAY,
    NOT_NEAR,
    TOO_NEAR,
)
from podyard.scheduler.plugins.pod_topology_spread import UNEVEN, UNLABELLED
from podyard.scheduler.preemption.decide import (
    NoPreemption,
    Preemption,
    decide_preemption,
)
from support.stored_objects import make

PLUGINS = load_parts(podyard.scheduler.plugins, SchedulerPlugin)
HOST, ZONE = "kubernetes.io/hostname", "zone"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
#: a and b are in the west, c is in the east, d is nowhere.
ZONES = {"a": "west", "b": "west", "c": "east", "d": ""}
NAMESPACES = {"web": {"team": "blue"}, "db": {"team": "blue"}, "else": {"team": "red"}}
ONE_CPU = {"name": "c", "resources": {"requests": {"cpu": "1"}}}
ALL_CPU = {"name": "c", "resources": {"requests": {"cpu": "9"}}}
WEB, DB = {"app": "web"}, {"app": "db"}


def node(name: str, **spec: Any) -> Document:
    labels = {HOST: name, **({ZONE: ZONES[name]} if ZONES[name] else {})}
    return make(
        "Node",
        name,
        metadata={"labels": labels},
        spec=spec,
        status={"allocatable": {"cpu": "9", "pods": "110"}},
    )


def pod(
    name: str = "p",
    labels: dict[str, str] | None = None,
    *,
    namespace: str = "web",
    leaving: bool = False,
    **spec: Any,
) -> Document:
    document = make(
        "Pod", name, namespace, metadata={"labels": labels or {}}, spec=dict(spec)
    )
    if leaving:
        document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return document


def term(key: str = ZONE, labels: Any = WEB, **more: Any) -> Document:
    selector = {} if labels is None else {"labelSelector": {"matchLabels": labels}}
    return {"topologyKey": key, **selector, **more}


def near(*terms: Document) -> Document:
    return {"affinity": {"podAffinity": {REQUIRED: list(terms)}}}


def far(*terms: Document) -> Document:
    return {"affinity": {"podAntiAffinity": {REQUIRED: list(terms)}}}


def rather(field: str, weight: int, wish: Document) -> Document:
    wishes = [{"weight": weight, "podAffinityTerm": wish}]
    return {"affinity": {field: {PREFERRED: wishes}}}


def spread(key: str = ZONE, skew: int = 1, labels: Any = WEB, **more: Any) -> Document:
    return {
        "topologyKey": key,
        "maxSkew": skew,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
        **more,
    }


def spreading(*constraints: Document) -> Document:
    return {"topologySpreadConstraints": list(constraints)}


Placed = dict[str, list[Document]]


def accounts(placed: Placed, **specs: Any) -> NodeAccounts:
    made = NodeAccounts()
    for name in ZONES:
        made.set_node(node(name, **specs.get(name, {})))
    for where, pods in placed.items():
        for one in pods:
            made.place(one, where)
    return made


def infos(asked: Document, placed: Placed, **specs: Any) -> tuple[NodeInfo, ...]:
    return accounts(placed, **specs).infos(asked, NAMESPACES)


def objections(asked: Document, found: tuple[NodeInfo, ...]) -> dict[str, str]:
    """Return why each node is passed over that is."""
    said: dict[str, str] = {}
    for plugin in sorted(PLUGINS, key=lambda plugin: plugin.order):
        for info in found:
            objection = plugin.filter(asked, info) if plugin.filter else None
            if objection is not None:
                said.setdefault(info.name, ", ".join(objection.reasons))
    return said


def everywhere(reason: str, *but: str) -> dict[str, str]:
    return {name: reason for name in ZONES if name not in but}


@pytest.mark.parametrize(
    ("asked", "placed", "refusals"),
    [
        pytest.param(pod(), {"a": [pod("w", WEB)]}, {}, id="minds-nobody"),
        # affinity
        pytest.param(
            pod(**near(term())),
            {"a": [pod("w", WEB)]},
            everywhere(NOT_NEAR, "a", "b"),
            id="near-in-the-zone",
        ),
        pytest.param(
            pod(**near(term(HOST))),
            {"a": [pod("w", WEB)]},
            everywhere(NOT_NEAR, "a"),
            id="near-on-the-node",
        ),
        pytest.param(
            pod(**near(term())), {"c": [pod("d", DB)]}, everywhere(NOT_NEAR), id="none"
        ),
        pytest.param(
            pod("p", WEB, **near(term())),
            {"c": [pod("d", DB)]},
            {"d": NOT_NEAR},
            id="the-first-of-its-kind-goes-where-there-is-a-zone",
        ),
        pytest.param(
            pod("p", WEB, **near(term(), term(HOST, DB))),
            {},
            everywhere(NOT_NEAR),
            id="not-of-all-its-kinds",
        ),
        pytest.param(
            pod(**near(term(), term(HOST, DB))),
            {"a": [pod("w", WEB)], "b": [pod("d", DB)]},
            everywhere(NOT_NEAR),
            id="one-pod-has-to-fulfil-all-terms",
        ),
        pytest.param(
            pod(**near(term(), term(HOST, DB))),
            {"a": [pod("w", WEB | DB | {"x": "y"})], "b": [pod("v", {**WEB})]},
            everywhere(NOT_NEAR),
            id="app-is-one-or-the-other",
        ),
        pytest.param(
            pod(**near(term(ZONE, {"x": "1"}), term(HOST, {"y": "2"}))),
            {"a": [pod("w", {"x": "1", "y": "2"})]},
            everywhere(NOT_NEAR, "a"),
            id="both-terms",
        ),
        pytest.param(
            pod(**near(term(labels=None))),
            {"a": [pod("w", WEB)]},
            everywhere(NOT_NEAR),
            id="no-selector-names-nobody",
        ),
        pytest.param(
            pod(**near(term(labels={}))),
            {"a": [pod("w", WEB)]},
            everywhere(NOT_NEAR, "a", "b"),
            id="an-empty-selector-names-all",
        ),
        # namespaces
        pytest.param(
            pod(**near(term())),
            {"a": [pod("w", WEB, namespace="db")]},
            everywhere(NOT_NEAR),
            id="its-own-namespace-alone",
        ),
        pytest.param(
            pod(**near(term(namespaces=["db"]))),
            {"a": [pod("w", WEB, namespace="db")], "c": [pod("v", WEB)]},
            everywhere(NOT_NEAR, "a", "b"),
            id="a-named-namespace",
        ),
        pytest.param(
            pod(**near(term(namespaceSelector={"matchLabels": {"team": "blue"}}))),
            {
                "a": [pod("w", WEB, namespace="else")],
                "c": [pod("v", WEB, namespace="db")],
            },
            everywhere(NOT_NEAR, "c"),
            id="a-selected-namespace",
        ),
        pytest.param(
            pod(**near(term(namespaceSelector={}))),
            {"a": [pod("w", WEB, namespace="else")]},
            everywhere(NOT_NEAR, "a", "b"),
            id="all-namespaces",
        ),
        # keys of the Pod's own labels
        pytest.param(
            pod("p", {"v": "2"}, **near(term(matchLabelKeys=["v", "absent"]))),
            {"a": [pod("w", WEB | {"v": "1"})], "c": [pod("x", WEB | {"v": "2"})]},
            everywhere(NOT_NEAR, "c"),
            id="same-version",
        ),
        pytest.param(
            pod("p", {"v": "2"}, **far(term(mismatchLabelKeys=["v"]))),
            {"a": [pod("w", WEB | {"v": "1"})], "c": [pod("x", WEB | {"v": "2"})]},
            {"a": TOO_NEAR, "b": TOO_NEAR},
            id="other-version",
        ),
        # anti-affinity
        pytest.param(
            pod(**far(term(HOST))),
            {"a": [pod("w", WEB)], "b": [pod("d", DB)]},
            {"a": TOO_NEAR},
            id="far-on-the-node",
        ),
        pytest.param(
            pod(**far(term())),
            {"a": [pod("w", WEB)]},
            {"a": TOO_NEAR, "b": TOO_NEAR},
            id="far-in-the-zone",
        ),
        pytest.param(
            pod(**far(term())),
            {"d": [pod("w", WEB)]},
            {},
            id="who-is-in-no-zone-is-not-near",
        ),
        pytest.param(
            pod("p", WEB),
            {"a": [pod("w", **far(term()))]},
            {"a": KEPT_AWAY, "b": KEPT_AWAY},
            id="kept-away",
        ),
        pytest.param(
            pod("p", DB), {"a": [pod("w", **far(term()))]}, {}, id="not-kept-away"
        ),
        pytest.param(
            pod("p", WEB, namespace="else"),
            {
                "a": [
                    pod(
                        "w",
                        **far(term(namespaceSelector={"matchLabels": {"team": "red"}})),
                    )
                ]
            },
            {"a": KEPT_AWAY, "b": KEPT_AWAY},
            id="kept-away-by-namespace",
        ),
        # spread
        pytest.param(
            pod("p", WEB, **spreading(spread())),
            {"a": [pod("w", WEB)]},
            {"a": UNEVEN, "b": UNEVEN, "d": UNLABELLED},
            id="to-the-emptier-zone",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread(skew=2))),
            {"a": [pod("w", WEB)]},
            {"d": UNLABELLED},
            id="a-larger-skew",
        ),
        pytest.param(
            pod("p", DB, **spreading(spread())),
            {"a": [pod("w", WEB)]},
            {"d": UNLABELLED},
            id="a-pod-that-does-not-count-itself",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread())),
            {"a": [pod("w", WEB, leaving=True), pod("x", WEB, namespace="db")]},
            {"d": UNLABELLED},
            id="who-leaves-or-is-elsewhere-does-not-count",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread(HOST))),
            {name: [pod(f"w{name}", WEB)] for name in "abc"},
            dict.fromkeys("abc", UNEVEN),
            id="over-nodes",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread(minDomains=3))),
            {"a": [pod("w", WEB)], "c": [pod("x", WEB)]},
            {"a": UNEVEN, "b": UNEVEN, "c": UNEVEN, "d": UNLABELLED},
            id="too-few-domains",
        ),
        pytest.param(
            pod("p", WEB, nodeSelector={ZONE: "west"}, **spreading(spread())),
            {"a": [pod("w", WEB)]},
            {
                "c": "node(s) didn't match Pod's node affinity/selector",
                "d": "node(s) didn't match Pod's node affinity/selector",
            },
            id="only-domains-it-may-go-to",
        ),
        pytest.param(
            pod(
                "p",
                WEB,
                nodeSelector={ZONE: "west"},
                **spreading(spread(nodeAffinityPolicy="Ignore")),
            ),
            {"a": [pod("w", WEB)]},
            {
                "a": UNEVEN,
                "b": UNEVEN,
                "c": "node(s) didn't match Pod's node affinity/selector",
                "d": "node(s) didn't match Pod's node affinity/selector",
            },
            id="all-domains",
        ),
        pytest.param(
            pod("p", WEB | {"v": "2"}, **spreading(spread(matchLabelKeys=["v"]))),
            {"a": [pod("w", WEB | {"v": "1"})]},
            {"d": UNLABELLED},
            id="of-its-version",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread(whenUnsatisfiable="ScheduleAnyway"))),
            {"a": [pod("w", WEB)]},
            {},
            id="a-wish-forbids-nothing",
        ),
    ],
)
def test_where_a_pod_may_not_go_for_the_others(
    asked: Document, placed: Placed, refusals: dict[str, str]
) -> None:
    assert objections(asked, infos(asked, placed)) == refusals


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        pytest.param("Ignore", ["a", "b"], id="ignore"),
        pytest.param("Honor", [], id="honor"),
    ],
)
def test_tainted_nodes_are_domains_unless_taints_are_honoured(
    policy: str, refused: list[str]
) -> None:
    taints = [{"key": "k", "effect": "NoSchedule"}]
    asked = pod("p", WEB, **spreading(spread(nodeTaintsPolicy=policy)))

    found = objections(
        asked, infos(asked, {"a": [pod("w", WEB)]}, c={"taints": taints})
    )

    assert [name for name, why in found.items() if why == UNEVEN] == refused


@pytest.mark.parametrize(
    ("asked", "placed", "chosen"),
    [
        pytest.param(
            pod(**rather("podAffinity", 10, term(HOST))),
            {"b": [pod("w", WEB)]},
            "b",
            id="rather-near",
        ),
        pytest.param(
            pod(**rather("podAntiAffinity", 10, term())),
            {"a": [pod("w", WEB)]},
            "c",
            id="rather-far",
        ),
        pytest.param(
            pod("p", WEB),
            {"c": [pod("w", **rather("podAffinity", 1, term(HOST)))]},
            "c",
            id="liked",
        ),
        pytest.param(
            pod("p", WEB),
            {"c": [pod("w", **near(term(HOST)))]},
            "c",
            id="needed",
        ),
        pytest.param(
            pod("p", WEB),
            {
                "a": [pod("w", **rather("podAntiAffinity", 1, term()))],
                "d": [pod("x"), pod("y")],
            },
            "c",
            id="not-liked",
        ),
        pytest.param(
            pod(
                "p", WEB, **spreading(spread(HOST, whenUnsatisfiable="ScheduleAnyway"))
            ),
            {"a": [pod("w", WEB)], "b": [pod("x", WEB)], "c": [pod("y", WEB)]},
            "d",
            id="rather-spread",
        ),
        pytest.param(
            pod("p", WEB, **spreading(spread(whenUnsatisfiable="ScheduleAnyway"))),
            {"a": [pod("w", WEB)]},
            "c",
            id="a-node-in-no-zone-comes-last",
        ),
    ],
)
def test_where_a_pod_would_rather_go(
    asked: Document, placed: Placed, chosen: str
) -> None:
    verdict = decide_placement(asked, infos(asked, placed), PLUGINS)

    assert isinstance(verdict, Placement)
    assert verdict.node_name == chosen


def test_the_message_counts_the_nodes_by_reason() -> None:
    asked = pod("p", WEB, **far(term()))
    placed = {"a": [pod("w", WEB)], "c": [pod("x", **far(term()))]}

    verdict = decide_placement(asked, infos(asked, placed)[:3], PLUGINS)

    assert isinstance(verdict, Unschedulable)
    assert verdict.filtered == (
        f"0/3 nodes are available: 1 {KEPT_AWAY}, 2 {TOO_NEAR}."
    )


def test_pods_of_a_node_that_is_gone_are_nobodys_neighbours() -> None:
    asked = pod(**near(term()))
    made = accounts({"a": [pod("w", WEB)]})
    made.remove_node("a")

    assert "b" in objections(asked, made.infos(asked, NAMESPACES))


def test_a_pod_that_has_gone_is_nobodys_neighbour() -> None:
    asked = pod("p", WEB)
    made = accounts({"a": [pod("w", **far(term()))]})
    made.remove("uid-w")

    assert objections(asked, made.infos(asked, NAMESPACES)) == {}


def test_room_is_kept_free_of_those_a_nominated_pod_minds() -> None:
    asked = pod("p", WEB)
    made = accounts({})
    made.nominate(pod("soon", priority=5, **far(term(HOST))), "a")

    assert objections(asked, made.infos(asked, NAMESPACES)) == {"a": KEPT_AWAY}


def test_nobody_counts_on_a_pod_that_is_only_nominated() -> None:
    asked = pod(**near(term(HOST)))
    made = accounts({})
    made.nominate(pod("soon", WEB, priority=5), "a")

    assert set(objections(asked, made.infos(asked, NAMESPACES))) == set(ZONES)


def _preempt(asked: Document, placed: Placed) -> Preemption | NoPreemption:
    made = accounts(placed)
    found = made.infos(asked, NAMESPACES)
    verdict = decide_placement(asked, found, PLUGINS)
    assert isinstance(verdict, Unschedulable)
    return decide_preemption(
        asked,
        found,
        verdict.unfit,
        pods_on=made.pods_on,
        budgets=(),
        plugins=PLUGINS,
    )


@pytest.mark.parametrize(
    ("asked", "placed", "victims"),
    [
        pytest.param(
            pod(priority=9, **far(term(HOST))),
            {
                name: [pod(f"w{name}", WEB), pod(f"d{name}", DB, priority=1)]
                for name in ZONES
            },
            ["wa"],
            id="whom-it-may-not-be-near",
        ),
        pytest.param(
            pod("p", WEB, priority=9),
            {
                name: [pod(f"w{name}", **far(term(HOST))), pod(f"d{name}")]
                for name in ZONES
            },
            ["wa"],
            id="who-keeps-it-away",
        ),
        pytest.param(
            pod("p", WEB, priority=9, containers=[ONE_CPU], **spreading(spread(HOST))),
            {
                **{name: [pod(f"w{name}", WEB)] for name in "abc"},
                "d": [pod("full", DB, priority=9, containers=[ALL_CPU])],
            },
            ["wa"],
            id="who-makes-its-domain-lead",
        ),
        pytest.param(
            pod(priority=9, **near(term(HOST))),
            {"a": [pod("d", DB)]},
            None,
            id="nobody-comes-near-by-ending-others",
        ),
    ],
)
def test_who_ends_for_a_pod_that_minds_others(
    asked: Document, placed: Placed, victims: list[str] | None
) -> None:
    decision = _preempt(asked, placed)

    if victims is None:
        assert isinstance(decision, NoPreemption)
    else:
        assert isinstance(decision, Preemption)
        assert [one["metadata"]["name"] for one in decision.victims] == victims


kinds = st.sampled_from(
    [
        {},
        far(term(HOST)),
        near(term()),
        rather("podAffinity", 3, term()),
        rather("podAntiAffinity", 2, term(HOST, DB)),
    ]
)
runners = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([WEB, DB, {}]), kinds),
    max_size=6,
)


@given(runners, st.sampled_from([WEB, DB]), kinds)
def test_counting_pods_one_by_one_and_back_is_counting_them_at_once(
    found: list[tuple[str, dict[str, str], Document]],
    labels: dict[str, str],
    kind: Document,
) -> None:
    nodes = {name: node(name) for name in ZONES}
    asked = pod("p", labels, **kind, **spreading(spread(), spread(HOST)))
    runs = [
        (pod(f"r{index}", theirs, **spec), nodes[where])
        for index, (where, theirs, spec) in enumerate(found)
    ]
    placed = [(one, where, terms_of(one)) for one, where in runs]

    at_once = look_around(asked, list(nodes.values()), placed, NAMESPACES)
    empty = look_around(asked, list(nodes.values()), [], NAMESPACES)
    step_by_step = empty
    for one, where in runs:
        step_by_step = step_by_step.with_pods([one], where)
    assert step_by_step == at_once

    for one, where in reversed(runs):
        step_by_step = step_by_step.without_pods([one], where)
    assert step_by_step == empty
