"""What is written down of a stop: which part of the grace went where."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from podyard.api.core_v1 import parse_time
from podyard.node.sync.ledger import stop_shares
from support.pods import SmallNode, container, pod_document

EXEC = {"exec": {"command": ["true"]}}
STUBBORN = "trap '' TERM; sleep 1000"
POLITE = "trap 'exit 0' TERM; sleep 1000"


@pytest.mark.parametrize(
    ("took_s", "call_s", "given_s", "term_s", "kill_s", "by"),
    [
        pytest.param(0.5, 0.5, 10, 0.5, 0, "stop signal", id="polite"),
        pytest.param(10.2, 10.2, 10, 10.0, 0.2, "SIGKILL", id="stubborn"),
        pytest.param(0.1, 0.1, 0, 0, 0.1, "SIGKILL", id="no-grace"),
        pytest.param(7.3, 2.1, 2, 7.2, 0.1, "SIGKILL", id="grace-shortened"),
        pytest.param(6, 1, 2, 6, 0, "stop signal", id="polite-after-shortening"),
    ],
)
def test_the_time_after_the_hook_is_shared_out(
    took_s, call_s, given_s, term_s, kill_s, by
):
    shares = stop_shares(took_s, call_s=call_s, given_s=given_s)

    assert shares["termSeconds"] == pytest.approx(term_s)
    assert shares["killSeconds"] == pytest.approx(kill_s)
    assert (shares["endedBy"], shares["stopGraceSeconds"]) == (by, given_s)


async def stop_of(node: SmallNode, *, name: str = "app") -> dict:
    records = await node.journal.list(kind="stop")
    (found,) = (r.body for r in records if r.body["container"] == name)
    return found


@pytest.mark.parametrize(
    ("hook_s", "grace_s", "command", "expected"),
    [
        pytest.param(
            4,
            30,
            POLITE,
            {"hook": "delivered", "hookSeconds": 4, "endedBy": "stop signal"},
            id="room-enough",
        ),
        pytest.param(
            55,
            60,
            STUBBORN,
            {"hook": "delivered", "hookSeconds": 55, "endedBy": "SIGKILL"},
            id="fifty-five-and-ten-of-sixty",
        ),
        pytest.param(
            10_000,
            10,
            STUBBORN,
            {"hook": "cut", "hookUsedGrace": True, "endedBy": "SIGKILL"},
            id="hook-hangs",
        ),
    ],
)
async def test_a_stop_is_recorded_with_its_budget(
    tmp_path: Path, hook_s, grace_s, command, expected
):
    async with SmallNode(tmp_path).running() as node:
        node.hooks.pre_stop_s = hook_s
        app = container("app", command, lifecycle={"preStop": EXEC})
        node.apply(pod_document(app, terminationGracePeriodSeconds=grace_s))
        await node.phase_becomes("web", "Running")

        node.delete("web", grace_s=grace_s)
        await node.is_gone("web", within_s=100)
        record = await stop_of(node)

    shown = {key: record.get(key) for key in expected}
    if isinstance(shown.get("hookSeconds"), float):
        shown["hookSeconds"] = round(shown["hookSeconds"])
    assert shown == expected
    assert record["graceSeconds"] == pytest.approx(grace_s, abs=1)
    parts = ("hookSeconds", "waitSeconds", "termSeconds", "killSeconds")
    total = sum(record.get(part, 0) for part in parts)
    assert record["tookSeconds"] == pytest.approx(total, abs=0.5)
    assert (record["namespace"], record["pod"]) == ("default", "web")


async def test_a_stop_under_way_is_told_with_what_is_over(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.pre_stop_s = 3
        app = container("app", STUBBORN, lifecycle={"preStop": EXEC})
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")

        node.delete("web", grace_s=10)
        await asyncio.sleep(5)
        worker = node.workers.get("uid-web")
        assert worker is not None
        assert worker.life is not None
        (stop,) = worker.life.describe()["stopping"]
        await node.is_gone("web")

    assert (stop["container"], stop["why"]) == ("app", "deleted")
    assert stop["hookSeconds"] == pytest.approx(3, abs=0.1)
    assert "tookSeconds" not in stop
    assert "endedBy" not in stop


@pytest.mark.parametrize(
    ("hook_s", "told"),
    [pytest.param(9, 0, id="some-is-left"), pytest.param(11, 1, id="nothing-left")],
)
async def test_a_hook_that_used_up_the_grace_is_an_event(tmp_path: Path, hook_s, told):
    async with SmallNode(tmp_path).running() as node:
        node.hooks.pre_stop_s = hook_s
        app = container("app", POLITE, lifecycle={"preStop": EXEC})
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")

        node.delete("web", grace_s=10)
        await node.is_gone("web", within_s=60)
        texts = node.events.of("PreStopHookUsedGracePeriod")

    assert len(texts) == told
    for text in texts:
        assert "nothing left of the grace period" in text


async def test_a_stop_is_written_down_before_anything_of_it_is_delivered(
    tmp_path: Path,
) -> None:
    written = []
    async with SmallNode(tmp_path).running() as node:
        deliver, stop = node.hooks.pre_stop, node.runtime.stop_container

        async def pre_stop(*args, **more):
            written.append(("hook", await stop_of(node)))
            await deliver(*args, **more)

        async def stop_container(*args, **more):
            written.append(("signal", await stop_of(node)))
            await stop(*args, **more)

        node.hooks.pre_stop = pre_stop  # type: ignore[method-assign]
        node.runtime.stop_container = stop_container  # type: ignore[method-assign]
        app = container("app", POLITE, lifecycle={"preStop": EXEC})
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")
        until_at = node.clock.now() + timedelta(seconds=20)

        node.delete("web", grace_s=20)
        await node.is_gone("web")

    assert [what for what, _ in written] == ["hook", "signal"]
    for _, record in written:
        assert "tookSeconds" not in record
        deadline_at = parse_time(record["deadlineAt"])
        assert deadline_at is not None
        assert abs((deadline_at - until_at).total_seconds()) <= 1


async def test_a_deletion_cut_by_a_restart_is_one_stop_with_one_grace(
    tmp_path: Path,
) -> None:
    first = SmallNode(tmp_path)
    first.hooks.pre_stop_s = 10_000
    async with first.running():
        app = container("app", STUBBORN, lifecycle={"preStop": EXEC})
        first.apply(pod_document(app))
        await first.phase_becomes("web", "Running")
        began_at = first.clock.now()
        first.delete("web", grace_s=30)
        await asyncio.sleep(20)

    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.hooks.pre_stop_s = 10_000
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        await second.is_gone("web")
        took_s = (second.clock.now() - began_at).total_seconds()
        record = await stop_of(second)

    assert took_s <= 33
    assert record["graceSeconds"] == pytest.approx(30, abs=1)
    began = parse_time(record["beganAt"])
    resumed = parse_time(record["resumedAt"])
    assert began is not None
    assert resumed is not None
    assert (resumed - began).total_seconds() >= 19
    assert record["hook"] == "cut"
    assert not await second.journal.list(only_open=True)
