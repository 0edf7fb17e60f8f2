"""A small API server on a real socket that does what a test tells it to."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from podyard.api.documents import Document


@dataclass
class StubApi:
    """One collection of one kind, with a log of changes; requests are kept."""

    port: int = 0
    rev: int = 10
    compact_rev: int = 0
    objects: dict[str, Document] = field(default_factory=dict)
    log: list[tuple[int, Document]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    #: Answers to give instead, first one first.
    instead: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(
        default_factory=list
    )
    bookmark_every_s: float = 60.0
    #: Called per watch; cuts it.
    cuts: set[Callable[[], None]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, *, uid: str = "", **spec: object) -> None:
        """Create or change an object."""
        self.rev += 1
        known = self.objects.get(name)
        kind = "MODIFIED" if known else "ADDED"
        metadata = {
            "name": name,
            "namespace": "default",
            "uid": uid or (known["metadata"]["uid"] if known else f"uid-{self.rev}"),
            "resourceVersion": str(self.rev),
        }
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata} | spec
        self.objects[name] = document
        self._tell(kind, document)

    def remove(self, name: str) -> None:
        """Delete an object."""
        self.rev += 1
        last = self.objects.pop(name)
        metadata = last["metadata"] | {"resourceVersion": str(self.rev)}
        self._tell("DELETED", last | {"metadata": metadata})

    def _tell(self, kind: str, document: Document) -> None:
        self.log.append((self.rev, {"type": kind, "object": document}))
        self.changed.set()
        self.changed = asyncio.Event()

    def cut(self) -> None:
        """Break every watch."""
        for cut in tuple(self.cuts):
            cut()

    def count(self, method: str, word: str = "") -> int:
        """Count the requests so far."""
        return sum(m == method and word in path for m, path, _ in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(
            (request.method, request.path_qs, orjson.loads(body) if body else None)
        )
        self.headers.append(dict(request.headers))
        if self.instead:
            return await self.instead.pop(0)(request)
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method == "GET":
            return self.list_all(request)
        return web.json_response({}, status=201)

    def list_all(self, request: web.Request) -> web.Response:
        """Answer with the objects, in pages if asked."""
        limit = int(request.query.get("limit", "0")) or 10**6
        start = int(request.query.get("continue", "0"))
        items = [self.objects[name] for name in sorted(self.objects)]
        metadata: Document = {"resourceVersion": str(self.rev)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        # As a real server does, items come without kind and apiVersion.
        bare = [
            {k: v for k, v in item.items() if k not in {"kind", "apiVersion"}}
            for item in items[start : start + limit]
        ]
        return web.json_response(
            {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": bare}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or "0")
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        assert transport is not None
        self.cuts.add(transport.abort)
        try:
            if since < self.compact_rev:
                await response.write(gone())
                return response
            while True:
                for rev, event in self.log:
                    if rev > since:
                        await response.write(orjson.dumps(event) + b"\n")
                        since = rev
                changed = self.changed
                if self.log and self.log[-1][0] > since:
                    continue
                try:
                    async with asyncio.timeout(self.bookmark_every_s):
                        await changed.wait()
                except TimeoutError:
                    since = self.rev
                    await response.write(bookmark(self.rev))
        except (ConnectionError, asyncio.CancelledError):
            return response
        finally:
            self.cuts.discard(transport.abort)


def gone() -> bytes:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}
    return orjson.dumps({"type": "ERROR", "object": status}) + b"\n"


def bookmark(rev: int) -> bytes:
    document = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(rev)},
    }
    return orjson.dumps({"type": "BOOKMARK", "object": document}) + b"\n"


@contextlib.asynccontextmanager
async def serving(
    api: StubApi, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[StubApi]:
    """Serve on ``api.port``, or on a free one."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", api.port))
    api.port = sock.getsockname()[1]
    await web.SockSite(runner, sock, ssl_context=tls).start()
    try:
        yield api
    finally:
        await runner.cleanup()
