"""A Pod's life over the fake runtime: what the world looks like afterwards."""

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podyard.api.observed import ContainerState, ContainerStatus
from podyard.cri.services import CRIUnavailableError
from podyard.node.probes.parts import ContainerVerdict
from podyard.node.status.decide import PodFailure
from podyard.node.sync.pod import PodEnding
from support.pods import (
    START,
    MemoryJournal,
    SmallNode,
    TimedHooks,
    container,
    pod_document,
    until,
)

EXEC = {"exec": {"command": ["true"]}}


def waiting(node: SmallNode, name: str = "app") -> str:
    return str((node.state_of("web", name).get("waiting") or {}).get("reason", ""))


async def test_a_pod_runs_and_says_so(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document())

        status = await node.phase_becomes("web", "Running")

        assert await node.running_names() == ["app"]
        assert {c["type"]: c["status"] for c in status["conditions"]} == {
            "PodReadyToStartContainers": "True",
            "Initialized": "True",
            "Ready": "True",
            "ContainersReady": "True",
            "PodScheduled": "True",
        }
        assert status["podIP"].startswith("10.0.0.")
        assert status["hostIP"] == "10.0.0.1"
        assert status["qosClass"] == "BestEffort"
        assert status["containerStatuses"][0]["containerID"].startswith("fake://")
        assert [reason for _, reason, _, _ in node.events.all] == ["Created", "Started"]
        assert node.events.all[0][3] == "spec.containers{app}"


async def test_a_start_makes_only_the_calls_it_needs(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document())
        await node.phase_becomes("web", "Running")
        await asyncio.sleep(5)

        counted = {call: node.runtime.calls.count(call) for call in node.runtime.calls}

        assert counted["RunPodSandbox"] == 1
        assert counted["CreateContainer"] == 1
        assert counted["StartContainer"] == 1
        assert counted["ContainerStatus"] == 1
        assert counted["ListContainers"] <= 6


