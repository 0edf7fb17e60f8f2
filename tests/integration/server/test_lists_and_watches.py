"""Lists of one revision, watches that miss nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.api_server import CONFIG_MAPS, PODS, Running, config_map, pod

pytestmark = pytest.mark.integration

MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Lines:
    """The events of a watch."""

    def __init__(self, answer) -> None:
        self.answer = answer

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return json.loads(await self.answer.content.readline())

    async def kinds(self, count: int) -> list[tuple[str, str]]:
        seen = [await self.next() for _ in range(count)]
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in seen]

    async def rest(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            return [json.loads(line) async for line in self.answer.content]


@asynccontextmanager
async def watch(
    api: Running, path: str, *, accept: str = "application/json", **query: str
) -> AsyncIterator[Lines]:
    async with api.session.get(
        api.url + path, params={"watch": "true", **query}, headers={"Accept": accept}
    ) as answer:
        assert answer.status == 200, await answer.read()
        yield Lines(answer)


async def test_pages_are_of_one_revision(api: Running):
    for i in range(5):
        await api.make(CONFIG_MAPS, config_map(f"c{i}"))

    first = (await api.ask("GET", f"{CONFIG_MAPS}?limit=2")).json
    await api.make(CONFIG_MAPS, config_map("c9"))
    token = first["metadata"]["continue"]
    second = (await api.ask("GET", f"{CONFIG_MAPS}?limit=2&continue={token}")).json
    token = second["metadata"]["continue"]
    third = (await api.ask("GET", f"{CONFIG_MAPS}?limit=2&continue={token}")).json

    names = [i["metadata"]["name"] for p in (first, second, third) for i in p["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert first["metadata"]["remainingItemCount"] == 3
    assert "continue" not in third["metadata"]
    revs = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    assert len(revs) == 1


async def test_a_page_of_a_compacted_revision_is_expired(api: Running):
    for i in range(4):
        await api.make(CONFIG_MAPS, config_map(f"c{i}"))
    first = (await api.ask("GET", f"{CONFIG_MAPS}?limit=2")).json
    await api.make(CONFIG_MAPS, config_map("late"))
    await api.store.compact(api.store.current_rev)
    token = first["metadata"]["continue"]

    late = await api.ask("GET", f"{CONFIG_MAPS}?limit=9&continue={token}")
    onward = late.json["metadata"]["continue"]
    rest = await api.ask("GET", f"{CONFIG_MAPS}?limit=9&continue={onward}")

    assert (late.status, late.json["reason"]) == (410, "Expired")
    assert [i["metadata"]["name"] for i in rest.json["items"]] == ["c2", "c3", "late"]


async def test_selected_pages_are_full(api: Running):
    for i in range(6):
        body = config_map(f"c{i}")
        body["metadata"]["labels"] = {"odd": str(i % 2)}
        await api.make(CONFIG_MAPS, body)

    first = (await api.ask("GET", f"{CONFIG_MAPS}?labelSelector=odd%3D1&limit=2")).json

    assert [i["metadata"]["name"] for i in first["items"]] == ["c1", "c3"]
    assert first["metadata"]["continue"]
    assert "remainingItemCount" not in first["metadata"]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("resourceVersionMatch=Exact", 422, "unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "is forbidden for"),
        ("resourceVersionMatch=Any&resourceVersion=1", 422, "Unsupported value"),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("watch=1&sendInitialEvents=true", 422, "requires setting"),
        ("resourceVersion=x", 400, "invalid resource version"),
        ("limit=x", 400, 'parsing "x"'),
        ("continue=%21", 400, "continue key is not valid"),
        ("labelSelector=a%3D%3D%3Db", 400, "unable to parse requirement"),
        ("fieldSelector=spec.x%3D1", 400, "not a known field selector"),
        ("resourceVersion=99999", 504, "Too large resource version: 99999"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    api: Running, query: str, status: int, said: str
):
    answer = await api.ask("GET", f"{CONFIG_MAPS}?{query}")

    assert answer.status == status
    assert said in answer.json["message"]


async def test_an_unselectable_field_of_pods_is_named(api: Running):
    answer = await api.ask("GET", f"{PODS}?fieldSelector=spec.x%3D1")

    assert answer.json["message"] == "field label not supported: spec.x"


async def test_an_exact_revision_is_listed_as_it_was(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a"))
    rev = made["metadata"]["resourceVersion"]
    await api.make(CONFIG_MAPS, config_map("b"))

    query = f"resourceVersion={rev}&resourceVersionMatch=Exact"
    then = (await api.ask("GET", f"{CONFIG_MAPS}?{query}")).json

    assert [i["metadata"]["name"] for i in then["items"]] == ["a"]
    assert then["metadata"]["resourceVersion"] == rev


async def test_a_watch_without_a_revision_begins_with_what_is_there(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))

    async with watch(api, CONFIG_MAPS) as lines:
        assert await lines.kinds(1) == [("ADDED", "a")]
        await api.make(CONFIG_MAPS, config_map("b"))
        await api.ask(
            "PATCH", f"{CONFIG_MAPS}/b", {"data": {"x": "1"}}, content_type=MERGE
        )
        await api.ask("DELETE", f"{CONFIG_MAPS}/b")
        assert await lines.kinds(3) == [
            ("ADDED", "b"),
            ("MODIFIED", "b"),
            ("DELETED", "b"),
        ]


async def test_a_watch_from_a_revision_tells_only_what_came_after(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a"))
    await api.make(CONFIG_MAPS, config_map("b"))
    gone = await api.ask("DELETE", f"{CONFIG_MAPS}/a")
    assert gone.status == 200

    rev = made["metadata"]["resourceVersion"]
    async with watch(
        api, CONFIG_MAPS, resourceVersion=rev, timeoutSeconds="1"
    ) as lines:
        events = await lines.rest()

    assert [e["type"] for e in events] == ["ADDED", "DELETED"]
    revs = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert revs == sorted(revs)
    assert revs[0] > int(rev)


async def test_what_stops_matching_is_deleted_and_what_starts_is_added(api: Running):
    body = config_map("a")
    body["metadata"]["labels"] = {"x": "1"}
    await api.make(CONFIG_MAPS, body)

    async def label(value: str) -> None:
        patch = {"metadata": {"labels": {"x": value}}}
        await api.ask("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE)

    async with watch(api, CONFIG_MAPS, labelSelector="x=1") as lines:
        assert (await lines.next())["type"] == "ADDED"
        await label("2")
        left = await lines.next()
        await label("3")
        await label("1")
        back = await lines.next()

    assert left["type"] == "DELETED"
    assert left["object"]["metadata"]["labels"] == {"x": "1"}
    assert back["type"] == "ADDED"
    assert back["object"]["metadata"]["labels"] == {"x": "1"}


async def test_initial_events_end_with_a_bookmark(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))

    async with watch(
        api,
        CONFIG_MAPS,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    ) as lines:
        first, end = await lines.next(), await lines.next()

    assert first["type"] == "ADDED"
    assert end["type"] == "BOOKMARK"
    notes = end["object"]["metadata"]["annotations"]
    assert notes == {"k8s.io/initial-events-end": "true"}


async def test_a_bookmark_comes_before_the_end(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a"))
    other = await api.make(PODS, pod("p"))

    async with watch(
        api,
        CONFIG_MAPS,
        resourceVersion=made["metadata"]["resourceVersion"],
        allowWatchBookmarks="true",
        timeoutSeconds="1",
    ) as lines:
        events = await lines.rest()

    assert [e["type"] for e in events] == ["BOOKMARK"]
    told = int(events[0]["object"]["metadata"]["resourceVersion"])
    assert told >= int(other["metadata"]["resourceVersion"])


async def test_a_compacted_revision_is_an_error_event(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a"))
    await api.make(CONFIG_MAPS, config_map("b"))
    await api.make(CONFIG_MAPS, config_map("c"))
    await api.store.compact(api.store.current_rev)

    rev = str(int(made["metadata"]["resourceVersion"]) - 1)
    async with watch(api, CONFIG_MAPS, resourceVersion=rev) as lines:
        (event,) = await lines.rest()

    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410
    assert event["object"]["reason"] == "Expired"


async def test_tables_are_watched_row_by_row(api: Running):
    await api.make(PODS, pod("p"))

    async with watch(api, PODS, accept=TABLE) as lines:
        event = await lines.next()

    table = event["object"]
    assert table["kind"] == "Table"
    assert table["columnDefinitions"][0]["name"] == "Name"
    assert table["rows"][0]["cells"][:4] == ["p", "0/1", "Pending", "0"]
    assert table["rows"][0]["object"]["metadata"]["name"] == "p"


async def test_stopping_the_server_ends_watches_cleanly(api: Running):
    async with watch(api, CONFIG_MAPS) as lines:
        await api.server.stop()
        assert await lines.rest() == []


async def test_many_watches_see_the_same_change(api: Running):
    async with asyncio.TaskGroup() as group:

        async def follow() -> str:
            async with watch(api, CONFIG_MAPS) as lines:
                started.release()
                return (await lines.next())["object"]["metadata"]["name"]

        started = asyncio.Semaphore(0)
        tasks = [group.create_task(follow()) for _ in range(50)]
        for _ in tasks:
            await started.acquire()
        await api.make(CONFIG_MAPS, config_map("a"))

    assert [task.result() for task in tasks] == ["a"] * 50
