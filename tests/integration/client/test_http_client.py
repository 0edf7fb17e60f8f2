"""The API client on real sockets: verbs, errors, TLS, watches of any line length."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import NODE, POD
from podyard.client import http as http_module
from podyard.client.connection import ApiConnection, CredentialsError
from podyard.client.http import HttpApiClient
from podyard.client.services import ApiUnreachableError, PatchType, WatchEvent
from support.certificates import make_authority, make_leaf
from support.stub_api import StubApi, bookmark, serving

pytestmark = pytest.mark.integration

WEB: Document = {"metadata": {"name": "web", "namespace": "default"}}


@pytest.mark.parametrize(
    ("call", "request_line", "body"),
    [
        pytest.param(
            lambda c: c.get(POD, "web", "default"),
            ("GET", "/api/v1/namespaces/default/pods/web"),
            None,
            id="get",
        ),
        pytest.param(
            lambda c: c.get(NODE, "n1"), ("GET", "/api/v1/nodes/n1"), None, id="node"
        ),
        pytest.param(lambda c: c.list(POD), ("GET", "/api/v1/pods"), None, id="list"),
        pytest.param(
            lambda c: c.create(POD, WEB),
            ("POST", "/api/v1/namespaces/default/pods"),
            WEB,
            id="create-in-the-documents-namespace",
        ),
        pytest.param(
            lambda c: c.update(POD, WEB),
            ("PUT", "/api/v1/namespaces/default/pods/web"),
            WEB,
            id="update",
        ),
        pytest.param(
            lambda c: c.update_status(POD, WEB),
            ("PUT", "/api/v1/namespaces/default/pods/web/status"),
            WEB,
            id="update-status",
        ),
        pytest.param(
            lambda c: c.patch(POD, "web", {"a": 1}, "default", subresource="status"),
            ("PATCH", "/api/v1/namespaces/default/pods/web/status"),
            {"a": 1},
            id="patch",
        ),
        pytest.param(
            lambda c: c.delete(
                POD,
                "web",
                "default",
                grace_period_s=0,
                uid="u1",
                propagation="Background",
            ),
            ("DELETE", "/api/v1/namespaces/default/pods/web"),
            {
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u1"},
                "propagationPolicy": "Background",
            },
            id="delete",
        ),
        pytest.param(
            lambda c: c.create_subresource(POD, "web", "binding", {"x": 1}, "default"),
            ("POST", "/api/v1/namespaces/default/pods/web/binding"),
            {"x": 1},
            id="binding",
        ),
        pytest.param(
            lambda c: c.get_subresource(POD, "web", "explain", "default"),
            ("GET", "/api/v1/namespaces/default/pods/web/explain"),
            None,
            id="get-subresource",
        ),
    ],
)
async def test_verbs_are_requests(
    api: StubApi,
    client: HttpApiClient,
    call: Callable[[HttpApiClient], Awaitable[object]],
    request_line: tuple[str, str],
    body: Document | None,
) -> None:
    await call(client)

    method, path, sent = api.requests[0]
    assert (method, path) == request_line
    assert sent == body


async def test_selectors_arrive_unharmed(api: StubApi, client: HttpApiClient) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        return web.json_response({})

    api.instead.append(answer)
    await client.list(POD, label_selector="a in (b,c),d!=e", field_selector="x=y+z&w")

    assert seen == [{"labelSelector": "a in (b,c),d!=e", "fieldSelector": "x=y+z&w"}]


@pytest.mark.parametrize("patch_type", list(PatchType))
async def test_patches_say_what_they_are(
    api: StubApi, client: HttpApiClient, patch_type: PatchType
) -> None:
    body: list[Document] = [{"op": "test", "path": "/a", "value": 1}]

    await client.patch(POD, "web", body, "default", patch_type=patch_type)

    assert api.headers[0]["Content-Type"] == str(patch_type)
    assert api.requests[0][2] == body


async def test_pages_become_one_list(api: StubApi, client: HttpApiClient) -> None:
    for number in range(7):
        api.put(f"p{number}")

    listed = await client.list(POD, limit=3)

    assert [item["metadata"]["name"] for item in listed["items"]] == [
        f"p{n}" for n in range(7)
    ]
    assert listed["metadata"] == {"resourceVersion": str(api.rev)}
    assert len(api.requests) == 3


async def test_pages_that_expire_are_asked_for_at_once(
    api: StubApi, client: HttpApiClient
) -> None:
    for number in range(5):
        api.put(f"p{number}")
    api.instead += [first_page, status(410, "Expired")]

    listed = await client.list(POD, limit=1)

    assert len(listed["items"]) == 5


async def first_page(request: web.Request) -> web.Response:
    return web.json_response({"metadata": {"continue": "x"}, "items": []})


def status(
    code: int, reason: str, **more: object
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        body = {"kind": "Status", "code": code, "reason": reason, "message": "why"}
        return web.json_response(body | more, status=code)

    return answer


async def test_a_status_becomes_an_api_error(
    api: StubApi, client: HttpApiClient
) -> None:
    api.instead.append(status(409, "AlreadyExists", details={"name": "web"}))

    with pytest.raises(ApiError) as told:
        await client.create(POD, WEB)

    error = told.value
    assert (error.code, error.reason, error.message) == (409, "AlreadyExists", "why")
    assert error.details == {"name": "web"}


async def test_an_answer_of_something_else_is_an_api_error_too(
    api: StubApi, client: HttpApiClient
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503, text="proxy says no\n" * 100)

    api.instead.append(answer)
    with pytest.raises(ApiError) as told:
        await client.get(POD, "web", "default")

    assert (told.value.code, told.value.reason) == (503, "ServiceUnavailable")
    assert len(told.value.message) < 300


async def test_no_json_is_no_answer(api: StubApi, client: HttpApiClient) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<html>s3cret")

    api.instead.append(answer)
    with pytest.raises(ApiUnreachableError) as told:
        await client.get(POD, "web", "default")

    assert "s3cret" not in str(told.value)


async def test_nobody_there_is_unreachable() -> None:
    async with HttpApiClient(ApiConnection("http://127.0.0.1:1")) as client:
        with pytest.raises(ApiUnreachableError, match=r"127\.0\.0\.1:1"):
            await client.get(POD, "web", "default")


async def test_a_silent_server_is_given_up(api: StubApi) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    api.instead.append(answer)
    async with HttpApiClient(ApiConnection(api.url), request_timeout_s=0.1) as client:
        with pytest.raises(ApiUnreachableError, match="in time"):
            await client.get(POD, "web", "default")


async def test_a_closed_client_is_unreachable(api: StubApi) -> None:
    async with HttpApiClient(ApiConnection(api.url)) as client:
        pass

    with pytest.raises(ApiUnreachableError, match="closed"):
        await client.get(POD, "web", "default")


async def test_raw_answers_are_bytes(api: StubApi, client: HttpApiClient) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"log of {request.query['container']}")

    api.instead.append(answer)

    assert await client.get_raw("/x/log", {"container": "c"}) == b"log of c"


async def test_many_requests_share_few_connections(
    api: StubApi, client: HttpApiClient
) -> None:
    peers = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({})

    api.instead += [answer] * 200
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(client.get(POD, "web", "default"))

    assert len(peers) <= http_module.IN_FLIGHT


# ── watches ─────────────────────────────────────────────────────────────────────


def stream(
    *chunks: bytes, end: bool = True
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answer with these chunks, each sent by itself; then end, or cut."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        if not end:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


async def read(client: HttpApiClient) -> list[WatchEvent]:
    return [event async for event in client.watch(POD, resource_version="5")]


def line(name: str, **spec: object) -> bytes:
    document = {"metadata": {"name": name, "resourceVersion": "9"}} | spec
    return orjson.dumps({"type": "ADDED", "object": document}) + b"\n"


async def test_lines_are_read_however_they_are_cut(
    api: StubApi, client: HttpApiClient
) -> None:
    both = line("a") + line("b", text="ä")
    api.instead.append(
        stream(*[both[i : i + 7] for i in range(0, len(both), 7)], b"\n", line("c"))
    )

    events = await read(client)

    assert [e.object["metadata"]["name"] for e in events] == ["a", "b", "c"]
    assert events[1].object["text"] == "ä"


async def test_a_line_may_be_long(api: StubApi, client: HttpApiClient) -> None:
    api.instead.append(stream(line("big", data="x" * 3_000_000)))

    (event,) = await read(client)

    assert len(event.object["data"]) == 3_000_000


async def test_an_error_event_is_raised(api: StubApi, client: HttpApiClient) -> None:
    api.compact_rev = 6

    with pytest.raises(ApiError) as told:
        await read(client)

    assert (told.value.code, told.value.reason) == (410, "Expired")


async def test_a_refused_watch_is_raised(api: StubApi, client: HttpApiClient) -> None:
    api.instead.append(status(403, "Forbidden"))

    with pytest.raises(ApiError, match="why"):
        await read(client)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((line("a"),), id="between-events"),
        pytest.param((line("a"), line("b")[:9]), id="within-an-event"),
    ],
)
async def test_a_cut_watch_tells_what_came_and_then_fails(
    api: StubApi, client: HttpApiClient, chunks: tuple[bytes, ...]
) -> None:
    api.instead.append(stream(*chunks, end=False))
    watch = client.watch(POD)

    first = await anext(watch)
    with pytest.raises(ApiUnreachableError):
        await anext(watch)

    assert first.object["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b'{"type":"ADDED","obj', id="half-an-event"),
        pytest.param(b"nonsense\n", id="no-json"),
        pytest.param(b"[]\n", id="no-event"),
        pytest.param(b'{"type":"ADDED","object":{}}\n', id="no-version"),
    ],
)
async def test_what_is_no_event_ends_the_watch(
    api: StubApi, client: HttpApiClient, tail: bytes
) -> None:
    api.instead.append(stream(line("a"), tail))

    with pytest.raises(ApiUnreachableError):
        await read(client)


async def test_a_silent_watch_ends_when_its_time_is_over(
    api: StubApi, client: HttpApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "WATCH_SLACK_S", -0.8)

    watch = client.watch(POD, resource_version="10", timeout_s=1)

    async with asyncio.timeout(5):
        with pytest.raises(ApiUnreachableError):
            await anext(watch)


async def test_a_left_watch_closes_its_connection(
    api: StubApi, client: HttpApiClient
) -> None:
    api.put("a")
    async with contextlib.aclosing(client.watch(POD)) as watch:
        await anext(watch)
        assert len(api.cuts) == 1

    async with asyncio.timeout(5):
        while api.cuts:
            await asyncio.sleep(0.01)


async def test_watch_parameters_arrive(api: StubApi, client: HttpApiClient) -> None:
    api.instead.append(stream(bookmark(7)))
    watch = client.watch(
        POD, "default", resource_version="5", field_selector="a=b", timeout_s=9
    )

    (event,) = [e async for e in watch]

    assert event.type == "BOOKMARK"
    path = api.requests[0][1]
    assert path.startswith("/api/v1/namespaces/default/pods?")
    for part in ("watch=true", "timeoutSeconds=9", "allowWatchBookmarks=true"):
        assert part in path


# ── who we are, and who they are ────────────────────────────────────────────────


async def test_a_token_is_sent(api: StubApi) -> None:
    async with HttpApiClient(ApiConnection(api.url, token="t0")) as client:
        await client.list(POD)

    assert api.headers[0]["Authorization"] == "Bearer t0"
    assert api.headers[0]["User-Agent"].startswith("podyard/")


async def test_a_token_file_is_read_again(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with HttpApiClient(ApiConnection(api.url, token_file=file)) as client:
        await client.list(POD)
        file.write_text("second\n")
        await client.list(POD)
        client._file_token_until_s = 0.0
        await client.list(POD)
        file.unlink()
        client._file_token_until_s = 0.0
        await client.list(POD)

    sent = [headers["Authorization"] for headers in api.headers]
    assert sent == ["Bearer first"] * 2 + ["Bearer second"] * 2


async def test_a_missing_token_file_is_told(api: StubApi, tmp_path: Path) -> None:
    connection = ApiConnection(api.url, token_file=tmp_path / "gone")
    async with HttpApiClient(connection) as client:
        with pytest.raises(ApiUnreachableError, match="gone"):
            await client.list(POD)


async def test_tls_verifies_the_server_and_shows_our_certificate(
    tmp_path: Path,
) -> None:
    authority, other = make_authority(), make_authority()
    server = make_leaf(authority, "server", "127.0.0.1")
    me = make_leaf(authority, "system:admin")
    (tmp_path / "server.pem").write_text(server.cert + server.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.cert)
    context.load_cert_chain(tmp_path / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    names = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert")
        names.append(peer["subject"][0][0][1])
        return web.json_response({})

    async with serving(StubApi(instead=[answer]), tls=context) as api:
        url = f"https://127.0.0.1:{api.port}"
        good = ApiConnection(
            url, ca_pem=authority.cert, client_cert_pem=me.cert, client_key_pem=me.key
        )
        async with HttpApiClient(good) as client:
            await client.list(POD)
        wrong = ApiConnection(
            url, ca_pem=other.cert, client_cert_pem=me.cert, client_key_pem=me.key
        )
        async with HttpApiClient(wrong) as client:
            with pytest.raises(ApiUnreachableError, match="certificate"):
                await client.list(POD)

    assert names == ["system:admin"]


async def test_unusable_credentials_are_told_without_showing_them() -> None:
    connection = ApiConnection(
        "https://a", client_cert_pem="no cert", client_key_pem="s3cret"
    )

    with pytest.raises(CredentialsError) as told:
        async with HttpApiClient(connection):
            pass

    assert "s3cret" not in str(told.value)


async def test_an_unusable_authority_is_told() -> None:
    with pytest.raises(CredentialsError, match="authority"):
        async with HttpApiClient(ApiConnection("https://a", ca_pem="nonsense")):
            pass
