"""Restart policies, rules and the crash-loop back-off as tables."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.core_v1 import Container, Pod
from podyard.api.observed import ContainerState, ContainerStatus
from podyard.api.restart import (
    CRASH_LOOP,
    CrashLoop,
    LeaveDead,
    Restart,
    WaitForBackoff,
    container_hash,
    crash_loop_key,
    decide_restart,
    restarts_after,
    should_restart,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def pod(policy: str = "Always", *, deleting: bool = False) -> Pod:
    metadata = {"name": "p", "namespace": "d", "uid": "u"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    return Pod.of({"metadata": metadata, "spec": {"restartPolicy": policy}})


def container(policy: str = "", rules: tuple = ()) -> Container:
    return Container.of(
        {
            "name": "c",
            "image": "i",
            "restartPolicy": policy,
            "restartPolicyRules": [
                {
                    "action": action,
                    "exitCodes": {"operator": operator, "values": list(values)},
                }
                for action, operator, values in rules
            ],
        }
    )


def status(state: ContainerState, code: int = 0) -> ContainerStatus:
    return ContainerStatus("id", "c", "s", 0, state, NOW, exit_code=code)


@pytest.mark.parametrize(
    ("pod_policy", "own_policy", "rules", "code", "again"),
    [
        pytest.param("Always", "", (), 0, True, id="always-after-success"),
        pytest.param("OnFailure", "", (), 0, False, id="on-failure-after-success"),
        pytest.param("OnFailure", "", (), 1, True, id="on-failure-after-failure"),
        pytest.param("Never", "", (), 1, False, id="never"),
        pytest.param("Never", "Always", (), 0, True, id="own-policy-counts-first"),
        pytest.param("Always", "Never", (), 1, False, id="own-never-counts-first"),
        pytest.param(
            "Never", "Never", (("Restart", "In", (42,)),), 42, True, id="rule-in"
        ),
        pytest.param(
            "Never", "Never", (("Restart", "In", (42,)),), 1, False, id="rule-missed"
        ),
        pytest.param(
            "Never", "Never", (("Restart", "NotIn", (42,)),), 1, True, id="rule-not-in"
        ),
    ],
)
def test_whether_an_exit_is_followed_by_a_start(
    pod_policy: str, own_policy: str, rules: tuple, code: int, again: bool
) -> None:
    assert restarts_after(pod(pod_policy), container(own_policy, rules), code) is again


@pytest.mark.parametrize(
    ("newest", "deleting", "again"),
    [
        pytest.param(None, False, True, id="never-began"),
        pytest.param(status(ContainerState.RUNNING), False, False, id="runs"),
        pytest.param(status(ContainerState.CREATED), False, True, id="stillborn"),
        pytest.param(status(ContainerState.UNKNOWN), False, True, id="unknown"),
        pytest.param(status(ContainerState.EXITED, 1), False, False, id="exited-never"),
        pytest.param(None, True, False, id="the-pod-is-being-deleted"),
    ],
)
def test_whether_a_container_of_a_pod_never_restarted_starts(
    newest: ContainerStatus | None, deleting: bool, again: bool
) -> None:
    assert should_restart(pod("Never", deleting=deleting), container(), newest) is again


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("loop", "finished_at", "expected"),
    [
        pytest.param(None, ago(0), Restart(CrashLoop(10, NOW)), id="first-at-once"),
        pytest.param(
            CrashLoop(10, ago(20)),
            ago(4),
            WaitForBackoff(10, ago(-6)),
            id="then-ten-seconds-after-the-exit",
        ),
        pytest.param(
            CrashLoop(10, ago(20)),
            ago(11),
            Restart(CrashLoop(20, NOW)),
            id="doubles-with-each-start",
        ),
        pytest.param(
            CrashLoop(300, ago(400)),
            ago(301),
            Restart(CrashLoop(300, NOW)),
            id="five-minutes-at-most",
        ),
        pytest.param(
            CrashLoop(300, ago(700)),
            ago(0),
            Restart(CrashLoop(10, NOW)),
            id="ten-quiet-minutes-forget",
        ),
        pytest.param(
            CrashLoop(10, ago(20)),
            ago(-3600),
            Restart(CrashLoop(10, NOW)),
            id="a-clock-set-back-holds-nobody-up",
        ),
    ],
)
def test_when_a_container_starts_again(
    loop: CrashLoop | None, finished_at: datetime, expected: object
) -> None:
    decision = decide_restart(wanted=True, loop=loop, finished_at=finished_at, now=NOW)

    assert decision == expected


def test_a_container_nobody_wants_again_stays_dead() -> None:
    decision = decide_restart(wanted=False, loop=None, finished_at=NOW, now=NOW)

    assert decision == LeaveDead()


@given(st.lists(st.floats(0, 700), max_size=30))
def test_no_start_ever_waits_longer_than_the_cap(exits: list[float]) -> None:
    loop, now = None, NOW
    for ran_s in exits:
        now += timedelta(seconds=ran_s)
        finished_at = now
        while True:
            decision = decide_restart(
                wanted=True, loop=loop, finished_at=finished_at, now=now
            )
            if isinstance(decision, Restart):
                loop = decision.loop
                break
            assert isinstance(decision, WaitForBackoff)
            assert (decision.until_at - now).total_seconds() <= CRASH_LOOP.cap_s
            now = decision.until_at


def test_the_hash_is_of_name_and_image_alone() -> None:
    edited = {"name": "c", "image": "busybox", "env": [{"name": "A", "value": "B"}]}

    # FNV-1a, 32 bit, of {"image":"busybox","name":"c"}.
    assert container_hash(Container.of(edited)) == "70ec41b6"
    assert container_hash(Container("c", "other")) != "70ec41b6"
    assert container_hash(Container("d", "busybox")) != "70ec41b6"


def test_another_image_or_other_resources_begin_a_new_loop() -> None:
    base = {"name": "c", "image": "i"}
    limits = {"resources": {"limits": {"cpu": "1"}}}

    keys = {
        crash_loop_key(Container.of(base)),
        crash_loop_key(Container.of({**base, "image": "j"})),
        crash_loop_key(Container.of({**base, **limits})),
    }

    assert len(keys) == 3
