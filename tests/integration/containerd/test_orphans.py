"""What a killed containerd has forgotten goes away, and nothing that lives with it."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from podyard.app.cleanup import TASKS, cgroup_trees, members, read_runc_init
from podyard.app.host import observe_host
from podyard.app.instances import Instance
from podyard.app.orphans import end_forgotten, find_unused_namespaces, remove_orphans
from podyard.app.pod_addresses import RESULTS, find_addresses, find_results
from podyard.app.private_runtime import PrivateRuntime
from podyard.containerd.processes import find_shims, read_process
from support.containerd import (
    RunningContainerd,
    Services,
    connect,
    container_config,
    running_containerd,
    sandbox_config,
)

pytestmark = pytest.mark.integration

STRANGER = "f" * 64


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("orphans")) as running:
        yield running


@pytest.fixture(autouse=True)
async def no_pods_left(running: RunningContainerd) -> AsyncIterator[None]:
    yield
    async with connect(running) as services:
        for sandbox in await services.runtime.list_pod_sandboxes():
            await remove(services, sandbox.id)


@dataclass
class HandClock:
    """Time moves when it is told to."""

    at_s: float = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at_s, UTC)

    def monotonic_s(self) -> float:
        return self.at_s


async def sleeper(running: RunningContainerd, services: Services) -> tuple[str, str]:
    """Return the ids of a new sandbox and of its running container."""
    sandbox = sandbox_config(running.row)
    sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
    container_id = await services.runtime.create_container(
        sandbox_id, container_config(sandbox), sandbox
    )
    await services.runtime.start_container(container_id)
    return sandbox_id, container_id


async def remove(services: Services, sandbox_id: str) -> None:
    await services.runtime.stop_pod_sandbox(sandbox_id)
    await services.runtime.remove_pod_sandbox(sandbox_id)


async def still_works(services: Services, container_id: str, gateway: str) -> bool:
    done = await services.runtime.exec_sync(
        container_id, ["ping", "-c", "1", "-W", "5", gateway], timeout_s=10
    )
    return done.exit_code == 0


@contextmanager
def stranger(running: RunningContainerd) -> Iterator[tuple[Path, Path]]:
    """Start a shim that containerd knows nothing of, as a death in a start leaves it.

    Yields:
        Its bundle and its socket.
    """
    row = running.row
    bundle = row.containerd_state / TASKS / "k8s.io" / STRANGER
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text('{"ociVersion": "1.0.2"}')
    os.mkfifo(bundle / "log")
    log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
    done = subprocess.run(
        [
            "containerd-shim-runc-v2",
            *("-namespace", "k8s.io", "-id", STRANGER),
            *("-address", str(row.containerd_socket), "start"),
        ],
        cwd=bundle,
        env={**os.environ, "TTRPC_ADDRESS": f"{row.containerd_socket}.ttrpc"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    try:
        yield bundle, Path(done.stdout.strip().removeprefix("unix://"))
    finally:
        os.close(log)


@contextmanager
def process_in(cgroup: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in a cgroup made for it."""
    cgroup.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "600"])
    try:
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_shim_of_nobody_goes_with_its_processes_bundle_socket_and_cgroup(
    running,
):
    row = running.row
    shims = partial(find_shims, str(row.containerd_socket))
    cgroup = some_cgroup(running)
    async with connect(running) as services:
        _, container_id = await sleeper(running, services)
        with stranger(running) as (bundle, socket), process_in(cgroup) as process:
            assert len(shims()) == 2
            assert socket.is_socket()
            assert [one.pid for one in members(cgroup)] == [process.pid]

            removed = await remove_orphans(row)

            assert read_process(process.pid) is None

        assert removed == 1
        assert [path for path in (cgroup, bundle, socket) if path.exists()] == []
        assert len(shims()) == 1
        assert await still_works(services, container_id, str(row.gateway.ip))
        assert await remove_orphans(row) == 0


def some_cgroup(running: RunningContainerd) -> Path:
    """Return where the agent, which is not here, would have a container's cgroup."""
    (tree, *_) = cgroup_trees(running.row)
    return tree / "kubepods" / STRANGER


