"""Hooks are delivered at least once, across crashes."""

import asyncio

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import ExecResult
from podyard.cri.services import CRIUnavailableError
from podyard.lib.clock import SystemClock
from podyard.lib.parts import load_parts
from podyard.node.hooks import handlers
from podyard.node.hooks.deliveries import Deliveries
from podyard.node.hooks.handler import HookHandler
from podyard.node.hooks.parts import HookError
from podyard.node.hooks.runner import HookRunner
from podyard.store.sqlite_journal import open_node_journal

CONTAINER_ID = "abc"


class ExecRuntime:
    """Only what exec hooks need of a runtime: it answers as told."""

    def __init__(self, exit_code=0, hang=False, deaths=0):
        self.exit_code = exit_code
        self.hang = hang
        self.deaths = deaths
        self.ran = []

    async def exec_sync(self, container_id, command, *, timeout_s):
        self.ran.append((container_id, tuple(command), timeout_s))
        if self.deaths:
            self.deaths -= 1
            raise CRIUnavailableError("ExecSync", "UNAVAILABLE", "Socket closed")
        if self.hang:
            await asyncio.sleep(3600)
        return ExecResult(b"out", b"err", self.exit_code)


def pod(hook, handler):
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "lifecycle": {hook: handler},
                        "ports": [{"name": "web", "containerPort": 1}],
                    }
                ]
            },
        }
    )


EXEC = pod("postStart", {"exec": {"command": ["do", "it"]}})
STOP = pod("preStop", {"exec": {"command": ["bye"]}})


@pytest.fixture
async def journal(tmp_path):
    async with open_node_journal(tmp_path / "journal.db") as journal:
        yield journal


def runner(journal, runtime, *, documented=True, warnings=None):
    def warn(pod, reason, message):
        (warnings if warnings is not None else []).append((reason, message))

    return HookRunner(
        runtime,
        Deliveries(journal, SystemClock()),
        load_parts(handlers, HookHandler),
        clock=SystemClock(),
        documented=documented,
        warn=warn,
    )


async def post_start(hooks, of=EXEC):
    await hooks.post_start(of, of.spec.containers[0], CONTAINER_ID, ("127.0.0.1",))


async def pre_stop(hooks, of=STOP):
    await hooks.pre_stop(
        of,
        of.spec.containers[0],
        CONTAINER_ID,
        ("127.0.0.1",),
        deadline_at=SystemClock().now(),
    )


async def test_a_hook_runs_in_the_container_without_a_time_limit(journal):
    runtime = ExecRuntime()

    await post_start(runner(journal, runtime))

    assert runtime.ran == [(CONTAINER_ID, ("do", "it"), 0)]


async def test_a_failed_hook_tells_command_code_and_output(journal):
    with pytest.raises(HookError) as caught:
        await post_start(runner(journal, ExecRuntime(exit_code=3)))

    assert caught.value.message == (
        'Exec lifecycle hook ([do it]) for Container "c" in Pod "p_ns(u)" failed - '
        "error: command 'do it' exited with 3: err, message: \"outerr\""
    )


async def test_a_post_start_cut_by_a_crash_is_owed_and_delivered_as_the_next_attempt(
    journal,
):
    before = runner(journal, ExecRuntime(hang=True))
    await before.expect_post_start(EXEC, EXEC.spec.containers[0], CONTAINER_ID)

    runtime = ExecRuntime()
    after = runner(journal, runtime)
    owed = await after.owed_post_starts("u")
    await post_start(after)

    assert owed == {CONTAINER_ID}
    assert len(runtime.ran) == 1
    rows = await journal.list("u")
    assert [row.body["attempt"] for row in rows] == [1, 2]
    assert [row.body["result"] for row in rows] == ["interrupted", "succeeded"]
    assert await runner(journal, runtime).owed_post_starts("u") == frozenset()


@pytest.mark.parametrize("deliver", [post_start, pre_stop])
async def test_a_hook_cut_by_the_death_of_the_runtime_is_delivered_again(
    journal, deliver
):
    runtime = ExecRuntime(deaths=1)

    await deliver(runner(journal, runtime))

    assert len(runtime.ran) == 2
    rows = await journal.list("u")
    assert [row.body["attempt"] for row in rows] == [1, 2]
    assert [row.body["result"] for row in rows] == ["interrupted", "succeeded"]


async def test_a_post_start_is_owed_until_somebody_delivers_it(journal):
    hooks = runner(journal, ExecRuntime(hang=True))
    await hooks.expect_post_start(EXEC, EXEC.spec.containers[0], CONTAINER_ID)
    expected = await hooks.owed_post_starts("u")

    async with asyncio.TaskGroup() as group:
        delivering = group.create_task(post_start(hooks))
        await asyncio.sleep(0.05)
        meanwhile = await hooks.owed_post_starts("u")
        delivering.cancel()

    assert expected == {CONTAINER_ID}
    assert meanwhile == frozenset()


