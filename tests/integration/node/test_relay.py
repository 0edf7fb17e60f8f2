"""Two connections joined after an upgrade."""

import asyncio
import contextlib

import pytest
from aiohttp import web

from podyard.lib.hijack import relay_upgrade

UPGRADE = (
    b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


@pytest.fixture
async def backend():
    seen = []
    closed = []

    async def talk(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        refuse = b"/refuse" in head
        status = b"403 No" if refuse else b"101 Switching Protocols"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        try:
            while data := await reader.read(65536):
                seen.append(data)
                writer.write(data.upper())
        except ConnectionError:
            pass
        finally:
            writer.close()
            closed.append(writer)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen
    for writer in closed:
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def front(backend):
    port, _ = backend

    async def up(request):
        async def dial(side):
            transport, _ = await asyncio.get_running_loop().create_connection(
                side, "127.0.0.1", port
            )
            return transport

        path = request.query.get("path", "/")
        return await relay_upgrade(
            request, dial, f"GET {path} HTTP/1.1\r\n\r\n".encode()
        )

    app = web.Application()
    app.router.add_get("/up", up)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_bytes_go_both_ways_after_the_upgrade(front, backend):
    reader, writer = await asyncio.open_connection("127.0.0.1", front)
    writer.write(UPGRADE + b"early")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"101" in head
    assert await reader.readexactly(5) == b"EARLY"

    writer.write(b"later")

    assert await reader.readexactly(5) == b"LATER"
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)


async def test_nothing_more_passes_where_the_upgrade_was_refused(front, backend):
    _, seen = backend
    reader, writer = await asyncio.open_connection("127.0.0.1", front)
    writer.write(UPGRADE.replace(b"/up", b"/up?path=/refuse"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"403" in head

    writer.write(b"GET /secret HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0.1)

    assert seen == []
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)
