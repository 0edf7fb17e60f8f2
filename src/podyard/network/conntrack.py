"""UDP flows of connection tracking: looked at and forgotten, over ctnetlink.

Message layouts: linux/netfilter/nfnetlink_conntrack.h. All calls block.
"""

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from podyard.network.build import Endpoint
from podyard.network.decide import Flow, NetworkFacts, UdpTargets, stale_flows
from podyard.network.netlink import Netlink

_NETLINK_NETFILTER: Final = 12
_CTNETLINK: Final = 1 << 8
_NEW: Final = _CTNETLINK | 0
_GET: Final = _CTNETLINK | 1
_DELETE: Final = _CTNETLINK | 2
_DONE: Final = 3
_ERROR: Final = 2
_REQUEST: Final = 0x1
_ACK: Final = 0x4
_DUMP: Final = 0x300
_NESTED: Final = 0x8000

_TUPLE_ORIG: Final = 1
_TUPLE_REPLY: Final = 2
_TUPLE_IP: Final = 1
_TUPLE_PROTO: Final = 2
#: Source and destination, by address family.
_IPS: Final = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
_PROTO_NUM: Final = 1
_PROTO_SRC: Final = 2
_PROTO_DST: Final = 3


def udp_flows(version: int = 4) -> tuple[Flow, ...]:
    """Return the UDP flows over IPv4 or, with 6, IPv6 (blocking).

    Raises:
        OSError: not permitted, or the kernel has no connection tracking.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with _open() as netlink:
        _send(netlink, _GET, _REQUEST | _DUMP, _header(family))
        return tuple(_flows(netlink, family))


def forget_flows(flows: Iterable[Flow]) -> int:
    """Make the kernel forget flows; return how many it knew (blocking).

    Raises:
        OSError: not permitted.
    """
    known = 0
    with _open() as netlink:
        for flow in flows:
            tuple_ = _tuple(flow.source, flow.to)
            body = _header(_family(flow.to[0])) + _nest(_TUPLE_ORIG, tuple_)
            _send(netlink, _DELETE, _REQUEST | _ACK, body)
            number = _acknowledged(netlink)
            if number not in {0, errno.ENOENT}:
                raise OSError(number, os.strerror(number))
            known += number == 0
    return known


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def _header(family: socket.AddressFamily) -> bytes:
    """Return a struct nfgenmsg: a family, version 0, no resource."""
    return struct.pack("=BBH", family, 0, 0)


def _open() -> socket.socket:
    netlink = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    )
    netlink.bind((0, 0))
    return netlink


def _send(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)


def _flows(netlink: socket.socket, family: socket.AddressFamily) -> Iterator[Flow]:
    while True:
        for kind, body in _messages(netlink.recv(1 << 18)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, os.strerror(number))
            if kind == _NEW:
                flow = _flow(body, family)
                if flow is not None:
                    yield flow


def _acknowledged(netlink: socket.socket) -> int:
    for kind, body in _messages(netlink.recv(1 << 16)):
        if kind == _ERROR:
            return int(-struct.unpack_from("=i", body)[0])
    return 0


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _flow(body: bytes, family: socket.AddressFamily) -> Flow | None:
    attributes = _attributes(body[4:])
    sent = _attributes(attributes.get(_TUPLE_ORIG, b""))
    protocol = _attributes(sent.get(_TUPLE_PROTO, b"")).get(_PROTO_NUM, b"\0")
    if protocol[0] != socket.IPPROTO_UDP:
        return None
    answer = _attributes(attributes.get(_TUPLE_REPLY, b""))
    source, destination = _IPS[family]
    return Flow(
        source=_end(sent, source, _PROTO_SRC),
        to=_end(sent, destination, _PROTO_DST),
        answers=_end(answer, source, _PROTO_SRC),
    )


def _end(tuple_: dict[int, bytes], ip: int, port: int) -> Endpoint:
    unknown = bytes(4 if ip in _IPS[socket.AF_INET] else 16)
    packed = _attributes(tuple_.get(_TUPLE_IP, b"")).get(ip, unknown)
    number = _attributes(tuple_.get(_TUPLE_PROTO, b"")).get(port, b"\0\0")
    return str(ipaddress.ip_address(packed)), int(struct.unpack("!H", number)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * padding


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _tuple(source: Endpoint, to: Endpoint) -> bytes:
    first, second = _IPS[_family(to[0])]
    addresses = _attribute(first, _packed(source[0])) + _attribute(
        second, _packed(to[0])
    )
    protocol = (
        _attribute(_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        + _attribute(_PROTO_SRC, struct.pack("!H", source[1]))
        + _attribute(_PROTO_DST, struct.pack("!H", to[1]))
    )
    return _nest(_TUPLE_IP, addresses) + _nest(_TUPLE_PROTO, protocol)


def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def forget_stale_flows(targets: UdpTargets, facts: NetworkFacts) -> int:
    """Forget the UDP flows that lead where the rules do not; return how many.

    Blocking.

    Raises:
        OSError: not permitted, or the kernel has no connection tracking.
    """
    versions = (4, 6) if facts.pod_cidr_6 else (4,)
    with Netlink() as netlink:
        host_ips = frozenset(
            str(item.interface.ip)
            for version in versions
            for item in netlink.addresses(version)
        )
    flows = [flow for version in versions for flow in udp_flows(version)]
    stale = stale_flows(
        flows, targets, service_cidrs=facts.service_cidrs, host_ips=host_ips
    )
    return forget_flows(stale)
