"""DNS messages: what a client asked, and answers as bytes. dnspython does the work."""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from podyard.lib.values import dataclass
from podyard.network.dns.decide import TTL_S, Answer, DnsSettings, Record

#: What an answer over UDP may be long at least, and what we take ourselves, bytes.
PLAIN_SIZE: Final = 512
OUR_SIZE: Final = 1232
#: The longest message there is; what TCP carries.
MAX_SIZE: Final = 65535
_HEADER: Final = 12
_RESPONSE_BIT: Final = 0x80


@dataclass(frozen=True, slots=True)
class Query:
    """A question that can be answered.

    Attributes:
        message: as dnspython has it.
        name: what is asked for, in lower case, without a dot at its end.
        type: which records, as text.
        size: how long an answer over UDP may be.
    """

    message: dns.message.Message
    name: str
    type: str
    size: int

    @property
    def question(self) -> dns.rrset.RRset:
        """The question section's only entry."""
        return self.message.question[0]

    @property
    def wants_dnssec(self) -> bool:
        """Whether signatures are to come along."""
        return bool(self.message.ednsflags & dns.flags.DO)


def read_query(data: bytes) -> Query | bytes | None:
    """Return a query, an answer to what is none, or ``None`` for silence."""
    if len(data) < _HEADER or data[2] & _RESPONSE_BIT:
        return None
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError, IndexError):
        # The id and the opcode are all that can be told from it.
        return data[:2] + bytes([_RESPONSE_BIT | data[2] & 0x79, 1]) + bytes(8)
    refusal = _refusal(message)
    if refusal is not None:
        response = dns.message.make_response(message, our_payload=OUR_SIZE)
        response.set_rcode(refusal)
        return response.to_wire()
    entry = message.question[0]
    return Query(
        message=message,
        name=entry.name.to_text(omit_final_dot=True).lower(),
        type=dns.rdatatype.to_text(entry.rdtype),
        size=max(message.payload, PLAIN_SIZE) if message.edns >= 0 else PLAIN_SIZE,
    )


def _refusal(message: dns.message.Message) -> dns.rcode.Rcode | None:
    if message.opcode() != dns.opcode.QUERY:
        return dns.rcode.NOTIMP
    if len(message.question) != 1:
        return dns.rcode.FORMERR
    if message.edns > 0:
        return dns.rcode.BADVERS
    if message.question[0].rdclass != dns.rdataclass.IN:
        return dns.rcode.REFUSED
    return None


def build_answer(
    query: Query,
    answer: Answer,
    settings: DnsSettings,
    *,
    serial: int,
    more: Sequence[dns.rrset.RRset] = (),
    chance: random.Random,
) -> dns.message.Message:
    """Return the response to a question about our own names.

    Args:
        query: the question.
        answer: what is known.
        settings: what the names are made of.
        serial: of the zone.
        more: records of others, that a CNAME of ours led to.
        chance: puts addresses in another order each time, which spreads load.
    """
    response = _response(query)
    response.flags |= dns.flags.AA
    own = query.question.name
    response.answer = [
        *_rrsets(answer.records, query.name, own, chance),
        *more,
    ]
    response.additional = _rrsets(answer.additional, query.name, own, chance)
    if not answer.exists:
        response.set_rcode(dns.rcode.NXDOMAIN)
    if query.type == "SOA" and query.name == answer.zone:
        response.answer = [_soa(answer.zone, settings.domain, serial)]
    elif not response.answer and answer.zone:
        response.authority = [_soa(answer.zone, settings.domain, serial)]
    return response


def _response(query: Query) -> dns.message.Message:
    return dns.message.make_response(
        query.message, recursion_available=True, our_payload=OUR_SIZE
    )


def _rrsets(
    records: Iterable[Record], asked: str, own: dns.name.Name, chance: random.Random
) -> list[dns.rrset.RRset]:
    """Return the records by name and type; the name asked for is told as it was."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in records:
        groups.setdefault((record.name, record.type), []).append(record.data)
    found = []
    for (name, type_), data in groups.items():
        chance.shuffle(data)
        owner = own if name == asked else dns.name.from_text(name)
        rdatas = [_rdata(type_, text) for text in data]
        found.append(dns.rrset.from_rdata_list(owner, TTL_S, rdatas))
    return found


@lru_cache(maxsize=512)
def _rdata(type_: str, data: str) -> dns.rdata.Rdata:
    """Return a record's data; reading it takes longer than all the rest."""
    return dns.rdata.from_text("IN", type_, data)


@lru_cache(maxsize=4)
def _soa(zone: str, domain: str, serial: int) -> dns.rrset.RRset:
    times = f"7200 1800 86400 {TTL_S}"
    text = f"ns.dns.{domain}. hostmaster.{domain}. {serial % 2**32} {times}"
    return dns.rrset.from_text(f"{zone}.", TTL_S, "IN", "SOA", text)


def build_forwarded(
    query: Query,
    rcode: int,
    answer: Iterable[dns.rrset.RRset],
    authority: Iterable[dns.rrset.RRset],
) -> dns.message.Message:
    """Return the response that tells what others said."""
    response = _response(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    response.answer = list(answer)
    response.authority = list(authority)
    return response


def to_bytes(response: dns.message.Message, size: int) -> bytes:
    """Return a response as it is sent; one that is too long says so (TC)."""
    return response.to_wire(max_size=size, prefer_truncation=True)
