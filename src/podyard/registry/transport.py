"""One request to a registry or token server, bounded in time and size.

No redirect is followed and no header is added here: what is sent is what the caller
wrote. Failures become the family in ``errors``; what was exchanged is told to whoever
listens, without anything secret.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import field
from types import TracebackType
from typing import Final, Self

import aiohttp

from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.registry.decide import MAX_WAIT_S, TryAgain, decide_retry
from podyard.registry.errors import (
    BadContentError,
    DnsError,
    NotARegistryError,
    RegistryError,
    TimedOutError,
    TlsError,
    UnreachableError,
)
from podyard.registry.words import (
    Origin,
    cut,
    looks_like_html,
    parse_origin,
    registry_words,
    show_url,
)

_MAX_ERROR_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, seconds.

    Attributes:
        connect_s: for a connection, name resolution included.
        header_s: from the request to the head of its answer.
        body_s: for the whole of a body.
        busy_s: before a request is made again, because the registry is busy or failed,
            all such waits of a request together; 0 asks once only.
    """

    connect_s: float = 10.0
    header_s: float = 30.0
    body_s: float = 60.0
    busy_s: float = MAX_WAIT_S


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, for people; nothing in it is secret.

    Attributes:
        url: without its query.
        sent: which kind of credential went along: ``nothing``, ``basic``, ``token`` or
            ``identity token``.
        status: ``None`` where there was no answer.
        note: the registry's own words, or why there was no answer.
    """

    method: str
    url: str
    sent: str
    status: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. Its repr hides what may be secret.

    Attributes:
        insecure: the server's certificate is not verified.
        ca: files with authorities to trust besides the system's.
        sent: what ``Exchange`` calls the credentials in it.
        limit: how many bytes of a good answer's body are taken.
    """

    method: str
    url: str
    insecure: bool = False
    ca: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    sent: str = "nothing"
    limit: int = _MAX_ERROR_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    challenges: tuple[str, ...]
    body: bytes = field(repr=False)
    origin: Origin

    @property
    def content_type(self) -> str:
        """What the body calls itself."""
        return self.headers.get("Content-Type", "")

    @property
    def words(self) -> str:
        """What the server says about an error."""
        return registry_words(self.body, self.content_type)

    @property
    def is_page(self) -> bool:
        """Whether it is a web page."""
        return looks_like_html(self.body, self.content_type)


