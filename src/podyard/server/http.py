"""The HTTP door: aiohttp in, answers out, raw connections handed over.

One handler for every path; routing is the pipeline's. HTTP/1.1 only.
"""

import asyncio
import contextlib
import ssl
import zlib
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from podyard.api.errors import ApiError, bad_request, too_large
from podyard.lib.hijack import Hijacked
from podyard.lib.relay import Relay
from podyard.lib.values import dataclass
from podyard.lib.yaml_json import dump_yaml
from podyard.server.authn.certificates import parse_peer
from podyard.server.authn.impersonation import PREFIX
from podyard.server.authn.parts import PeerCertificate
from podyard.server.call import (
    JSON_TYPE,
    YAML_TYPE,
    Forward,
    Reply,
    Stream,
    Tunnel,
    wants_yaml,
)
from podyard.server.measures import Measures
from podyard.server.nodes import NodeDialer
from podyard.server.pipeline import Incoming, Outcome, Pipeline, timed_out, to_reply

log = structlog.get_logger()

#: The largest request body, bytes.
MAX_BODY: Final = 3 * 1024 * 1024
#: Answers smaller than this are not compressed.
GZIP_FROM: Final = 128 * 1024
#: Larger ones are compressed in a thread.
_GZIP_IN_THREAD: Final = 512 * 1024
_HEADERS: Final = {"Cache-Control": "no-cache, private"}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the door listens.

    Attributes:
        host: the address; empty with ``path``.
        port: the port, 0 for any.
        path: of a unix socket.
        tls: whether TLS is spoken there.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = True


