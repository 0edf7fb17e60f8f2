"""What exec hooks put out is kept beside the container's log; handlers are told."""

import asyncio
import stat

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import ExecResult
from podyard.lib.clock import SystemClock
from podyard.lib.parts import load_parts
from podyard.node.hooks import handlers
from podyard.node.hooks import output as output_module
from podyard.node.hooks.deliveries import Deliveries
from podyard.node.hooks.handler import HookHandler
from podyard.node.hooks.output import HookLog
from podyard.node.hooks.parts import HookError
from podyard.node.hooks.runner import HookRunner
from podyard.store.sqlite_journal import open_node_journal

CANARY = "canary-4711-value"


class SayingRuntime:
    """A runtime whose exec hooks say something and end as told."""

    def __init__(self, exit_code=0, stdout=b"to out\n"):
        self.exit_code = exit_code
        self.stdout = stdout
        self.commands = []

    async def exec_sync(self, container_id, command, *, timeout_s):
        self.commands.append(tuple(command))
        return ExecResult(self.stdout, b"to err\n", self.exit_code)


def pod(handler, annotation=""):
    return Pod.of(
        {
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "uid": "u",
                "annotations": {"podyard.dev/hook-delivery": annotation},
            },
            "spec": {"containers": [{"name": "c", "lifecycle": {"preStop": handler}}]},
        }
    )


@pytest.fixture
async def journal(tmp_path):
    async with open_node_journal(tmp_path / "journal.db") as journal:
        yield journal


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "logs" / "ns_p_u" / "c").mkdir(parents=True)
    return tmp_path / "logs"


def runner(journal, runtime, logs):
    clock = SystemClock()
    return HookRunner(
        runtime,
        Deliveries(journal, clock),
        load_parts(handlers, HookHandler),
        clock=clock,
        documented=True,
        warn=lambda *_: None,
        output=HookLog(logs, clock),
    )


async def pre_stop(hooks, of, container_id="abc"):
    await hooks.pre_stop(
        of,
        of.spec.containers[0],
        container_id,
        ("127.0.0.1",),
        deadline_at=SystemClock().now(),
    )


EXEC = {"exec": {"command": ["bye"]}}


async def test_output_is_kept_in_a_file_only_root_and_its_group_can_read(journal, logs):
    await pre_stop(runner(journal, SayingRuntime(), logs), pod(EXEC))

    file = logs / "ns_p_u" / "c" / "hooks.log"
    texts = [line.split(" ", 3)[1:] for line in file.read_text().splitlines()]
    assert texts == [
        ["stdout", "F", "--- PreStop, attempt 1: exit code 0"],
        ["stdout", "F", "to out"],
        ["stderr", "F", "to err"],
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


async def test_a_failed_hook_is_recorded_without_what_it_said(journal, logs):
    runtime = SayingRuntime(3, stdout=CANARY.encode())

    with pytest.raises(HookError, match=CANARY):
        await pre_stop(runner(journal, runtime, logs), pod(EXEC))

    (record,) = await journal.list("u")
    assert record.body["error"] == "the command exited with 3"
    assert record.body["handler"] == "exec"
    assert CANARY not in str(record.body)


async def test_a_full_log_is_put_aside_and_one_older_is_kept(
    journal, logs, monkeypatch
):
    monkeypatch.setattr(output_module, "MAX_LOG_BYTES", 400)
    hooks = runner(journal, SayingRuntime(), logs)

    for number in range(6):
        await pre_stop(hooks, pod(EXEC), f"c{number}")

    files = sorted(p.name for p in (logs / "ns_p_u" / "c").iterdir())
    assert files == ["hooks.log", "hooks.log.1"]
    assert all(p.stat().st_size <= 400 for p in (logs / "ns_p_u" / "c").iterdir())


async def test_a_link_in_the_log_directory_is_not_followed(journal, logs, tmp_path):
    target = tmp_path / "precious"
    target.write_text("as it was")
    (logs / "ns_p_u" / "c" / "hooks.log").symlink_to(target)

    await pre_stop(runner(journal, SayingRuntime(), logs), pod(EXEC))

    assert target.read_text() == "as it was"


@pytest.mark.parametrize(
    ("annotation", "more"),
    [
        pytest.param("", (), id="not-asked-for"),
        pytest.param("headers", (), id="headers-only"),
        pytest.param("headers, arguments", ("prestop-abc", "1"), id="asked-for"),
    ],
)
async def test_an_exec_hook_is_told_its_delivery_where_asked(
    journal, logs, annotation, more
):
    runtime = SayingRuntime()

    await pre_stop(runner(journal, runtime, logs), pod(EXEC, annotation))

    assert runtime.commands == [("bye", *more)]


async def test_an_http_hook_is_told_its_delivery_in_headers(journal, logs):
    heads = []

    async def serve(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        handler = {"httpGet": {"path": "/", "port": port, "scheme": "HTTP"}}
        hooks = runner(journal, SayingRuntime(), logs)
        await pre_stop(hooks, pod(handler, "headers"))

    assert "podyard-hook-delivery-id: prestop-abc\r\n" in heads[0]
    assert "podyard-hook-attempt: 1\r\n" in heads[0]
