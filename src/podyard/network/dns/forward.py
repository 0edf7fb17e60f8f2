"""Questions about the rest of the world, put to the host's own resolvers.

Each over a socket of its own, so that port and id are both unknown to others; over
TCP where the answer is too long for UDP. Answers are kept as long as they say.

Sources: RFC 1035, 2308 (what is kept of "no"), 5452 (whose answer is taken).
"""

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import structlog

from podyard.lib.aio import SharedCalls
from podyard.lib.values import dataclass
from podyard.network.dns.messages import OUR_SIZE

log = structlog.get_logger()

#: So long a server has for one answer, seconds; a client waits for five itself.
ATTEMPT_S: Final = 1.5
#: Every server is asked so often before we give up.
ROUNDS: Final = 2
#: The list of servers is read again after so long, seconds.
REREAD_S: Final = 5.0
#: So many answers are kept.
KEPT: Final = 1000
_MAX_TTL_S: Final = 3600
_MAX_NO_TTL_S: Final = 30
_PORT: Final = 53


@dataclass(frozen=True, slots=True)
class Reply:
    """What others said.

    Attributes:
        rcode: the response code.
        answer: the answer section.
        authority: the authority section.
    """

    rcode: int
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()

    def aged(self, ttl_s: int) -> "Reply":
        """Return it with a time to live."""
        return Reply(
            self.rcode,
            tuple(_aged(entry, ttl_s) for entry in self.answer),
            tuple(_aged(entry, ttl_s) for entry in self.authority),
        )


_FAILED: Final = Reply(dns.rcode.SERVFAIL)
_Key = tuple[dns.name.Name, int, bool]


class Forwarder:
    """Asks others, and remembers.

    Args:
        servers: returns the addresses of resolvers, or address and port; may block.
        attempt_s: how long a server has for one answer.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[str | tuple[str, int]]],
        *,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        self._read_servers = servers
        self._attempt_s = attempt_s
        self._servers: list[tuple[str, int]] = []
        self._read_at_s = float("-inf")
        self._kept: OrderedDict[_Key, tuple[float, Reply]] = OrderedDict()
        self._calls: SharedCalls[Reply] = SharedCalls()

    async def ask(
        self, name: dns.name.Name, rdtype: int, *, dnssec: bool = False
    ) -> Reply:
        """Return what others say; SERVFAIL where nobody says anything."""
        key = (name, rdtype, dnssec)
        now_s = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > now_s:
            self._kept.move_to_end(key)
            return kept[1].aged(max(int(kept[0] - now_s), 1))
        return await self._calls.share(key, lambda: self._ask(key))

    async def _ask(self, key: _Key) -> Reply:
        name, rdtype, dnssec = key
        await self._refresh_servers()
        for _ in range(ROUNDS):
            for server in list(self._servers):
                reply = await self._ask_server(server, name, rdtype, dnssec=dnssec)
                if reply is not None:
                    self._prefer(server)
                    self._keep(key, reply)
                    return reply
        log.debug("dns_unanswered", name=name.to_text(), servers=len(self._servers))
        return _FAILED

    def _prefer(self, server: tuple[str, int]) -> None:
        if self._servers and self._servers[0] != server and server in self._servers:
            self._servers.remove(server)
            self._servers.insert(0, server)

    async def _refresh_servers(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._read_at_s < REREAD_S:
            return
        self._read_at_s = now_s
        found = await asyncio.to_thread(self._read_servers)
        servers = [item if isinstance(item, tuple) else (item, _PORT) for item in found]
        if set(servers) != set(self._servers):
            self._servers = servers

    async def _ask_server(
        self, server: tuple[str, int], name: dns.name.Name, rdtype: int, *, dnssec: bool
    ) -> Reply | None:
        """Return one server's answer, ``None`` where it gave no usable one."""
        query = dns.message.make_query(
            name,
            dns.rdatatype.RdataType(rdtype),
            use_edns=0,
            payload=OUR_SIZE,
            want_dnssec=dnssec,
        )
        try:
            async with asyncio.timeout(self._attempt_s):
                response = await _over_udp(query, server)
            if response.flags & dns.flags.TC:
                async with asyncio.timeout(self._attempt_s):
                    response = await _over_tcp(query, server)
        except (OSError, TimeoutError, EOFError, dns.exception.DNSException) as error:
            log.debug("dns_server_failed", server=server[0], error=repr(error))
            return None
        if response.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            return None
        return Reply(
            response.rcode(), tuple(response.answer), tuple(response.authority)
        )

    def _keep(self, key: _Key, reply: Reply) -> None:
        ttl_s = _ttl_s(reply)
        if ttl_s <= 0:
            return
        self._kept[key] = (asyncio.get_running_loop().time() + ttl_s, reply)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _ttl_s(reply: Reply) -> int:
    if reply.answer and reply.rcode == dns.rcode.NOERROR:
        return min(_MAX_TTL_S, *(entry.ttl for entry in reply.answer))
    for entry in reply.authority:
        if entry.rdtype == dns.rdatatype.SOA:
            soa = next(iter(entry))
            return int(min(_MAX_NO_TTL_S, entry.ttl, soa.minimum))
    return 0


def _aged(entry: dns.rrset.RRset, ttl_s: int) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(entry.name, min(ttl_s, entry.ttl), list(entry))


class _Receiver(asyncio.DatagramProtocol):
    """Waits for the answer to one query; anything else is dropped."""

    def __init__(self, query: dns.message.Message) -> None:
        self._query = query
        self.answer: asyncio.Future[dns.message.Message] = (
            asyncio.get_running_loop().create_future()
        )

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's
        try:
            message = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError, IndexError):
            return
        if self._query.is_response(message) and not self.answer.done():
            self.answer.set_result(message)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(
    query: dns.message.Message, server: tuple[str, int]
) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_datagram_endpoint(
        lambda: _Receiver(query), remote_addr=server
    )
    try:
        transport.sendto(query.to_wire())
        return await receiver.answer
    finally:
        transport.close()


async def _over_tcp(
    query: dns.message.Message, server: tuple[str, int]
) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(*server)
    try:
        wire = query.to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        message = dns.message.from_wire(await reader.readexactly(length))
    finally:
        writer.close()
    if not query.is_response(message):
        raise EOFError("not an answer to this question")
    return message
