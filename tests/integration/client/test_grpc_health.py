"""The gRPC health check against real servers."""

import asyncio
import socket
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from podyard.client.grpc_health import check_health

pytestmark = pytest.mark.integration


class Health(grpc.GenericRpcHandler):
    """Answers ``Check`` with a status, by the service asked for."""

    def __init__(self, statuses, *, delay_s=0.0):
        self.statuses = statuses
        self.delay_s = delay_s

    def service(self, call):
        if call.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    async def _check(self, request, context):
        await asyncio.sleep(self.delay_s)
        # One field, number 1: the service's name.
        name = request[2:].decode() if request else ""
        status = self.statuses.get(name)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown {name}")
        return bytes([0x08, status]) if status else b""


@asynccontextmanager
async def serving(*handlers):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        pytest.param("", None, id="the-whole-server"),
        pytest.param("orders", None, id="a-service"),
        pytest.param(
            "down",
            'service unhealthy (responded with "NOT_SERVING")',
            id="not-serving",
        ),
        pytest.param(
            "new", 'service unhealthy (responded with "UNKNOWN")', id="unknown"
        ),
        pytest.param(
            "x" * 3,
            'error: health rpc for service "xxx" failed: unknown xxx',
            id="no-such-service",
        ),
    ],
)
async def test_what_the_server_says_is_the_verdict(service, said):
    health = Health({"": 1, "orders": 1, "down": 2, "new": 0})
    async with serving(health) as port:
        assert await check_health("127.0.0.1", port, service, 10) == said


async def test_a_server_without_the_protocol_is_told_apart():
    async with serving() as port:
        said = await check_health("127.0.0.1", port, "", 10)

    assert said is not None
    assert said.startswith(
        "error: this server does not implement the grpc health protocol "
        "(grpc.health.v1.Health): "
    )


async def test_a_slow_server_is_a_timeout():
    async with serving(Health({"": 1}, delay_s=30)) as port:
        said = await check_health("127.0.0.1", port, "", 0.5)

    assert said == "timeout: health rpc did not complete within 0.5s"


async def test_nobody_there_is_told_with_the_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    said = await check_health("127.0.0.1", port, "", 10)

    assert said is not None
    assert said.startswith(
        f'timeout: failed to connect service "127.0.0.1:{port}" within 10s: '
    )
