"""What the agent relies on of a container runtime."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from podyard.api.observed import (
    ContainerEvent,
    ContainerEventType,
    ContainerState,
    ContainerStatus,
    SandboxState,
)
from podyard.api.runtime import Annotation, EnvVar, Label, Mount, NamespaceMode
from podyard.cri.services import CRIError, CRINotFoundError
from support.containerd import BUSYBOX, container_config
from support.runtimes import Subject

pytestmark = pytest.mark.contract


async def started(
    subject: Subject, *command: str, name: str = "pod"
) -> tuple[str, str]:
    """Run a container in a sandbox of its own; return both ids."""
    sandbox = subject.sandbox(name)
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox, *command)
    container_id = await subject.runtime.create_container(sandbox_id, config, sandbox)
    await subject.runtime.start_container(container_id)
    return sandbox_id, container_id


async def exited(subject: Subject, container_id: str) -> ContainerStatus:
    """Wait until a container has exited."""
    async with asyncio.timeout(10):
        while True:
            status = await subject.runtime.container_status(container_id)
            if status.state is ContainerState.EXITED:
                return status
            await asyncio.sleep(0.01)


async def test_version_names_the_runtime(subject: Subject):
    version = await subject.runtime.version()

    assert version.runtime_name
    assert version.runtime_version
    assert version.runtime_api_version == "v1"


async def test_status_tells_conditions_handlers_and_cgroup_driver(subject: Subject):
    status = await subject.runtime.status()

    assert status.condition("RuntimeReady").status
    assert status.condition("NetworkReady").status
    assert {"", "runc"} <= {handler.name for handler in status.handlers}
    assert status.cgroup_driver in {"cgroupfs", "systemd"}


async def test_status_asked_again_still_tells_the_handlers(subject: Subject):
    first = await subject.runtime.status()
    second = await subject.runtime.status()

    assert first == second


async def test_sandbox_is_ready_with_an_address(subject: Subject):
    config = subject.sandbox()

    sandbox_id = await subject.runtime.run_pod_sandbox(config, "")

    sandbox = await subject.runtime.pod_sandbox_status(sandbox_id)
    assert sandbox.state is SandboxState.READY
    assert len(sandbox.ips) == 1
    assert (sandbox.name, sandbox.namespace) == (config.name, config.namespace)
    assert sandbox.uid == config.uid
    assert sandbox.labels == config.labels
    assert sandbox.network is NamespaceMode.POD
    assert sandbox.created_at.tzinfo is not None


async def test_sandbox_on_the_host_network_has_no_address_of_its_own(subject: Subject):
    sandbox_id = await subject.runtime.run_pod_sandbox(
        subject.sandbox(host_network=True), ""
    )

    sandbox = await subject.runtime.pod_sandbox_status(sandbox_id)
    assert sandbox.ips == ()
    assert sandbox.network is NamespaceMode.NODE


async def test_same_sandbox_twice_is_refused(subject: Subject):
    config = subject.sandbox()
    await subject.runtime.run_pod_sandbox(config, "")

    with pytest.raises(CRIError, match="is reserved for"):
        await subject.runtime.run_pod_sandbox(config, "")


async def test_unknown_runtime_handler_is_refused(subject: Subject):
    with pytest.raises(CRIError, match='no runtime for "nope" is configured'):
        await subject.runtime.run_pod_sandbox(subject.sandbox(), "nope")


async def test_named_runtime_handler_is_reported(subject: Subject):
    sandbox_id = await subject.runtime.run_pod_sandbox(subject.sandbox(), "runc")

    sandbox = await subject.runtime.pod_sandbox_status(sandbox_id)
    assert sandbox.runtime_handler == "runc"


async def test_stopped_sandbox_is_not_ready_and_has_no_address(subject: Subject):
    sandbox_id, container_id = await started(subject)

    await subject.runtime.stop_pod_sandbox(sandbox_id)

    sandbox = await subject.runtime.pod_sandbox_status(sandbox_id)
    status = await subject.runtime.container_status(container_id)
    assert sandbox.state is SandboxState.NOT_READY
    assert sandbox.ips == ()
    assert status.state is ContainerState.EXITED


async def test_stopping_a_sandbox_twice_is_fine(subject: Subject):
    sandbox_id, _ = await started(subject)

    await subject.runtime.stop_pod_sandbox(sandbox_id)
    await subject.runtime.stop_pod_sandbox(sandbox_id)


async def test_removed_sandbox_takes_its_containers_along(subject: Subject):
    sandbox_id, container_id = await started(subject)

    await subject.runtime.remove_pod_sandbox(sandbox_id)

    assert await subject.runtime.list_pod_sandboxes() == ()
    assert await subject.runtime.list_containers() == ()
    with pytest.raises(CRINotFoundError):
        await subject.runtime.pod_sandbox_status(sandbox_id)
    with pytest.raises(CRINotFoundError):
        await subject.runtime.container_status(container_id)


@pytest.mark.parametrize(
    "call",
    ["stop_pod_sandbox", "remove_pod_sandbox", "remove_container", "stop_container"],
)
async def test_ending_what_is_unknown_succeeds(subject: Subject, call: str):
    arguments = {"grace_s": 1} if call == "stop_container" else {}

    await getattr(subject.runtime, call)("no-such-id", **arguments)


async def test_lists_are_filtered_by_pod(subject: Subject):
    sandbox_id, container_id = await started(subject, name="one")
    await started(subject, name="two")
    uid = (await subject.runtime.pod_sandbox_status(sandbox_id)).uid

    sandboxes = await subject.runtime.list_pod_sandboxes(pod_uid=uid)
    containers = await subject.runtime.list_containers(pod_uid=uid)

    assert [sandbox.id for sandbox in sandboxes] == [sandbox_id]
    assert [container.id for container in containers] == [container_id]
    assert len(await subject.runtime.list_pod_sandboxes()) == 2
    assert len(await subject.runtime.list_containers()) == 2


async def test_created_container_waits_to_be_started(subject: Subject):
    sandbox = subject.sandbox()
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox, attempt=2)

    container_id = await subject.runtime.create_container(sandbox_id, config, sandbox)

    status = await subject.runtime.container_status(container_id)
    assert status.state is ContainerState.CREATED
    assert status.started_at is None
    assert status.finished_at is None
    assert (status.name, status.attempt) == ("main", 2)
    assert status.sandbox_id == sandbox_id
    assert status.restart_count == 2
    assert status.labels[Label.CONTAINER_NAME] == "main"


async def test_running_container_tells_image_and_start(subject: Subject):
    _, container_id = await started(subject)

    status = await subject.runtime.container_status(container_id)

    assert status.state is ContainerState.RUNNING
    assert status.started_at is not None
    assert status.started_at >= status.created_at
    assert status.image == BUSYBOX
    assert status.image_id.startswith("sha256:")
    assert status.annotations[Annotation.RESTART_COUNT] == "0"


async def test_same_container_twice_is_refused(subject: Subject):
    sandbox = subject.sandbox()
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox)
    await subject.runtime.create_container(sandbox_id, config, sandbox)

    with pytest.raises(CRIError, match="is reserved for"):
        await subject.runtime.create_container(sandbox_id, config, sandbox)


async def test_container_of_a_missing_image_is_not_found(subject: Subject):
    sandbox = subject.sandbox()
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox, image="example.com/none:1")

    with pytest.raises(CRINotFoundError):
        await subject.runtime.create_container(sandbox_id, config, sandbox)


async def test_container_in_a_missing_sandbox_is_not_found(subject: Subject):
    sandbox = subject.sandbox()
    config = container_config(sandbox)

    with pytest.raises(CRINotFoundError):
        await subject.runtime.create_container("no-such-id", config, sandbox)


async def test_starting_twice_is_refused(subject: Subject):
    _, container_id = await started(subject)

    with pytest.raises(CRIError):
        await subject.runtime.start_container(container_id)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        pytest.param("exit 0", 0, "Completed", id="success"),
        pytest.param("exit 3", 3, "Error", id="failure"),
        pytest.param("sleep 0.2; exit 4", 4, "Error", id="later"),
    ],
)
async def test_exit_code_and_reason_are_reported(
    subject: Subject, script: str, code: int, reason: str
):
    _, container_id = await started(subject, "sh", "-c", script)

    status = await exited(subject, container_id)

    assert (status.exit_code, status.reason) == (code, reason)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert status.finished_at >= status.started_at


async def test_stop_lets_a_container_end_in_its_own_way(subject: Subject):
    script = "trap 'exit 7' TERM; sleep 100 & wait"
    _, container_id = await started(subject, "sh", "-c", script)
    await asyncio.sleep(0.2)

    await subject.runtime.stop_container(container_id, grace_s=20)

    status = await subject.runtime.container_status(container_id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 7)


async def test_stop_kills_what_ignores_it_after_the_grace(subject: Subject):
    _, container_id = await started(subject, "sleep", "inf")
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    await subject.runtime.stop_container(container_id, grace_s=1)

    took_s = loop.time() - began_s
    status = await subject.runtime.container_status(container_id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
    assert 0.9 <= took_s < 5


async def test_stop_without_grace_kills_at_once(subject: Subject):
    _, container_id = await started(subject, "sleep", "inf")

    await subject.runtime.stop_container(container_id, grace_s=0)

    status = await subject.runtime.container_status(container_id)
    assert status.exit_code == 137


async def test_stopping_an_exited_container_is_fine(subject: Subject):
    _, container_id = await started(subject, "true")
    await exited(subject, container_id)

    await subject.runtime.stop_container(container_id, grace_s=5)


async def test_removing_a_running_container_ends_it(subject: Subject):
    _, container_id = await started(subject)

    await subject.runtime.remove_container(container_id)

    assert await subject.runtime.list_containers() == ()


async def test_exec_returns_output_and_exit_code(subject: Subject):
    _, container_id = await started(subject)

    result = await subject.runtime.exec_sync(
        container_id, ["sh", "-c", "echo hello; exit 5"], timeout_s=10
    )

    assert (result.stdout, result.exit_code) == (b"hello\n", 5)


async def test_exec_that_takes_too_long_is_a_timeout(subject: Subject):
    _, container_id = await started(subject)

    with pytest.raises(TimeoutError):
        await subject.runtime.exec_sync(container_id, ["sleep", "30"], timeout_s=1)


async def test_exec_in_an_exited_container_fails(subject: Subject):
    _, container_id = await started(subject, "true")
    await exited(subject, container_id)

    with pytest.raises(CRIError):
        await subject.runtime.exec_sync(container_id, ["true"], timeout_s=5)


async def test_streaming_urls_are_given(subject: Subject):
    sandbox_id, container_id = await started(subject)
    runtime = subject.runtime

    urls = [
        await runtime.exec_url(
            container_id, ["sh"], stdin=True, stdout=True, stderr=False, tty=True
        ),
        await runtime.attach_url(
            container_id, stdin=False, stdout=True, stderr=True, tty=False
        ),
        await runtime.port_forward_url(sandbox_id, [80]),
    ]

    assert all(url.startswith("http://127.0.0.1:") for url in urls)


async def test_stats_name_the_running_containers(subject: Subject):
    _, container_id = await started(subject)

    stats = await subject.runtime.container_stats()

    assert [item.id for item in stats] == [container_id]
    assert stats[0].name == "main"
    assert stats[0].cpu_usage_core_ns is not None


async def test_output_goes_to_the_log_file(subject: Subject, tmp_path: Path):
    sandbox = subject.sandbox(log_directory=str(tmp_path / "logs"))
    (tmp_path / "logs" / "main").mkdir(parents=True)
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox, "sh", "-c", "echo one; echo two")
    container_id = await subject.runtime.create_container(sandbox_id, config, sandbox)

    await subject.runtime.start_container(container_id)

    status = await exited(subject, container_id)
    assert status.log_path == str(tmp_path / "logs/main/0.log")
    lines = Path(status.log_path).read_text().splitlines()
    assert [line.split(" ", 3)[1:] for line in lines] == [
        ["stdout", "F", "one"],
        ["stdout", "F", "two"],
    ]


async def test_mounted_file_takes_what_the_container_writes(
    subject: Subject, tmp_path: Path
):
    message = tmp_path / "message"
    message.touch(mode=0o666)
    sandbox = subject.sandbox()
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox, "")
    plain = container_config(sandbox, "sh", "-c", "echo done > /dev/termination-log")
    mount = Mount(container_path="/dev/termination-log", host_path=str(message))
    config = replace(plain, mounts=(mount,), envs=(EnvVar("RAW", b"\xc3\xa4"),))
    container_id = await subject.runtime.create_container(sandbox_id, config, sandbox)

    await subject.runtime.start_container(container_id)
    await exited(subject, container_id)

    assert message.read_text() == "done\n"


async def test_events_tell_the_life_of_a_container(subject: Subject):
    seen: list[ContainerEvent] = []
    over = asyncio.Event()
    states: list[ContainerState] = []

    async def listen() -> None:
        async for event in subject.runtime.container_events():
            seen.append(event)
            if event.type is ContainerEventType.STOPPED:
                status = await subject.runtime.container_status(event.container_id)
                states.append(status.state)
                over.set()

    async with asyncio.TaskGroup() as group:
        listener = group.create_task(listen())
        await asyncio.sleep(0.3)
        sandbox_id, container_id = await started(subject, "sleep", "0.2")
        async with asyncio.timeout(10):
            await over.wait()
        listener.cancel()

    kinds = ContainerEventType
    assert [(event.type, event.container_id) for event in seen] == [
        (kinds.CREATED, sandbox_id),
        (kinds.STARTED, sandbox_id),
        (kinds.CREATED, container_id),
        (kinds.STARTED, container_id),
        (kinds.STOPPED, container_id),
    ]
    uid = (await subject.runtime.pod_sandbox_status(sandbox_id)).uid
    assert {event.pod_uid for event in seen} == {uid}
    assert states == [ContainerState.EXITED]


async def test_image_is_known_by_name_and_id(subject: Subject):
    by_name = await subject.images.image_status(BUSYBOX)
    assert by_name is not None

    by_id = await subject.images.image_status(by_name.id)

    assert by_id == by_name
    assert by_name.repo_tags == (BUSYBOX,)
    assert by_name.size_bytes > 0
    assert by_name in await subject.images.list_images()


async def test_absent_image_is_none_and_removing_it_is_fine(subject: Subject):
    assert await subject.images.image_status("example.com/none:1") is None
    await subject.images.remove_image("example.com/none:1")


async def test_image_filesystem_is_told(subject: Subject):
    (usage,) = await subject.images.image_fs_info()

    assert usage.mountpoint.startswith("/")
