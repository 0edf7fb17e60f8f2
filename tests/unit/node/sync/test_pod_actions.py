"""What a Pod needs done, as a table; and that doing it comes to an end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podyard.api.core_v1 import Container, Pod
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ObservedPod,
    PodSandbox,
    SandboxState,
)
from podyard.api.restart import CrashLoop, container_hash, crash_loop_key
from podyard.api.runtime import Annotation, NamespaceMode
from podyard.node.probes.parts import ContainerVerdict, ProbeVerdicts
from podyard.node.sync.decide import (
    DeliverPostStart,
    Memory,
    PodActions,
    active_deadline_in_s,
    decide_pod_actions,
    has_certain_volumes,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=2)
RUNNING, EXITED = ContainerState.RUNNING, ContainerState.EXITED
CREATED, UNKNOWN = ContainerState.CREATED, ContainerState.UNKNOWN
PROBE = {"exec": {"command": ["true"]}}


def make_pod(
    policy: str = "Always",
    *,
    containers: Sequence[Any] = ("a", "b"),
    init: Sequence[Any] = (),
    ephemeral: Sequence[str] = (),
    **spec: Any,
) -> Pod:
    def one(item: Any) -> dict[str, Any]:
        known = {"name": item} if isinstance(item, str) else dict(item)
        return {"image": "i", **known}

    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {
                "restartPolicy": policy,
                "containers": [one(c) for c in containers],
                "initContainers": [one(c) for c in init],
                "ephemeralContainers": [one(c) for c in ephemeral],
                **spec,
            },
        }
    )


def sidecar(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "restartPolicy": "Always", **more}


def sandbox(
    number: int = 0,
    *,
    ready: bool = True,
    ips: tuple[str, ...] = ("10.0.0.2",),
    network: NamespaceMode = NamespaceMode.POD,
) -> PodSandbox:
    return PodSandbox(
        id=f"s{number}",
        name="p",
        namespace="d",
        uid="u",
        attempt=number,
        state=SandboxState.READY if ready else SandboxState.NOT_READY,
        created_at=LONG_AGO + timedelta(minutes=number),
        ips=ips if ready else (),
        network=network,
    )


def seen(
    name: str,
    state: ContainerState = RUNNING,
    code: int = 0,
    *,
    box: str = "s0",
    image: str = "i",
    reason: str = "",
    attempt: int = 0,
    finished_at: datetime = LONG_AGO + timedelta(minutes=30),
) -> ContainerStatus:
    return ContainerStatus(
        id=f"{name}{attempt}",
        name=name,
        sandbox_id=box,
        attempt=attempt,
        state=state,
        created_at=LONG_AGO + timedelta(minutes=1, seconds=attempt),
        finished_at=finished_at if state is EXITED else None,
        exit_code=code,
        reason=reason,
        annotations={
            Annotation.HASH: container_hash(Container(name, image)),
            Annotation.RESTART_COUNT: str(attempt),
        },
    )


def world(
    *containers: ContainerStatus, boxes: Sequence[PodSandbox] = ()
) -> ObservedPod:
    return ObservedPod("u", "p", "d", tuple(boxes) or (sandbox(),), containers)


def decide(
    pod: Pod,
    observed: ObservedPod,
    verdicts: dict[str, ContainerVerdict] | None = None,
    memory: Memory | None = None,
    now: datetime = NOW,
) -> PodActions:
    return decide_pod_actions(
        pod,
        observed,
        ProbeVerdicts(verdicts or {}),
        now=now,
        memory=memory or Memory(),
    )


def names(actions: PodActions) -> list[str]:
    return [action.container.name for action in actions.start]


NOTHING = ObservedPod("u", "p", "d")


@pytest.mark.parametrize(
    ("pod", "observed", "start", "flags"),
    [
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b")),
            [],
            "",
            id="everything-is-good-do-nothing",
        ),
        pytest.param(
            make_pod(), NOTHING, ["a", "b"], "kill create", id="nothing-yet-start-all"
        ),
        pytest.param(make_pod(), world(), ["a", "b"], "", id="sandbox-there-start-all"),
        pytest.param(
            make_pod(), world(seen("a")), ["b"], "", id="start-what-is-missing"
        ),
        pytest.param(
            make_pod(),
            world(seen("a", EXITED), seen("b", EXITED, 1)),
            ["a", "b"],
            "",
            id="always-restarts-whatever-the-exit",
        ),
        pytest.param(
            make_pod("OnFailure"),
            world(seen("a", EXITED), seen("b", EXITED, 1)),
            ["b"],
            "",
            id="on-failure-restarts-failures",
        ),
        pytest.param(
            make_pod("Never"),
            world(seen("a", EXITED), seen("b", EXITED, 1)),
            [],
            "kill",
            id="never-and-all-over-kills-the-pod",
        ),
        pytest.param(
            make_pod("Never"),
            world(seen("a"), seen("b", EXITED, 1)),
            [],
            "",
            id="never-and-one-still-runs",
        ),
        pytest.param(
            make_pod(),
            world(seen("a", CREATED), seen("b")),
            ["a"],
            "",
            id="created-but-not-started-is-started-anew",
        ),
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b"), boxes=[sandbox(ready=False)]),
            ["a", "b"],
            "kill create",
            id="dead-sandbox-recreates-all",
        ),
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b"), boxes=[sandbox(1), sandbox(0)]),
            ["a", "b"],
            "kill create",
            id="two-ready-sandboxes",
        ),
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b"), boxes=[sandbox(ips=())]),
            ["a", "b"],
            "kill create",
            id="sandbox-without-address",
        ),
        pytest.param(
            make_pod(hostNetwork=True),
            world(
                seen("a"),
                seen("b"),
                boxes=[sandbox(ips=(), network=NamespaceMode.NODE)],
            ),
            [],
            "",
            id="host-network-needs-no-address",
        ),
        pytest.param(
            make_pod(hostNetwork=True),
            world(seen("a"), seen("b")),
            ["a", "b"],
            "kill create",
            id="wrong-network-mode",
        ),
        pytest.param(
            make_pod("Never"),
            world(seen("a", EXITED), boxes=[sandbox(ready=False)]),
            [],
            "kill",
            id="dead-sandbox-of-a-pod-never-restarted",
        ),
        pytest.param(
            make_pod("Never"),
            world(boxes=[sandbox(ready=False)]),
            ["a", "b"],
            "kill create",
            id="dead-sandbox-before-anything-ran",
        ),
        pytest.param(
            make_pod("OnFailure"),
            world(
                seen("a", EXITED), seen("b", EXITED, 1), boxes=[sandbox(ready=False)]
            ),
            ["b"],
            "kill create",
            id="dead-sandbox-leaves-succeeded-ones-out",
        ),
        pytest.param(
            make_pod("OnFailure"),
            world(seen("a", EXITED), seen("b", EXITED), boxes=[sandbox(ready=False)]),
            [],
            "kill",
            id="dead-sandbox-and-nothing-left-to-do",
        ),
        pytest.param(
            make_pod(init=["i"]), NOTHING, ["i"], "kill create", id="init-comes-first"
        ),
        pytest.param(
            make_pod(init=["i", "j"]),
            world(seen("i")),
            [],
            "",
            id="init-still-running",
        ),
        pytest.param(
            make_pod(init=["i", "j"]),
            world(seen("i", EXITED)),
            ["j"],
            "",
            id="next-init",
        ),
        pytest.param(
            make_pod(init=["i", "j"]),
            world(seen("i", EXITED), seen("j", EXITED)),
            ["a", "b"],
            "",
            id="init-done",
        ),
        pytest.param(
            make_pod(init=["i"]),
            world(seen("i", EXITED, 1)),
            ["i"],
            "",
            id="failed-init-again",
        ),
        pytest.param(
            make_pod(init=["i"]),
            world(seen("i", EXITED, 0, reason="OOMKilled")),
            ["i"],
            "",
            id="init-out-of-memory-counts-as-failed",
        ),
        pytest.param(
            make_pod("Never", init=["i"]),
            world(seen("i", EXITED, 1)),
            [],
            "kill",
            id="failed-init-of-a-pod-never-restarted",
        ),
        pytest.param(
            make_pod(init=["i"]),
            world(seen("a"), seen("b")),
            [],
            "",
            id="init-records-gone-but-initialized",
        ),
        pytest.param(
            make_pod(init=["i"]),
            world(
                seen("i", EXITED, box="s0"), boxes=[sandbox(1), sandbox(0, ready=False)]
            ),
            ["i"],
            "",
            id="init-of-an-older-sandbox-runs-again",
        ),
        pytest.param(
            make_pod(init=[sidecar("s"), "i"]),
            NOTHING,
            ["s"],
            "kill create",
            id="sidecar-first",
        ),
        pytest.param(
            make_pod(init=[sidecar("s"), "i"]),
            world(seen("s")),
            ["i"],
            "",
            id="next-init-when-the-sidecar-runs",
        ),
        pytest.param(
            make_pod(init=[sidecar("s", startupProbe=PROBE), "i"]),
            world(seen("s")),
            [],
            "",
            id="sidecar-whose-startup-probe-has-not-spoken",
        ),
        pytest.param(
            make_pod(init=[sidecar("s")]),
            world(seen("s", EXITED), seen("a"), seen("b")),
            ["s"],
            "",
            id="sidecar-is-always-restarted",
        ),
        pytest.param(
            make_pod("Never", init=[sidecar("s")]),
            world(seen("s"), seen("a", EXITED), seen("b", EXITED)),
            [],
            "kill",
            id="sidecar-alone-does-not-keep-the-pod",
        ),
        pytest.param(
            make_pod("Never", init=[sidecar("s")]),
            world(seen("s", EXITED), seen("a", EXITED), seen("b", EXITED)),
            [],
            "kill",
            id="sidecar-is-not-restarted-when-all-is-done",
        ),
        pytest.param(
            make_pod(ephemeral=["e"]),
            world(seen("a"), seen("b")),
            ["e"],
            "",
            id="ephemeral-starts",
        ),
        pytest.param(
            make_pod(ephemeral=["e"]),
            world(seen("a"), seen("b"), seen("e", EXITED, 1)),
            [],
            "",
            id="ephemeral-is-never-restarted",
        ),
        pytest.param(
            make_pod(ephemeral=["e"], init=["i"]),
            world(seen("i")),
            ["e"],
            "",
            id="ephemeral-needs-no-init",
        ),
    ],
)
def test_what_is_started(
    pod: Pod, observed: ObservedPod, start: list[str], flags: str
) -> None:
    actions = decide(pod, observed)

    said = " ".join(
        word
        for word, is_so in (
            ("kill", actions.kill_pod),
            ("create", actions.create_sandbox),
        )
        if is_so
    )
    assert (names(actions), said) == (start, flags)
    assert actions.kill == ()


@pytest.mark.parametrize(
    ("pod", "observed", "verdicts", "message", "restart"),
    [
        pytest.param(
            make_pod(),
            world(seen("a", image="old"), seen("b")),
            {},
            "Container a definition changed, will be restarted",
            True,
            id="another-image",
        ),
        pytest.param(
            make_pod("Never"),
            world(seen("a", image="old"), seen("b")),
            {},
            "Container a definition changed, will be restarted",
            True,
            id="another-image-restarts-whatever-the-policy",
        ),
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b")),
            {"a0": ContainerVerdict(liveness_failed=True)},
            "Container a failed liveness probe, will be restarted",
            True,
            id="liveness",
        ),
        pytest.param(
            make_pod("Never"),
            world(seen("a"), seen("b")),
            {"a0": ContainerVerdict(liveness_failed=True)},
            "Container a failed liveness probe",
            False,
            id="liveness-of-a-pod-never-restarted",
        ),
        pytest.param(
            make_pod(),
            world(seen("a"), seen("b")),
            {"a0": ContainerVerdict(startup_failed=True)},
            "Container a failed startup probe, will be restarted",
            True,
            id="startup",
        ),
        pytest.param(
            make_pod(),
            world(seen("a", UNKNOWN), seen("b")),
            {},
            'Container is in "unknown" state, try killing it before restart',
            True,
            id="unknown-state",
        ),
        pytest.param(
            make_pod(init=[sidecar("s")]),
            world(seen("s", image="old"), seen("a"), seen("b")),
            {},
            "Init container s definition changed",
            True,
            id="sidecar-changed",
        ),
        pytest.param(
            make_pod(init=[sidecar("s")]),
            world(seen("s"), seen("a"), seen("b")),
            {"s0": ContainerVerdict(started=True, liveness_failed=True)},
            "Init container s failed liveness probe",
            True,
            id="sidecar-liveness",
        ),
    ],
)
def test_what_is_killed(
    pod: Pod,
    observed: ObservedPod,
    verdicts: dict[str, ContainerVerdict],
    message: str,
    restart: bool,
) -> None:
    actions = decide(pod, observed, verdicts)

    (kill,) = actions.kill
    assert (kill.message, kill.restart) == (message, restart)
    assert not actions.kill_pod


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(
            world(
                seen("a"),
                seen("b", box="s1"),
                boxes=[sandbox(1), sandbox(0, ready=False)],
            ),
            id="in-an-older-sandbox",
        ),
        pytest.param(
            world(seen("a", attempt=1), seen("a"), seen("b")), id="beside-a-newer-one"
        ),
    ],
)
def test_a_container_that_should_not_be_there_is_killed(observed: ObservedPod) -> None:
    actions = decide(make_pod(), observed)

    (kill,) = actions.kill
    assert (kill.container_id, kill.message) == ("a0", "Stopping container a")
    assert actions.start == ()


def test_a_promised_container_starts_whatever_its_policy() -> None:
    observed = world(seen("a", EXITED, 143), seen("b"))

    actions = decide(
        make_pod("Never"), observed, memory=Memory(promised=frozenset("a"))
    )

    assert names(actions) == ["a"]


def test_a_container_whose_hook_is_owed_gets_it_and_is_not_started_again() -> None:
    memory = Memory(held=frozenset({"a0"}))

    actions = decide(make_pod(), world(seen("a"), seen("b")), memory=memory)

    (hook,) = actions.start
    assert isinstance(hook, DeliverPostStart)
    assert hook.container_id == "a0"


def test_a_sidecar_whose_hook_is_owed_holds_the_next_one_back() -> None:
    pod = make_pod(init=[sidecar("s"), "i"])

    actions = decide(pod, world(seen("s")), memory=Memory(held=frozenset({"s0"})))

    assert names(actions) == ["s"]
    assert isinstance(actions.start[0], DeliverPostStart)


def test_a_crash_loop_is_waited_for_and_the_others_start() -> None:
    pod = make_pod()
    key = crash_loop_key(pod.spec.containers[0])
    finished_at = NOW - timedelta(seconds=4)
    observed = world(seen("a", EXITED, 1, finished_at=finished_at))
    loops = {key: CrashLoop(10, NOW - timedelta(seconds=30))}

    actions = decide(pod, observed, memory=Memory(loops=loops))

    assert names(actions) == ["b"]
    (wait,) = actions.waiting
    assert wait.message == "back-off 10s restarting failed container=a pod=p_d(u)"
    assert actions.look_again_in_s == 6


def test_a_failed_init_container_in_back_off_lets_nothing_start() -> None:
    pod = make_pod(init=["i"])
    key = crash_loop_key(pod.spec.init_containers[0])
    observed = world(seen("i", EXITED, 1, finished_at=NOW))
    loops = {key: CrashLoop(80, NOW - timedelta(seconds=30))}

    actions = decide(pod, observed, memory=Memory(loops=loops))

    assert names(actions) == []
    assert actions.waiting[0].message.startswith("back-off 1m20s restarting")
    assert not actions.kill_pod


def test_a_rule_restarts_all_and_the_one_that_said_so_goes_last() -> None:
    rule = {
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [42]},
    }
    pod = make_pod(
        "Never", containers=["a", {"name": "b", "restartPolicyRules": [rule]}]
    )

    actions = decide(pod, world(seen("b", EXITED, 42), seen("a")))

    assert actions.reset == ("a0", "b0")
    assert actions.start == ()


@pytest.mark.parametrize(
    ("deadline_s", "began_ago_s", "left_s"),
    [
        pytest.param(None, 100, None, id="none"),
        pytest.param(60, 20, 40, id="some-left"),
        pytest.param(60, 61, 0, id="over"),
    ],
)
def test_what_is_left_of_the_active_deadline(
    deadline_s: int | None, began_ago_s: int, left_s: float | None
) -> None:
    pod = make_pod(activeDeadlineSeconds=deadline_s)
    began_at = NOW - timedelta(seconds=began_ago_s)

    assert active_deadline_in_s(pod, began_at, now=NOW) == left_s


TOKEN = {"serviceAccountToken": {"path": "token"}}
ROOT_CA = {"configMap": {"name": "kube-root-ca.crt"}}


@pytest.mark.parametrize(
    ("volume", "certain"),
    [
        pytest.param({"emptyDir": {}}, True, id="empty-dir"),
        pytest.param({"projected": {"sources": [TOKEN, ROOT_CA]}}, True, id="token"),
        pytest.param({"configMap": {"name": "mine"}}, False, id="config-map"),
        pytest.param(
            {"projected": {"sources": [TOKEN, {"configMap": {"name": "mine"}}]}},
            False,
            id="projected-config-map",
        ),
        pytest.param({"secret": {"secretName": "s"}}, False, id="secret"),
        pytest.param({"hostPath": {"path": "/x"}}, False, id="host-path"),
    ],
)
def test_which_volumes_are_surely_there(volume: dict[str, Any], certain: bool) -> None:
    pod = make_pod(volumes=[{"name": "v", **volume}])

    assert has_certain_volumes(pod) is certain


# --- from any state, repeated syncs settle ---


class Model:
    """A runtime without time: what is started runs, plain init containers end well."""

    def __init__(self, pod: Pod, observed: ObservedPod) -> None:
        self.pod = pod
        self.boxes = list(observed.sandboxes)
        self.containers = list(observed.containers)
        self.now = NOW
        self.memory = Memory()
        self.number = 100
        self.end_plain_init()

    def end_plain_init(self) -> None:
        plain = {c.name for c in self.pod.spec.init_containers if not c.is_sidecar}
        self._end(
            {c.id for c in self.containers if c.name in plain and c.state is RUNNING}, 0
        )

    @property
    def observed(self) -> ObservedPod:
        boxes = sorted(self.boxes, key=lambda b: b.created_at, reverse=True)
        ordered = sorted(self.containers, key=lambda c: c.created_at, reverse=True)
        return ObservedPod("u", "p", "d", tuple(boxes), tuple(ordered))

    def carry_out(self, actions: PodActions) -> None:
        self.number += 1
        self.now += timedelta(seconds=actions.look_again_in_s or 1)
        loops = {**self.memory.loops, **actions.loops}
        self.memory = replace(self.memory, loops=loops)
        for kill in actions.kill:
            self._end({kill.container_id}, 137)
            if kill.restart:
                promised = self.memory.promised | {kill.container.name}
                self.memory = replace(self.memory, promised=promised)
        if actions.kill_pod:
            self._end({c.id for c in self.containers}, 137)
            self.boxes = [
                replace(b, state=SandboxState.NOT_READY, ips=()) for b in self.boxes
            ]
        if actions.create_sandbox:
            box = sandbox(actions.attempt)
            created_at = self.now + timedelta(microseconds=self.number)
            self.boxes.append(replace(box, created_at=created_at, id=f"s{self.number}"))
        for action in actions.start:
            if isinstance(action, DeliverPostStart):
                continue
            name = action.container.name
            box = self.observed.sandboxes[0]
            made = seen(name, box=box.id, attempt=self.number)
            made = replace(made, created_at=self.now + timedelta(milliseconds=1))
            self.containers.append(made)
            promised = self.memory.promised - {name}
            self.memory = replace(self.memory, promised=promised)
        self.end_plain_init()

    def _end(self, ids: set[str], code: int) -> None:
        self.containers = [
            replace(c, state=EXITED, exit_code=code, finished_at=self.now)
            if c.id in ids and c.state is not EXITED
            else c
            for c in self.containers
        ]


states = st.sampled_from([RUNNING, EXITED, CREATED, UNKNOWN])


@st.composite
def any_world(draw: st.DrawFn) -> tuple[Pod, ObservedPod]:
    policy = draw(st.sampled_from(["Always", "OnFailure", "Never"]))
    init: list[Any] = draw(
        st.lists(st.sampled_from(["plain", "side"]), max_size=3).map(
            lambda kinds: [
                sidecar(f"i{n}") if kind == "side" else {"name": f"i{n}"}
                for n, kind in enumerate(kinds)
            ]
        )
    )
    pod = make_pod(policy, init=init)
    boxes = [
        sandbox(n, ready=draw(st.booleans())) for n in range(draw(st.integers(0, 2)))
    ]
    every = [c.name for c in (*pod.spec.init_containers, *pod.spec.containers)]
    containers = [
        seen(
            name,
            draw(states),
            draw(st.sampled_from([0, 1, 137])),
            box=draw(st.sampled_from(boxes)).id,
            image=draw(st.sampled_from(["i", "old"])),
            attempt=draw(st.integers(0, 3)),
        )
        for name in every
        if boxes and draw(st.booleans())
    ]
    boxes.sort(key=lambda b: b.created_at, reverse=True)
    return pod, ObservedPod("u", "p", "d", tuple(boxes), tuple(containers))


@settings(max_examples=300, deadline=None)
@given(any_world())
def test_from_any_state_repeated_syncs_settle(case: tuple[Pod, ObservedPod]) -> None:
    pod, observed = case
    model = Model(pod, observed)

    for _ in range(40):
        actions = decide(pod, model.observed, memory=model.memory, now=model.now)
        over = actions.kill_pod and not actions.create_sandbox
        if over and not model.observed.running:
            break
        if actions.idle and not actions.waiting:
            break
        model.carry_out(actions)
    else:
        pytest.fail(f"never settles: {actions}")

    running = {c.name for c in model.observed.running}
    regular = {c.name for c in pod.spec.containers}
    if pod.spec.restart_policy == "Always":
        assert regular <= running
    assert len(model.observed.running) == len(running)
