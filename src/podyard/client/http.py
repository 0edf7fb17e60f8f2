"""``ApiClient`` over HTTP/1.1 and TLS: the only place that speaks to an API server."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog

from podyard import __version__
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import Kind
from podyard.client.connection import ApiConnection, build_ssl_context
from podyard.client.services import (
    ApiUnreachableError,
    Patch,
    PatchType,
    WatchEvent,
)

log = structlog.get_logger()

#: Seconds within which a connection must stand, and an ordinary answer be complete.
CONNECT_S: Final = 10.0
REQUEST_S: Final = 60.0
#: Seconds a watch may be silent beyond the time the server was asked to end it.
WATCH_SLACK_S: Final = 30.0
#: Ordinary requests under way at once; watches come on top.
IN_FLIGHT: Final = 32
#: A token file is read again after so many seconds.
TOKEN_AGE_S: Final = 60.0
#: Of an answer that is no Status, so much is shown.
_SHOWN_CHARACTERS: Final = 256
#: Dead peers are noticed after about a minute without traffic.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_JSON: Final = "application/json"


class HttpApiClient:
    """``ApiClient`` for one server, with a pool of connections; use ``async with``.

    Args:
        connection: where, and as whom.
        user_agent: what the server sees; ``podyard/<version>`` and this.
        request_timeout_s: seconds an ordinary request may take.
        in_flight: ordinary requests under way at once; watches come on top.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        user_agent: str = "",
        request_timeout_s: float = REQUEST_S,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._connection = connection
        self._server = connection.server.rstrip("/")
        self._user_agent = f"podyard/{__version__} {user_agent}".strip()
        self._request_timeout_s = request_timeout_s
        self._in_flight = asyncio.Semaphore(in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | None = None
        self._file_token = ""
        self._file_token_until_s = 0.0

    async def __aenter__(self) -> Self:
        if self._server.startswith("https:"):
            self._ssl = await asyncio.to_thread(build_ssl_context, self._connection)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._ssl or False, limit=0, keepalive_timeout=60
            ),
            headers={"User-Agent": self._user_agent, "Accept": _JSON},
            # Bodies are made here; compression costs more than loopback.
            skip_auto_headers=("Accept-Encoding",),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<HttpApiClient {self._server}>"

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._server

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        if self._session is not None:
            await self._session.close()

    # ── verbs ───────────────────────────────────────────────────────────────────

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        """Return one object."""
        return await self._document("GET", kind.path(namespace, name))

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        resource_version: str = "",
    ) -> Document:
        """Return the List document, with every page of it."""
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
        )
        path = kind.path(namespace)
        if not limit:
            return await self._document("GET", path, query=query)
        try:
            return await self._pages(path, {**query, "limit": str(limit)})
        except ApiError as error:
            if error.code != 410:
                raise
        # The pages outlived the history they came from: ask for all at once.
        return await self._document("GET", path, query=query)

    async def _pages(self, path: str, query: dict[str, str]) -> Document:
        first = page = await self._document("GET", path, query=query)
        items: list[Document] = list(first.get("items") or ())
        while token := (page.get("metadata") or {}).get("continue"):
            rest = {**query, "continue": token}
            # The token says which revision; asking for one as well is refused.
            rest.pop("resourceVersion", None)
            page = await self._document("GET", path, query=rest)
            items += page.get("items") or ()
        metadata = {
            name: value
            for name, value in (first.get("metadata") or {}).items()
            if name not in {"continue", "remainingItemCount"}
        }
        return {**first, "metadata": metadata, "items": items}

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int = 0,
        allow_bookmarks: bool = True,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Iterate over changes until the server ends the stream."""
        query = _query(
            watch="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            timeoutSeconds=str(timeout_s) if timeout_s else "",
            allowWatchBookmarks="true" if allow_bookmarks else "",
        )
        silence_s = timeout_s + WATCH_SLACK_S if timeout_s else None
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=silence_s
        )
        async with self._answer(
            "GET", kind.path(namespace), query=query, timeout=timeout
        ) as response:
            _keep_alive(response)
            async for line in _lines(response, self._server):
                yield _to_event(line, self._server)

    async def create(
        self,
        kind: Kind,
        document: Document,
        namespace: str = "",
        *,
        field_validation: str = "",
    ) -> Document:
        """Create an object."""
        where = namespace or _metadata(document).get("namespace") or ""
        query = _query(fieldValidation=field_validation)
        return await self._document(
            "POST", kind.path(where), query=query, body=document
        )

    async def update(
        self, kind: Kind, document: Document, namespace: str = ""
    ) -> Document:
        """Replace the object that ``document`` names."""
        return await self._put(kind, document, namespace, "")

    async def update_status(
        self, kind: Kind, document: Document, namespace: str = ""
    ) -> Document:
        """Replace the status of the object that ``document`` names."""
        return await self._put(kind, document, namespace, "status")

    async def update_subresource(
        self, kind: Kind, document: Document, subresource: str, namespace: str = ""
    ) -> Document:
        """PUT a subresource of the object that ``document`` names."""
        return await self._put(kind, document, namespace, subresource)

    async def _put(
        self, kind: Kind, document: Document, namespace: str, subresource: str
    ) -> Document:
        metadata = _metadata(document)
        where = namespace or metadata.get("namespace") or ""
        path = kind.path(where, metadata["name"], subresource)
        return await self._document("PUT", path, body=document)

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Patch,
        namespace: str = "",
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_validation: str = "",
    ) -> Document:
        """Patch an object, or one of its subresources."""
        path = kind.path(namespace, name, subresource)
        query = _query(fieldValidation=field_validation)
        return await self._document(
            "PATCH", path, query=query, body=patch, content_type=str(patch_type)
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "",
    ) -> Document:
        """Delete an object."""
        options: Document = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if preconditions := _query(uid=uid, resourceVersion=resource_version):
            options["preconditions"] = preconditions
        if propagation:
            options["propagationPolicy"] = propagation
        return await self._document("DELETE", kind.path(namespace, name), body=options)

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation: str = "",
    ) -> Document:
        """Delete the objects of a namespace that are selected."""
        options: Document = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if propagation:
            options["propagationPolicy"] = propagation
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        path = kind.path(namespace)
        return await self._document("DELETE", path, query=query, body=options)

    async def get_subresource(
        self, kind: Kind, name: str, subresource: str, namespace: str = ""
    ) -> Document:
        """Return a subresource that is a document."""
        return await self._document("GET", kind.path(namespace, name, subresource))

    async def create_subresource(
        self,
        kind: Kind,
        name: str,
        subresource: str,
        document: Document,
        namespace: str = "",
    ) -> Document:
        """POST to a subresource: ``binding``, ``token``, ``eviction``."""
        path = kind.path(namespace, name, subresource)
        return await self._document("POST", path, body=document)

    async def get_raw(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """GET any path and return the body."""
        return await self._request("GET", path, query=query, accept="*/*")

    # ── the wire ────────────────────────────────────────────────────────────────

    async def _document(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Patch | None = None,
        content_type: str = _JSON,
    ) -> Document:
        answer = await self._request(
            method, path, query=query, body=body, content_type=content_type
        )
        try:
            document = orjson.loads(answer)
        except ValueError as error:
            raise ApiUnreachableError(
                f"{self._server} answered {method} {path} with {len(answer)} bytes "
                "that are not JSON",
                server=self._server,
            ) from error
        if not isinstance(document, dict):
            raise ApiUnreachableError(
                f"{self._server} answered {method} {path} with no JSON object",
                server=self._server,
            )
        return document

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Patch | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(
            total=self._request_timeout_s, sock_connect=CONNECT_S
        )
        async with (
            self._in_flight,
            self._answer(
                method,
                path,
                query=query,
                body=body,
                content_type=content_type,
                accept=accept,
                timeout=timeout,
            ) as response,
        ):
            return await response.read()

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        body: Patch | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good answer; whatever else there is becomes one of our errors."""
        session = self._session
        if session is None or session.closed:
            raise ApiUnreachableError("the API client is closed", server=self._server)
        headers = {"Accept": accept, **await self._authorization()}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with session.request(
                method,
                self._server + path,
                params=query,
                data=None if body is None else orjson.dumps(body),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._connection.proxy_url or None,
                server_hostname=self._connection.tls_server_name or None,
            ) as response:
                if response.status >= 300:
                    raise _to_api_error(response.status, await response.read())
                yield response
        except TimeoutError as error:
            raise ApiUnreachableError(
                f"{self._server} did not answer {method} {path} in time",
                server=self._server,
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiUnreachableError(
                f"{self._server} cannot be reached: {_describe(error)}",
                server=self._server,
            ) from error

    async def _authorization(self) -> dict[str, str]:
        token = self._connection.token
        if self._connection.token_file is not None:
            token = await self._read_token() or token
        if not token or self._connection.client_cert_pem:
            return {}
        return {"Authorization": f"Bearer {token}"}

    async def _read_token(self) -> str:
        """Read the token file now and then: such tokens are renewed in place."""
        file = self._connection.token_file
        assert file is not None
        now_s = asyncio.get_running_loop().time()
        if not self._file_token or now_s >= self._file_token_until_s:
            try:
                self._file_token = (await asyncio.to_thread(file.read_text)).strip()
            except (OSError, UnicodeDecodeError) as error:
                if not self._file_token:
                    raise ApiUnreachableError(
                        f"the token file {file} cannot be read: {error}",
                        server=self._server,
                    ) from error
                log.warning("token_file_unreadable", file=str(file), error=str(error))
            self._file_token_until_s = now_s + TOKEN_AGE_S
        return self._file_token


def _query(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _metadata(document: Document) -> dict[str, Any]:
    metadata: dict[str, Any] = document.get("metadata") or {}
    return metadata


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel notice a peer that vanished during a silent watch."""
    transport = response.connection.transport if response.connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    for level, option, value in _KEEP_ALIVE:
        sock.setsockopt(level, option, value)


async def _lines(response: aiohttp.ClientResponse, server: str) -> AsyncIterator[bytes]:
    """Split the stream into lines of any length."""
    parts: list[bytes] = []
    async for chunk in response.content.iter_any():
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            line = b"".join((*parts, end))
            parts.clear()
            if line.strip():
                yield line
        if rest:
            parts.append(rest)
    if b"".join(parts).strip():
        raise ApiUnreachableError(
            f"{server} ended a watch in the middle of an event", server=server
        )


def _to_event(line: bytes, server: str) -> WatchEvent:
    try:
        event = orjson.loads(line)
        event_type, document = event["type"], event["object"]
        is_error = event_type == "ERROR"
        # Whoever follows a watch needs it to resume; better to stumble here.
        _ = is_error or document["metadata"]["resourceVersion"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiUnreachableError(
            f"{server} sent a watch event of {len(line)} bytes that cannot be read",
            server=server,
        ) from error
    if is_error:
        raise ApiError.from_status(document)
    return WatchEvent(event_type, document)


def _to_api_error(code: int, body: bytes) -> ApiError:
    try:
        status = orjson.loads(body)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return ApiError.from_status(status, code=code)
    return ApiError(code, _REASONS.get(code, ""), _shorten(body) or f"HTTP {code}")


_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def _shorten(body: bytes) -> str:
    text = body[: _SHOWN_CHARACTERS * 4].decode(errors="replace").strip()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
