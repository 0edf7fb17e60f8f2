"""An OCI registry in memory on a loopback socket, well-behaved until told otherwise.

It takes pushes and answers pulls as the distribution specification has it, with no,
basic or token authentication; then faults can be laid on it. It earns its place by
passing the same tests as a real registry (``tests/contract/test_registry.py``).
"""

import asyncio
import base64
import binascii
import hashlib
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from enum import StrEnum
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import parse_qs

from aiohttp import web

from podyard.lib.values import dataclass

_CHUNK_BYTES: Final = 64 * 1024
_WEB_PAGE: Final = "<!DOCTYPE html><html><body>Please accept our terms.</body></html>"


class On(StrEnum):
    """Which requests a fault meets."""

    ANY = "any"
    PING = "ping"
    MANIFEST = "manifest"
    BLOB = "blob"
    TOKEN = "token"  # noqa: S105 - a kind of request


class Kind(StrEnum):
    """What goes wrong."""

    STATUS = "status"
    WEB_PAGE = "web page"
    HANG = "hang"
    TRICKLE = "trickle"
    DISCONNECT = "disconnect"
    TRUNCATE = "truncate"
    WRONG_BYTES = "wrong bytes"
    LYING_DIGEST = "lying digest"
    REDIRECT = "redirect"
    REALM = "realm"
    HUGE = "huge"


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        on: which requests it meets.
        kind: what happens.
        times: how often; ``None`` for ever.
        status: of ``STATUS``.
        headers: sent along with ``STATUS``.
        body: of ``STATUS``; a registry's error document by default.
        location: prefix that ``REDIRECT`` sends to (the path follows), or the realm
            that ``REALM`` names.
    """

    on: On
    kind: Kind
    times: int | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    location: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in, with everything a careless client would have leaked."""

    method: str
    path: str
    authorization: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """User and password with every request."""

    users: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """Bearer tokens.

    Attributes:
        users: names and passwords.
        identity_tokens: refresh tokens that are good for a token.
        realm: where tokens come from; this registry's ``/token`` by default.
        anonymous: a token is given without credentials too, and lets pull.
        lives_s: what ``expires_in`` says, seconds.
    """

    users: Mapping[str, str]
    identity_tokens: tuple[str, ...] = ()
    realm: str = ""
    anonymous: bool = False
    lives_s: int = 300


