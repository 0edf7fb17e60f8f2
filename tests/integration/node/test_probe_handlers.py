"""What each kind of probe finds, asked of real sockets."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from podyard.api.core_v1 import Container, Probe
from podyard.lib.parts import load_parts
from podyard.node.probes import handlers
from podyard.node.probes.handler import ProbeContext, ProbeHandler, ProbeResult

pytestmark = pytest.mark.integration


async def ask(document, *, ports=(), grpc_check=None):
    """Make one attempt of a probe and return what it found."""
    probe = Probe.of(document)
    container = Container.of({"name": "app", "image": "i", "ports": list(ports)})
    context = ProbeContext(
        container=container,
        container_id="c",
        pod_ip="127.0.0.1",
        probe=probe,
        runtime=None,
        grpc_check=grpc_check,
    )
    (part,) = (
        part
        for part in load_parts(handlers, ProbeHandler)
        if part.claims(probe.handler)
    )
    return await part.prepare(context, probe.handler)()


@pytest.fixture
async def port():
    async def answer(request):
        code = int(request.match_info["code"])
        to = request.query.get("to")
        headers = {"Location": to} if to else {}
        return web.Response(status=code, text="told", headers=headers)

    async def hang(request):
        await asyncio.sleep(60)

    app = web.Application()
    app.router.add_get("/{code:\\d+}", answer)
    app.router.add_get("/hang", hang)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
def nobody():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/200", ProbeResult(healthy=True), id="ok"),
        pytest.param("/399", ProbeResult(healthy=True), id="the-last-healthy"),
        pytest.param(
            "/400",
            ProbeResult(healthy=False, output="HTTP probe failed with statuscode: 400"),
            id="the-first-unhealthy",
        ),
        pytest.param("/302?to=/200", ProbeResult(healthy=True), id="redirected"),
        pytest.param(
            "/302?to=/500",
            ProbeResult(healthy=False, output="HTTP probe failed with statuscode: 500"),
            id="redirected-to-a-failure",
        ),
        pytest.param(
            "/302?to=http://example.invalid/",
            ProbeResult(
                healthy=True,
                output="Probe terminated redirects, Response body: told",
                warning=True,
            ),
            id="redirected-elsewhere",
        ),
    ],
)
async def test_http_is_judged_by_its_status(port, path, found):
    assert await ask({"httpGet": {"path": path, "port": port}}) == found


async def test_a_port_may_be_named(port):
    named = [{"name": "web", "containerPort": port}]

    assert (
        await ask({"httpGet": {"path": "/200", "port": "web"}}, ports=named)
    ).healthy
    assert (await ask({"tcpSocket": {"port": "web"}}, ports=named)).healthy


async def test_http_that_does_not_answer_in_time_is_unhealthy(port):
    found = await ask({"httpGet": {"path": "/hang", "port": port}, "timeoutSeconds": 1})

    assert found == ProbeResult(
        healthy=False,
        output=f'Get "http://127.0.0.1:{port}/hang": context deadline exceeded '
        "(Client.Timeout exceeded while awaiting headers)",
    )


async def test_http_without_a_server_is_unhealthy(nobody):
    found = await ask({"httpGet": {"path": "/", "port": nobody}})

    assert found == ProbeResult(
        healthy=False,
        output=f'Get "http://127.0.0.1:{nobody}/": dial tcp 127.0.0.1:{nobody}: '
        "connect: connection refused",
    )


async def test_a_connection_is_all_that_tcp_asks_for(port, nobody):
    assert await ask({"tcpSocket": {"port": port}}) == ProbeResult(healthy=True)
    assert await ask({"tcpSocket": {"port": nobody}}) == ProbeResult(
        healthy=False,
        output=f"dial tcp 127.0.0.1:{nobody}: connect: connection refused",
    )


@asynccontextmanager
async def full_backlog():
    """Listen without accepting, with no room left for another connection."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        try:
            for _ in range(3):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
                waiting.append(one)
            await asyncio.sleep(0.1)
            yield listening.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


async def test_a_connection_that_is_not_made_in_time_is_unhealthy():
    async with full_backlog() as port:
        found = await ask({"tcpSocket": {"port": port}, "timeoutSeconds": 1})

    assert found == ProbeResult(
        healthy=False, output=f"dial tcp 127.0.0.1:{port}: i/o timeout"
    )


@pytest.mark.parametrize("fault", [None, "service unhealthy"])
async def test_grpc_asks_the_pod_for_the_service_in_time(fault):
    asked = []

    async def check(host, port, service, timeout_s):
        asked.append((host, port, service, timeout_s))
        return fault

    probe = {"grpc": {"port": 5000, "service": "orders"}, "timeoutSeconds": 3}
    found = await ask(probe, grpc_check=check)

    assert found == ProbeResult(healthy=fault is None, output=fault or "")
    assert asked == [("127.0.0.1", 5000, "orders", 3.0)]
