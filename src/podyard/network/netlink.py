"""Links, addresses and routes over rtnetlink: a bridge costs no process.

Message layouts: rtnetlink(7) and linux/if_link.h, linux/rtnetlink.h. All calls block
for microseconds, but for the deletion of a link, which waits for the kernel (RCU).
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, TypeAlias

from podyard.lib.values import dataclass

#: An address with its prefix, and a network, of either family.
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEWLINK: Final = 16
_DELLINK: Final = 17
_GETLINK: Final = 18
_NEWADDR: Final = 20
_GETADDR: Final = 22
_NEWROUTE: Final = 24
_GETROUTE: Final = 26
_DONE: Final = 3
_ERROR: Final = 2

_REQUEST: Final = 0x1
_ACK: Final = 0x4
_DUMP: Final = 0x300
_REPLACE: Final = 0x100
_EXCL: Final = 0x200
_CREATE: Final = 0x400

_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_IFF_UP: Final = 0x1
_TABLE_MAIN: Final = 254
_PROTO_STATIC: Final = 4
_SCOPE_LINK: Final = 253
_TYPE_UNICAST: Final = 1

_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_INFO_KIND: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
#: The address is used at once, without asking whether somebody has it already.
_IFA_F_NODAD: Final = 0x02
_RTA_DST: Final = 1
_RTA_OIF: Final = 4


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. ``kind`` is empty for physical ones; ``master`` 0 for none."""

    index: int
    name: str
    kind: str
    master: int
    is_up: bool


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a device."""

    link_index: int
    interface: Interface


@dataclass(frozen=True, slots=True)
class Route:
    """A route; the default routes are ``0.0.0.0/0`` and ``::/0``."""

    network: Network
    link_index: int
    table: int


class Netlink:
    """A route socket in this process's network namespace; use it in a ``with``."""

    def __init__(self) -> None:
        """Open the socket."""
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def links(self) -> tuple[Link, ...]:
        """Return the devices."""
        dump = self._ask(_GETLINK, _REQUEST | _DUMP, struct.pack("=BBHiII", *[0] * 6))
        return tuple(_link(body) for kind, body in dump if kind == _NEWLINK)

    def link(self, name: str) -> Link | None:
        """Return the device of that name."""
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self, version: int = 4) -> tuple[Address, ...]:
        """Return the addresses of one family: IPv4 or, with 6, IPv6."""
        request = struct.pack("=BBBBI", _FAMILY[version], 0, 0, 0, 0)
        dump = self._ask(_GETADDR, _REQUEST | _DUMP, request)
        return tuple(_address(body) for kind, body in dump if kind == _NEWADDR)

    def routes(self, version: int = 4) -> tuple[Route, ...]:
        """Return the unicast routes of one family, those to ourselves left out."""
        request = struct.pack("=BBBBBBBBI", _FAMILY[version], *[0] * 8)
        dump = self._ask(_GETROUTE, _REQUEST | _DUMP, request)
        found = (_route(body) for kind, body in dump if kind == _NEWROUTE)
        return tuple(route for route in found if route is not None)

    def add_link(self, name: str, kind: str, *, mac: bytes = b"") -> None:
        """Make a device; ``FileExistsError`` when the name is taken.

        Args:
            name: at most 15 characters.
            kind: ``bridge``, ``veth``, ``dummy``.
            mac: six bytes; empty for the kernel's choice.
        """
        body = (
            struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)
            + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + (_attribute(_IFLA_ADDRESS, mac) if mac else b"")
            + _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, kind.encode() + b"\0"))
        )
        self._ask(_NEWLINK, _REQUEST | _ACK | _CREATE | _EXCL, body)

    def set_up(self, index: int) -> None:
        """Bring a device up."""
        body = struct.pack("=BBHiII", 0, 0, 0, index, _IFF_UP, _IFF_UP)
        self._ask(_NEWLINK, _REQUEST | _ACK, body)

    def delete_link(self, index: int) -> None:
        """Remove a device; ``OSError`` when there is none."""
        body = struct.pack("=BBHiII", 0, 0, 0, index, 0, 0)
        self._ask(_DELLINK, _REQUEST | _ACK, body)

    def add_address(self, index: int, interface: Interface) -> None:
        """Give a device an address; having it already is fine."""
        packed = interface.ip.packed
        flags = _IFA_F_NODAD if interface.version == 6 else 0
        family = _FAMILY[interface.version]
        body = (
            struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
            + _attribute(_IFA_LOCAL, packed)
            + _attribute(_IFA_ADDRESS, packed)
        )
        self._ask(_NEWADDR, _REQUEST | _ACK | _CREATE | _REPLACE, body)

    def replace_route(self, network: Network, index: int) -> None:
        """Send a network out of a device, whatever route it had in the main table."""
        self._ask(
            _NEWROUTE, _REQUEST | _ACK | _CREATE | _REPLACE, _route_body(network, index)
        )

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send a request; return the answers up to the acknowledgement or end."""
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            for answer, sequence, content in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return answers
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return answers
                answers.append((answer, content))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, at)
        yield kind, sequence, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * padding


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


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _link(body: bytes) -> Link:
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", body)
    attributes = _attributes(body[16:])
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(attributes.get(_IFLA_IFNAME, b"")),
        kind=_text(info.get(_INFO_KIND, b"")),
        master=_number(attributes.get(_IFLA_MASTER)),
        is_up=bool(flags & _IFF_UP),
    )


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack("=I", value)[0])


def _address(body: bytes) -> Address:
    _, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
    attributes = _attributes(body[8:])
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    return Address(index, ipaddress.ip_interface((packed, prefix)))


def _route(body: bytes) -> Route | None:
    family, prefix, _, _, table, _, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    if kind != _TYPE_UNICAST:
        return None
    attributes = _attributes(body[12:])
    anywhere = bytes(16 if family == socket.AF_INET6 else 4)
    packed = attributes.get(_RTA_DST, anywhere)
    network = ipaddress.ip_network((packed, prefix), strict=False)
    return Route(network, _number(attributes.get(_RTA_OIF)), table)


def _route_body(network: Network, index: int) -> bytes:
    return (
        struct.pack(
            "=BBBBBBBBI",
            _FAMILY[network.version],
            network.prefixlen,
            0,
            0,
            _TABLE_MAIN,
            _PROTO_STATIC,
            _SCOPE_LINK,
            _TYPE_UNICAST,
            0,
        )
        + _attribute(_RTA_DST, network.network_address.packed)
        + _attribute(_RTA_OIF, struct.pack("=I", index))
    )
