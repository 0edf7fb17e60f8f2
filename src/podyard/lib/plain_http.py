"""One GET on a connection of its own, as cheap as it gets, for probes and hooks.

Nothing is kept: no pool, no cookies, no proxy, no decompression. Certificates are
not verified, because a probe asks whether something answers, not who. A full client
costs several times as much CPU, and a node asks a thousand times a second.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_REDIRECTS: Final = 10


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


class _Exchange(asyncio.Protocol):
    """Sends one request and gathers its answer."""

    def __init__(self, request: bytes, max_body_bytes: int) -> None:
        self._request = request
        self._max_body = max_body_bytes
        self._buffer = bytearray()
        self._head_end = -1
        self._wanted = -1
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # it is one of TCP
        assert self._transport is not None
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head_end < 0:
            self._head_end = self._buffer.find(b"\r\n\r\n")
            if self._head_end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    self._finish()
                return
            self._wanted = min(self._length(), self._max_body)
        if len(self._buffer) - self._head_end - 4 >= self._wanted:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            if exc is not None and self._head_end < 0:
                self.done.set_exception(exc)
            else:
                self.done.set_result(None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (lower-case names) and body.

        Raises:
            ValueError: it was not HTTP.
        """
        head = bytes(self._buffer[: max(self._head_end, 0)])
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
            raise ValueError("malformed HTTP response")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = bytes(self._buffer[self._head_end + 4 :][: self._max_body])
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = _dechunk(body)
        return int(words[1]), headers, body

    def _length(self) -> int:
        head = bytes(self._buffer[: self._head_end]).lower()
        for line in head.split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                text = line.partition(b":")[2].strip()
                return int(text) if text.isdigit() else 0
            if line.startswith(b"transfer-encoding:"):
                return 1 << 62
        # Without a length the body ends with the connection.
        return 1 << 62

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _dechunk(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if length == 0:
            break
        out += rest[:length]
        body = rest[length + 2 :]
    return out


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


async def fetch(
    target: Target,
    *,
    headers: Sequence[tuple[str, str]] = (),
    user_agent: str,
    max_body_bytes: int = 10 * 1024,
) -> Answer:
    """GET, following redirects on the same host name (10 at most).

    The caller bounds the time.

    Raises:
        FetchError: no answer that is HTTP.
    """
    for _ in range(_MAX_REDIRECTS + 1):
        status, answered, body = await _get(target, headers, user_agent, max_body_bytes)
        location = answered.get("location", "")
        if status not in {301, 302, 303, 307, 308} or not location:
            return Answer(status, body, left_host=False, url=target.url)
        try:
            following = Target.of(urljoin(target.url, location))
        except ValueError as error:
            raise FetchError(f'Get "{location}": {error}') from error
        if following.host != target.host:
            return Answer(status, body, left_host=True, url=target.url)
        target = following
    raise FetchError(f'Get "{target.url}": stopped after {_MAX_REDIRECTS} redirects')


async def _get(
    target: Target,
    headers: Sequence[tuple[str, str]],
    user_agent: str,
    max_body_bytes: int,
) -> tuple[int, dict[str, str], bytes]:
    request = build_request(target, headers, user_agent=user_agent)
    exchange = _Exchange(request, max_body_bytes)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(
            lambda: exchange,
            target.host,
            target.port,
            ssl=_TLS if target.scheme == "https" else None,
        )
        await exchange.done
        return exchange.answer()
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
    finally:
        exchange.abort()
        if exchange.done.done() and not exchange.done.cancelled():
            exchange.done.exception()


async def connect_and_leave(host: str, port: int) -> None:
    """Open a TCP connection and close it. The caller bounds the time.

    An address needs no transport for that, which is most of what a connection costs.

    Raises:
        OSError: nothing answers there.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:  # a name
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.abort()
        return
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(0)
        await _connect(connection, (host, port))


async def _connect(connection: socket.socket, address: tuple[str, int]) -> None:
    number = connection.connect_ex(address)
    if number == errno.EINPROGRESS:
        # On one machine the answer is there already, and the loop need not wait.
        number = connection.connect_ex(address)
    if number in {errno.EINPROGRESS, errno.EALREADY}:
        await asyncio.get_running_loop().sock_connect(connection, address)
    elif number not in {0, errno.EISCONN}:
        raise OSError(number, os.strerror(number))


def describe_dial(target: Target, error: OSError) -> str:
    """Return a connection fault in Go's words."""
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {target.address}: connect: connection refused"
    if isinstance(error, ConnectionResetError):
        return f"read tcp {target.address}: read: connection reset by peer"
    text = (error.strerror or str(error)).lower()
    return f"dial tcp {target.address}: connect: {text}"