class Connection(RequestHandler):
    """One client's connection; its certificate is read once."""

    __slots__ = ("peer",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.peer: PeerCertificate | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read the client certificate, if TLS was given one."""
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der:
            self.peer = parse_peer(der)
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the handler with a Status, too."""
        if self.transport is None or self.transport.is_closing():
            return super().handle_error(request, status, exc, message)
        text = message or HTTPStatus(status).phrase
        error = bad_request(text) if status == 400 else ApiError(status, "", text)
        response = web.Response(
            body=orjson.dumps(error.to_status()),
            status=status,
            content_type=JSON_TYPE,
        )
        response.force_close()
        return response


class _Acceptor(web.Server):
    """Makes our kind of connection."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Door:
    """Serves a pipeline over HTTP.

    Args:
        pipeline: answers the requests.
        nodes: the way to the nodes.
        measures: counts them.
        request_timeout_s: how long an answer may take to begin.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        nodes: NodeDialer,
        measures: Measures,
        *,
        request_timeout_s: float = 60.0,
    ) -> None:
        self._pipeline = pipeline
        self._nodes = nodes
        self._measures = measures
        self._timeout_s = request_timeout_s
        self._relays: set[Relay] = set()
        self._runner: web.ServerRunner | None = None

    async def start(
        self, listeners: list[Listener], tls: ssl.SSLContext | None
    ) -> list[Listener]:
        """Listen.

        Returns:
            The listeners with the ports they got.

        Raises:
            OSError: an address cannot be had.
        """
        server = _Acceptor(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=180.0,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        self._runner = runner
        await runner.setup()
        try:
            return [await self._listen(runner, one, tls) for one in listeners]
        except BaseException:
            await runner.cleanup()
            raise

    async def _listen(
        self, runner: web.ServerRunner, listener: Listener, tls: ssl.SSLContext | None
    ) -> Listener:
        if listener.path:
            await web.UnixSite(runner, listener.path).start()
            return listener
        context = tls if listener.tls else None
        site = web.TCPSite(
            runner,
            listener.host,
            listener.port,
            ssl_context=context,
            backlog=1024,
            reuse_address=True,
        )
        await site.start()
        sockets = cast("Any", site)._server.sockets  # noqa: SLF001 - its only way
        port = sockets[0].getsockname()[1]
        return Listener(listener.host, port, tls=listener.tls)

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        for relay in tuple(self._relays):
            relay.abort()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- one request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        incoming = _incoming(request)
        outcome = await self._run(incoming)
        answer = outcome.answer
        if isinstance(answer, Forward | Tunnel):
            try:
                if isinstance(answer, Tunnel):
                    return await self._tunnel(request, answer, outcome, started_s)
                outcome.answer = await self._nodes.get(answer.target)
            except ApiError as error:
                outcome.answer = to_reply(error)
            answer = outcome.answer
        if isinstance(answer, Stream):
            with self._measures.long_running(outcome.info):
                return await _stream(request, answer, outcome.warnings)
        assert isinstance(answer, Reply)
        self._measures.count(outcome.info, answer.status, loop.time() - started_s)
        return await _respond(request, answer, outcome.warnings)

    async def _run(self, incoming: Incoming) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._pipeline.run(incoming)
        except TimeoutError:
            return Outcome(to_reply(timed_out()))

    async def _tunnel(
        self,
        request: web.BaseRequest,
        tunnel: Tunnel,
        outcome: Outcome,
        started_s: float,
    ) -> web.StreamResponse:
        """Join the client's connection with a node's, after the node's 101.

        Raises:
            ApiError: 400 no upgrade was asked, or what the node refused with.
        """
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise bad_request("Upgrade request required")
        upgraded = await self._nodes.upgrade(
            request.method, tunnel.target, request.headers
        )
        loop = asyncio.get_running_loop()
        self._measures.count(outcome.info, 101, loop.time() - started_s)
        transport = request.transport
        protocol = cast("Connection", request.protocol)
        if transport is None or transport.is_closing():
            upgraded.abort()
            raise ConnectionResetError("the client has gone")
        relay = Relay()
        # aiohttp stops reading at a WebSocket upgrade; what came early waits there.
        early = bytes(getattr(protocol, "_message_tail", b""))
        transport.set_protocol(relay.left)
        relay.left.connection_made(transport)
        transport.write(upgraded.head)
        self._relays.add(relay)
        try:
            upgraded.join(relay)
            if early and relay.right.transport is not None:
                relay.right.transport.write(early)
            with self._measures.long_running(outcome.info):
                await relay.wait_ended()
        finally:
            self._relays.discard(relay)
            relay.abort()
            # The connection is no longer aiohttp's to end; it must be told.
            loop.call_soon(protocol.connection_lost, None)
        return Hijacked()


def _incoming(request: web.BaseRequest) -> Incoming:
    raw = request.raw_path
    path, _, query = raw.partition("?")
    headers = request.headers
    offered = headers.get("Sec-WebSocket-Protocol", "")
    protocols = tuple(part.strip() for part in offered.split(",")) if offered else ()
    protocol = request.protocol

    async def read_body() -> bytes:
        return await _read_body(request)

    return Incoming(
        method=request.method,
        path=path,
        query=query,
        headers=headers,
        read_body=read_body,
        peer=protocol.peer if isinstance(protocol, Connection) else None,
        websocket_protocols=protocols,
        address=headers.get("Host", ""),
        impersonation=tuple(
            (name, value)
            for name, value in headers.items()
            if name.lower().startswith(PREFIX)
        ),
    )


async def _read_body(request: web.BaseRequest) -> bytes:
    """Read a body of bounded size.

    Raises:
        ApiError: 400 a broken encoding, 413 too large, 415 an unknown encoding.
    """
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise too_large(MAX_BODY)
    if not request.body_exists:
        return b""
    body = await _read_bounded(request)
    encoding = request.headers.get("Content-Encoding", "")
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        message = f"the content encoding {encoding!r} is not supported"
        raise ApiError(415, "UnsupportedMediaType", message)
    return _unzip(body)


async def _read_bounded(request: web.BaseRequest) -> bytes:
    parts, size = [], 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > MAX_BODY:
                raise too_large(MAX_BODY)
            parts.append(chunk)
    except web.RequestPayloadError as error:
        raise bad_request(f"the body cannot be read: {error}") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unzip(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise bad_request(f"the body is no gzip: {error}") from error
    if len(text) > MAX_BODY:
        raise too_large(MAX_BODY)
    if not inflater.eof:
        raise bad_request("the body is cut short")
    return text


def _add_warnings(response: web.StreamResponse, warnings: list[str]) -> None:
    for text in dict.fromkeys(warnings):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        plain = "".join(char if char.isprintable() else " " for char in quoted)
        response.headers.add("Warning", f'299 - "{plain}"')


async def _respond(
    request: web.BaseRequest, reply: Reply, warnings: list[str]
) -> web.StreamResponse:
    headers: dict[str, str] = {
        "Content-Type": reply.content_type,
        **_HEADERS,
        **reply.headers,
    }
    body = reply.body
    if reply.content_type == JSON_TYPE and wants_yaml(
        request.headers.get("Accept", "")
    ):
        body = await asyncio.to_thread(dump_yaml, body)
        headers["Content-Type"] = YAML_TYPE
    if len(body) >= GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        zipped = _zip
        body = (
            await asyncio.to_thread(zipped, body)
            if len(body) >= _GZIP_IN_THREAD
            else zipped(body)
        )
        headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept-Encoding"
    response = web.Response(body=body, status=reply.status, headers=headers)
    if warnings:
        _add_warnings(response, warnings)
    return response


def _zip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(body) + packer.flush()


async def _stream(
    request: web.BaseRequest, stream: Stream, warnings: list[str]
) -> web.StreamResponse:
    response = web.StreamResponse(
        status=stream.status, headers={"Content-Type": stream.content_type, **_HEADERS}
    )
    response.enable_chunked_encoding()
    if warnings:
        _add_warnings(response, warnings)
    # A client that leaves is no error; ``aclosing`` ends what made the pieces.
    with contextlib.suppress(ConnectionResetError):
        async with contextlib.aclosing(stream.chunks) as chunks:
            await response.prepare(request)
            async for chunk in chunks:
                await response.write(chunk)
            await response.write_eof()
    return response
