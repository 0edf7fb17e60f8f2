"""The Event recorder against a server that is there, away, or says no."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from podyard.client import events as events_module
from podyard.client.connection import ApiConnection
from podyard.client.events import EventRecorder, subject_of
from podyard.client.http import HttpApiClient
from podyard.client.services import PatchType
from support.stub_api import StubApi, serving

pytestmark = pytest.mark.integration

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "default",
        "uid": "u1",
        "resourceVersion": "7",
    },
}
CONTAINER = subject_of(POD, field_path="spec.containers{web}")


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        start = datetime(2026, 3, 1, 12, 0, 0, 500000, tzinfo=UTC)
        return start + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return 1000.0 + self.passed_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@contextlib.asynccontextmanager
async def recording(
    client: HttpApiClient, clock: HandClock
) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, component="kubelet", host="n1", clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        yield recorder
        task.cancel()


async def test_an_event_is_written_as_kubectl_shows_it(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async with recording(client, clock) as recorder:
        recorder.record(CONTAINER, "Normal", "Pulled", "Image is present")
        assert await recorder.flush(within_s=5)

    ((method, path, event),) = api.requests
    assert (method, path) == ("POST", "/api/v1/namespaces/default/events")
    assert event is not None
    name = event["metadata"].pop("name")
    assert name.startswith("web.")
    assert int(name.removeprefix("web."), 16) == int(clock.now().timestamp() * 1e9)
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "default"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "default",
            "name": "web",
            "uid": "u1",
            "resourceVersion": "7",
            "fieldPath": "spec.containers{web}",
        },
        "reason": "Pulled",
        "message": "Image is present",
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2026-03-01T12:00:00Z",
        "lastTimestamp": "2026-03-01T12:00:00Z",
        "count": 1,
        "type": "Normal",
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
    }


async def test_events_of_cluster_objects_go_to_the_default_namespace(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    node = subject_of({"kind": "Node", "metadata": {"name": "n1", "uid": "n1"}})
    async with recording(client, clock) as recorder:
        recorder.record(node, "Normal", "Starting", "Starting kubelet.")
        await recorder.flush(within_s=5)

    assert api.requests[0][1] == "/api/v1/namespaces/default/events"


async def test_a_repeated_event_raises_the_count_of_the_first(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async with recording(client, clock) as recorder:
        for _ in range(3):
            recorder.record(CONTAINER, "Warning", "BackOff", "Back-off restarting")
            clock.passed_s += 10
        await recorder.flush(within_s=5)

    created = api.requests[0][2]
    assert created is not None
    name = created["metadata"]["name"]
    assert [(m, p) for m, p, _ in api.requests[1:]] == [
        ("PATCH", f"/api/v1/namespaces/default/events/{name}")
    ] * 2
    assert api.headers[1]["Content-Type"] == str(PatchType.STRATEGIC)
    assert api.requests[2][2] == {
        "count": 3,
        "lastTimestamp": "2026-03-01T12:00:20Z",
        "message": "Back-off restarting",
    }


async def test_a_counted_event_that_expired_is_written_anew(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async with recording(client, clock) as recorder:
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        await recorder.flush(within_s=5)
        api.instead.append(refusing(404, "NotFound"))
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        await recorder.flush(within_s=5)

    assert [m for m, _, _ in api.requests] == ["POST", "PATCH", "POST", "PATCH"]
    first, second, last = (api.requests[n] for n in (0, 2, 3))
    assert first[2] is not None
    assert second[2] is not None
    assert last[2] is not None
    assert first[2]["metadata"]["name"] != second[2]["metadata"]["name"]
    assert last[1].endswith(second[2]["metadata"]["name"])
    assert last[2]["count"] == 2


async def test_many_similar_events_are_combined(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async with recording(client, clock) as recorder:
        for number in range(15):
            recorder.record(CONTAINER, "Warning", "Failed", f"reason {number}")
        await recorder.flush(within_s=5)

    assert api.count("POST") == 10
    assert api.count("PATCH") == 5
    last = api.requests[-1][2]
    assert last is not None
    assert last["count"] == 6
    assert last["message"] == "(combined from similar events): reason 14"


async def test_a_flood_is_held_back(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async with recording(client, clock) as recorder:
        for _ in range(100):
            recorder.record(CONTAINER, "Warning", "Unhealthy", "probe failed")
        await recorder.flush(within_s=5)

    assert len(api.requests) == 25


def refusing(
    code: int, reason: str, **details: object
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = {
            "kind": "Status",
            "code": code,
            "reason": reason,
            "message": "no",
            "details": details,
        }
        return web.json_response(body, status=code)

    return answer


async def test_a_refused_event_is_logged_and_the_next_one_written(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    api.instead.append(refusing(403, "Forbidden"))
    with capture_logs() as logs:
        async with recording(client, clock) as recorder:
            recorder.record(CONTAINER, "Normal", "One", "m")
            recorder.record(CONTAINER, "Normal", "Two", "m")
            assert await recorder.flush(within_s=5)

    assert [entry["event"] for entry in logs] == ["event_lost"]
    assert logs[0]["reason"] == "One"
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("refusal", "level"),
    [
        pytest.param(
            refusing(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]),
            "debug",
            id="namespace-goes",
        ),
        pytest.param(
            refusing(404, "NotFound", kind="namespaces"), "debug", id="namespace-gone"
        ),
        pytest.param(refusing(404, "NotFound"), "warning", id="not-found"),
        pytest.param(
            refusing(403, "Forbidden", causes=[{"reason": "Other"}]),
            "warning",
            id="forbidden",
        ),
    ],
)
async def test_only_events_that_had_a_place_are_missed(
    api: StubApi,
    client: HttpApiClient,
    clock: HandClock,
    refusal: Callable[[web.Request], Awaitable[web.StreamResponse]],
    level: str,
) -> None:
    api.instead.append(refusal)
    with capture_logs() as logs:
        async with recording(client, clock) as recorder:
            recorder.record(CONTAINER, "Normal", "One", "m")
            assert await recorder.flush(within_s=5)

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("event_lost", level)
    ]


async def test_an_answer_that_was_lost_does_not_double_the_event(
    api: StubApi, client: HttpApiClient, clock: HandClock
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    api.instead += [cut, refusing(409, "AlreadyExists")]
    async with recording(client, clock) as recorder:
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        assert await recorder.flush(within_s=5)

    first, second, third = api.requests
    assert first[2] == second[2]
    assert third[0] == "PATCH"


async def test_events_wait_while_the_api_is_away(clock: HandClock) -> None:
    stub = StubApi()
    async with serving(stub):
        pass
    async with (
        HttpApiClient(ApiConnection(stub.url)) as client,
        recording(client, clock) as recorder,
    ):
        recorder.record(CONTAINER, "Normal", "Pulled", "m")
        assert not await recorder.flush(within_s=0.1)
        async with serving(stub):
            assert await recorder.flush(within_s=5)

    assert stub.count("POST") == 1


async def test_events_are_given_up_when_the_api_is_away_too_long(
    clock: HandClock,
) -> None:
    with capture_logs() as logs:
        async with (
            HttpApiClient(ApiConnection("http://127.0.0.1:1")) as client,
            recording(client, clock) as recorder,
        ):
            recorder.record(CONTAINER, "Normal", "Pulled", "m")
            clock.passed_s += events_module.GIVE_UP_AFTER_S
            assert await recorder.flush(within_s=5)

    assert logs[0]["event"] == "event_lost"
    assert logs[0]["about"] == "Pod default/web"


async def test_recording_never_blocks_and_drops_the_oldest(
    clock: HandClock, client: HttpApiClient
) -> None:
    recorder = EventRecorder(client, component="kubelet", host="n1", clock=clock)

    with capture_logs() as logs:
        for number in range(events_module.QUEUE_EVENTS + 3):
            recorder.record(CONTAINER, "Normal", f"R{number}", "m")

    assert [entry["reason"] for entry in logs] == ["R0", "R1", "R2"]
