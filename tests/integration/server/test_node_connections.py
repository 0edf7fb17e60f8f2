"""Logs, exec and port-forward through the API server to a node's own endpoint."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from support.api_server import PODS, Running, pod

pytestmark = pytest.mark.integration

UPGRADE = (
    "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    "Authorization: Bearer secret\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    "X-Stream-Protocol-Version: channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: SPDY/3.1\r\n\r\n"
)


@dataclass
class Node:
    """A node's endpoint that does as the test says."""

    answer: bytes = SWITCHED
    heads: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if b" 101 " not in self.answer:
                await writer.drain()
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
async def node(api: Running) -> AsyncIterator[Node]:
    served = Node()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": served.port}},
    }
    await api.make("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    await api.make(PODS, pod("p", nodeName="n1"))
    yield served
    server.close()


async def connect(api: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))


async def test_an_upgraded_connection_carries_bytes_both_ways(api: Running, node: Node):
    reader, writer = await connect(api)
    query = "command=sh&command=-c&stdin=true&stdout=true&tty=false"
    writer.write(UPGRADE.format(path=f"{PODS}/p/exec?{query}").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"hello " * 50_000)
    back = await reader.readexactly(300_000)
    writer.close()
    async with asyncio.timeout(5):
        await node.ended.wait()

    seen = node.heads[0].decode()
    assert head == SWITCHED
    assert back == b"HELLO " * 50_000
    assert seen.startswith(
        "POST /exec/default/p/c?input=1&output=1&command=sh&command=-c HTTP/1.1\r\n"
    )
    assert seen.count("X-Stream-Protocol-Version: ") == 2
    assert "secret" not in seen


async def test_a_refused_upgrade_is_a_status_and_no_tunnel(api: Running, node: Node):
    body = json.dumps({"kind": "Status", "code": 403, "message": "no", "reason": "F"})
    node.answer = (
        f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    reader, writer = await connect(api)
    writer.write(UPGRADE.format(path=f"{PODS}/p/portforward").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    status = json.loads(await reader.readexactly(length))
    # The same connection is still the API server's own.
    writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    rest = await reader.read()
    writer.close()

    assert head.startswith(b"HTTP/1.1 403 ")
    assert status["message"] == "no"
    assert b"gitVersion" in rest
    assert len(node.heads) == 1


async def test_without_an_upgrade_nothing_is_dialled(api: Running, node: Node):
    answer = await api.ask("POST", f"{PODS}/p/exec?command=ls")

    assert answer.status == 400
    assert answer.json["message"] == "Upgrade request required"
    assert node.heads == []


async def test_a_node_that_is_away_is_told(api: Running, node: Node):
    status = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    await api.ask(
        "PATCH",
        "/api/v1/nodes/n1/status",
        {"status": status},
        content_type="application/merge-patch+json",
    )

    answer = await api.ask("GET", f"{PODS}/p/log")

    assert answer.status == 500
    assert "error dialing backend" in answer.json["message"]


async def test_a_followed_log_is_streamed_and_ends_with_its_reader(
    api: Running, node: Node
):
    node.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"
    )
    async with api.session.get(
        f"{api.url}{PODS}/p/log?follow=true&tailLines=5"
    ) as answer:
        line = await answer.content.readline()
    async with asyncio.timeout(5):
        await node.ended.wait()

    assert line == b"first\n"
    assert b"GET /containerLogs/default/p/c?follow=true&tailLines=5 " in node.heads[0]


async def test_stopping_the_server_ends_logs_and_tunnels(api: Running, node: Node):
    reader, writer = await connect(api)
    writer.write(UPGRADE.format(path=f"{PODS}/p/attach?stdout=true").encode())
    await reader.readuntil(b"\r\n\r\n")

    async with asyncio.timeout(5):
        await api.server.stop()
        await node.ended.wait()
    writer.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "a container name must be specified for pod two, choose one of: [a b]"),
        ("?container=z", "container z is not valid for pod two"),
        ("?container=a&tailLines=x", 'parsing "x"'),
        ("?container=a&tailLines=-1", "must be greater than or equal to 0"),
        ("?container=a&sinceSeconds=1&sinceTime=x", "at most one of"),
    ],
)
async def test_what_is_wrong_with_a_log_request_is_told(
    api: Running, query: str, said: str
):
    body = pod("two")
    body["spec"]["containers"] = [{"name": n, "image": "i"} for n in ("a", "b")]
    await api.make(PODS, body)

    answer = await api.ask("GET", f"{PODS}/two/log{query}")

    assert answer.status in {400, 422}
    assert said in answer.json["message"]


async def test_a_nodes_own_pages_are_proxied(api: Running, node: Node):
    node.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    answer = await api.ask("GET", "/api/v1/nodes/n1/proxy/stats/summary?only=cpu")

    assert answer.body == b"ok"
    assert node.heads[0].startswith(b"GET /stats/summary?only=cpu ")