async def test_init_containers_run_one_after_the_other(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        init = [
            container("one", "sleep 5; exit 0"),
            container("two", "sleep 5; exit 0"),
        ]
        node.apply(pod_document(init=init))

        await asyncio.sleep(3)
        assert await node.running_names() == ["one"]
        assert waiting(node) == "PodInitializing"
        await asyncio.sleep(5)
        assert await node.running_names() == ["two"]

        status = await node.phase_becomes("web", "Running")
        assert [s["ready"] for s in status["initContainerStatuses"]] == [True, True]
        assert await node.running_names() == ["app"]


async def test_a_failed_init_container_of_a_pod_never_restarted_fails_it(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        init = [container("one", "exit 3")]
        node.apply(pod_document(init=init, restartPolicy="Never"))

        status = await node.phase_becomes("web", "Failed")

        assert (
            status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
        )
        assert waiting(node) == "PodInitializing"
        assert await node.containers("app") == []


@pytest.mark.parametrize(
    ("policy", "command", "phase"),
    [
        pytest.param("Never", "exit 0", "Succeeded", id="never-and-well"),
        pytest.param("Never", "exit 7", "Failed", id="never-and-badly"),
        pytest.param("OnFailure", "exit 0", "Succeeded", id="on-failure-and-well"),
    ],
)
async def test_a_pod_whose_containers_are_done_is_over(
    tmp_path: Path, policy: str, command: str, phase: str
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", command), restartPolicy=policy))

        await node.phase_becomes("web", phase)
        await asyncio.sleep(100)

        assert node.status_of("web")["phase"] == phase
        assert len(await node.containers()) == 1
        assert node.volumes.mounted == set()
        assert node.cgroups.made == set()


async def test_a_crash_loop_waits_ever_longer(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", "exit 1")))

        await asyncio.sleep(200)

        starts = [
            (c.created_at - START).total_seconds() for c in await node.containers()
        ]
        gaps = [round(b - a) for a, b in itertools.pairwise(starts)]
        assert gaps == [0, 10, 20, 40, 80]
        assert waiting(node) == "CrashLoopBackOff"
        message = node.state_of("web", "app")["waiting"]["message"]
        assert message.startswith("back-off ")
        assert message.endswith(
            "restarting failed container=app pod=web_default(uid-web)"
        )
        assert (
            node.events.of("BackOff")
            == ["Back-off restarting failed container app in pod web_default(uid-web)"]
            * 5
        )
        assert node.status_of("web")["phase"] == "Running"
        restarts = node.status_of("web")["containerStatuses"][0]["restartCount"]
        assert restarts == 5


async def test_deletion_ends_the_containers_and_then_the_object(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", "trap 'exit 0' TERM; sleep 1000")))
        await node.phase_becomes("web", "Running")

        node.delete("web")
        await node.is_gone("web")

        assert await node.containers() == []
        assert await node.runtime.list_pod_sandboxes() == ()
        assert node.volumes.mounted == set()
        assert node.api.history[-1]["phase"] in {"Succeeded", "Failed"}
        assert node.events.of("Killing") == ["Stopping container app"]
        assert not (tmp_path / "pods" / "uid-web").exists()


async def test_a_stubborn_container_is_killed_when_its_grace_is_over(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", "trap '' TERM; sleep 1000")))
        await node.phase_becomes("web", "Running")
        began_s = node.clock.monotonic_s()

        node.delete("web", grace_s=20)
        await asyncio.sleep(15)
        assert await node.running_names() == ["app"]
        await node.is_gone("web")

        assert 19 <= node.clock.monotonic_s() - began_s <= 22.5


async def test_a_shortened_grace_period_is_obeyed_at_once(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", "trap '' TERM; sleep 1000")))
        await node.phase_becomes("web", "Running")
        node.delete("web", grace_s=600)
        await asyncio.sleep(10)
        began_s = node.clock.monotonic_s()

        node.delete("web", grace_s=3)
        await node.is_gone("web")

        assert node.clock.monotonic_s() - began_s <= 5


async def test_a_hook_and_the_stop_share_one_grace_period(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.pre_stop_s = 55
        app = container("app", "trap '' TERM; sleep 1000", lifecycle={"preStop": EXEC})
        node.apply(pod_document(app, terminationGracePeriodSeconds=60))
        await node.phase_becomes("web", "Running")
        began_s = node.clock.monotonic_s()

        node.delete("web", grace_s=60)
        await asyncio.sleep(54)
        assert await node.running_names() == ["app"]
        await node.is_gone("web", within_s=30)

        assert 59 <= node.clock.monotonic_s() - began_s <= 61.5


async def test_a_hook_that_hangs_is_cut_and_two_seconds_are_left(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.pre_stop_s = 10_000
        app = container("app", "trap '' TERM; sleep 1000", lifecycle={"preStop": EXEC})
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")
        began_s = node.clock.monotonic_s()

        node.delete("web", grace_s=10)
        await node.is_gone("web")

        assert 11 <= node.clock.monotonic_s() - began_s <= 13


async def test_a_failed_hook_is_told_and_the_stop_goes_on(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.failing.add("app")
        app = container(
            "app", "trap 'exit 0' TERM; sleep 1000", lifecycle={"preStop": EXEC}
        )
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")

        node.delete("web")
        await node.is_gone("web", within_s=5)

        assert node.events.of("FailedPreStopHook") == ["PreStopHook failed"]


async def test_a_hanging_post_start_holds_nothing_up(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.post_start_s = 10_000
        first = container("app", lifecycle={"postStart": EXEC})
        node.apply(pod_document(first, container("later")))
        node.apply(pod_document(name="other"))
        await node.phase_becomes("other", "Running")
        await asyncio.sleep(5)

        assert waiting(node) == "ContainerCreating"
        assert await node.running_names() == ["app", "app"]
        began_s = node.clock.monotonic_s()
        node.delete("web", grace_s=1)

        async def gone() -> bool:
            return "web" not in node.api.pods

        await until(gone, 10, "web to be gone")
        assert node.clock.monotonic_s() - began_s <= 4


async def test_the_second_container_waits_for_the_first_ones_hook(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.post_start_s = 7
        first = container("app", lifecycle={"postStart": EXEC})
        node.apply(pod_document(first, container("later")))

        await asyncio.sleep(5)
        assert await node.running_names() == ["app"]
        await node.phase_becomes("web", "Running")

        assert await node.running_names() == ["app", "later"]
        assert node.hooks.told == [("PostStart", "app")]


async def test_a_failed_post_start_kills_the_container_and_shows_why(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.failing.add("app")
        app = container(
            "app", "trap 'exit 0' TERM; sleep 1000", lifecycle={"postStart": EXEC}
        )
        node.apply(pod_document(app))

        async def shown() -> bool:
            return waiting(node) == "PostStartHookError"

        await until(shown, 30, "the reason to be shown")

        assert node.events.of("FailedPostStartHook")[0] == "PostStartHook failed"
        assert node.events.of("Killing")[0] == "FailedPostStartHook"
        assert node.state_of("web", "app")["waiting"]["message"] == "it said no"


async def test_a_failed_post_start_is_tried_again_as_any_crash_is(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.hooks.failing.add("app")
        app = container(
            "app", "trap 'exit 0' TERM; sleep 1000", lifecycle={"postStart": EXEC}
        )
        node.apply(pod_document(app))

        await asyncio.sleep(100)

        starts = [
            (c.created_at - START).total_seconds() for c in await node.containers()
        ]
        gaps = [round(b - a) for a, b in itertools.pairwise(starts)]
        assert gaps == [1, 10, 20, 40]
        assert waiting(node) == "CrashLoopBackOff"


async def test_a_failed_liveness_probe_restarts_the_container(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        app = container("app", "trap 'exit 0' TERM; sleep 1000", livenessProbe=EXEC)
        node.apply(pod_document(app, restartPolicy="OnFailure"))
        await node.phase_becomes("web", "Running")
        (first,) = await node.containers()

        node.probes.given[first.id] = ContainerVerdict(
            started=True, ready=True, liveness_failed=True
        )
        node.wake("uid-web")
        await asyncio.sleep(30)

        newest = (await node.containers())[-1]
        assert newest.id != first.id
        assert newest.state is ContainerState.RUNNING
        assert newest.restart_count == 1
        assert node.events.of("Killing") == [
            "Container app failed liveness probe, will be restarted"
        ]


async def test_a_changed_image_restarts_even_a_pod_that_never_restarts(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        app = container("app", "trap 'exit 0' TERM; sleep 1000")
        document = pod_document(app, restartPolicy="Never")
        node.apply(document)
        await node.phase_becomes("web", "Running")

        changed = pod_document({**app, "image": "busybox:2"}, restartPolicy="Never")
        changed["metadata"]["generation"] = 2
        changed["status"] = node.status_of("web")
        node.apply(changed)
        await asyncio.sleep(10)

        newest = (await node.containers())[-1]
        assert newest.state is ContainerState.RUNNING
        assert newest.image == "busybox:2"
        assert node.events.of("Killing") == [
            "Container app definition changed, will be restarted"
        ]
        assert node.status_of("web")["phase"] == "Running"


async def test_a_new_agent_finds_everything_as_it_is(tmp_path: Path) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        first.apply(pod_document(container("app"), container("b")))
        before = await first.phase_becomes("web", "Running")
        ids = [c.id for c in await first.containers()]

    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    told = len(first.api.history)
    async with second.running():
        await asyncio.sleep(200)

        assert [c.id for c in await second.containers()] == ids
        assert second.events.all == []
        assert second.status_of("web") == before
        assert len(first.api.history) == told
        # Their startup probes are told that these have passed them.
        assert second.probes.started == frozenset(ids)


@pytest.mark.parametrize("by_runtime", [False, True], ids=["agent", "runtime"])
async def test_a_start_cut_off_by_a_death_is_made_anew_and_counts_as_none(
    tmp_path: Path, by_runtime: bool
) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        first.apply(pod_document(restartPolicy="Never"))
        await first.phase_becomes("web", "Running")
        (cut,) = await first.containers()

    first.runtime.cut_start(cut.id, by_runtime=by_runtime)
    second = SmallNode(tmp_path, first.runtime, first.journal)
    async with second.running():
        second.apply(pod_document(restartPolicy="Never"))
        status = await second.phase_becomes("web", "Running")

        assert status["containerStatuses"][0]["restartCount"] == 0
        (made,) = await second.containers()
        assert made.id != cut.id


async def test_the_hook_of_a_start_that_was_cut_off_is_owed_no_more(
    tmp_path: Path,
) -> None:
    hooks = TimedHooks()
    first = SmallNode(tmp_path, hooks=hooks)
    hooked = container("app", lifecycle={"postStart": EXEC})
    async with first.running():
        first.apply(pod_document(hooked))
        await first.phase_becomes("web", "Running")
        (cut,) = await first.containers()

    first.runtime.cut_start(cut.id)
    hooks.owed.add(cut.id)
    second = SmallNode(tmp_path, first.runtime, first.journal, hooks)
    async with second.running():
        second.apply(pod_document(hooked))
        await second.phase_becomes("web", "Running")
        await asyncio.sleep(100)

        assert hooks.owed == set()
        assert hooks.told == [("PostStart", "app")] * 2


async def test_a_start_that_the_runtime_finished_alone_is_not_made_twice(
    tmp_path: Path,
) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        first.apply(pod_document(restartPolicy="Never"))
        await first.phase_becomes("web", "Running")
        (made,) = await first.containers()

    # The next agent still saw it as made only, and it runs when it asks again.
    stale = replace(made, state=ContainerState.CREATED)
    second = SmallNode(tmp_path, first.runtime, first.journal)
    listed = second.runtime.list_containers
    looks = itertools.count()

    async def list_late(**which: str) -> tuple[ContainerStatus, ...]:
        return (stale,) if next(looks) == 0 else await listed(**which)

    second.runtime.list_containers = list_late  # type: ignore[method-assign]
    async with second.running():
        second.apply(pod_document(restartPolicy="Never"))
        await second.phase_becomes("web", "Running")

        assert [c.id for c in await listed()] == [made.id]


async def test_an_owed_post_start_is_delivered_by_the_next_agent(
    tmp_path: Path,
) -> None:
    hooks = TimedHooks()
    hooks.post_start_s = 10_000
    first = SmallNode(tmp_path, hooks=hooks)
    async with first.running():
        first.apply(pod_document(container("app", lifecycle={"postStart": EXEC})))
        await asyncio.sleep(5)
        assert hooks.told == [("PostStart", "app")]

    hooks.post_start_s = 1
    second = SmallNode(tmp_path, first.runtime, first.journal, hooks)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        await second.phase_becomes("web", "Running")

        assert hooks.told == [("PostStart", "app")] * 2
        assert len(await second.containers()) == 1


async def test_a_post_start_is_delivered_though_the_runtime_died_in_the_start(
    tmp_path: Path,
) -> None:
    node = SmallNode(tmp_path, hooks=TimedHooks())
    start = node.runtime.start_container

    async def start_and_die(container_id: str) -> None:
        await start(container_id)
        node.runtime.start_container = start  # type: ignore[method-assign]
        raise CRIUnavailableError("StartContainer", "UNAVAILABLE", "Socket closed")

    node.runtime.start_container = start_and_die  # type: ignore[method-assign]
    async with node.running():
        node.apply(pod_document(container("app", lifecycle={"postStart": EXEC})))
        await node.phase_becomes("web", "Running")

        assert node.hooks.told == [("PostStart", "app")]
        assert len(await node.containers()) == 1


async def test_a_restart_grants_no_second_grace_period(tmp_path: Path) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        first.apply(pod_document(container("app", "trap '' TERM; sleep 10000")))
        await first.phase_becomes("web", "Running")
        began_s = first.clock.monotonic_s()
        first.delete("web", grace_s=30)
        await asyncio.sleep(20)

    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        await second.is_gone("web")

        assert second.clock.monotonic_s() - began_s <= 33


async def test_a_probe_kill_keeps_its_deadline_over_a_restart(tmp_path: Path) -> None:
    journal = MemoryJournal()
    first = SmallNode(tmp_path, journal=journal)
    async with first.running():
        app = container("app", "trap '' TERM; sleep 10000", livenessProbe=EXEC)
        first.apply(pod_document(app, restartPolicy="Never"))
        await first.phase_becomes("web", "Running")
        (seen,) = await first.containers()
        first.probes.given[seen.id] = ContainerVerdict(
            started=True, liveness_failed=True
        )
        first.wake("uid-web")
        began_s = first.clock.monotonic_s()
        await asyncio.sleep(20)

    second = SmallNode(tmp_path, first.runtime, journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        await second.phase_becomes("web", "Failed")

        assert second.clock.monotonic_s() - began_s <= 33
        assert not await journal.list(only_open=True)


async def test_sidecars_stop_last_and_in_reverse(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        stubborn = "trap '' TERM; sleep 10000"
        init = [
            container("s1", stubborn, restartPolicy="Always"),
            container("s2", "trap 'exit 0' TERM; sleep 10000", restartPolicy="Always"),
        ]
        node.apply(pod_document(container("app", stubborn), init=init))
        await node.phase_becomes("web", "Running")

        node.delete("web", grace_s=30)
        await asyncio.sleep(20)
        assert await node.running_names() == ["s1", "s2", "app"]
        await node.is_gone("web")


async def test_sidecars_end_when_the_work_is_done(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        init = [
            container("s", "trap 'exit 143' TERM; sleep 10000", restartPolicy="Always")
        ]
        node.apply(
            pod_document(
                container("app", "sleep 5; exit 0"), init=init, restartPolicy="Never"
            )
        )

        status = await node.phase_becomes("web", "Succeeded")

        assert await node.running_names() == []
        assert status["conditions"][-1]["type"] == "PodScheduled"
        assert all("Failed" not in h.get("phase", "") for h in node.api.history)


async def test_a_dead_sandbox_is_replaced_and_init_runs_again(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(init=[container("one", "exit 0")]))
        await node.phase_becomes("web", "Running")
        (sandbox,) = await node.runtime.list_pod_sandboxes()

        node.runtime.kill_sandbox(sandbox.id)
        await asyncio.sleep(30)

        assert await node.running_names() == ["app"]
        assert len(await node.containers("one")) == 2
        assert node.events.of("SandboxChanged") == [
            "Pod sandbox changed, it will be killed and re-created."
        ]
        assert (await node.containers("app"))[-1].restart_count == 1


async def test_a_start_that_is_allowed_is_not_shown_as_back_off(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document())
        await node.phase_becomes("web", "Running")
        (sandbox,) = await node.runtime.list_pod_sandboxes()
        run = node.runtime.run_pod_sandbox

        async def run_slowly(*args: Any, **options: Any) -> str:
            await asyncio.sleep(5)
            return await run(*args, **options)

        node.runtime.run_pod_sandbox = run_slowly  # type: ignore[method-assign]
        node.runtime.kill_sandbox(sandbox.id)
        for _ in range(30):
            await asyncio.sleep(0.5)
            node.wake("uid-web")

        assert await node.running_names() == ["app"]
        assert node.events.of("BackOff") == []
        assert "CrashLoopBackOff" not in json.dumps(node.api.history)


async def test_a_missing_image_is_shown_and_tried_again(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.images.missing.add("busybox:1")
        node.apply(pod_document())
        await asyncio.sleep(3)
        assert waiting(node) == "ErrImagePull"
        assert node.status_of("web")["phase"] == "Pending"

        node.images.missing.clear()
        await node.phase_becomes("web", "Running", within_s=16)


async def test_an_image_is_tried_again_as_soon_as_that_may_help(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.images.missing.add("busybox:1")
        node.images.look_in_s = 4.0
        node.apply(pod_document())
        await asyncio.sleep(3)
        assert waiting(node) == "ErrImagePull"

        node.images.missing.clear()
        await node.phase_becomes("web", "Running", within_s=2)


async def test_an_image_volume_is_mounted_as_the_runtime_has_it(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        mounts = [{"name": "data", "mountPath": "/data"}]
        volumes = [{"name": "data", "image": {"reference": "data:1"}}]
        node.apply(pod_document(container(volumeMounts=mounts), volumes=volumes))

        await node.phase_becomes("web", "Running")

        (seen,) = await node.runtime.list_containers()
        (mount,) = [m for m in node.runtime.config_of(seen.id).mounts if m.image]
        image = await node.runtime.image_status("data:1")
        assert image is not None
        assert (mount.image, mount.host_path) == (image.id, "")
        assert mount.readonly


async def test_a_missing_image_volume_keeps_those_waiting_that_mount_it(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.images.missing.add("data:1")
        mounts = [{"name": "data", "mountPath": "/data"}]
        volumes = [
            {"name": "data", "image": {"reference": "data:1"}},
            {"name": "unused", "image": {"reference": "data:1"}},
        ]
        mounting = container(volumeMounts=mounts)
        node.apply(pod_document(mounting, container(name="other"), volumes=volumes))

        await asyncio.sleep(3)

        assert waiting(node) == "ErrImagePull"
        assert await node.running_names() == ["other"]

        node.images.missing.clear()
        await node.phase_becomes("web", "Running", within_s=16)
        await asyncio.sleep(16)
        assert sorted(await node.running_names()) == ["app", "other"]


async def test_a_sandbox_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.runtime.fail("RunPodSandbox")
        node.apply(pod_document())

        await node.phase_becomes("web", "Running", within_s=16)

        failed = "Failed to create pod sandbox"
        assert node.events.of("FailedCreatePodSandBox") == [
            f"{failed}: rpc error: code = Unknown desc = RunPodSandbox was told to fail"
        ]


async def test_a_start_error_is_shown(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.runtime.fail("StartContainer", times=100)
        node.apply(pod_document())
        await asyncio.sleep(5)

        assert waiting(node) == "RunContainerError"
        assert node.events.of("Failed")[0] == "Error: StartContainer was told to fail"


async def test_a_runtime_away_leaves_everything_alone(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document())
        before = await node.phase_becomes("web", "Running")
        node.runtime.go_down()
        for _ in range(10):
            node.wake("uid-web")
            await asyncio.sleep(10)
        assert node.status_of("web") == before

        node.runtime.come_up()
        await asyncio.sleep(60)
        assert node.status_of("web") == before
        assert len(await node.containers()) == 1


async def test_an_api_away_hears_of_everything_later(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document(container("app", "sleep 20; exit 3"), name="web"))
        await node.phase_becomes("web", "Running")
        node.api.away = True
        await asyncio.sleep(60)
        assert node.status_of("web")["containerStatuses"][0]["restartCount"] == 0

        node.api.away = False
        await asyncio.sleep(15)
        assert node.status_of("web")["containerStatuses"][0]["restartCount"] >= 1


async def test_a_pod_deleted_by_force_is_ended_quickly(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        app = container("app", "trap '' TERM; sleep 10000")
        node.apply(pod_document(app, terminationGracePeriodSeconds=3600))
        await node.phase_becomes("web", "Running")
        began_s = node.clock.monotonic_s()

        node.force_delete("web")
        await node.is_gone("web")

        assert node.clock.monotonic_s() - began_s <= 4
        assert await node.containers() == []


async def test_an_active_deadline_fails_the_pod(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        app = container("app", "trap 'exit 0' TERM; sleep 10000")
        node.apply(pod_document(app, activeDeadlineSeconds=20))

        status = await node.phase_becomes("web", "Failed")

        assert status["reason"] == "DeadlineExceeded"
        text = "Pod was active on the node longer than the specified deadline"
        assert status["message"] == text
        assert node.events.of("DeadlineExceeded") == [text]
        assert 19 <= node.clock.monotonic_s() <= 24


async def test_a_restart_rule_starts_the_whole_pod_anew_in_place(
    tmp_path: Path,
) -> None:
    async with SmallNode(tmp_path).running() as node:
        rule = {
            "action": "RestartAllContainers",
            "exitCodes": {"operator": "In", "values": [42]},
        }
        watcher = container(
            "watch",
            "sleep 5; exit 42",
            restartPolicy="Never",
            restartPolicyRules=[rule],
        )
        node.apply(
            pod_document(container("app"), watcher, init=[container("one", "exit 0")])
        )
        await node.phase_becomes("web", "Running")
        first = {c.name: c.id for c in await node.containers()}
        node.runtime.delay("RemoveContainer", 0.1)
        (sandbox,) = await node.runtime.list_pod_sandboxes()

        await asyncio.sleep(7)

        now = {c.name: c.id for c in await node.containers()}
        assert now.keys() == first.keys()
        assert not set(now.values()) & set(first.values())
        assert [s.id for s in await node.runtime.list_pod_sandboxes()] == [sandbox.id]
        shown = [
            c
            for h in node.api.history
            for c in h["conditions"]
            if c["type"] == "AllContainersRestarting" and c["status"] == "True"
        ]
        assert shown[0]["reason"] == "RestartAllContainersStarted"


async def test_ephemeral_containers_start_once(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.apply(pod_document())
        await node.phase_becomes("web", "Running")
        document = dict(node.api.pods["web"])
        document["spec"] = {
            **document["spec"],
            "ephemeralContainers": [container("debug", "exit 1")],
        }
        document["metadata"] = {**document["metadata"], "generation": 2}

        node.apply(document)
        await asyncio.sleep(100)

        assert len(await node.containers("debug")) == 1
        assert node.state_of("web", "debug")["terminated"]["exitCode"] == 1


async def test_a_network_that_is_not_ready_is_waited_for(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        node.network_error = "cni plugin not initialized"
        node.apply(pod_document())
        await asyncio.sleep(3)
        assert node.events.of("NetworkNotReady")[0] == (
            "network is not ready: cni plugin not initialized"
        )

        node.network_error = ""
        await node.phase_becomes("web", "Running", within_s=3)


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        pytest.param(None, 'runtimeclass.node.k8s.io "x" not found', id="no-class"),
        pytest.param(
            "kata",
            'rpc error: code = Unknown desc = no runtime for "kata" is configured',
            id="no-handler",
        ),
    ],
)
@pytest.mark.parametrize("documented", [True, False], ids=["documented", "upstream"])
async def test_a_pod_whose_handler_is_not_there(
    tmp_path: Path, handler: str | None, text: str, documented: bool
) -> None:
    async with SmallNode(tmp_path, documented=documented).running() as node:
        node.classes.handler = handler
        node.apply(pod_document(runtimeClassName="x"))
        await asyncio.sleep(40)

        status = node.status_of("web")
        told = node.events.of("FailedCreatePodSandBox")
        assert told[0].startswith(f"Failed to create pod sandbox: {text}")
        if documented:
            assert (status["phase"], len(told)) == ("Failed", 1)
            assert status["message"] == told[0]
        else:
            assert (status["phase"], len(told)) == ("Pending", 4)
        reason = "FailedCreatePodSandBox" if documented else "ContainerCreating"
        assert node.state_of("web", "app") == {"waiting": {"reason": reason}}


@pytest.mark.parametrize("documented", [True, False], ids=["documented", "upstream"])
async def test_a_class_that_goes_does_not_end_its_pod(
    tmp_path: Path, documented: bool
) -> None:
    async with SmallNode(tmp_path, documented=documented).running() as node:
        node.apply(
            pod_document(
                container("app", "sleep 5; exit 1"),
                container("other"),
                runtimeClassName="x",
            )
        )
        await node.phase_becomes("web", "Running")
        sandboxes = await node.runtime.list_pod_sandboxes()

        node.classes.handler = None
        await asyncio.sleep(60)

        assert node.status_of("web")["phase"] == "Running"
        assert await node.running_names() == ["other"]
        assert await node.runtime.list_pod_sandboxes() == sandboxes
        assert not node.events.of("FailedCreatePodSandBox")
        assert node.events.of("Failed")[0] == (
            'Error: runtimeclass.node.k8s.io "x" not found '
            "(runtime handlers of this node: runc)"
        )

        node.classes.handler = ""
        await asyncio.sleep(100)
        assert len(await node.containers("app")) > 1


EVICTED = PodEnding(
    "evicted",
    grace_s=10,
    failure=PodFailure("Evicted", "The node was low on memory.", disrupted=True),
)


async def test_an_evicted_pod_fails_when_it_has_stopped(tmp_path: Path) -> None:
    async with SmallNode(tmp_path).running() as node:
        app = container("app", "trap '' TERM; sleep 10000", lifecycle={"preStop": EXEC})
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")
        began_s = node.clock.monotonic_s()

        node.workers.end("uid-web", EVICTED)
        await asyncio.sleep(5)
        assert node.status_of("web")["phase"] == "Running"
        status = await node.phase_becomes("web", "Failed")

        assert 9 <= node.clock.monotonic_s() - began_s <= 12.5
        assert status["reason"] == "Evicted"
        assert status["message"] == "The node was low on memory."
        assert node.hooks.told == [("PreStop", "app")]
        kinds = [c["type"] for c in status["conditions"]]
        assert "DisruptionTarget" in kinds
        assert len(node.runtime._containers) == 1


async def test_an_eviction_is_finished_by_the_next_agent(tmp_path: Path) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        first.apply(pod_document(container("app", "trap '' TERM; sleep 10000")))
        await first.phase_becomes("web", "Running")
        began_s = first.clock.monotonic_s()
        first.workers.end("uid-web", EVICTED)
        await asyncio.sleep(4)

    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        status = await second.phase_becomes("web", "Failed")

        assert status["reason"] == "Evicted"
        assert second.clock.monotonic_s() - began_s <= 13
        assert len(await second.containers()) == 1


async def test_pods_that_were_parked_come_back_with_the_node(tmp_path: Path) -> None:
    first = SmallNode(tmp_path)
    async with first.running():
        job = pod_document(container("app", "trap '' TERM; sleep 10000"))
        job["spec"]["restartPolicy"] = "Never"
        first.apply(job)
        await first.phase_becomes("web", "Running")
        began_s = first.clock.monotonic_s()

        await first.workers.park(("uid-web",), 5)

        assert 4 <= first.clock.monotonic_s() - began_s <= 6
        assert await first.runtime.list_containers() == ()
        assert await first.runtime.list_pod_sandboxes() == ()
        assert first.status_of("web")["phase"] == "Running"

    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    async with second.running():
        await asyncio.sleep(2)

        assert await second.running_names() == ["app"]
        assert second.status_of("web")["phase"] == "Running"
        assert second.status_of("web")["containerStatuses"][0]["ready"]


def ready_of(status: dict[str, Any]) -> str:
    (ready,) = (c["status"] for c in status["conditions"] if c["type"] == "Ready")
    return str(ready)


async def parked(tmp_path: Path, document: dict[str, Any]) -> SmallNode:
    """Return a node that has gone away with a Pod that ran."""
    node = SmallNode(tmp_path)
    async with node.running():
        node.apply(document)
        await node.phase_becomes("web", "Running")
        await asyncio.sleep(5)
        await node.workers.park(("uid-web",), 10)
        assert await node.runtime.list_containers() == ()
    return node


async def node_after(tmp_path: Path, first: SmallNode) -> SmallNode:
    second = SmallNode(tmp_path, first.runtime, first.journal)
    second.api = first.api
    second.status._client = first.api  # type: ignore[assignment]
    return second


POLITE = "trap 'exit 0' TERM; sleep 10000"
STUBBORN = "trap '' TERM; sleep 10000"


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
async def test_who_ended_well_as_the_node_went_away_has_done_its_work(
    tmp_path: Path, policy: str
) -> None:
    first = await parked(
        tmp_path, pod_document(container("app", POLITE), restartPolicy=policy)
    )

    status = first.status_of("web")
    assert (status["phase"], ready_of(status)) == ("Succeeded", "False")
    ended = first.state_of("web", "app")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")

    second = await node_after(tmp_path, first)
    async with second.running():
        await asyncio.sleep(100)

        assert await second.containers() == []
        assert second.status_of("web")["phase"] == "Succeeded"
        assert second.state_of("web", "app")["terminated"] == ended


@pytest.mark.parametrize(
    ("policy", "command", "code"),
    [
        pytest.param("Always", POLITE, 0, id="always"),
        pytest.param("OnFailure", STUBBORN, 137, id="on-failure"),
        pytest.param("Never", STUBBORN, 137, id="never-but-cut-short"),
    ],
)
async def test_who_is_to_come_back_is_shown_as_waiting_for_it(
    tmp_path: Path, policy: str, command: str, code: int
) -> None:
    first = await parked(
        tmp_path, pod_document(container("app", command), restartPolicy=policy)
    )

    status = first.status_of("web")
    (shown,) = status["containerStatuses"]
    assert (status["phase"], ready_of(status)) == ("Running", "False")
    assert shown["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert shown["lastState"]["terminated"]["exitCode"] == code
    assert not shown["ready"]

    told = len(first.api.history)
    second = await node_after(tmp_path, first)
    async with second.running():
        await until(second.running_names, 10, "the Pod to come back")
        await asyncio.sleep(1)

        status = second.status_of("web")
        (shown,) = status["containerStatuses"]
        assert ready_of(status) == "True"
        assert shown["ready"]
        assert shown["lastState"]["terminated"]["exitCode"] == code
        phases = {s["phase"] for s in first.api.history[told:]}
        assert phases == {"Running"}


async def test_of_a_pod_that_comes_back_what_was_over_stays_over(
    tmp_path: Path,
) -> None:
    containers = (container("app", STUBBORN), container("batch", "exit 3"))
    document = pod_document(*containers, restartPolicy="Never")
    document["spec"]["ephemeralContainers"] = [container("debug", "exit 1")]
    first = await parked(tmp_path, document)

    second = await node_after(tmp_path, first)
    async with second.running():
        await until(second.running_names, 10, "the Pod to come back")
        await asyncio.sleep(100)

        assert [c.name for c in await second.containers()] == ["app"]
        assert second.state_of("web", "batch")["terminated"]["exitCode"] == 3
        assert second.state_of("web", "debug")["terminated"]["exitCode"] == 1
        assert second.status_of("web")["phase"] == "Running"


async def test_a_sidecar_is_over_with_the_work_it_served(tmp_path: Path) -> None:
    init = [container("proxy", STUBBORN, restartPolicy="Always")]
    first = await parked(
        tmp_path,
        pod_document(container("app", POLITE), init=init, restartPolicy="Never"),
    )

    status = first.status_of("web")
    assert (status["phase"], ready_of(status)) == ("Succeeded", "False")
    ended = first.state_of("web", "proxy")["terminated"]
    assert ended["exitCode"] == 137

    second = await node_after(tmp_path, first)
    async with second.running():
        await asyncio.sleep(100)

        assert await second.containers() == []
        assert second.state_of("web", "proxy")["terminated"] == ended


async def test_an_api_that_is_away_does_not_keep_the_node_from_going(
    tmp_path: Path,
) -> None:
    node = SmallNode(tmp_path)
    async with node.running():
        node.apply(pod_document(container("app", POLITE)))
        await node.phase_becomes("web", "Running")
        node.api.away = True
        began_s = node.clock.monotonic_s()

        await node.workers.park(("uid-web",), 10)

        assert node.clock.monotonic_s() - began_s <= 10
        assert await node.runtime.list_containers() == ()
