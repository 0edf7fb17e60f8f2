"""ClusterIPs and node ports: given to Services without clashes.

What is taken is read from the stored Services at start, so nothing else has to be
kept. Requested addresses may lie anywhere in the range; those we choose come from its
upper part first, as upstream's do, so that fixed low ones seldom clash.

Source: kubernetes ``pkg/registry/core/service`` (ipallocator, portallocator, storage;
v1.36) and KEP-3070 for the split of the range.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from ipaddress import ip_address, ip_network
from typing import Any, Final

from podyard.api.documents import Document
from podyard.api.errors import ApiError, internal, invalid
from podyard.lib.values import dataclass
from podyard.server.address_families import (
    HEADLESS,
    family_of,
    fill_families,
    refused,
)

_WITH_PORTS: Final = {"NodePort", "LoadBalancer"}
_TRIES: Final = 64


class RangeFullError(Exception):
    """Nothing is left to give."""


class NumberPool:
    """Numbers of a range, each given once.

    Args:
        first: the lowest number.
        last: the highest number.
        reserve_low: so many low numbers are chosen only when the rest is taken.
        chance: chooses.
    """

    def __init__(
        self, first: int, last: int, *, reserve_low: int, chance: random.Random
    ) -> None:
        self.first = first
        self.last = last
        self._upper = min(first + reserve_low, last)
        self._chance = chance
        self._taken: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, number: int) -> bool:
        """Take a number; return whether it was free."""
        if number in self._taken:
            return False
        self._taken.add(number)
        return True

    def choose(self) -> int:
        """Take any free number.

        Raises:
            RangeFullError: there is none.
        """
        for _ in range(_TRIES):
            number = self._chance.randint(self._upper, self.last)
            if self.take(number):
                return number
        for low, high in ((self._upper, self.last), (self.first, self._upper - 1)):
            for number in range(low, high + 1):
                if self.take(number):
                    return number
        raise RangeFullError("range is full")

    def give_back(self, number: int) -> None:
        """Free a number; one that is not taken is fine."""
        self._taken.discard(number)


@dataclass(slots=True)
class Allocation:
    """What one write of a Service took, and what it makes free when it succeeds."""

    ips: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    freed_ips: list[str] = field(default_factory=list)
    freed_ports: list[int] = field(default_factory=list)


def _spec(service: Document | None) -> dict[str, Any]:
    return (service or {}).get("spec") or {}


def _addresses(service: Document | None) -> list[str]:
    spec = _spec(service)
    single = spec.get("clusterIP")
    listed = spec.get("clusterIPs") or ([single] if single else [])
    return [text for text in listed if text and text != HEADLESS]


def _node_ports(service: Document | None) -> list[int]:
    spec = _spec(service)
    found = [port.get("nodePort") or 0 for port in spec.get("ports") or ()]
    found.append(spec.get("healthCheckNodePort") or 0)
    return [port for port in found if port]


class _ClusterIps:
    """The service CIDR of one family."""

    def __init__(self, cidr: str, chance: random.Random) -> None:
        network = ip_network(cidr)
        self.cidr = cidr
        self.family = f"IPv{network.version}"
        size = network.num_addresses
        first = int(network.network_address) + 1
        last = int(network.network_address) + size - (2 if network.version == 4 else 1)
        low = min(max(16, size // 16), 256)
        self._numbers = NumberPool(first, last, reserve_low=low, chance=chance)

    def __contains__(self, ip: str) -> bool:
        return family_of(ip) == self.family and int(ip_address(ip)) in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, ip: str) -> bool:
        return self._numbers.take(int(ip_address(ip)))

    def give_back(self, ip: str) -> None:
        self._numbers.give_back(int(ip_address(ip)))

    def choose(self) -> str:
        return str(ip_address(self._numbers.choose()))


class ServiceAddresses:
    """The service CIDRs and the node port range.

    Args:
        cidrs: the ranges of ClusterIPs, one a family; the first is that of Services
            that do not say.
        node_ports: the first and last node port.
        chance: chooses.
    """

    def __init__(
        self,
        cidrs: Sequence[str],
        node_ports: tuple[int, int] = (30000, 32767),
        chance: random.Random | None = None,
    ) -> None:
        chance = chance or random.SystemRandom()
        pools = [_ClusterIps(cidr, chance) for cidr in cidrs]
        self._pools = {pool.family: pool for pool in pools}
        self.node_ports = node_ports
        count = node_ports[1] - node_ports[0] + 1
        low_ports = min(max(16, count // 32), 128) if count > 16 else 0
        self._ports = NumberPool(*node_ports, reserve_low=low_ports, chance=chance)

    @property
    def in_use(self) -> tuple[int, int]:
        """How many ClusterIPs and node ports are taken."""
        return sum(map(len, self._pools.values())), len(self._ports)

    def load(self, services: Iterable[Document]) -> None:
        """Take what stored Services have."""
        for service in services:
            for ip in _addresses(service):
                if family_of(ip) in self._pools:  # or the cluster had it once
                    self._pools[family_of(ip)].take(ip)
            for port in _node_ports(service):
                self._ports.take(port)

    def release(self, service: Document) -> None:
        """Free what a deleted Service had."""
        self._give_back(_addresses(service), _node_ports(service))

    def commit(self, allocation: Allocation) -> None:
        """Free what the stored Service no longer has."""
        self._give_back(allocation.freed_ips, allocation.freed_ports)

    def rollback(self, allocation: Allocation) -> None:
        """Free what was taken for a Service that was not stored."""
        self._give_back(allocation.ips, allocation.ports)

    def _give_back(self, ips: Iterable[str], ports: Iterable[int]) -> None:
        for ip in ips:
            if family_of(ip) in self._pools:
                self._pools[family_of(ip)].give_back(ip)
        for port in ports:
            self._ports.give_back(port)

    def allocate(self, new: Document, old: Document | None = None) -> Allocation:
        """Fill the addresses of a Service that is about to be stored, in place.

        Raises:
            ApiError: 422 where a requested one cannot be had, 500 where none is left.
        """
        if old is not None:
            _keep_allocated(new, old)
        allocation = Allocation()
        try:
            fill_families(new, old, tuple(self._pools))
            self._fill_ips(new, old, allocation)
            self._fill_ports(new, old, allocation)
        except ApiError:
            self.rollback(allocation)
            raise
        kept_ips, kept_ports = _addresses(new), _node_ports(new)
        allocation.freed_ips = [ip for ip in _addresses(old) if ip not in kept_ips]
        allocation.freed_ports = [
            port for port in _node_ports(old) if port not in kept_ports
        ]
        return allocation

    def _fill_ips(
        self, service: Document, old: Document | None, allocation: Allocation
    ) -> None:
        spec = _spec(service)
        if spec.get("type") == "ExternalName":
            return
        wanted = _wanted_ips(spec)
        if wanted[:1] == [HEADLESS]:
            spec["clusterIP"], spec["clusterIPs"] = HEADLESS, [HEADLESS]
            return
        held = _addresses(old)
        found: list[str] = []
        for index, family in enumerate(spec["ipFamilies"]):
            ip = wanted[index] if index < len(wanted) else ""
            if not ip or ip not in held:
                ip = self._take_ip(service, ip) if ip else self._choose_ip(family)
                allocation.ips.append(ip)
            found.append(ip)
        spec["clusterIP"], spec["clusterIPs"] = found[0], found

    def _choose_ip(self, family: str) -> str:
        try:
            return self._pools[family].choose()
        except RangeFullError as error:
            raise internal(f"failed to allocate a serviceIP: {error}") from error

    def _take_ip(self, service: Document, text: str) -> str:
        why = ""
        try:
            pool = self._pools[family_of(text)]
        except ValueError:
            why = f"{text!r} is not an IP address"
        else:
            if text not in pool:
                why = (
                    f"the provided IP ({text}) is not in the valid range. "
                    f"The range of valid IPs is {pool.cidr}"
                )
            elif not pool.take(text):
                why = "provided IP is already allocated"
        if why:
            detail = f"failed to allocate IP {text}: {why}"
            listed = _wanted_ips(_spec(service))
            raise refused(service, [invalid("spec.clusterIPs", listed, detail)])
        return text

    def _fill_ports(
        self, service: Document, old: Document | None, allocation: Allocation
    ) -> None:
        spec = _spec(service)
        if not _wants_node_ports(spec):
            return
        held = set(_node_ports(old))
        mine: dict[int, set[str]] = {}
        ports = spec.get("ports") or []
        fixed_first = sorted(
            range(len(ports)), key=lambda index: not ports[index].get("nodePort")
        )
        for index in fixed_first:
            port = ports[index]
            protocol = port.get("protocol") or "TCP"
            number = port.get("nodePort") or 0
            if not number:
                number = port["nodePort"] = self._choose_port()
                allocation.ports.append(number)
            elif number not in held and protocol not in mine.get(number, {protocol}):
                pass  # one number for several protocols of one Service
            elif number not in held:
                path = f"spec.ports[{index}].nodePort"
                self._take_port(service, path, number)
                allocation.ports.append(number)
            mine.setdefault(number, set()).add(protocol)
        self._fill_health_port(service, held, allocation)

    def _fill_health_port(
        self, service: Document, held: set[int], allocation: Allocation
    ) -> None:
        spec = _spec(service)
        needed = (
            spec.get("type") == "LoadBalancer"
            and spec.get("externalTrafficPolicy") == "Local"
        )
        number = spec.get("healthCheckNodePort") or 0
        if not needed:
            return
        if not number:
            number = spec["healthCheckNodePort"] = self._choose_port()
        elif number in held:
            return
        else:
            self._take_port(service, "spec.healthCheckNodePort", number)
        allocation.ports.append(number)

    def _choose_port(self) -> int:
        try:
            return self._ports.choose()
        except RangeFullError as error:
            raise internal(f"failed to allocate a nodePort: {error}") from error

    def _take_port(self, service: Document, path: str, number: int) -> None:
        if number not in self._ports:
            first, last = self.node_ports
            why = (
                "provided port is not in the valid range. "
                f"The range of valid ports is {first}-{last}"
            )
        elif self._ports.take(number):
            return
        else:
            why = "provided port is already allocated"
        raise refused(service, [invalid(path, number, why)])


def _wants_node_ports(spec: dict[str, Any]) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def _wanted_ips(spec: dict[str, Any]) -> list[str]:
    single = spec.get("clusterIP")
    return list(spec.get("clusterIPs") or ([single] if single else []))


def _keep_allocated(new: Document, old: Document) -> None:
    """Carry over what an update leaves out, and drop what its type no longer has."""
    spec, stored = _spec(new), _spec(old)
    was_external = stored.get("type") == "ExternalName"
    is_external = spec.get("type") == "ExternalName"
    if not was_external and not is_external:
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(name) and stored.get(name):
                spec[name] = stored[name]
    _keep_ports(spec, stored)
    if stored.get("type") == "LoadBalancer" and spec.get("type") == "LoadBalancer":
        number = stored.get("healthCheckNodePort")
        if number and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = number
    for name, has in _TYPE_FIELDS.items():
        if has(stored) and not has(spec) and spec.get(name) == stored.get(name):
            spec.pop(name, None)


def _keep_ports(spec: dict[str, Any], stored: dict[str, Any]) -> None:
    had = stored.get("type") in _WITH_PORTS
    has = spec.get("type") in _WITH_PORTS
    by_port = {
        (port.get("port"), port.get("protocol") or "TCP"): port.get("nodePort")
        for port in stored.get("ports") or ()
    }
    for port in spec.get("ports") or ():
        key = (port.get("port"), port.get("protocol") or "TCP")
        if had and has and not port.get("nodePort") and by_port.get(key):
            port["nodePort"] = by_port[key]
        elif had and not has and port.get("nodePort") == by_port.get(key):
            port.pop("nodePort", None)


_TYPE_FIELDS: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "externalTrafficPolicy": lambda spec: (
        spec.get("type") in _WITH_PORTS or bool(spec.get("externalIPs"))
    ),
    "allocateLoadBalancerNodePorts": lambda spec: spec.get("type") == "LoadBalancer",
    "loadBalancerClass": lambda spec: spec.get("type") == "LoadBalancer",
    "healthCheckNodePort": lambda spec: spec.get("type") == "LoadBalancer",
    "internalTrafficPolicy": lambda spec: spec.get("type") != "ExternalName",
}