async def test_a_death_between_two_attempts_loses_no_post_start(journal):
    hooks = runner(journal, ExecRuntime(deaths=1))
    async with asyncio.TaskGroup() as group:
        delivering = group.create_task(post_start(hooks))
        while len(await journal.list("u")) < 2:
            await asyncio.sleep(0.005)
        # As if it died here, in the pause before the next attempt.
        hooks.leave_open()
        delivering.cancel()

    runtime = ExecRuntime()
    after = runner(journal, runtime)
    owed = await after.owed_post_starts("u")
    await post_start(after)

    assert owed == {CONTAINER_ID}
    assert len(runtime.ran) == 1
    assert [row.body["result"] for row in await journal.list("u")] == [
        "interrupted",
        "interrupted",
        "succeeded",
    ]


async def test_hooks_of_containers_that_are_gone_are_closed_as_such(journal):
    before = runner(journal, ExecRuntime(hang=True))
    containers = EXEC.spec.containers
    await before.expect_post_start(EXEC, containers[0], "lost")
    await before.expect_post_start(EXEC, containers[0], "alive")
    after = runner(journal, ExecRuntime())

    await after.settle("u", {"alive"})

    lost, alive = await journal.list("u")
    assert (lost.body["result"], lost.is_open) == ("container gone", False)
    assert alive.is_open
    assert await after.owed_post_starts("u") == {"alive"}


async def test_hooks_of_pods_that_are_gone_are_closed_too(journal):
    before = runner(journal, ExecRuntime(hang=True))
    await before.expect_post_start(EXEC, EXEC.spec.containers[0], CONTAINER_ID)

    after = runner(journal, ExecRuntime())
    await after.settle_others({"u"}.__contains__)
    (known,) = await journal.list("u")
    await after.settle_others({"another"}.__contains__)
    (gone,) = await journal.list("u")

    assert known.is_open
    assert (gone.body["result"], gone.is_open) == ("container gone", False)


async def test_a_delivery_under_way_is_not_closed_by_others(journal):
    hooks = runner(journal, ExecRuntime(hang=True))
    async with asyncio.TaskGroup() as group:
        delivering = group.create_task(pre_stop(hooks))
        while not await journal.list("u"):
            await asyncio.sleep(0.005)
        await hooks.settle("u", frozenset())
        delivering.cancel()

    (row,) = await journal.list("u")
    assert row.body["result"] == "given up"


async def test_a_pre_stop_that_ended_before_a_restart_is_not_repeated(journal):
    await pre_stop(runner(journal, ExecRuntime()))

    runtime = ExecRuntime()
    await pre_stop(runner(journal, runtime))

    assert runtime.ran == []


@pytest.mark.parametrize(
    ("leaving", "again"),
    [
        pytest.param(True, 1, id="agent-stops-so-it-is-owed"),
        pytest.param(False, 0, id="given-up-so-it-is-over"),
    ],
)
async def test_a_cancelled_pre_stop_is_repeated_only_after_a_stop_of_the_agent(
    journal, leaving, again
):
    hooks = runner(journal, ExecRuntime(hang=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            if leaving:
                hooks.leave_open()
            await pre_stop(hooks)

    runtime = ExecRuntime()
    await pre_stop(runner(journal, runtime))

    assert len(runtime.ran) == again


@pytest.mark.parametrize("documented", [True, False])
async def test_tcp_socket_hooks_connect_only_where_documented(journal, documented):
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        hook = pod("postStart", {"tcpSocket": {"port": port}})
        hooks = runner(journal, ExecRuntime(), documented=documented)
        if documented:
            await post_start(hooks, hook)
        else:
            with pytest.raises(HookError, match="invalid handler"):
                await post_start(hooks, hook)


async def test_an_http_hook_succeeds_on_any_answer(journal):
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await post_start(
            runner(journal, ExecRuntime()),
            pod("postStart", {"httpGet": {"port": port}}),
        )


async def test_an_https_hook_falls_back_to_plain_http_without_authorization(journal):
    heads = []

    async def talk(reader, writer):
        head = await reader.read(65536)
        if head[:3] == b"GET":
            heads.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    warnings = []
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        action = {
            "port": port,
            "scheme": "HTTPS",
            "httpHeaders": [{"name": "Authorization", "value": "secret"}],
        }
        await post_start(
            runner(journal, ExecRuntime(), warnings=warnings),
            pod("postStart", {"httpGet": action}),
        )

    assert [reason for reason, _ in warnings] == ["LifecycleHTTPFallback"]
    assert b"secret" not in heads[0]


async def test_an_unreachable_http_hook_fails(journal):
    hook = pod("postStart", {"httpGet": {"port": "web"}})

    with pytest.raises(HookError, match="connection refused"):
        await post_start(runner(journal, ExecRuntime()), hook)
