"""A private containerd outlives us, comes back when killed, and leaves no trace."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from podyard.api.observed import ContainerEventType, ContainerState
from podyard.app.cleanup import census, remove_instance
from podyard.app.host import observe_host
from podyard.app.private_runtime import PrivateRuntime, RuntimeWishes
from podyard.containerd.processes import find_shims, read_process
from podyard.containerd.supervise import ContainerdStartError, cap_log
from podyard.cri.services import CRIUnavailableError
from podyard.lib.clock import SystemClock
from support.containerd import (
    RunningContainerd,
    Services,
    connect,
    container_config,
    running_containerd,
    sandbox_config,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path) as running:
        yield running


async def run_sleeper(running: RunningContainerd, services: Services) -> str:
    sandbox = sandbox_config(running.row)
    sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
    container_id = await services.runtime.create_container(
        sandbox_id, container_config(sandbox), sandbox
    )
    await services.runtime.start_container(container_id)
    return container_id


def again(running: RunningContainerd) -> PrivateRuntime:
    """Return the runtime as the next Podyard process would make it."""
    return PrivateRuntime(running.row, observe_host(), clock=SystemClock())


async def test_running_containerd_is_adopted_with_its_containers(running):
    async with connect(running) as services:
        container_id = await run_sleeper(running, services)
        before = await services.runtime.container_status(container_id)

    started = await again(running).start()

    async with connect(running) as services:
        after = await services.runtime.container_status(container_id)
    assert started.adopted
    assert started.process == running.started.process
    assert after == before


async def test_adoption_works_without_a_pid_file(running):
    running.runtime.containerd.files.pid.unlink()

    started = await again(running).start()

    assert started.process != running.started.process
    assert read_process(running.started.process.pid) is None


async def test_a_process_of_another_boot_is_not_taken_for_ours(running):
    # The number and start time of a process that lives, noted in another boot.
    stranger = read_process(os.getpid())
    mark = running.runtime.containerd.files.pid
    noted = json.loads(mark.read_text())
    noted |= {"pid": stranger.pid, "start_ticks": stranger.start_ticks}
    mark.write_text(json.dumps(noted | {"boot": "another"}))

    started = await again(running).start()

    assert started.process not in {stranger, running.started.process}
    assert read_process(stranger.pid) == stranger


async def test_another_config_replaces_containerd_but_not_the_containers(running):
    async with connect(running) as services:
        container_id = await run_sleeper(running, services)
    wishes = RuntimeWishes(max_log_line_bytes=4096)
    other = PrivateRuntime(
        running.row, observe_host(), clock=SystemClock(), wishes=wishes
    )

    started = await other.start()

    async with connect(running) as services:
        status = await services.runtime.container_status(container_id)
    assert not started.adopted
    assert started.process != running.started.process
    assert status.state is ContainerState.RUNNING


async def test_killed_containerd_comes_back_with_its_containers(running):
    containerd = running.runtime.containerd
    async with connect(running) as services, asyncio.TaskGroup() as group:
        watching = group.create_task(containerd.watch())
        container_id = await run_sleeper(running, services)
        before = await services.runtime.container_status(container_id)

        os.kill(running.started.process.pid, signal.SIGKILL)

        async with asyncio.timeout(20):
            while containerd.process == running.started.process:
                await asyncio.sleep(0.005)
            while True:
                with suppress(CRIUnavailableError):
                    after = await services.runtime.container_status(container_id)
                    break
                await asyncio.sleep(0.01)
        assert after == before
        result = await services.runtime.exec_sync(container_id, ["true"], timeout_s=30)
        assert result.exit_code == 0
        watching.cancel()


async def test_exit_is_told_at_once(running):
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async with connect(running) as services, asyncio.TaskGroup() as group:

        async def listen() -> None:
            async for event in services.runtime.container_events():
                if event.type is ContainerEventType.STOPPED:
                    told.put_nowait((event.container_id, loop.time()))

        listener = group.create_task(listen())
        await asyncio.sleep(0.3)
        delays = []
        for _ in range(5):
            container_id = await run_sleeper(running, services)
            (init,) = _init_pids(running, container_id)
            os.kill(init, signal.SIGKILL)
            killed_s = loop.time()
            async with asyncio.timeout(5):
                told_id, at_s = await told.get()
            assert told_id == container_id
            status = await services.runtime.container_status(container_id)
            assert status.exit_code == 137
            delays.append(at_s - killed_s)
        listener.cancel()

    # Some 30 ms on an idle machine, nearly all of it runc deleting the task.
    assert sorted(delays)[2] < 0.2, delays


def _init_pids(running: RunningContainerd, container_id: str) -> list[int]:
    bundle = running.row.containerd_state / "io.containerd.runtime.v2.task/k8s.io"
    return [int((bundle / container_id / "init.pid").read_text())]


async def test_everything_goes_even_if_nobody_stopped_the_pods(running):
    async with connect(running) as services:
        await run_sleeper(running, services)
        await run_sleeper(running, services)
    assert len(census(running.row)) > 8
    shims = find_shims(str(running.row.containerd_socket))
    assert len(shims) == 2

    left = remove_instance(running.row, running.table)

    assert left == ()
    assert census(running.row) == frozenset()
    assert find_shims(str(running.row.containerd_socket)) == ()
    assert running.table.get(running.row.name) is None
    # A second time there is nothing left to do.
    assert remove_instance(running.row, running.table) == ()


async def test_objects_of_the_data_dir_survive_a_removal_and_a_new_start(running):
    async with connect(running) as services:
        await run_sleeper(running, services)
        images = set(await services.images.list_images())
    remove_instance(running.row, running.table)

    runtime = again(running)
    await runtime.start()

    async with connect(running) as services:
        sandboxes = await services.runtime.list_pod_sandboxes()
        assert [sandbox.state.name for sandbox in sandboxes] == ["NOT_READY"]
        for sandbox in sandboxes:
            await services.runtime.stop_pod_sandbox(sandbox.id)
            await services.runtime.remove_pod_sandbox(sandbox.id)
        assert await services.runtime.list_containers() == ()
        assert set(await services.images.list_images()) == images


async def test_containerd_that_cannot_start_says_why(running):
    await running.runtime.containerd.stop()
    conf_d = running.row.runtime_dir / "conf.d"
    conf_d.mkdir()
    (conf_d / "bad.toml").write_text('[grpc]\naddress = "/proc/none/x.sock"\n')

    with pytest.raises(ContainerdStartError, match="/proc/none"):
        await again(running).start()


async def test_crun_is_a_handler_where_it_is_installed(running):
    async with connect(running) as services:
        status = await services.runtime.status()

    names = {handler.name for handler in status.handlers}
    assert "runc" in names
    assert ("crun" in names) == Path("/usr/bin/crun").exists()


def test_log_is_cut_to_its_newest_bytes(tmp_path):
    log = tmp_path / "containerd.log"
    writer = log.open("ab", buffering=0)
    writer.write(b"a" * 50 + b"b" * 100)

    cap_log(log, 100)
    writer.write(b"c")
    writer.close()

    assert log.read_bytes() == b"c"
    assert (tmp_path / "containerd.log.1").read_bytes() == b"b" * 100
