"""One GET on a connection of its own, as cheap as it gets, for probes and hooks.

Nothing is kept: no pool, no cookies, no proxy, no decompression. Certificates are
not verified, because a probe asks whether something answers, not who. A full client
costs several times as much CPU, and a node asks a thousand times a second.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit

from podyard.lib import bare_tcp
from podyard.lib.values import dataclass

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TLS: Final = _unverified()


class FetchError(Exception):
    """No usable answer; the message is in the words of Go's HTTP client.

    Attributes:
        plain_http: an HTTPS request was answered in plain HTTP.
    """

    def __init__(self, message: str, *, plain_http: bool = False) -> None:
        super().__init__(message)
        self.plain_http = plain_http


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: the status code.
        body: as much of the body as was asked for.
        left_host: the answer is a redirect to another host, not followed.
        url: where it came from in the end.
    """

    status: int
    body: bytes
    left_host: bool
    url: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where to GET. ``path`` may carry a query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.address}{self.path}"

    @classmethod
    def of(cls, url: str) -> "Target":
        """Take a URL apart.

        Raises:
            ValueError: it is none that can be fetched.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"unsupported URL {url}")
        path = parts.path or "/"
        if parts.query:
            path += f"?{parts.query}"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, path)


class _Reply:
    """Gathers one answer, in whatever pieces it comes."""

    __slots__ = ("_body_at", "_buffer", "_chunked", "_max_body", "_wanted", "status")

    def __init__(self, max_body_bytes: int) -> None:
        self.status = 0
        self._max_body = max_body_bytes
        self._buffer = b""
        self._body_at = -1
        self._wanted = 0
        self._chunked = False

    @property
    def has_begun(self) -> bool:
        """Whether status and headers are there."""
        return self._body_at >= 0

    def feed(self, data: bytes) -> bool:
        """Take what has come; return whether nothing more is needed.

        Raises:
            ValueError: it is not HTTP.
        """
        self._buffer = self._buffer + data if self._buffer else data
        while self._body_at < 0:
            end = _head_end(self._buffer)
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise ValueError("net/http: server response headers exceeded size")
                return False
            status = _status(self._buffer[:end])
            if 100 <= status < 200 and status != 101:
                # Only an announcement; the answer follows.
                self._buffer = self._buffer[end:]
                continue
            self.status, self._body_at = status, end
            self._wanted = self._body_length()
        if self._chunked and _dechunk(self._buffer[self._body_at :])[1]:
            return True
        return len(self._buffer) - self._body_at >= self._wanted

    def check(self) -> None:
        """Say that the other side has closed.

        Raises:
            ValueError: before there was an answer.
        """
        if not self.has_begun:
            _status(self._buffer)
            raise ValueError("unexpected EOF")

    def header(self, name: bytes) -> str:
        """Return a header by its lower-case name, or nothing."""
        head = self._buffer[: self._body_at]
        at = head.lower().find(b"\n" + name + b":")
        if at < 0:
            return ""
        line = head[at + len(name) + 2 :].partition(b"\n")[0]
        return line.strip().decode("latin-1")

    def body(self) -> bytes:
        """Return as much of the body as was asked for."""
        body = self._buffer[self._body_at :][: self._max_body]
        return _dechunk(body)[0] if self._chunked else body

    def _body_length(self) -> int:
        """Return how much of the body to wait for, bytes."""
        if self.status in {204, 304}:
            return 0
        head = self._buffer[: self._body_at].lower()
        if b"\ntransfer-encoding:" in head:
            self._chunked = self.header(b"transfer-encoding").lower() == "chunked"
            return self._max_body
        at = head.find(b"\ncontent-length:")
        if at < 0:
            # It ends with the connection.
            return self._max_body
        text = head[at + 16 :].partition(b"\n")[0].strip()
        return min(int(text), self._max_body) if text.isdigit() else 0


def _head_end(data: bytes) -> int:
    """Return where the empty line ends; -1 where there is none yet.

    Lines may end in a bare line feed, as shell scripts like to answer.
    """
    end = data.find(b"\r\n\r\n")
    bare = data.find(b"\n\n", 0, end if end >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return end + 4 if end >= 0 else -1


def _status(head: bytes) -> int:
    """Return the status code.

    Raises:
        ValueError: there is none, in the words of Go's HTTP client.
    """
    if not head:
        raise ValueError("EOF")
    words = head.split(b"\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        line = head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1")
        raise ValueError(
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response "
            + json.dumps(line)
        )
    return int(words[1])


def _dechunk(body: bytes) -> tuple[bytes, bool]:
    """Return the data of chunks, and whether the last one is there."""
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if length == 0:
            return out, True
        out += rest[:length]
        body = rest[length + 2 :]
    return out, False


class _Exchange(asyncio.Protocol):
    """Sends one request over a transport and gathers its answer."""

    def __init__(self, request: bytes, reply: _Reply) -> None:
        self._request = request
        self._reply = reply
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # it is one of TCP
        assert self._transport is not None
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        try:
            if self._reply.feed(data):
                self.done.set_result(None)
        except ValueError as error:
            self.done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            if exc is not None and not self._reply.has_begun:
                self.done.set_exception(exc)
            else:
                self.done.set_result(None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def build_request(
    target: Target,
    headers: Sequence[tuple[str, str]],
    *,
    user_agent: str,
) -> bytes:
    """Return the request's bytes.

    ``User-Agent`` and ``Accept: */*`` are added unless given; an empty one of those
    removes it. ``Host`` is taken from the headers where they have one.
    """
    given = {name.lower() for name, _ in headers}
    lines = [f"GET {target.path} HTTP/1.1"]
    if "host" not in given:
        default = {"http": 80, "https": 443}[target.scheme]
        host = target.address
        if target.port == default:
            host = host.rpartition(":")[0]
        lines.append(f"Host: {host}")
    if "user-agent" not in given:
        lines.append(f"User-Agent: {user_agent}")
    if "accept" not in given:
        lines.append("Accept: */*")
    lines += [
        f"{name}: {value}"
        for name, value in headers
        if value or name.lower() not in {"accept", "user-agent"}
    ]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")


