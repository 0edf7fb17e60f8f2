"""Informers against a server that breaks, forgets and moves on."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from podyard.api.documents import Document
from podyard.api.scheme import POD
from podyard.client import informer as informer_module
from podyard.client.connection import ApiConnection
from podyard.client.http import HttpApiClient
from podyard.client.informer import Informer
from support.stub_api import StubApi, bookmark, serving

pytestmark = pytest.mark.integration


class Heard:
    """What an informer has told."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.pairs: list[tuple[Document | None, Document | None]] = []
        self.fail_on = ""

    def __call__(self, old: Document | None, new: Document | None) -> None:
        some = new or old
        assert some is not None
        name = some["metadata"]["name"]
        if name == self.fail_on:
            self.fail_on = ""
            raise RuntimeError(name)
        sign = "+" if old is None else "-" if new is None else "~"
        self.changes.append(sign + name)
        self.pairs.append((old, new))


@contextlib.asynccontextmanager
async def running(
    client: HttpApiClient, heard: Heard, *, field_selector: str = ""
) -> AsyncIterator[Informer]:
    informer = Informer(
        client,
        POD,
        on_change=heard,
        field_selector=field_selector,
        chance=random.Random(1),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        yield informer
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_exists_is_told_and_then_what_changes(
    api: StubApi, client: HttpApiClient
) -> None:
    api.put("a")
    heard = Heard()
    async with running(client, heard, field_selector="spec.nodeName=n1") as informer:
        assert heard.changes == ["+a"]
        assert informer.is_synced

        api.put("b")
        api.put("a", phase="Running")
        api.remove("b")
        await until(lambda: len(heard.changes) == 4)

        assert heard.changes == ["+a", "+b", "~a", "-b"]
        found = informer.get("default", "a")
        assert found is not None
        assert found["phase"] == "Running"
        assert informer.items() == (found,)
        assert informer.get("default", "b") is None
        assert informer.resource_version == str(api.rev)
        assert all("fieldSelector=spec.nodeName" in path for _, path, _ in api.requests)


async def test_listed_objects_say_what_they_are(
    api: StubApi, client: HttpApiClient
) -> None:
    api.put("a")
    async with running(client, Heard()) as informer:
        (found,) = informer.items()

    assert (found["kind"], found["apiVersion"]) == ("Pod", "v1")


async def test_a_deletion_is_told_with_the_last_state(
    api: StubApi, client: HttpApiClient
) -> None:
    api.put("a")
    heard = Heard()
    async with running(client, heard):
        api.remove("a")
        await until(lambda: len(heard.pairs) == 2)

    old, new = heard.pairs[-1]
    assert new is None
    assert old is not None
    assert old["metadata"]["resourceVersion"] == str(api.rev)


async def test_a_cut_watch_resumes_without_listing_and_misses_nothing(
    api: StubApi, client: HttpApiClient
) -> None:
    heard = Heard()
    async with running(client, heard):
        for round_number in range(5):
            await until(lambda: bool(api.cuts))
            api.put(f"p{round_number}")
            api.cut()
            api.put(f"q{round_number}")
        await until(lambda: len(heard.changes) == 10)

    assert heard.changes == [f"+{w}{n}" for n in range(5) for w in "pq"]
    assert api.count("GET", "limit=") == 1


async def test_lost_history_means_listing_once_and_telling_the_difference(
    api: StubApi, client: HttpApiClient
) -> None:
    for name in ("stays", "changes", "goes", "is-made-anew"):
        api.put(name)
    heard = Heard()
    async with running(client, heard) as informer:
        await until(lambda: bool(api.cuts))
        heard.changes.clear()
        # All of this happens while the watch is cut and is then compacted away.
        api.put("changes", phase="Running")
        api.remove("goes")
        api.remove("is-made-anew")
        api.put("is-made-anew")
        api.put("new")
        api.log.clear()
        api.compact_rev = api.rev
        api.cut()
        await until(lambda: len(heard.changes) == 5)

        assert sorted(heard.changes) == sorted(
            ["~changes", "-goes", "-is-made-anew", "+is-made-anew", "+new"]
        )
        assert len(informer.items()) == 4
        api.put("later")
        await until(lambda: "+later" in heard.changes)
    assert api.count("GET", "limit=") == 2


async def test_bookmarks_move_the_resume_point(
    api: StubApi, client: HttpApiClient
) -> None:
    api.bookmark_every_s = 0.02
    heard = Heard()
    async with running(client, heard) as informer:
        api.rev += 50
        await until(lambda: informer.resource_version == str(api.rev))
        # What came before the bookmark may be forgotten now: no list is needed.
        api.compact_rev = api.rev
        api.cut()
        api.put("after")
        await until(lambda: heard.changes == ["+after"])

    assert api.count("GET", "limit=") == 1


async def test_a_server_that_is_away_is_waited_for() -> None:
    heard = Heard()
    stub = StubApi()
    async with serving(stub):
        stub.put("a")
        client = HttpApiClient(ApiConnection(stub.url))
        await client.__aenter__()
        informer = Informer(client, POD, on_change=heard, chance=random.Random(1))
        group = asyncio.TaskGroup()
        await group.__aenter__()
        task = group.create_task(informer.run())
        await informer.wait_synced()
    stub.put("b")
    await asyncio.sleep(0.3)
    async with serving(stub):
        await until(lambda: heard.changes == ["+a", "+b"])
        task.cancel()
        await group.__aexit__(None, None, None)
        await client.close()

    # It resumed; a server that still has the history is not listed again.
    assert stub.count("GET", "limit=") == 1


async def test_a_server_that_ends_every_watch_at_once_is_not_hammered(
    api: StubApi, client: HttpApiClient
) -> None:
    async def end(request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def compacted(request: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": 410, "reason": "Expired", "message": "x"}
        return web.json_response(body, status=410)

    for answer in (end, compacted):
        async with running(client, Heard()):
            before = len(api.requests)

            async def always(
                request: web.Request,
                answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = answer,
            ) -> web.StreamResponse:
                if request.query.get("watch"):
                    return await answer(request)
                return api.list_all(request)

            api.instead += [always] * 1000
            api.cut()
            await asyncio.sleep(1.0)
            assert len(api.requests) - before < 20
            api.instead.clear()


async def test_a_failing_listener_ends_the_run_and_is_told_again(
    api: StubApi, client: HttpApiClient
) -> None:
    api.put("a")
    heard = Heard()
    heard.fail_on = "b"
    informer = Informer(client, POD, on_change=heard, chance=random.Random(1))

    async def run_twice() -> None:
        with pytest.raises(RuntimeError):
            await informer.run()
        assert informer.get("default", "b") is None
        await informer.run()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_twice())
        await informer.wait_synced()
        api.put("b")
        await until(lambda: "+b" in heard.changes)
        task.cancel()

    assert heard.changes == ["+a", "+b"]


async def test_a_half_open_connection_is_noticed(
    api: StubApi, client: HttpApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes silent without closing: the time of the watch ends it."""
    monkeypatch.setattr(informer_module, "WATCH_S", (1, 1))
    monkeypatch.setattr("podyard.client.http.WATCH_SLACK_S", -0.8)

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(bookmark(api.rev))
        await asyncio.sleep(60)
        return response

    heard = Heard()
    async with running(client, heard):
        await until(lambda: bool(api.cuts))
        api.instead.append(silent)
        api.cut()
        await until(lambda: not api.instead)
        api.put("a")
        await until(lambda: heard.changes == ["+a"])


async def test_fifty_watchers_hear_every_write_whatever_is_cut(
    api: StubApi, client: HttpApiClient
) -> None:
    chance = random.Random(3)
    logs = [Heard() for _ in range(50)]
    async with contextlib.AsyncExitStack() as stack:
        for heard in logs:
            await stack.enter_async_context(running(client, heard))
        for number in range(100):
            api.put(f"p{number % 10}", n=number)
            if number % 5 == 0:
                for cut in chance.sample(sorted(api.cuts, key=id), len(api.cuts) // 5):
                    cut()
            await asyncio.sleep(0.002)
        await until(lambda: all(len(h.pairs) == 100 for h in logs))

    for heard in logs:
        told = [new["n"] for _, new in heard.pairs if new is not None]
        assert told == list(range(100))