Auth: TypeAlias = BasicAuth | TokenAuth | None
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeRegistry:
    """A registry; use it as an async context manager.

    Attributes:
        faults: what goes wrong now; the first that fits a request counts.
        seen: every request since the start, in order.
    """

    def __init__(
        self,
        *,
        auth: Auth = None,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Describe it; nothing listens yet.

        Args:
            auth: who may do what; ``None`` lets everybody.
            tls: a server context; plain HTTP without.
            address: on which to listen.
        """
        self.auth = auth
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self._tls = tls
        self._address = address
        self._port = 0
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._uploads: dict[str, bytearray] = {}
        self._tokens: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()

    @property
    def host(self) -> str:
        """Host and port, as image names have them."""
        return f"{self._address}:{self._port}"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    @property
    def realm(self) -> str:
        """Where its tokens come from."""
        own = f"{self.url}/token"
        return (self.auth.realm or own) if isinstance(self.auth, TokenAuth) else own

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Listen; after a :meth:`stop` on the same port, with all that was there."""
        app = web.Application(client_max_size=1 << 30, middlewares=[self._door])
        add = app.router.add_route
        add("*", "/token", self._token)
        add("GET", "/v2/", self._ping)
        add("GET", r"/v2/{name:.+}/tags/list", self._tags)
        add("GET", r"/v2/{name:.+}/manifests/{reference}", self._get_manifest)
        add("PUT", r"/v2/{name:.+}/manifests/{reference}", self._put_manifest)
        add("POST", r"/v2/{name:.+}/blobs/uploads/", self._begin_upload)
        add("PATCH", r"/v2/{name:.+}/blobs/uploads/{upload}", self._upload_part)
        add("PUT", r"/v2/{name:.+}/blobs/uploads/{upload}", self._end_upload)
        add("GET", r"/v2/{name:.+}/blobs/{digest}", self._get_blob)
        for kind in ("manifests/{reference}", "blobs/{digest}"):
            handler = self._get_manifest if kind[0] == "m" else self._get_blob
            add("HEAD", rf"/v2/{{name:.+}}/{kind}", handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self._address, self._port, ssl_context=self._tls
        )
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Die: what is under way is cut off, and nobody listens any more."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fault(self, on: On, kind: Kind, **details: object) -> Fault:
        """Lay a fault on it; the newest that fits a request counts."""
        made = Fault(on, kind, **details)  # type: ignore[arg-type] # its own fields
        self.faults.insert(0, made)
        return made

    def heal(self) -> None:
        """Take all faults away, and let what hangs go."""
        self.faults.clear()
        self._released.set()
        self._released = asyncio.Event()

    def forget_tokens(self) -> None:
        """Make every token given so far worthless."""
        self._tokens.clear()

    def credentials_seen(self) -> list[str]:
        """Return all that came in as credentials: headers, and bodies of forms."""
        return [text for seen in self.seen for text in (seen.authorization, seen.body)]

    # -- what is in it

    def put_blob(self, data: bytes) -> str:
        """Have a blob; return its digest."""
        digest = _digest(data)
        self._blobs[digest] = data
        return digest

    def put_manifest(self, name: str, tag: str, data: bytes, media_type: str) -> str:
        """Have a manifest under a tag (none when empty) and its digest; return that."""
        digest = _digest(data)
        self._manifests[name, digest] = (media_type, data)
        if tag:
            self._manifests[name, tag] = (media_type, data)
        return digest

    # -- every request

    @web.middleware
    async def _door(
        self, request: web.Request, handler: _Handler
    ) -> web.StreamResponse:
        is_form = request.path == "/token" and request.method == "POST"
        body = await request.text() if is_form else ""
        authorization = request.headers.get("Authorization", "")
        self.seen.append(Seen(request.method, request.path_qs, authorization, body))
        on = _kind_of(request)
        fault = self._pick(on)
        if fault is not None and fault.kind is Kind.REALM:
            if not authorization and on is not On.TOKEN:
                return self._challenge(f'Bearer realm="{fault.location}",service="x"')
        elif fault is not None:
            answer = await self._suffer(fault, request)
            if answer is not None:
                return answer
        if on is not On.TOKEN and not self._may(request):
            return self._unauthorized()
        return await handler(request)

    def _pick(self, on: On) -> Fault | None:
        for fault in self.faults:
            if fault.on not in {On.ANY, on} or fault.times == 0:
                continue
            if fault.kind in {Kind.TRUNCATE, Kind.WRONG_BYTES, Kind.LYING_DIGEST}:
                continue  # met where the body is written
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

    def _body_fault(self, on: On, *kinds: Kind) -> Fault | None:
        for fault in self.faults:
            if fault.on in {On.ANY, on} and fault.kind in kinds and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _suffer(
        self, fault: Fault, request: web.Request
    ) -> web.StreamResponse | None:
        match fault.kind:
            case Kind.STATUS:
                body = fault.body
                if body is None:
                    body = _error_body("DENIED", f"scripted {fault.status}")
                return web.Response(
                    status=fault.status,
                    text=body,
                    headers={"Content-Type": "application/json"} | dict(fault.headers),
                )
            case Kind.WEB_PAGE:
                return web.Response(text=_WEB_PAGE, content_type="text/html")
            case Kind.HANG:
                await self._released.wait()
                return None
            case Kind.TRICKLE:
                return await self._trickle(request)
            case Kind.DISCONNECT:
                assert request.transport is not None
                request.transport.abort()
                return web.Response(status=500)
            case Kind.REDIRECT:
                location = f"{fault.location}{request.path_qs}"
                return web.Response(status=307, headers={"Location": location})
            case Kind.HUGE:
                return web.Response(
                    body=b" " * (20 * 1024 * 1024),
                    content_type="application/vnd.oci.image.manifest.v1+json",
                )
            case _:
                return None

    async def _trickle(self, request: web.Request) -> web.StreamResponse:
        """Send a byte now and then, for ever."""
        answer = web.StreamResponse(headers={"Content-Length": "1000000"})
        await answer.prepare(request)
        released = self._released
        while not released.is_set():
            await answer.write(b" ")
            try:
                async with asyncio.timeout(0.2):
                    await released.wait()
            except TimeoutError:
                continue
        return answer

    # -- who may

    def _may(self, request: web.Request) -> bool:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        match self.auth:
            case None:
                return True
            case BasicAuth(users):
                user = _basic_user(value, users)
                return scheme.lower() == "basic" and bool(user)
            case TokenAuth():
                return scheme.lower() == "bearer" and value in self._tokens

    def _unauthorized(self) -> web.Response:
        if isinstance(self.auth, TokenAuth):
            return self._challenge(f'Bearer realm="{self.realm}",service="fake"')
        return self._challenge('Basic realm="fake"')

    @staticmethod
    def _challenge(header: str) -> web.Response:
        return web.Response(
            status=401,
            text=_error_body("UNAUTHORIZED", "authentication required"),
            content_type="application/json",
            headers={"WWW-Authenticate": header},
        )

    async def _token(self, request: web.Request) -> web.Response:
        auth = self.auth
        if not isinstance(auth, TokenAuth):
            return _error(404, "UNSUPPORTED", "there are no tokens here")
        if request.method == "POST":
            form = parse_qs(await request.text())
            good = form.get("refresh_token", [""])[0] in auth.identity_tokens
        else:
            _, _, value = request.headers.get("Authorization", "").partition(" ")
            anonymous = auth.anonymous and not value
            good = anonymous or bool(_basic_user(value, auth.users))
        if not good:
            return _error(401, "UNAUTHORIZED", "wrong user or password")
        token = secrets.token_hex(16)
        self._tokens.add(token)
        key = "access_token" if request.method == "POST" else "token"
        return web.json_response({key: token, "expires_in": auth.lives_s})

    # -- what a registry does

    async def _ping(self, request: web.Request) -> web.Response:
        headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
        return web.json_response({}, headers=headers)

    async def _tags(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        tags = sorted(ref for repo, ref in self._manifests if repo == name)
        if not tags:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        named = [tag for tag in tags if ":" not in tag]
        return web.json_response({"name": name, "tags": named})

    async def _get_manifest(self, request: web.Request) -> web.StreamResponse:
        name, reference = request.match_info["name"], request.match_info["reference"]
        found = self._manifests.get((name, reference))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = found
        digest = _digest(data)
        if self._body_fault(On.MANIFEST, Kind.LYING_DIGEST):
            digest = _digest(data + b"x")
        headers = {
            "Content-Type": media_type,
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
        }
        return await self._send(request, On.MANIFEST, data, headers)

    async def _put_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        data = await request.read()
        digest = _digest(data)
        if ":" in reference and reference != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match")
        try:
            document = json.loads(data)
        except ValueError:
            return _error(400, "MANIFEST_INVALID", "manifest invalid")
        needed = [document.get("config") or {}, *(document.get("layers") or [])]
        missing = [item for item in needed if item.get("digest") not in self._blobs]
        if document.get("layers") is not None and missing:
            return _error(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
        tag = "" if ":" in reference else reference
        self.put_manifest(name, tag, data, request.content_type)
        headers = {
            "Location": f"/v2/{name}/manifests/{digest}",
            "Docker-Content-Digest": digest,
        }
        return web.Response(status=201, headers=headers)

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        data = self._blobs.get(request.match_info["digest"])
        if data is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": request.match_info["digest"],
            "Accept-Ranges": "bytes",
        }
        return await self._send(request, On.BLOB, data, headers)

    async def _send(
        self, request: web.Request, on: On, data: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        if request.method == "HEAD":
            headers["Content-Length"] = str(len(data))
            return web.Response(headers=headers)
        if self._body_fault(on, Kind.WRONG_BYTES):
            data = bytes([data[0] ^ 1]) + data[1:]
        status, part = 200, data
        asked = request.http_range
        if asked.start and on is On.BLOB:
            status, part = 206, data[asked.start : asked.stop]
            end = asked.start + len(part) - 1
            headers["Content-Range"] = f"bytes {asked.start}-{end}/{len(data)}"
        headers["Content-Length"] = str(len(part))
        answer = web.StreamResponse(status=status, headers=headers)
        cut_off = self._body_fault(on, Kind.TRUNCATE) is not None
        whole = part[: len(part) // 2] if cut_off else part
        try:
            await answer.prepare(request)
            for at in range(0, len(whole), _CHUNK_BYTES):
                await answer.write(whole[at : at + _CHUNK_BYTES])
            if cut_off and request.transport is not None:
                # What was written leaves first; then the connection ends.
                request.transport.close()
            elif not cut_off:
                await answer.write_eof()
        except ConnectionResetError:
            pass  # whoever asked has gone
        return answer

    async def _begin_upload(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        data = await request.read()
        digest = request.query.get("digest", "")
        if digest:
            return self._keep(name, data, digest)
        upload = secrets.token_hex(8)
        self._uploads[upload] = bytearray()
        return self._upload_accepted(name, upload)

    async def _upload_part(self, request: web.Request) -> web.Response:
        name, upload = request.match_info["name"], request.match_info["upload"]
        if upload not in self._uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")
        self._uploads[upload] += await request.read()
        return self._upload_accepted(name, upload)

    async def _end_upload(self, request: web.Request) -> web.Response:
        name, upload = request.match_info["name"], request.match_info["upload"]
        begun = self._uploads.pop(upload, None)
        if begun is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")
        data = bytes(begun) + await request.read()
        return self._keep(name, data, request.query.get("digest", ""))

    def _upload_accepted(self, name: str, upload: str) -> web.Response:
        end = max(0, len(self._uploads[upload]) - 1)
        headers = {
            "Location": f"{self.url}/v2/{name}/blobs/uploads/{upload}",
            "Docker-Upload-UUID": upload,
            "Range": f"0-{end}",
        }
        return web.Response(status=202, headers=headers)

    def _keep(self, name: str, data: bytes, digest: str) -> web.Response:
        if _digest(data) != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match")
        self._blobs[digest] = data
        headers = {
            "Location": f"/v2/{name}/blobs/{digest}",
            "Docker-Content-Digest": digest,
        }
        return web.Response(status=201, headers=headers)


def _kind_of(request: web.Request) -> On:
    if request.path == "/token":
        return On.TOKEN
    if "/manifests/" in request.path:
        return On.MANIFEST
    return On.BLOB if "/blobs/" in request.path else On.PING


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _basic_user(value: str, users: Mapping[str, str]) -> str:
    try:
        user, _, password = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return user if users.get(user) == password and user in users else ""


def _error_body(code: str, message: str) -> str:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]})


def _error(status: int, code: str, message: str) -> web.Response:
    return web.Response(
        status=status, text=_error_body(code, message), content_type="application/json"
    )
