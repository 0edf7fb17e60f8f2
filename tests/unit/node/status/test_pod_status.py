"""Phase, conditions and container statuses as tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ContainerUser,
    ObservedPod,
    PodSandbox,
    SandboxState,
)
from podyard.api.runtime import Annotation
from podyard.node.probes.parts import ContainerVerdict, ProbeVerdicts
from podyard.node.status.decide import (
    NodeView,
    PodFacts,
    PodFailure,
    Waiting,
    decide_phase,
    decide_pod_status,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=1)
RUNNING, EXITED = ContainerState.RUNNING, ContainerState.EXITED
NODE = NodeView(("10.0.0.1",), "containerd")
PROBE = {"exec": {"command": ["true"]}}
BOX = PodSandbox("s", "p", "d", "u", 0, SandboxState.READY, BEFORE, ips=("10.1.0.2",))


def make_pod(
    policy: str = "Always",
    *,
    containers: Any = ("a",),
    init: Any = (),
    metadata: Document | None = None,
    **spec: Any,
) -> Pod:
    def one(item: Any) -> Document:
        known = {"name": item} if isinstance(item, str) else dict(item)
        return {"image": "i:1", **known}

    return Pod.of(
        {
            "metadata": {
                "name": "p",
                "namespace": "d",
                "uid": "u",
                "generation": 3,
                **(metadata or {}),
            },
            "spec": {
                "restartPolicy": policy,
                "containers": [one(c) for c in containers],
                "initContainers": [one(c) for c in init],
                **spec,
            },
        }
    )


def seen(
    name: str = "a",
    state: ContainerState = RUNNING,
    code: int = 0,
    *,
    attempt: int = 0,
    **more: Any,
) -> ContainerStatus:
    return ContainerStatus(
        id=f"{name}{attempt}",
        name=name,
        sandbox_id="s",
        attempt=attempt,
        state=state,
        created_at=BEFORE + timedelta(seconds=attempt),
        started_at=BEFORE + timedelta(seconds=attempt),
        finished_at=NOW if state is EXITED else None,
        exit_code=code,
        reason=("Error" if code else "Completed") if state is EXITED else "",
        image="docker.io/i:1",
        image_id="docker.io/i@sha256:1",
        annotations={Annotation.RESTART_COUNT: str(attempt)},
        **more,
    )


def facts(pod: Pod, *containers: ContainerStatus, **more: Any) -> PodFacts:
    boxes = more.pop("boxes", (BOX,))
    observed = ObservedPod("u", "p", "d", boxes, containers)
    return PodFacts(pod=pod, observed=observed, sandbox_ready=bool(boxes), **more)


def status_of(given: PodFacts) -> Document:
    return decide_pod_status(given, NODE, now=NOW)


def one(given: PodFacts, name: str = "a") -> Document:
    status = status_of(given)
    every = [
        *(status.get("initContainerStatuses") or ()),
        *status["containerStatuses"],
    ]
    return next(s for s in every if s["name"] == name)


def condition(status: Document, kind: str) -> Document:
    return next(c for c in status["conditions"] if c["type"] == kind)


def ended(code: int) -> Document:
    return {"state": {"terminated": {"exitCode": code}}}


UP: Document = {"state": {"running": {}}}
WAITS: Document = {"state": {"waiting": {}}}
AGAIN: Document = {
    "state": {"waiting": {}},
    "lastState": {"terminated": {"exitCode": 1}},
}
STARTED: Document = {"state": {"running": {}}, "started": True}


@pytest.mark.parametrize(
    ("pod", "states", "phase"),
    [
        pytest.param(make_pod(), {"a": WAITS}, "Pending", id="waiting"),
        pytest.param(make_pod(), {"a": UP}, "Running", id="running"),
        pytest.param(make_pod(), {"a": AGAIN}, "Running", id="waiting-to-start-again"),
        pytest.param(make_pod(), {"a": ended(0)}, "Running", id="always-goes-on"),
        pytest.param(
            make_pod("Never"), {"a": ended(0)}, "Succeeded", id="never-succeeded"
        ),
        pytest.param(make_pod("Never"), {"a": ended(1)}, "Failed", id="never-failed"),
        pytest.param(
            make_pod("OnFailure"), {"a": ended(1)}, "Running", id="on-failure-goes-on"
        ),
        pytest.param(
            make_pod("Never", containers=("a", "b")),
            {"a": ended(1), "b": UP},
            "Running",
            id="one-failed-one-runs",
        ),
        pytest.param(
            make_pod("Never", containers=("a", "b")),
            {"a": ended(0), "b": ended(2)},
            "Failed",
            id="one-of-two-failed",
        ),
        pytest.param(
            make_pod(containers=("a", "b")),
            {"a": UP, "b": WAITS},
            "Pending",
            id="one-has-not-begun",
        ),
        pytest.param(
            make_pod(init=("i",)), {"a": WAITS, "i": UP}, "Pending", id="init"
        ),
        pytest.param(
            make_pod("Never", init=("i",)),
            {"a": WAITS, "i": ended(1)},
            "Failed",
            id="init-failed-for-good",
        ),
        pytest.param(
            make_pod(init=("i",)),
            {"a": WAITS, "i": ended(1)},
            "Pending",
            id="init-failed-and-is-tried-again",
        ),
        pytest.param(
            make_pod(init=({"name": "i", "restartPolicy": "Always"},)),
            {"a": UP, "i": STARTED},
            "Running",
            id="sidecar-and-container-run",
        ),
        pytest.param(
            make_pod("Never", init=({"name": "i", "restartPolicy": "Always"},)),
            {"a": ended(0), "i": ended(137)},
            "Succeeded",
            id="a-sidecars-exit-does-not-count",
        ),
        pytest.param(
            make_pod(
                "Never", containers=({"name": "a", "restartPolicy": "OnFailure"},)
            ),
            {"a": ended(1)},
            "Running",
            id="own-policy-goes-on",
        ),
    ],
)
def test_phase(pod: Pod, states: dict[str, Document], phase: str) -> None:
    inits = {c.name for c in pod.spec.init_containers}
    shown = [{"name": name, **state} for name, state in states.items()]

    assert (
        decide_phase(
            pod,
            [s for s in shown if s["name"] in inits],
            [s for s in shown if s["name"] not in inits],
            ended=False,
            has_initialized="running" in states["a"]["state"],
        )
        == phase
    )


def test_a_terminal_phase_is_final() -> None:
    status = status_of(facts(make_pod(), seen(), previous={"phase": "Failed"}))

    assert status["phase"] == "Failed"


def test_a_terminal_phase_waits_until_nothing_runs() -> None:
    pod = make_pod("Never", init=({"name": "s", "restartPolicy": "Always"},))
    previous = {"phase": "Running"}

    still = status_of(facts(pod, seen("s"), seen("a", EXITED), previous=previous))
    over = status_of(
        facts(pod, seen("s", EXITED, 143), seen("a", EXITED), previous=previous)
    )

    assert (still["phase"], over["phase"]) == ("Running", "Succeeded")


def test_a_running_container_is_told_in_full() -> None:
    user = ContainerUser(1000, 100, (5,))
    pod = make_pod(
        containers=(
            {
                "name": "a",
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
            },
        )
    )

    status = one(facts(pod, seen(user=user), seen(state=EXITED, attempt=-1)))

    assert status == {
        "name": "a",
        "state": {"running": {"startedAt": "2026-01-01T11:00:00Z"}},
        "lastState": {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": "2026-01-01T10:59:59Z",
                "finishedAt": "2026-01-01T12:00:00Z",
                "containerID": "containerd://a-1",
            }
        },
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "docker.io/i:1",
        "imageID": "docker.io/i@sha256:1",
        "containerID": "containerd://a0",
        "user": {"linux": {"uid": 1000, "gid": 100, "supplementalGroups": [5]}},
        "volumeMounts": [
            {
                "name": "v",
                "mountPath": "/v",
                "readOnly": True,
                "recursiveReadOnly": "Disabled",
            }
        ],
    }


@pytest.mark.parametrize(
    ("pod", "waiting", "containers", "reason"),
    [
        pytest.param(make_pod(), {}, (), "ContainerCreating", id="default"),
        pytest.param(
            make_pod(init=("i",)), {}, (), "PodInitializing", id="default-with-init"
        ),
        pytest.param(
            make_pod(),
            {"a": Waiting("ErrImagePull", "no")},
            (),
            "ErrImagePull",
            id="why-it-cannot-start",
        ),
        pytest.param(
            make_pod(),
            {"a": Waiting("CrashLoopBackOff", "back-off")},
            (seen(state=EXITED, code=1),),
            "CrashLoopBackOff",
            id="back-off",
        ),
    ],
)
def test_why_a_container_waits(
    pod: Pod,
    waiting: dict[str, Waiting],
    containers: tuple[ContainerStatus, ...],
    reason: str,
) -> None:
    status = one(facts(pod, *containers, waiting=waiting))

    assert status["state"]["waiting"]["reason"] == reason
    assert bool(status["lastState"]) is bool(containers)


def test_a_container_that_is_not_to_start_again_shows_how_it_ended() -> None:
    waiting = {"a": Waiting("RunContainerError", "x")}

    status = one(facts(make_pod("Never"), seen(state=EXITED, code=3), waiting=waiting))

    assert status["state"]["terminated"]["exitCode"] == 3


def test_a_container_whose_hook_has_not_returned_is_still_being_created() -> None:
    given = facts(make_pod(), seen(), held=frozenset({"a0"}))

    status = status_of(given)

    assert one(given)["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert status["phase"] == "Pending"
    assert condition(status, "Ready")["status"] == "False"


@pytest.mark.parametrize(
    ("probes", "verdict", "old", "expected"),
    [
        pytest.param({}, None, None, (True, True), id="no-probes"),
        pytest.param(
            {"readinessProbe": PROBE}, None, None, (True, False), id="not-ready-yet"
        ),
        pytest.param(
            {"readinessProbe": PROBE},
            ContainerVerdict(started=True, ready=True),
            None,
            (True, True),
            id="ready",
        ),
        pytest.param(
            {"startupProbe": PROBE}, None, None, (False, False), id="not-started-yet"
        ),
        pytest.param(
            {"startupProbe": PROBE},
            ContainerVerdict(started=True),
            None,
            (True, True),
            id="started-and-no-readiness-probe",
        ),
        pytest.param(
            {"startupProbe": PROBE, "readinessProbe": PROBE},
            None,
            {"containerID": "containerd://a0", "started": True, "ready": True},
            (True, True),
            id="a-new-agent-does-not-flip-it",
        ),
        pytest.param(
            {"startupProbe": PROBE},
            ContainerVerdict(started=False),
            {"containerID": "containerd://a0", "started": True, "ready": True},
            (True, True),
            id="what-has-started-does-not-un-start",
        ),
        pytest.param(
            {"readinessProbe": PROBE},
            None,
            {"containerID": "containerd://a9", "started": True, "ready": True},
            (True, False),
            id="another-instance-begins-anew",
        ),
    ],
)
def test_started_and_ready(
    probes: Document,
    verdict: ContainerVerdict | None,
    old: Document | None,
    expected: tuple[bool, bool],
) -> None:
    pod = make_pod(containers=({"name": "a", **probes},))
    previous = {"containerStatuses": [{"name": "a", **old}]} if old else {}
    verdicts = ProbeVerdicts({"a0": verdict} if verdict else {})

    status = one(facts(pod, seen(), verdicts=verdicts, previous=previous))

    assert (status["started"], status["ready"]) == expected


def test_init_containers_are_listed_in_order_and_others_by_name() -> None:
    pod = make_pod(containers=("z", "b"), init=("y", "x"))

    status = status_of(facts(pod, seen("y", EXITED), seen("x")))

    assert [s["name"] for s in status["initContainerStatuses"]] == ["y", "x"]
    assert [s["name"] for s in status["containerStatuses"]] == ["b", "z"]
    assert [s["ready"] for s in status["initContainerStatuses"]] == [True, False]


def test_an_init_record_that_is_gone_counts_as_done() -> None:
    status = one(facts(make_pod(init=("i",)), seen("a")), "i")

    assert status["state"]["terminated"]["reason"] == "Completed"
    assert status["ready"]


def test_a_record_that_vanished_counts_as_one_more_start() -> None:
    old = {"name": "a", "state": {"running": {}}, "restartCount": 4}

    status = one(facts(make_pod(), previous={"containerStatuses": [old]}))

    assert status["restartCount"] == 5
    assert status["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert status["lastState"]["terminated"]["message"] == (
        "The container could not be located when the pod was deleted.  "
        "The container used to be Running"
    )


def test_a_pod_that_is_over_says_what_nobody_saw_end() -> None:
    old = {"name": "a", "state": {"running": {}}, "containerID": "containerd://a0"}
    previous = {"phase": "Running", "containerStatuses": [old]}

    status = status_of(facts(make_pod(), previous=previous, ended=True, boxes=()))

    assert status["phase"] == "Failed"
    state = status["containerStatuses"][0]["state"]
    assert state["terminated"]["reason"] == "ContainerStatusUnknown"
    assert state["terminated"]["exitCode"] == 137


def test_a_container_that_never_began_did_not_end_either() -> None:
    failure = PodFailure("OutOfcpu", "Pod was rejected: x")

    status = status_of(facts(make_pod(), ended=True, boxes=(), failure=failure))

    assert (status["phase"], status["reason"]) == ("Failed", "OutOfcpu")
    assert "waiting" in status["containerStatuses"][0]["state"]


def test_a_failure_of_the_nodes_is_told_when_nothing_runs_any_more() -> None:
    failure = PodFailure("Evicted", "low on memory", disrupted=True)
    previous = {"phase": "Running"}

    during = status_of(facts(make_pod(), seen(), failure=failure, previous=previous))
    after = status_of(
        facts(
            make_pod(),
            seen(state=EXITED, code=137),
            failure=failure,
            previous=previous,
            ended=True,
        )
    )

    assert during["phase"] == "Running"
    assert all(c["type"] != "DisruptionTarget" for c in during["conditions"])
    assert (after["phase"], after["reason"]) == ("Failed", "Evicted")
    target = condition(after, "DisruptionTarget")
    assert target["reason"] == "TerminationByKubelet"


def test_reason_and_message_stay_while_the_phase_does() -> None:
    previous = {"phase": "Failed", "reason": "Evicted", "message": "m"}

    status = status_of(facts(make_pod(), previous=previous))

    assert (status["reason"], status["message"]) == ("Evicted", "m")


def test_addresses() -> None:
    node = NodeView(("10.0.0.1", "fd00::1"), "containerd")
    box = replace(BOX, ips=("fd01::2", "10.1.0.2"))

    status = decide_pod_status(facts(make_pod(), seen(), boxes=(box,)), node, now=NOW)

    assert status["hostIPs"] == [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    assert (status["podIP"], status["podIPs"]) == (
        "10.1.0.2",
        [{"ip": "10.1.0.2"}, {"ip": "fd01::2"}],
    )


def test_a_pod_on_the_host_network_has_the_hosts_address() -> None:
    status = status_of(facts(make_pod(hostNetwork=True), seen()))

    assert status["podIP"] == "10.0.0.1"


def test_addresses_are_kept_after_the_sandbox_has_gone() -> None:
    previous = {"podIPs": [{"ip": "10.1.0.9"}], "podIP": "10.1.0.9"}

    status = status_of(facts(make_pod(), previous=previous, boxes=()))

    assert status["podIP"] == "10.1.0.9"


def test_the_messages_of_a_pod_share_their_limit() -> None:
    pod = make_pod("Never", containers=("a", "b", "c"))
    long = "x" * 5000

    status = status_of(
        facts(pod, *(seen(name, EXITED, 1, message=long) for name in "abc"))
    )

    lengths = [
        len(s["state"]["terminated"]["message"]) for s in status["containerStatuses"]
    ]
    assert lengths == [4096, 4096, 4096]


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        pytest.param(
            facts(make_pod(), seen()), "Ready", ("True", None, None), id="ready"
        ),
        pytest.param(
            facts(make_pod(containers=("a", "b")), seen("a")),
            "ContainersReady",
            (
                "False",
                "ContainersNotReady",
                "containers with unready status: [b]",
            ),
            id="one-is-not-ready",
        ),
        pytest.param(
            facts(make_pod(readinessGates=[{"conditionType": "g"}]), seen()),
            "Ready",
            (
                "False",
                "ReadinessGatesNotReady",
                'corresponding condition of pod readiness gate "g" does not exist.',
            ),
            id="gate-missing",
        ),
        pytest.param(
            facts(
                make_pod(readinessGates=[{"conditionType": "g"}]),
                seen(),
                previous={"conditions": [{"type": "g", "status": "False"}]},
            ),
            "Ready",
            (
                "False",
                "ReadinessGatesNotReady",
                'the status of pod readiness gate "g" is not "True", but False',
            ),
            id="gate-false",
        ),
        pytest.param(
            facts(make_pod(init=("i",)), seen("i")),
            "Initialized",
            (
                "False",
                "ContainersNotInitialized",
                "containers with incomplete status: [i]",
            ),
            id="init-runs",
        ),
        pytest.param(
            facts(make_pod("Never"), seen("a", EXITED)),
            "Ready",
            ("False", "PodCompleted", None),
            id="completed",
        ),
        pytest.param(
            facts(make_pod("Never"), seen("a", EXITED, 1)),
            "ContainersReady",
            ("False", "PodFailed", None),
            id="failed",
        ),
        pytest.param(
            facts(make_pod("Never"), seen("a", EXITED)),
            "Initialized",
            ("True", "PodCompleted", None),
            id="initialized-of-a-completed-pod",
        ),
        pytest.param(
            facts(make_pod(), boxes=()),
            "PodReadyToStartContainers",
            ("False", None, None),
            id="no-sandbox",
        ),
    ],
)
def test_conditions(
    given: PodFacts, kind: str, expected: tuple[str, str | None, str | None]
) -> None:
    found = condition(status_of(given), kind)

    shown = (found["status"], found.get("reason"), found.get("message"))
    assert shown == expected
    assert found["observedGeneration"] == 3


def test_a_transition_is_dated_only_when_it_happens() -> None:
    then = "2025-01-01T00:00:00Z"
    previous = {
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": then},
            {"type": "ContainersReady", "status": "False", "lastTransitionTime": then},
        ]
    }

    status = status_of(facts(make_pod(), seen(), previous=previous))

    assert condition(status, "Ready")["lastTransitionTime"] == then
    dated = condition(status, "ContainersReady")["lastTransitionTime"]
    assert dated == "2026-01-01T12:00:00Z"


def test_conditions_of_others_come_first_and_untouched() -> None:
    foreign = {"type": "example.com/x", "status": "True", "lastProbeTime": None}

    status = status_of(facts(make_pod(), seen(), previous={"conditions": [foreign]}))

    assert status["conditions"][0] == foreign
    assert [c["type"] for c in status["conditions"][1:]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]


def test_the_generation_seen_never_goes_back() -> None:
    status = status_of(facts(make_pod(), previous={"observedGeneration": 7}))

    assert status["observedGeneration"] == 7


def test_a_pull_that_goes_on_is_told_in_the_waiting_message() -> None:
    given = facts(make_pod(), progress={"a": "Pulling image: 1 of 2 MiB"})

    assert one(given)["state"]["waiting"] == {
        "reason": "ContainerCreating",
        "message": "Pulling image: 1 of 2 MiB",
    }


def test_a_failed_pull_says_more_than_how_far_the_next_one_is() -> None:
    given = facts(
        make_pod(),
        waiting={"a": Waiting("ErrImagePull", "no")},
        progress={"a": "Pulling image: 1 of 2 MiB"},
    )

    assert one(given)["state"]["waiting"] == {
        "reason": "ErrImagePull",
        "message": "no",
    }
