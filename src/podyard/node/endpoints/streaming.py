"""exec, attach and port-forward: from the client's upgrade to the runtime's stream.

Bytes pass through unchanged wherever that is enough:

- SPDY clients (kubectl up to 1.29; port-forward up to 1.30): raw, both ways;
- WebSocket v4 and older (most libraries): raw, both ways;
- WebSocket v5 exec and attach (kubectl from 1.30): our WebSocket, with a SPDY
  connection to the runtime behind it, because runtimes know no v5;
- port-forward from kubectl 1.31: SPDY bytes inside WebSocket messages, copied to and
  from the runtime's SPDY connection.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import WSMsgType, web

from podyard.lib.hijack import relay_upgrade
from podyard.lib.relay import RelaySide
from podyard.node.endpoints.build import StreamOptions
from podyard.node.endpoints.parts import EndpointError
from podyard.node.endpoints.spdy import SpdyConnection, SpdyError, SpdyStream

log = structlog.get_logger()

V5: Final = "v5.channel.k8s.io"
TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
_DIAL_S: Final = 10.0
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
#: Headers that belong to one hop and are not passed to the runtime as they are.
_HOP: Final = frozenset({"host", "authorization", "content-length", "cookie"})


def offered_protocols(request: web.Request) -> tuple[str, ...]:
    """Return the WebSocket subprotocols a client offers, best first."""
    offered: list[str] = []
    for value in request.headers.getall("Sec-WebSocket-Protocol", []):
        offered += [part.strip() for part in value.split(",") if part.strip()]
    return tuple(offered)


def check_upgrade(request: web.Request) -> None:
    """Refuse what is no upgrade.

    Raises:
        EndpointError: 400.
    """
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade not in {"websocket", "spdy/3.1"}:
        raise EndpointError(
            400, "Upgrade request required: a WebSocket or SPDY/3.1 upgrade"
        )


async def stream_command(
    request: web.Request, url: str, options: StreamOptions
) -> web.StreamResponse:
    """Join an exec or attach with the runtime's stream at ``url``.

    Raises:
        EndpointError: the runtime does not stream.
    """
    offered = offered_protocols(request)
    if V5 in offered and not _has_older(offered):
        return await _translate(request, url, options)
    return await relay_raw(request, url, [p for p in offered if p != V5])


async def stream_ports(request: web.Request, url: str) -> web.StreamResponse:
    """Join a port-forward with the runtime's stream at ``url``.

    Raises:
        EndpointError: the runtime does not stream.
    """
    offered = offered_protocols(request)
    if TUNNEL in offered:
        return await _tunnel(request, url)
    return await relay_raw(request, url, [p for p in offered if p != V5])


def _has_older(offered: Iterable[str]) -> bool:
    return any(protocol != V5 and "channel.k8s.io" in protocol for protocol in offered)


# --- raw ---


async def relay_raw(
    request: web.Request, url: str, protocols: Iterable[str]
) -> web.StreamResponse:
    """Send the client's own upgrade to ``url`` and join the two connections."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [
        f"{name}: {value}"
        for name, value in request.headers.items()
        if name.lower() not in _HOP and name.lower() != "sec-websocket-protocol"
    ]
    protocol = ", ".join(protocols)
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")

    async def dial(side: Callable[[], RelaySide]) -> asyncio.WriteTransport:
        async with asyncio.timeout(_DIAL_S):
            transport, _ = await asyncio.get_running_loop().create_connection(
                side, parts.hostname or "127.0.0.1", parts.port or 80
            )
        return transport

    try:
        return await relay_upgrade(
            request, dial, ("\r\n".join(lines) + "\r\n\r\n").encode()
        )
    except (OSError, TimeoutError) as error:
        raise EndpointError(500, f"the runtime's streaming server: {error}") from error


# --- SPDY bytes in WebSocket messages ---


async def _tunnel(request: web.Request, url: str) -> web.StreamResponse:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(_DIAL_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 80
            )
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                "X-Stream-Protocol-Version: portforward.k8s.io\r\n"
                "Content-Length: 0\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise EndpointError(500, f"the runtime's streaming server: {error}") from error
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        writer.close()
        raise EndpointError(500, "the runtime refused to forward ports")
    socket = web.WebSocketResponse(protocols=(TUNNEL,), max_msg_size=0)
    await socket.prepare(request)
    try:
        async with asyncio.TaskGroup() as group:
            down = group.create_task(_tunnel_down(reader, socket))
            await _tunnel_up(socket, writer)
            down.cancel()
    except* (ConnectionError, OSError):
        log.debug("port_forward_cut")
    finally:
        writer.close()
    return socket


async def _tunnel_up(
    socket: web.WebSocketResponse, writer: asyncio.StreamWriter
) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()


async def _tunnel_down(
    reader: asyncio.StreamReader, socket: web.WebSocketResponse
) -> None:
    while chunk := await reader.read(65536):
        await socket.send_bytes(chunk)
    await socket.close()


# --- WebSocket v5 in front, SPDY behind ---


async def _translate(
    request: web.Request, url: str, options: StreamOptions
) -> web.StreamResponse:
    try:
        runtime = await SpdyConnection.dial(
            url, protocol="v4.channel.k8s.io", within_s=_DIAL_S
        )
    except SpdyError as error:
        raise EndpointError(500, str(error)) from error
    try:
        error_stream = await runtime.open_stream("error")
        stdin = await runtime.open_stream("stdin") if options.stdin else None
        stdout = await runtime.open_stream("stdout") if options.stdout else None
        stderr = await runtime.open_stream("stderr") if options.stderr else None
        resize = await runtime.open_stream("resize") if options.tty else None
        socket = web.WebSocketResponse(protocols=(V5,), max_msg_size=0)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):
            for channel, there in ((_STDOUT, stdout), (_STDERR, stderr)):
                if there is not None:
                    await socket.send_bytes(bytes((channel,)))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(runtime.run())
                up = group.create_task(_client_to_runtime(socket, stdin, resize))
                up.add_done_callback(lambda _: runtime.close())
                async with asyncio.TaskGroup() as outputs:
                    for channel, stream in (
                        (_STDOUT, stdout),
                        (_STDERR, stderr),
                        (_ERROR, error_stream),
                    ):
                        if stream is not None:
                            outputs.create_task(
                                _runtime_to_client(stream, socket, channel)
                            )
                await socket.close()
                up.cancel()
        except* (ConnectionError, OSError):
            log.debug("exec_stream_cut")
        return socket
    finally:
        runtime.close()


async def _client_to_runtime(
    socket: web.WebSocketResponse,
    stdin: SpdyStream | None,
    resize: SpdyStream | None,
) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            data = message.data.encode()
        elif message.type is WSMsgType.BINARY:
            data = message.data
        else:
            continue
        if not data:
            continue
        channel, content = data[0], data[1:]
        if channel == _STDIN and stdin is not None and content:
            await stdin.send(content)
        elif channel == _RESIZE and resize is not None and content:
            await resize.send(content + b"\n")
        elif channel == _CLOSE and content[:1] == b"\x00" and stdin is not None:
            await stdin.close_sending()


async def _runtime_to_client(
    stream: SpdyStream, socket: web.WebSocketResponse, channel: int
) -> None:
    head = bytes((channel,))
    async for chunk in stream.chunks():
        await socket.send_bytes(head + chunk)