class Transport:
    """Sends requests; use it as an async context manager."""

    def __init__(
        self,
        *,
        clock: Clock,
        timeouts: Timeouts,
        proxy_of: Callable[[str], str | None],
        on_exchange: Callable[[Exchange], None],
        user_agent: str,
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._proxy_of = proxy_of
        self._on_exchange = on_exchange
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[bool, tuple[str, ...]], ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        timeouts = self._timeouts
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # It would read netrc; proxies come from whoever made us.
            trust_env=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=timeouts.connect_s,
                sock_connect=timeouts.connect_s,
                sock_read=timeouts.header_s,
            ),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, request: Request) -> Answer:
        """Send a request, again where the answer says that helps.

        Raises:
            RegistryError: there was no usable answer; a bad status is an answer.
        """
        attempt, waited_s = 0, 0.0
        while True:
            attempt += 1
            try:
                answer = await self._ask_once(request)
            except _BrokenError:
                if attempt > 1:
                    raise
                continue
            decision = decide_retry(
                answer.status,
                attempt=attempt,
                retry_after=answer.headers.get("Retry-After", ""),
                waited_s=waited_s,
                most_s=self._timeouts.busy_s,
                now=self._clock.now(),
            )
            if not isinstance(decision, TryAgain):
                return answer
            await asyncio.sleep(decision.in_s)
            waited_s += decision.in_s

    async def _ask_once(self, request: Request) -> Answer:
        shown = show_url(request.url)
        try:
            answer = await self._send(request)
        except RegistryError as error:
            self._on_exchange(
                Exchange(request.method, shown, request.sent, error.status, str(error))
            )
            raise
        good = answer.status < 400
        note = "" if good else answer.words
        self._on_exchange(
            Exchange(request.method, shown, request.sent, answer.status, note)
        )
        return answer

    async def _send(self, request: Request) -> Answer:
        assert self._session is not None, "use it as a context manager"
        origin = parse_origin(request.url)
        context = await self._context(request, origin)
        try:
            async with asyncio.timeout(self._timeouts.header_s) as span:
                response = await self._session.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.form,
                    allow_redirects=False,
                    ssl=context,
                    proxy=self._proxy_of(request.url),
                )
                span.reschedule(None)
            async with response:
                body = await self._read(response, request, origin)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._failure(error, origin) from error
        return Answer(
            response.status,
            response.headers,
            tuple(response.headers.getall("WWW-Authenticate", ())),
            body,
            origin,
        )

    async def _read(
        self, response: aiohttp.ClientResponse, request: Request, origin: Origin
    ) -> bytes:
        """Return the body: all of a good answer's, the beginning of a bad one's."""
        good = response.status == 200
        limit = request.limit if good else _MAX_ERROR_BYTES
        parts: list[bytes] = []
        room = limit + 1
        if request.method == "HEAD":
            return b""
        if good and (response.content_length or 0) > limit:
            room = 0
        async with asyncio.timeout(self._timeouts.body_s):
            while room > 0:
                part = await response.content.read(min(room, _CHUNK_BYTES))
                if not part:
                    return b"".join(parts)
                parts.append(part)
                room -= len(part)
        # A connection with unread bytes in it is of no more use.
        response.close()
        if not good:
            return b"".join(parts)[:limit]
        raise BadContentError(
            f"{show_url(request.url)} is larger than {limit} bytes",
            host=str(origin),
            status=response.status,
        )

    async def _context(self, request: Request, origin: Origin) -> ssl.SSLContext | bool:
        if origin.scheme != "https":
            return True
        key = (request.insecure, request.ca)
        if key not in self._contexts:
            try:
                context = await asyncio.to_thread(_make_context, *key)
            except OSError as error:
                raise TlsError(
                    f"the certificate authorities for {origin} cannot be used: {error}",
                    host=str(origin),
                ) from error
            self._contexts[key] = context
        return self._contexts[key]

    def _failure(self, error: Exception, origin: Origin) -> RegistryError:
        host = str(origin)
        match error:
            case aiohttp.ClientConnectorDNSError() | socket.gaierror():
                return DnsError(f"the name {origin.host} has no address", host=host)
            case aiohttp.ClientConnectorCertificateError():
                why = getattr(error.certificate_error, "verify_message", "")
                return TlsError(
                    f"the certificate of {host} is not trusted "
                    f"({cut(why or str(error.certificate_error))})",
                    host=host,
                )
            case aiohttp.ClientSSLError() | ssl.SSLError():
                return TlsError(_no_tls(error, host), host=host)
            case aiohttp.ConnectionTimeoutError():
                return TimedOutError(
                    f"{host} does not accept a connection within "
                    f"{self._timeouts.connect_s:g} s",
                    host=host,
                )
            case TimeoutError():
                return TimedOutError(
                    f"{host} does not answer within {self._timeouts.header_s:g} s",
                    host=host,
                )
            case aiohttp.ClientResponseError():
                return NotARegistryError(
                    f"{host} does not speak HTTP ({cut(error.message)})", host=host
                )
            case (
                aiohttp.ServerDisconnectedError()
                | aiohttp.ClientPayloadError()
                | ConnectionResetError()
                | BrokenPipeError()
            ):
                return _BrokenError(f"{host} broke the connection off", host=host)
            case OSError() if error.strerror:
                return UnreachableError(
                    f"{host} cannot be reached: {error.strerror}", host=host
                )
            case _:
                return UnreachableError(
                    f"{host} cannot be reached: {type(error).__name__}", host=host
                )


class _BrokenError(UnreachableError):
    """The connection ended in the middle; a new one may live longer."""


def _no_tls(error: Exception, host: str) -> str:
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return (
            f"{host} does not speak TLS; if plain HTTP is meant, set insecure: true "
            "for this registry"
        )
    reason = getattr(error, "reason", None) or getattr(
        getattr(error, "os_error", None), "reason", None
    )
    return f"no TLS connection with {host} ({cut(str(reason or 'handshake failed'))})"


def _make_context(insecure: bool, authorities: tuple[str, ...]) -> ssl.SSLContext:  # noqa: FBT001 - the cache's key
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in authorities:
        context.load_verify_locations(cafile=file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