async def test_a_network_namespace_of_nobody_goes_once_it_is_old(running):
    row = running.row
    clock = HandClock()
    runtime = PrivateRuntime(row, observe_host(), clock=clock)
    async with connect(running) as services:
        _, container_id = await sleeper(running, services)
        (used,) = spaces(running)
        orphan = used.with_name("cni-00000000-0000-0000-0000-000000000000")
        orphan.touch()
        subprocess.run(["unshare", f"--net={orphan}", "true"], check=True, timeout=10)
        assert find_unused_namespaces(row) == {orphan}

        await runtime.tidy()
        young = spaces(running)
        clock.at_s = 30
        await runtime.tidy()

        assert young == {used, orphan}
        assert spaces(running) == {used}
        assert await still_works(services, container_id, str(row.gateway.ip))


def spaces(running: RunningContainerd) -> set[Path]:
    directory = "io.containerd.grpc.v1.cri/netns"
    return set((running.row.containerd_state / directory).iterdir())


async def test_the_address_of_a_sandbox_that_was_never_recorded_is_free_again(running):
    row = running.row
    clock = HandClock()
    runtime = PrivateRuntime(row, observe_host(), clock=clock)
    async with connect(running) as services:
        sandbox_id, container_id = await sleeper(running, services)
        (mine,) = find_addresses(row)
        lost = mine.with_name(str(row.pod_cidr[200]))
        lost.write_text(f"{STRANGER}\r\neth0")
        results = [copy_result(file) for file in find_results(row)]
        assert len(results) == 2
        assert set(results) < set(find_results(row))

        await runtime.tidy()
        young = set(find_addresses(row))
        clock.at_s = 30
        await runtime.tidy()

        assert young == {mine, lost}
        assert find_addresses(row) == {mine: sandbox_id}
        assert set(find_results(row).values()) == {sandbox_id}
        assert await still_works(services, container_id, str(row.gateway.ip))
        await remove(services, sandbox_id)
        assert find_addresses(row) == {}
        assert find_results(row) == {}


def copy_result(file: Path) -> Path:
    """Leave the result of a plugin that ran for a sandbox that came to nothing."""
    result = json.loads(file.read_text())
    owner = str(result["containerId"])
    left = file.with_name(file.name.replace(owner, STRANGER))
    left.write_text(json.dumps(result | {"containerId": STRANGER}))
    return left


async def test_a_loopback_result_alone_is_known_by_its_network_namespace(running):
    row = running.row
    left = RESULTS / f"cni-loopback-{STRANGER}-lo"
    RESULTS.mkdir(parents=True, exist_ok=True)
    space = row.containerd_state / "io.containerd.grpc.v1.cri/netns/cni-1"
    other = row.run_dir.with_name(f"{row.name}-other") / "netns/cni-2"
    for sandbox, ours in ((space, {left: STRANGER}), (other, {})):
        result = {"interfaces": [{"name": "lo", "sandbox": str(sandbox)}]}
        left.write_text(
            json.dumps(
                {
                    "containerId": STRANGER,
                    "networkName": "cni-loopback",
                    "result": result,
                }
            )
        )
        try:
            assert find_results(row) == ours
        finally:
            left.unlink()


async def test_a_container_whose_task_cri_does_not_know_can_be_removed(running):
    row = running.row
    async with connect(running) as services:
        sandbox = sandbox_config(running.row)
        sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
        container_id = await services.runtime.create_container(
            sandbox_id, container_config(sandbox), sandbox
        )
        # What a start leaves that was cut off after containerd had made the task.
        start_task(row, container_id)
        state = row.runc_root / "k8s.io" / container_id / "state.json"
        init = read_runc_init(state)

        await services.runtime.remove_container(container_id)

        assert init is not None
        assert read_process(init.pid) != init
        assert not state.exists()
        assert await services.runtime.list_containers() == ()


async def test_what_lives_in_a_container_that_has_ended_is_ended_too(running):
    row = running.row
    async with connect(running) as services:
        _, living = await sleeper(running, services)
        _, ended = await sleeper(running, services)
        await services.runtime.stop_container(ended, grace_s=0)
        start_task(row, ended)
        init = read_runc_init(row.runc_root / "k8s.io" / ended / "state.json")

        forgotten = await end_forgotten(row)

        assert forgotten == 1
        assert init is not None
        assert read_process(init.pid) != init
        assert await end_forgotten(row) == 0
        assert await still_works(services, living, str(row.gateway.ip))
        await services.runtime.remove_container(ended)


def start_task(row: Instance, container_id: str) -> None:
    """Start a container behind CRI's back."""
    subprocess.run(
        [
            *("ctr", "-a", row.containerd_socket, "-n", "k8s.io", "task", "start"),
            *("--detach", "--null-io", container_id),
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )
