"""When the node is short of something, and who goes."""

from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.node.eviction.decide import (
    DEFAULT_HARD,
    Amount,
    ContainerUse,
    Eviction,
    Observation,
    PodUse,
    PressureState,
    Threshold,
    decide_evictions,
    decide_limit_eviction,
    decide_pressure,
    has_storage_limits,
    is_critical,
    parse_thresholds,
    rank,
)
from podyard.node.sync.admission.decide import decide_pressure_admission

MI = 1024 * 1024
HARD = Threshold("memory.available", Amount(100 * MI))
SOFT = Threshold("memory.available", Amount(300 * MI), 60.0)
DISK = Threshold("nodefs.available", Amount(share=0.1), reclaim=Amount(10))


def pod(
    name: str,
    *,
    memory: str = "",
    priority: int = 0,
    limits: Document | None = None,
    **spec: Any,
) -> Pod:
    resources: Document = {"requests": {"memory": memory}} if memory else {}
    if limits:
        resources["limits"] = limits
    return Pod.of(
        {
            "metadata": {"name": name, "namespace": "d", "uid": f"uid-{name}"},
            "spec": {
                "priority": priority,
                "containers": [{"name": "c", "resources": resources}],
                **spec,
            },
        }
    )


def uses(**memory: int) -> dict[str, PodUse]:
    return {
        f"uid-{name}": PodUse({"c": ContainerUse(memory_bytes=amount * MI)})
        for name, amount in memory.items()
    }


def memory(available_mi: int) -> dict[str, Observation]:
    return {"memory.available": Observation(available_mi * MI, 1000 * MI)}


# --- thresholds


def test_the_defaults_are_the_kubelets() -> None:
    assert parse_thresholds(DEFAULT_HARD, {}, {}, {}) == (
        Threshold("memory.available", Amount(100 * MI)),
        Threshold("nodefs.available", Amount(share=0.1)),
        Threshold("nodefs.inodesFree", Amount(share=0.05)),
        Threshold("imagefs.available", Amount(share=0.15)),
        Threshold("imagefs.inodesFree", Amount(share=0.05)),
    )


@pytest.mark.parametrize(
    ("hard", "soft", "grace", "text"),
    [
        pytest.param(
            {"cpu.available": "1"}, {}, {}, "unknown eviction signal", id="signal"
        ),
        pytest.param({"pid.available": "x"}, {}, {}, "quantities", id="amount"),
        pytest.param({"pid.available": "110%"}, {}, {}, "between 0%", id="share"),
        pytest.param({"pid.available": "x%"}, {}, {}, "no percentage", id="percent"),
        pytest.param({"pid.available": "-1"}, {}, {}, "negative", id="negative"),
        pytest.param(
            {},
            {"memory.available": "1Gi"},
            {},
            "grace period must be specified for the soft eviction threshold "
            "memory.available",
            id="soft-without-grace",
        ),
    ],
)
def test_what_cannot_be_a_threshold(
    hard: Any, soft: Any, grace: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        parse_thresholds(hard, soft, grace, {})


def test_an_amount_of_nothing_switches_a_threshold_off() -> None:
    assert parse_thresholds({"memory.available": "0%"}, {}, {}, {}) == ()


# --- when


@pytest.mark.parametrize(
    ("available", "met", "conditions"),
    [
        pytest.param(400, (), frozenset(), id="enough"),
        pytest.param(200, (), {"MemoryPressure"}, id="soft-is-shown-first"),
        pytest.param(99, (HARD,), {"MemoryPressure"}, id="hard-is-acted-on-at-once"),
        pytest.param(100, (), {"MemoryPressure"}, id="just-enough-for-hard"),
    ],
)
def test_what_one_look_leads_to(available: int, met: Any, conditions: Any) -> None:
    state = decide_pressure(
        (HARD, SOFT), memory(available), PressureState(), now_s=0, transition_s=300
    )

    assert (state.met, state.conditions) == (met, conditions)


def test_a_soft_threshold_is_acted_on_after_its_grace() -> None:
    state = PressureState()
    met = []
    for now_s in (0, 30, 60):
        state = decide_pressure(
            (SOFT,), memory(200), state, now_s=now_s, transition_s=300
        )
        met.append(state.met)

    assert met == [(), (), (SOFT,)]


def test_a_soft_threshold_starts_over_where_it_was_relieved() -> None:
    state = PressureState()
    for now_s, available in ((0, 200), (30, 500), (60, 200)):
        state = decide_pressure(
            (SOFT,), memory(available), state, now_s=now_s, transition_s=300
        )

    assert state.met == ()


def test_a_condition_stays_for_the_transition_period() -> None:
    state = decide_pressure(
        (HARD,), memory(50), PressureState(), now_s=0, transition_s=300
    )
    shown = []
    for now_s in (299, 301):
        state = decide_pressure(
            (HARD,), memory(500), state, now_s=now_s, transition_s=300
        )
        shown.append(state.conditions)

    assert shown == [{"MemoryPressure"}, frozenset()]


def test_the_minimum_reclaim_has_to_be_had_as_well() -> None:
    state = PressureState()
    met = []
    for now_s, available in enumerate((9, 15, 25)):
        seen = {"nodefs.available": Observation(available, 100)}
        state = decide_pressure((DISK,), seen, state, now_s=now_s, transition_s=0)
        met.append(bool(state.met))

    assert met == [True, True, False]


def test_memory_is_more_urgent_than_disk() -> None:
    seen = {**memory(1), "nodefs.available": Observation(1, 100)}

    state = decide_pressure(
        (DISK, HARD), seen, PressureState(), now_s=0, transition_s=0
    )

    assert state.met == (HARD, DISK)
    assert state.conditions == {"MemoryPressure", "DiskPressure"}


# --- who


@pytest.mark.parametrize(
    ("pods", "used", "expected"),
    [
        pytest.param(
            [pod("in", memory="200Mi"), pod("above", memory="10Mi", priority=5)],
            uses(**{"in": 100, "above": 50}),
            ["above", "in"],
            id="above-its-request-before-priority",
        ),
        pytest.param(
            [pod("high", priority=5), pod("low")],
            uses(high=500, low=10),
            ["low", "high"],
            id="priority-before-consumption",
        ),
        pytest.param(
            [pod("some"), pod("most")],
            uses(some=50, most=60),
            ["most", "some"],
            id="who-uses-most",
        ),
        pytest.param(
            [pod("asked", memory="100Mi"), pod("not")],
            uses(**{"asked": 130, "not": 40}),
            ["not", "asked"],
            id="most-above-its-request",
        ),
    ],
)
def test_the_order_of_eviction(pods: Any, used: Any, expected: list[str]) -> None:
    assert [item.name for item in rank(pods, used, "memory")] == expected


def test_processes_are_ranked_by_priority_and_number() -> None:
    pods = [pod("few"), pod("many"), pod("high", priority=1)]
    used = {
        "uid-few": PodUse(processes=2),
        "uid-many": PodUse(processes=90),
        "uid-high": PodUse(processes=900),
    }

    assert [item.name for item in rank(pods, used, "pids")] == ["many", "few", "high"]


def test_a_hard_eviction_says_what_is_short_and_who_took_it() -> None:
    (eviction,) = decide_evictions(
        uses(a=150),
        (HARD,),
        [pod("a", memory="50Mi", terminationGracePeriodSeconds=60)],
        seen=memory(90),
        max_grace_s=0,
    )

    assert eviction == Eviction(
        "uid-a",
        1.0,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
        "90Mi. Container c was using 150Mi, request is 50Mi, has larger consumption of "
        "memory. ",
        disrupted=True,
    )


@pytest.mark.parametrize(
    ("own", "most", "grace_s"),
    [
        pytest.param(60, 20, 20, id="the-node-allows-less"),
        pytest.param(5, 20, 5, id="the-pod-wants-less"),
        pytest.param(60, 0, 1, id="never-below-one"),
    ],
)
def test_a_soft_eviction_leaves_time(own: int, most: float, grace_s: float) -> None:
    (eviction,) = decide_evictions(
        {},
        (SOFT,),
        [pod("a", terminationGracePeriodSeconds=own)],
        seen=memory(200),
        max_grace_s=most,
    )

    assert eviction.grace_s == grace_s
    assert eviction.message == (
        "The node was low on resource: memory. Threshold quantity: 300Mi, available: "
        "200Mi. "
    )


def test_critical_pods_stay() -> None:
    critical = pod("a", priority=2_000_000_000)

    assert is_critical(critical)
    assert not is_critical(pod("b", priority=1_999_999_999))
    assert (
        decide_evictions(
            uses(a=500), (HARD,), [critical], seen=memory(1), max_grace_s=0
        )
        == ()
    )


# --- limits

VOLUMES = [
    {"name": "v", "emptyDir": {"sizeLimit": "10Mi"}},
    {"name": "m", "emptyDir": {"medium": "Memory"}},
]
LIMIT = {"ephemeral-storage": "20Mi"}


@pytest.mark.parametrize(
    ("asked", "use", "message"),
    [
        pytest.param(
            pod("a", volumes=VOLUMES),
            PodUse(volumes={"v": 11 * MI}),
            'Usage of EmptyDir volume "v" exceeds the limit "10Mi". ',
            id="volume",
        ),
        pytest.param(
            pod("a", volumes=VOLUMES), PodUse(volumes={"v": 10 * MI}), "", id="full"
        ),
        pytest.param(
            pod("a", limits=LIMIT, volumes=[{"name": "x", "emptyDir": {}}]),
            PodUse({"c": ContainerUse(0, 15 * MI, 0, 2 * MI)}, {"x": 4 * MI}),
            "Pod ephemeral local storage usage exceeds the total limit of containers "
            "20Mi. ",
            id="pod",
        ),
        pytest.param(
            pod("a", limits=LIMIT, volumes=VOLUMES[1:]),
            PodUse({"c": ContainerUse(0, 15 * MI)}, {"m": 400 * MI}),
            "",
            id="memory-is-no-disk",
        ),
        pytest.param(
            pod(
                "a",
                containers=[
                    {"name": "c", "resources": {"limits": LIMIT}},
                    {"name": "d", "resources": {"limits": LIMIT}},
                ],
            ),
            PodUse({"c": ContainerUse(0, 15 * MI, 0, 6 * MI)}),
            'Container c exceeded its local ephemeral storage limit "20Mi". ',
            id="container",
        ),
        pytest.param(
            pod("a", limits=LIMIT, priority=2_000_000_000),
            PodUse({"c": ContainerUse(0, 50 * MI)}),
            "",
            id="critical",
        ),
    ],
)
def test_a_pod_above_its_own_limit_goes(asked: Pod, use: PodUse, message: str) -> None:
    eviction = decide_limit_eviction(asked, use)

    assert (eviction.message if eviction else "") == message
    if eviction:
        assert (eviction.grace_s, eviction.disrupted) == (1.0, False)


def test_only_pods_with_limits_are_measured() -> None:
    assert has_storage_limits(pod("a", volumes=VOLUMES))
    assert has_storage_limits(pod("a", limits=LIMIT))
    assert not has_storage_limits(pod("a", volumes=VOLUMES[1:], memory="1Gi"))


# --- admission


@pytest.mark.parametrize(
    ("asked", "pressures", "message"),
    [
        pytest.param(pod("a"), set(), "", id="no-pressure"),
        pytest.param(
            pod("a"),
            {"MemoryPressure"},
            "The node had condition: [MemoryPressure]. ",
            id="best-effort",
        ),
        pytest.param(pod("a", memory="1Mi"), {"MemoryPressure"}, "", id="burstable"),
        pytest.param(
            pod(
                "a",
                tolerations=[
                    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}
                ],
            ),
            {"MemoryPressure"},
            "",
            id="tolerates-it",
        ),
        pytest.param(
            pod("a", memory="1Mi"),
            {"MemoryPressure", "DiskPressure"},
            "The node had condition: [DiskPressure MemoryPressure]. ",
            id="disk-refuses-all",
        ),
        pytest.param(
            pod("a", priority=2_000_000_000), {"DiskPressure"}, "", id="critical"
        ),
    ],
)
def test_who_is_let_in_under_pressure(asked: Pod, pressures: Any, message: str) -> None:
    rejection = decide_pressure_admission(asked, frozenset(pressures))

    assert (rejection.message if rejection else "") == message
    assert rejection is None or rejection.reason == "Evicted"
