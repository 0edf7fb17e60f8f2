"""The cluster's DNS server, over UDP and TCP.

Answers about the cluster come from memory, and those that were given before in the
very same words are given again as they are until something changes.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import field
from typing import Final

import structlog

from podyard.lib.values import dataclass
from podyard.network.dns.decide import Answer, DnsSettings, decide_answer
from podyard.network.dns.forward import Forwarder
from podyard.network.dns.messages import (
    MAX_SIZE,
    Query,
    build_answer,
    build_forwarded,
    read_query,
    to_bytes,
)
from podyard.network.dns.names import ClusterNames
from podyard.network.dns.sockets import DnsSockets

log = structlog.get_logger()

#: So many questions are remembered, and so many orders of an answer.
_REMEMBERED: Final = 1024
_ORDERS: Final = 4
#: So many questions may wait for others at once; more are dropped.
_MAX_WAITING: Final = 500
_AT_A_TIME: Final = 32
#: So many TCP connections may be open at once, and so long without a word, seconds.
_MAX_CONNECTIONS: Final = 100
_IDLE_S: Final = 10.0


@dataclass(slots=True)
class _Remembered:
    """Answers to one question without its id, told in turn.

    Several records are told in several orders, which spreads load.
    """

    wanted: int
    answers: list[bytes] = field(default_factory=list)
    turn: int = 0

    def next(self) -> bytes:
        self.turn += 1
        return self.answers[self.turn % len(self.answers)]


class DnsServer:
    """Answers questions.

    Args:
        settings: what the names are made of.
        names: the names of the cluster.
        forwarder: asks others.
        chance: puts addresses in another order each time.
    """

    def __init__(
        self,
        settings: DnsSettings,
        names: ClusterNames,
        forwarder: Forwarder,
        *,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._names = names
        self._forwarder = forwarder
        self._chance = chance
        self._remembered: dict[bytes, _Remembered] = {}
        self._remembered_serial = names.serial
        self._connections = 0

    async def run(
        self, sockets: DnsSockets, *, wait_ready: Callable[[], Awaitable[object]]
    ) -> None:
        """Answer for ever.

        Args:
            sockets: where; they stay open.
            wait_ready: waits until all names are known; questions wait so long, as
                "no such name" would be believed.
        """
        await wait_ready()
        log.info("dns_serves", address=sockets.ip, port=sockets.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_udp(sockets.udp, group), name="dns udp")
            group.create_task(self._serve_tcp(sockets.tcp, group), name="dns tcp")

    async def _serve_udp(self, udp: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        datagrams = _Datagrams(self, udp, group)
        loop.add_reader(udp, datagrams.read)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(udp)

    async def _serve_tcp(self, tcp: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(tcp)
            except OSError as error:  # out of files, or the client is gone again
                log.warning("dns_accept_failed", error=error.strerror)
                await asyncio.sleep(0.1)
                continue
            if self._connections >= _MAX_CONNECTIONS:
                connection.close()
                continue
            connection.settimeout(0)
            group.create_task(self._converse(connection), name="dns connection")

    async def _converse(self, connection: socket.socket) -> None:
        self._connections += 1
        loop = asyncio.get_running_loop()
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    header = await _receive(connection, 2)
                    data = await _receive(connection, struct.unpack("!H", header)[0])
                answer = self.answer_now(data, limit=MAX_SIZE)
                if isinstance(answer, Query):
                    answer = await self.answer_later(answer, limit=MAX_SIZE)
                if answer is None:
                    return
                framed = struct.pack("!H", len(answer)) + answer
                async with asyncio.timeout(_IDLE_S):
                    await loop.sock_sendall(connection, framed)
        except (OSError, TimeoutError, EOFError):
            return
        finally:
            self._connections -= 1
            connection.close()

    def answer_now(self, data: bytes, *, limit: int = 0) -> bytes | Query | None:
        """Return the answer, the question if others have to be asked, or nothing.

        Args:
            data: what came.
            limit: how long the answer may be; 0 for what the question allows.
        """
        if self._remembered_serial != self._names.serial:
            self._remembered.clear()
            self._remembered_serial = self._names.serial
        key = data[2:] if not limit else b"tcp" + data[2:]
        known = self._remembered.get(key)
        if known is not None and len(known.answers) == known.wanted:
            return data[:2] + known.next()
        query = read_query(data)
        if not isinstance(query, Query):
            return query
        found = decide_answer(query.name, query.type, self._names, self._settings)
        if found is None or found.follow:
            return query
        wire = self._to_bytes(query, found, limit)
        if known is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = _Remembered(min(max(len(found.records), 1), _ORDERS))
            self._remembered[key] = known
        known.answers.append(wire[2:])
        return wire

    def _to_bytes(self, query: Query, answer: Answer, limit: int) -> bytes:
        response = build_answer(
            query,
            answer,
            self._settings,
            serial=self._names.serial,
            chance=self._chance,
        )
        return to_bytes(response, limit or query.size)

    async def answer_later(self, query: Query, *, limit: int = 0) -> bytes:
        """Return the answer for which others are asked."""
        found = decide_answer(query.name, query.type, self._names, self._settings)
        entry = query.question
        if found is None:
            reply = await self._forwarder.ask(
                entry.name, entry.rdtype, dnssec=query.wants_dnssec
            )
            response = build_forwarded(
                query, reply.rcode, reply.answer, reply.authority
            )
        else:
            alias = build_answer(
                query,
                found,
                self._settings,
                serial=self._names.serial,
                chance=self._chance,
            )
            target = next(iter(alias.answer[-1])).target
            reply = await self._forwarder.ask(target, entry.rdtype)
            response = build_forwarded(
                query, reply.rcode, [*alias.answer, *reply.answer], reply.authority
            )
        return to_bytes(response, limit or query.size)


class _Datagrams:
    """Questions over UDP; nobody waits for a client that does not read."""

    def __init__(
        self, server: DnsServer, udp: socket.socket, group: asyncio.TaskGroup
    ) -> None:
        self._server = server
        self._udp = udp
        self._group = group
        self._waiting = 0

    def read(self) -> None:
        """Answer what came, so many at a time that others have their turn."""
        for _ in range(_AT_A_TIME):
            try:
                data, address = self._udp.recvfrom(MAX_SIZE)
            except OSError:  # nothing more, or an answer was refused
                return
            self._take(data, address)

    def _take(self, data: bytes, address: tuple[str, int]) -> None:
        try:
            answer = self._server.answer_now(data)
        except Exception:  # one odd question must not end the server
            log.exception("dns_fault", bytes=len(data))
            return
        if isinstance(answer, bytes):
            self._send(answer, address)
        elif answer is not None and self._waiting < _MAX_WAITING:
            self._group.create_task(self._later(answer, address), name="dns question")

    def _send(self, answer: bytes, address: tuple[str, int]) -> None:
        with suppress(OSError):
            self._udp.sendto(answer, address)

    async def _later(self, query: Query, address: tuple[str, int]) -> None:
        self._waiting += 1
        try:
            self._send(await self._server.answer_later(query), address)
        except Exception:  # likewise
            log.exception("dns_fault", name=query.name)
        finally:
            self._waiting -= 1


async def _receive(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(connection, count - len(data))
        if not more:
            raise EOFError("the client is gone")
        data += more
    return data
