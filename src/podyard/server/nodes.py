"""The way to the nodes' own endpoints: plain GETs and upgraded connections.

An upgrade is refused here, with a Status, unless the node has answered 101: bytes
are joined only after that, so a client can never speak HTTP to a node in our name.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Final, cast

import aiohttp
import orjson
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from podyard.api.errors import ApiError
from podyard.lib.relay import Relay
from podyard.server.call import NodeTarget, Stream

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 30.0
_ERROR_S: Final = 2.0
_MAX_HEAD: Final = 64 * 1024
_MAX_ERROR: Final = 64 * 1024
#: Headers of an upgrade that the node has to see.
_PASSED: Final = frozenset(
    {
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "x-stream-protocol-version",
    }
)
_BEARER: Final = "base64url.bearer.authorization.k8s.io."
_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def unreachable(error: Exception) -> ApiError:
    """500: the node does not answer."""
    why = str(error) or type(error).__name__
    return ApiError(500, "", f"error dialing backend: {why}")


def refused(code: int, body: bytes) -> ApiError:
    """Return what a node refused with: its Status, or its text."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return ApiError.from_status(status, code=code)
    text = body.decode(errors="replace").strip() or f"the node answered {code}"
    return ApiError(code, _REASONS.get(code, ""), text)


class _Handshake(asyncio.Protocol):
    """Collects a node's answer up to the end of its headers, then stops reading."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.rest = bytearray()
        self._seen = bytearray()
        self._needed = _MAX_ERROR
        self._ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.head.done():
            self.rest += data
            if len(self.rest) >= self._needed:
                self._ended.set()
            return
        self._seen += data
        end = self._seen.find(b"\r\n\r\n")
        if end < 0:
            if len(self._seen) > _MAX_HEAD:
                self._fail(ConnectionError("the node's answer has no end"))
            return
        self.rest += self._seen[end + 4 :]
        if self.transport is not None:
            self.transport.pause_reading()
        self.head.set_result(bytes(self._seen[: end + 4]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the node closed the connection"))
        self._ended.set()

    def _fail(self, error: Exception) -> None:
        if not self.head.done():
            self.head.set_exception(error)

    async def read_error(self, length: int | None) -> bytes:
        """Read on to the end of a refusal's body."""
        assert self.transport is not None
        if length is not None:
            self._needed = min(length, _MAX_ERROR)
        if len(self.rest) < self._needed:
            self.transport.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ERROR_S):
                    await self._ended.wait()
        return bytes(self.rest[: self._needed])


def build_upgrade(
    method: str, target: NodeTarget, headers: CIMultiDictProxy[str]
) -> bytes:
    """Return the head of an upgrade request as the node is to see it."""
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _PASSED:
            continue
        kept = _without_token(value) if lower == "sec-websocket-protocol" else value
        if kept:
            lines.append(f"{name}: {kept}")
    if method == "POST":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _without_token(protocols: str) -> str:
    names = [name.strip() for name in protocols.split(",")]
    return ", ".join(name for name in names if not name.startswith(_BEARER))


def _read_head(head: bytes) -> tuple[int, Mapping[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ConnectionError("the node does not answer in HTTP")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return int(parts[1]), headers


class Upgraded:
    """A node's side of an upgraded connection, ready to be joined.

    Attributes:
        head: the node's 101 answer and what came right behind it.
    """

    def __init__(self, transport: asyncio.Transport, head: bytes) -> None:
        self._transport = transport
        self.head = head

    def join(self, relay: Relay) -> None:
        """Make this the right side of a relay."""
        self._transport.set_protocol(relay.right)
        relay.right.connection_made(self._transport)
        self._transport.resume_reading()

    def abort(self) -> None:
        """Let the node go."""
        self._transport.abort()


class NodeDialer:
    """Connections to nodes.

    Args:
        tls: how to trust nodes and what to show them; ``None`` speaks plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._open: set[aiohttp.ClientResponse] = set()

    async def start(self) -> None:
        """Get ready to dial."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        connector = aiohttp.TCPConnector(ssl=self._tls or False, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=True
        )

    def close_streams(self) -> None:
        """End every stream that is being read."""
        for response in tuple(self._open):
            response.close()

    async def close(self) -> None:
        """Let every node go."""
        self.close_streams()
        if self._session is not None:
            await self._session.close()

    async def get(self, target: NodeTarget) -> Stream:
        """GET a path of a node.

        Raises:
            ApiError: 500 it cannot be reached, or what it refused with.
        """
        assert self._session is not None
        scheme = "https" if self._tls else "http"
        host = f"[{target.host}]" if ":" in target.host else target.host
        url = f"{scheme}://{host}:{target.port}{target.path}"
        try:
            async with asyncio.timeout(_ANSWER_S):
                response = await self._session.get(
                    URL(url, encoded=True), allow_redirects=False
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(error) from error
        if response.status != 200:
            async with response:
                body = await response.content.read(_MAX_ERROR)
            raise refused(response.status, body)
        media = response.headers.get("Content-Type", "text/plain")
        return Stream(self._chunks(response), content_type=media)

    async def _chunks(
        self, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        self._open.add(response)
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError):
            return  # the node went away: what it said until then stands
        finally:
            self._open.discard(response)
            response.close()

    async def upgrade(
        self, method: str, target: NodeTarget, headers: CIMultiDictProxy[str]
    ) -> Upgraded:
        """Ask a node to upgrade a connection.

        Raises:
            ApiError: 500 it cannot be reached, or what it refused with.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                transport, handshake = await loop.create_connection(
                    _Handshake, target.host, target.port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise unreachable(error) from error
        try:
            return await self._shake(transport, handshake, method, target, headers)
        except BaseException:
            transport.abort()
            raise

    async def _shake(
        self,
        transport: asyncio.Transport,
        handshake: _Handshake,
        method: str,
        target: NodeTarget,
        headers: CIMultiDictProxy[str],
    ) -> Upgraded:
        transport.write(build_upgrade(method, target, headers))
        try:
            async with asyncio.timeout(_ANSWER_S):
                head = await handshake.head
            code, answered = _read_head(head)
        except (OSError, TimeoutError) as error:
            raise unreachable(error) from error
        if code == 101:
            return Upgraded(transport, head + bytes(handshake.rest))
        text = answered.get("Content-Length", "")
        body = await handshake.read_error(int(text) if text.isdigit() else None)
        raise refused(code, body)
