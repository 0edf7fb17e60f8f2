"""The DNS server over real sockets, with a resolver of the host that we play."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from podyard.network.dns.decide import DnsSettings
from podyard.network.dns.forward import Forwarder
from podyard.network.dns.names import ClusterNames
from podyard.network.dns.server import DnsServer
from podyard.network.dns.sockets import DnsSockets, open_dns_sockets

pytestmark = pytest.mark.integration

SETTINGS = DnsSettings("cluster.local", "10.96.0.10")
Reply = Callable[[dns.message.Message], dns.message.Message | None]


@dataclass
class Resolver:
    """A resolver of the host: answers as it is told, and counts."""

    reply: Reply
    sockets: DnsSockets = field(default_factory=lambda: open_dns_sockets("127.0.0.1"))
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return self.sockets.ip, self.sockets.port

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._over_tcp())
            while True:
                data, client = await loop.sock_recvfrom(self.sockets.udp, 4096)
                query = dns.message.from_wire(data)
                self.asked.append(f"udp {query.question[0].name}")
                answer = self.reply(query)
                if answer is not None:
                    wire = answer.to_wire(max_size=512, prefer_truncation=True)
                    await loop.sock_sendto(self.sockets.udp, wire, client)

    async def _over_tcp(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self.sockets.tcp)
            with connection:
                data = await loop.sock_recv(connection, 4096)
                query = dns.message.from_wire(data[2:])
                self.asked.append(f"tcp {query.question[0].name}")
                answer = self.reply(query)
                assert answer is not None
                wire = answer.to_wire(max_size=65535)
                await loop.sock_sendall(connection, struct.pack("!H", len(wire)) + wire)


def says(*addresses: str, ttl_s: int = 60) -> Reply:
    def reply(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        name = query.question[0].name
        answer.answer = [dns.rrset.from_text(name, ttl_s, "IN", "A", *addresses)]
        return answer

    return reply


def denies(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.NXDOMAIN)
    soa = "ns.example.com. me.example.com. 1 2 3 4 20"
    answer.authority = [dns.rrset.from_text("example.com.", 60, "IN", "SOA", soa)]
    return answer


def fails(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.SERVFAIL)
    return answer


@dataclass
class Running:
    names: ClusterNames
    sockets: DnsSockets

    async def ask(self, name: str, type_: str = "A", **more) -> dns.message.Message:
        """Ask over UDP."""
        loop = asyncio.get_running_loop()
        query = dns.message.make_query(name, type_, **more)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0)
            client.connect((self.sockets.ip, self.sockets.port))
            await loop.sock_sendall(client, query.to_wire())
            async with asyncio.timeout(10):
                wire = await loop.sock_recv(client, 65535)
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer)
        return answer


@asynccontextmanager
async def serving(
    *resolvers: Resolver, wait_ready=lambda: asyncio.sleep(0)
) -> AsyncIterator[Running]:
    names = ClusterNames(1)
    sockets = open_dns_sockets("127.0.0.1")
    forwarder = Forwarder(lambda: [r.address for r in resolvers], attempt_s=0.5)
    server = DnsServer(SETTINGS, names, forwarder, chance=random.Random(1))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(resolver.run()) for resolver in resolvers]
        tasks.append(group.create_task(server.run(sockets, wait_ready=wait_ready)))
        try:
            yield Running(names, sockets)
        finally:
            for task in tasks:
                task.cancel()
    for opened in (sockets, *(resolver.sockets for resolver in resolvers)):
        opened.close()


def service(name: str, ip: str = "10.96.0.5", **spec) -> dict:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}], **spec},
    }


def shown(answer: dns.message.Message) -> list[str]:
    return [str(item) for entry in answer.answer for item in entry]


WEB = "web.default.svc.cluster.local"


async def test_a_change_is_seen_by_the_next_question() -> None:
    async with serving() as running:
        assert (await running.ask(WEB)).rcode() == dns.rcode.NXDOMAIN

        running.names.on_service(None, service("web"))
        assert shown(await running.ask(WEB)) == ["10.96.0.5"]
        assert shown(await running.ask(WEB)) == ["10.96.0.5"]

        running.names.on_service(service("web"), service("web", "10.96.0.6"))
        assert shown(await running.ask(WEB)) == ["10.96.0.6"]


async def test_other_names_are_asked_for_once_while_they_last() -> None:
    resolver = Resolver(says("192.0.2.1", ttl_s=60))
    async with serving(resolver) as running:
        first = await running.ask("example.com")
        second = await running.ask("EXAMPLE.com")

    assert shown(first) == shown(second) == ["192.0.2.1"]
    assert second.answer[0].ttl <= 60
    assert not first.flags & dns.flags.AA
    assert resolver.asked == ["udp example.com."]


@pytest.mark.parametrize(
    ("reply", "rcode", "asked"),
    [
        pytest.param(says("192.0.2.1", ttl_s=0), dns.rcode.NOERROR, 2, id="no-ttl"),
        pytest.param(denies, dns.rcode.NXDOMAIN, 1, id="no-name"),
    ],
)
async def test_answers_are_kept_as_long_as_they_say(reply, rcode, asked) -> None:
    resolver = Resolver(reply)
    async with serving(resolver) as running:
        for _ in range(2):
            assert (await running.ask("example.com")).rcode() == rcode

    assert len(resolver.asked) == asked


async def test_a_long_answer_is_fetched_over_tcp_and_told_in_part() -> None:
    many = [f"192.0.2.{n}" for n in range(100)]
    resolver = Resolver(says(*many))
    async with serving(resolver) as running:
        short = await running.ask("example.com")
        whole = await running.ask("example.com", use_edns=0, payload=4096)

    assert short.flags & dns.flags.TC
    assert len(shown(whole)) == 100
    assert resolver.asked == ["udp example.com.", "tcp example.com."]


@pytest.mark.parametrize(
    "broken",
    [pytest.param(fails, id="fails"), pytest.param(lambda _: None, id="silent")],
)
async def test_another_resolver_is_asked_when_one_fails(broken) -> None:
    bad, good = Resolver(broken), Resolver(says("192.0.2.1"))
    async with serving(bad, good) as running:
        assert shown(await running.ask("one.example.com")) == ["192.0.2.1"]
        assert shown(await running.ask("two.example.com")) == ["192.0.2.1"]

    assert bad.asked == ["udp one.example.com."]  # the one that answers is preferred


async def test_nobody_to_ask_is_a_failure_not_a_denial() -> None:
    async with serving() as running:
        assert (await running.ask("example.com")).rcode() == dns.rcode.SERVFAIL


async def test_an_answer_to_another_question_is_not_believed() -> None:
    def lies(query: dns.message.Message) -> dns.message.Message:
        other = dns.message.make_query("bank.example.com", "A", id=query.id)
        return says("203.0.113.66")(other)

    async with serving(Resolver(lies)) as running:
        assert (await running.ask("example.com")).rcode() == dns.rcode.SERVFAIL


async def test_equal_questions_at_once_are_asked_once() -> None:
    resolver = Resolver(says("192.0.2.1", ttl_s=0))
    async with serving(resolver) as running, asyncio.TaskGroup() as group:
        tasks = [group.create_task(running.ask("example.com")) for _ in range(10)]

    assert {tuple(shown(task.result())) for task in tasks} == {("192.0.2.1",)}
    assert len(resolver.asked) < 10


async def test_an_alias_of_a_name_elsewhere_comes_with_its_address() -> None:
    resolver = Resolver(says("192.0.2.1"))
    async with serving(resolver) as running:
        alias = service("out", "", type="ExternalName", externalName="example.com")
        running.names.on_service(None, alias)
        answer = await running.ask("out.default.svc.cluster.local")

    assert shown(answer) == ["example.com.", "192.0.2.1"]


async def test_questions_wait_until_all_names_are_known() -> None:
    known = asyncio.Event()
    async with serving(wait_ready=known.wait) as running, asyncio.TaskGroup() as group:
        asking = group.create_task(running.ask(WEB))
        await asyncio.sleep(0.1)
        running.names.on_service(None, service("web"))
        known.set()

    assert shown(asking.result()) == ["10.96.0.5"]


async def test_one_connection_carries_many_questions_and_ends_on_nonsense() -> None:
    async with serving() as running:
        running.names.on_service(None, service("web"))
        sockets = running.sockets
        reader, writer = await asyncio.open_connection(sockets.ip, sockets.port)
        for _ in range(3):
            wire = dns.message.make_query(WEB, "A").to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = dns.message.from_wire(await reader.readexactly(length))
            assert shown(answer) == ["10.96.0.5"]
        writer.write(b"\0\3abc")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_odd_datagrams_do_no_harm() -> None:
    chance = random.Random(7)
    async with serving() as running:
        running.names.on_service(None, service("web"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((running.sockets.ip, running.sockets.port))
            for _ in range(300):
                client.send(chance.randbytes(chance.randrange(80)))
                wire = bytearray(dns.message.make_query(WEB, "A").to_wire())
                wire[chance.randrange(len(wire))] = chance.randrange(256)
                client.send(wire)
                await asyncio.sleep(0)  # the socket's buffer is small

        assert shown(await running.ask(WEB)) == ["10.96.0.5"]


def test_port_53_is_taken_where_it_is_free_and_another_where_not() -> None:
    first = open_dns_sockets("127.0.0.54")
    second = open_dns_sockets("127.0.0.54")
    try:
        assert (first.port, second.port == 53) == (53, False)
        assert second.udp.getsockname() == second.tcp.getsockname()
    finally:
        first.close()
        second.close()