class Fetcher:
    """GETs one target, again and again, each time on a connection of its own.

    Args:
        target: what.
        headers: sent as they are; see ``build_request``.
        user_agent: of those that send none of their own.
        max_body_bytes: as much of the body is read.
    """

    def __init__(
        self,
        target: Target,
        *,
        headers: Sequence[tuple[str, str]] = (),
        user_agent: str,
        max_body_bytes: int = 10 * 1024,
    ) -> None:
        self.target = target
        self._headers = headers
        self._user_agent = user_agent
        self._max_body = max_body_bytes
        self._request = build_request(target, headers, user_agent=user_agent)
        self._family = (
            bare_tcp.family_of(target.host) if target.scheme == "http" else None
        )

    async def fetch(self) -> Answer:
        """GET, following redirects on the same host name (10 at most).

        The caller bounds the time.

        Raises:
            FetchError: no answer that is HTTP.
        """
        following = self
        for _ in range(_MAX_REDIRECTS + 1):
            reply = await following._get()
            status, target = reply.status, following.target
            location = reply.header(b"location") if status in _REDIRECTS else ""
            if not location:
                return Answer(status, reply.body(), left_host=False, url=target.url)
            try:
                to = Target.of(urljoin(target.url, location))
            except ValueError as error:
                raise FetchError(f'Get "{location}": {error}') from error
            if to.host != target.host:
                return Answer(status, reply.body(), left_host=True, url=target.url)
            following = Fetcher(
                to,
                headers=self._headers,
                user_agent=self._user_agent,
                max_body_bytes=self._max_body,
            )
        raise FetchError(
            f'Get "{following.target.url}": stopped after {_MAX_REDIRECTS} redirects'
        )

    async def _get(self) -> _Reply:
        target, reply = self.target, _Reply(self._max_body)
        try:
            if self._family is None:
                await self._ask_transport(reply)
            else:
                await self._ask_socket(self._family, reply)
            if not reply.has_begun:
                reply.check()
        except ssl.SSLError as error:
            plain = error.reason in {
                "WRONG_VERSION_NUMBER",
                "HTTP_REQUEST",
                "RECORD_LAYER_FAILURE",
            }
            text = (
                "http: server gave HTTP response to HTTPS client"
                if plain
                else f"tls: {error.reason or error}"
            )
            raise FetchError(f'Get "{target.url}": {text}', plain_http=plain) from error
        except OSError as error:
            raise FetchError(
                f'Get "{target.url}": {describe_dial(target, error)}'
            ) from error
        except ValueError as error:
            raise FetchError(f'Get "{target.url}": {error}') from error
        return reply

    async def _ask_socket(self, family: socket.AddressFamily, reply: _Reply) -> None:
        address = (self.target.host, self.target.port)
        try:
            await bare_tcp.ask(family, address, self._request, reply.feed)
        except OSError:
            if not reply.has_begun:
                raise

    async def _ask_transport(self, reply: _Reply) -> None:
        target = self.target
        exchange = _Exchange(self._request, reply)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: exchange,
                target.host,
                target.port,
                ssl=_TLS if target.scheme == "https" else None,
            )
            await exchange.done
        finally:
            exchange.abort()
            if exchange.done.done() and not exchange.done.cancelled():
                exchange.done.exception()


async def fetch(
    target: Target,
    *,
    headers: Sequence[tuple[str, str]] = (),
    user_agent: str,
    max_body_bytes: int = 10 * 1024,
) -> Answer:
    """GET once; see :class:`Fetcher`.

    Raises:
        FetchError: no answer that is HTTP.
    """
    fetcher = Fetcher(
        target, headers=headers, user_agent=user_agent, max_body_bytes=max_body_bytes
    )
    return await fetcher.fetch()


def connector(host: str, port: int) -> Callable[[], Awaitable[None]]:
    """Return what opens a TCP connection there and closes it, again and again.

    The caller bounds the time; ``OSError`` says that nothing answers.
    """
    family = bare_tcp.family_of(host)
    if family is not None:
        return partial(bare_tcp.connect_and_leave, family, (host, port))

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.abort()

    return connect


def describe_dial(target: Target, error: OSError) -> str:
    """Return a connection fault in Go's words."""
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {target.address}: connect: connection refused"
    if isinstance(error, ConnectionResetError):
        return f"read tcp {target.address}: read: connection reset by peer"
    text = (error.strerror or str(error)).lower()
    return f"dial tcp {target.address}: connect: {text}"
