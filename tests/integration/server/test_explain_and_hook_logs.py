"""``pods/explain`` and ``pods/hooklog``: who may, what the node is asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from podyard.api.identity import User
from podyard.server.app import Gates
from podyard.server.authz.chain import refusal
from podyard.server.build import RequestInfo
from support.api_server import NAMESPACE, PODS, Everybody, Running, api_server, pod

pytestmark = pytest.mark.integration

BODY = b'{"kind": "PodExplanation"}'


@dataclass
class Someone(Everybody):
    """May do everything but what is listed: ``resource/subresource name``."""

    denied: set[str] = field(default_factory=set)

    async def check(self, user: User, info: RequestInfo) -> None:
        what = "/".join(filter(None, (info.resource, info.subresource)))
        if {what, f"{what} {info.name}"} & self.denied:
            raise refusal(user, info)


@dataclass
class Bench:
    api: Running
    someone: Someone
    asked: list[str] = field(default_factory=list)

    async def explain(self, name: str = "p", query: str = "") -> tuple[int, str]:
        """Ask; return the status and the last path the node was asked for."""
        answer = await self.api.ask("GET", f"{PODS}/{name}/explain{query}")
        return answer.status, self.asked[-1] if self.asked else ""


def secret_env(name: str, secret: str) -> dict:
    reference = {"name": secret, "key": "k"}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    someone = Someone()
    async with api_server(tmp_path, gates=Gates(someone, someone)) as api:
        found = Bench(api, someone)

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found.asked.append(head.split(" ")[1])
            length = f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + length.encode() + BODY)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            status = {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            }
            await api.make(NAMESPACE, {"metadata": {"name": "default"}})
            await api.make(
                "/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status}
            )
            document = pod("p", nodeName="n1")
            document["spec"]["containers"][0] |= {
                "env": [secret_env("A", "one"), secret_env("B", "two")],
                "envFrom": [{"secretRef": {"name": "three"}}],
            }
            await api.make(PODS, document)
            await api.make(PODS, pod("unbound"))
            yield found


async def test_the_node_is_asked_for_the_parts_that_are_wanted(bench: Bench):
    assert await bench.explain() == (200, "/explain/default/p")
    assert await bench.explain(query="?part=pulls&part=hooks") == (
        200,
        "/explain/default/p?part=pulls&part=hooks",
    )


async def test_secrets_are_shown_one_by_one_to_those_who_may_get_them(bench: Bench):
    bench.someone.denied = {"secrets two"}

    answer = await bench.api.ask("GET", f"{PODS}/p/explain?showSecrets=true")

    assert bench.asked[-1] == "/explain/default/p?showSecret=one&showSecret=three"
    assert 'values of secret \\"two\\" stay hidden' in answer.headers["Warning"]


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="not-asked"),
        pytest.param("?showSecret=one", id="the-nodes-own-word"),
        pytest.param("?showSecrets=false", id="asked-not-to"),
    ],
)
async def test_secrets_are_not_shown_unasked(bench: Bench, query: str):
    assert await bench.explain(query=query) == (200, "/explain/default/p")


async def test_the_node_proxy_shows_no_secret(bench: Bench):
    path = "/api/v1/nodes/n1/proxy/explain/default/p"

    await bench.api.ask("GET", f"{path}?showSecret=one&part=environment")
    first = bench.asked[-1]
    await bench.api.ask("GET", f"{path.replace('explain', '%65xplain')}?showSecret=one")

    assert first == "/explain/default/p?part=environment"
    assert bench.asked[-1] == "/explain/default/p"


async def test_a_pod_that_is_gone_is_asked_for_at_the_only_node(bench: Bench):
    assert await bench.explain("gone") == (200, "/explain/default/gone")

    await bench.api.make("/api/v1/nodes", {"metadata": {"name": "n2"}})
    bench.asked.clear()

    assert await bench.explain("gone") == (404, "")
    assert await bench.explain("gone", "?node=n1") == (200, "/explain/default/gone")


async def test_a_pod_without_a_node_has_no_records(bench: Bench):
    answer = await bench.api.ask("GET", f"{PODS}/unbound/explain")

    assert (answer.status, answer.json["hooks"], bench.asked) == (200, [], [])


@pytest.mark.parametrize(
    ("denied", "subresource", "allowed"),
    [
        pytest.param("pods/explain", "explain", False, id="explain"),
        pytest.param("pods/log", "explain", True, id="explain-needs-no-log"),
        pytest.param("pods/hooklog", "hooklog", False, id="hook-log"),
        pytest.param("pods/log", "hooklog", False, id="hook-log-needs-log-too"),
        pytest.param("pods/exec", "hooklog", True, id="hook-log-needs-no-more"),
    ],
)
async def test_each_needs_its_own_permission(
    bench: Bench, denied: str, subresource: str, allowed: bool
):
    bench.someone.denied = {denied}

    answer = await bench.api.ask("GET", f"{PODS}/p/{subresource}")

    assert answer.status == (200 if allowed else 403)
    assert bool(bench.asked) is allowed


async def test_a_hook_log_is_a_containers(bench: Bench):
    await bench.api.ask("GET", f"{PODS}/p/hooklog?container=c&tailLines=5&follow=false")
    wrong = await bench.api.ask("GET", f"{PODS}/p/hooklog?container=x")
    followed = await bench.api.ask("GET", f"{PODS}/p/hooklog?follow=true")

    assert bench.asked == ["/hookLogs/default/p/c?tailLines=5"]
    assert (wrong.status, followed.status) == (400, 400)


async def test_both_are_only_read(bench: Bench):
    for subresource in ("explain", "hooklog"):
        answer = await bench.api.ask("POST", f"{PODS}/p/{subresource}", {})
        assert answer.status == 405
