"""The probe's own GET against a real server."""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from podyard.lib.plain_http import FetchError, Target, connector, fetch


@pytest.fixture
async def server():
    seen = []

    async def ok(request):
        seen.append(dict(request.headers))
        return web.Response(text="x" * int(request.query.get("size", "2")))

    async def redirect(request):
        raise web.HTTPFound(request.query["to"])

    async def chunked(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in (b"ab", b"cd"):
            await response.write(part)
        return response

    async def hang(request):
        await asyncio.sleep(60)

    app = web.Application()
    app.router.add_get("/ok", ok)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/chunked", chunked)

    async def loop(request):
        raise web.HTTPFound("/loop")

    app.router.add_get("/loop", loop)
    app.router.add_get("/hang", hang)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1], seen
    await runner.cleanup()


def target(port, path, scheme="http"):
    return Target(scheme, "127.0.0.1", port, path)


async def test_status_and_body_come_back(server):
    port, seen = server

    answer = await fetch(target(port, "/ok"), user_agent="kube-probe/1.36")

    assert (answer.status, answer.body) == (200, b"xx")
    assert seen[0]["User-Agent"] == "kube-probe/1.36"
    assert seen[0]["Accept"] == "*/*"


async def test_headers_replace_host_and_empty_accept_removes_it(server):
    port, seen = server

    await fetch(
        target(port, "/ok"),
        headers=(("Host", "example.org"), ("Accept", ""), ("X-A", "1")),
        user_agent="u",
    )

    assert seen[0]["Host"] == "example.org"
    assert "Accept" not in seen[0]
    assert seen[0]["X-A"] == "1"


async def test_a_large_body_is_cut(server):
    port, _ = server

    answer = await fetch(
        target(port, "/ok?size=100000"), user_agent="u", max_body_bytes=10
    )

    assert answer.body == b"x" * 10


async def test_chunks_are_joined(server):
    port, _ = server

    assert (await fetch(target(port, "/chunked"), user_agent="u")).body == b"abcd"


async def test_redirects_are_followed_on_the_same_host_only(server):
    port, _ = server

    same = await fetch(target(port, "/redirect?to=/ok"), user_agent="u")
    other = await fetch(
        target(port, "/redirect?to=http://example.invalid/"), user_agent="u"
    )

    assert (same.status, same.left_host) == (200, False)
    assert (other.status, other.left_host) == (302, True)


async def test_a_redirect_loop_ends(server):
    port, _ = server

    with pytest.raises(FetchError, match="stopped after 10 redirects"):
        await fetch(target(port, "/loop"), user_agent="u")


async def test_https_against_plain_http_says_so(server):
    port, _ = server

    with pytest.raises(FetchError) as caught:
        await fetch(target(port, "/ok", "https"), user_agent="u")

    assert caught.value.plain_http


async def test_a_refused_connection_is_told_in_the_fields_words():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(FetchError) as caught:
        await fetch(target(port, "/"), user_agent="u")

    assert str(caught.value) == (
        f'Get "http://127.0.0.1:{port}/": dial tcp 127.0.0.1:{port}: '
        "connect: connection refused"
    )


async def test_what_is_not_http_is_refused():
    async def talk(reader, writer):
        writer.write(b"hello\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(FetchError, match="malformed HTTP response"):
            await fetch(target(port, "/"), user_agent="u")


@asynccontextmanager
async def answering(*pieces, close=True, host="127.0.0.1"):
    """Serve connections that answer with these bytes, one write after the other."""

    talks = []

    async def talk(reader, writer):
        talks.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            if not close:
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    if talks:
        await asyncio.wait(talks)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        pytest.param([b"HTTP/1.1 200 OK\n\nhi"], 200, b"hi", id="bare-line-feeds"),
        pytest.param(
            [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n", b"\r\n"],
            404,
            b"",
            id="an-announcement-first",
        ),
        pytest.param(
            [b"HTTP/1.", b"0 200 OK\r\nContent-", b"Length: 2\r\n\r", b"\nok"],
            200,
            b"ok",
            id="in-pieces",
        ),
        pytest.param([b"HTTP/1.1 503\r\n\r\n"], 503, b"", id="no-words"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"],
            200,
            b"short",
            id="less-than-promised",
        ),
    ],
)
async def test_answers_are_taken_as_they_come(pieces, status, body, host):
    async with answering(*pieces) as port:
        answer = await fetch(Target("http", host, port, "/"), user_agent="u")

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no-content"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="last-chunk",
        ),
    ],
)
async def test_an_answer_is_over_though_the_connection_is_kept(answer):
    async with answering(answer, close=False) as port, asyncio.timeout(10):
        got = await fetch(target(port, "/"), user_agent="u")

    assert (got.status // 100, got.body) == (2, b"")


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        pytest.param([], "EOF", id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\n"], "unexpected EOF", id="half-a-head"),
        pytest.param(
            [b"SSH-2.0-x\r\n"],
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response "
            '"SSH-2.0-x"',
            id="another-protocol",
        ),
    ],
)
async def test_no_answer_is_told_in_the_fields_words(pieces, said):
    async with answering(*pieces) as port:
        with pytest.raises(FetchError) as caught:
            await fetch(target(port, "/"), user_agent="u")

    assert str(caught.value) == f'Get "http://127.0.0.1:{port}/": {said}'


async def test_an_endless_head_is_given_up():
    async with answering(b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n" * 10000) as port:
        with pytest.raises(FetchError, match="headers exceeded"):
            await fetch(target(port, "/"), user_agent="u")


async def test_addresses_of_the_sixth_version_are_asked_too():
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", host="::1") as port:
        answer = await fetch(Target("http", "::1", port, "/"), user_agent="u")

    assert (answer.status, answer.url) == (200, f"http://[::1]:{port}/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_connection_is_made_and_left_each_time(host):
    async with answering() as port:
        connect = connector(host, port)
        await connect()
        await connect()
    with pytest.raises(ConnectionRefusedError):
        await connect()


async def test_a_cancelled_fetch_leaves_no_connection(server):
    port, _ = server

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await fetch(target(port, "/hang"), user_agent="u")


async def test_certificates_are_not_verified(tmp_path):
    from podyard.app.pki import Names, ensure_pki
    from podyard.lib.clock import SystemClock

    pki = ensure_pki(tmp_path, Names(node_name="n"), now=SystemClock().now())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.node_serving.path)

    async def ok(request):
        return web.Response(text="tls")

    app = web.Application()
    app.router.add_get("/", ok)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        port = runner.addresses[0][1]
        answer = await fetch(target(port, "/", "https"), user_agent="u")
    finally:
        await runner.cleanup()

    assert answer.body == b"tls"
