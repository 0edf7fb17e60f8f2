"""Question → answer, from what the API says of Services and Pods.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md (1.1.0).
Two names answer where some servers deny them: a Service without a ready endpoint, and
a namespace with nothing but names in it, are there and have no records of that type.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Final, Protocol

from podyard.lib.values import dataclass

#: What clients may keep of an answer, seconds.
TTL_S: Final = 5
#: The version of the specification that is followed.
VERSION: Final = "1.1.0"
#: CNAMEs that lead to CNAMEs are followed so often.
_MAX_CHAIN: Final = 8
_REVERSE_4: Final = ".in-addr.arpa"
_REVERSE_6: Final = ".ip6.arpa"


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What the names are made of.

    Attributes:
        domain: ``cluster.local``.
        address: the ClusterIP of DNS.
        networks: Pods and ClusterIPs; nobody else is asked for names of these.
    """

    domain: str
    address: str
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service or of an endpoint; ``protocol`` in lower case."""

    name: str
    number: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Peer:
    """An endpoint that is ready.

    Attributes:
        ip: its address.
        hostname: its name below the Service's.
        ports: its own ports.
    """

    ip: str
    hostname: str
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class NamedService:
    """A Service as names see it.

    Attributes:
        ips: its ClusterIPs; empty for a headless one.
        ports: its ports.
        external_name: of an ExternalName Service.
    """

    namespace: str
    name: str
    ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    external_name: str = ""


class View(Protocol):
    """What is known of the cluster."""

    def service(self, namespace: str, name: str) -> NamedService | None:
        """Return a Service."""

    def peers(self, namespace: str, name: str) -> Sequence[Peer]:
        """Return the ready endpoints of a Service."""

    def has_services(self, namespace: str) -> bool:
        """Tell whether a namespace has Services."""

    def has_pod(self, namespace: str, ip: str) -> bool:
        """Tell whether a Pod of a namespace has an address."""

    def has_pods(self, namespace: str) -> bool:
        """Tell whether a namespace has Pods with an address."""

    def names_of(self, ip: str) -> Sequence[tuple[str, str, str]]:
        """Return namespace, Service and hostname of an address.

        The hostname is empty where the address is the Service's own.
        """


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record; ``name`` has no dot at its end, ``data`` is as in a file."""

    name: str
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about a question.

    Attributes:
        records: the answer; empty for "no such records" or "no such name".
        additional: addresses of the names in ``records``.
        exists: whether the name is there.
        zone: whose SOA goes along with an empty answer.
        follow: a name elsewhere that the last CNAME leads to; empty for none.
    """

    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    exists: bool = True
    zone: str = ""
    follow: str = ""


_NO_DATA: Final = Answer()
_NO_NAME: Final = Answer(exists=False)


def decide_answer(
    name: str, type_: str, view: View, settings: DnsSettings
) -> Answer | None:
    """Return the answer, or ``None`` where others have to be asked.

    Args:
        name: in lower case, without a dot at its end.
        type_: ``A``, ``AAAA``, ``SRV``, …
        view: what is known of the cluster.
        settings: what the names are made of.
    """
    if name == settings.domain or name.endswith(f".{settings.domain}"):
        answer = _Inside(view, settings).answer(name, type_)
        return replace(answer, zone=settings.domain)
    if name.endswith((_REVERSE_4, _REVERSE_6)):
        return _reverse(name, type_, view, settings)
    return None


@dataclass(slots=True)
class _Inside:
    """Names of the cluster's own domain."""

    view: View
    settings: DnsSettings
    chain: int = field(default=0)

    def answer(self, name: str, type_: str) -> Answer:
        domain = self.settings.domain
        labels = name.removesuffix(domain).removesuffix(".").split(".")
        match labels:
            case [""]:
                return _select(type_, _apex(domain))
            case ["dns-version"]:
                return _select(type_, [Record(name, "TXT", f'"{VERSION}"')])
            case ["ns", "dns"]:
                return _select(type_, _addresses(name, [self.settings.address]))
            case ["svc"] | ["pod"] | ["dns"]:
                return _NO_DATA
            case [*rest, "svc"]:
                return self._below_svc(name, type_, rest)
            case [*rest, "pod"]:
                return self._below_pod(name, type_, rest)
            case _:
                return _NO_NAME

    def _below_svc(self, name: str, type_: str, labels: list[str]) -> Answer:
        namespace = labels[-1]
        if len(labels) == 1:
            return _NO_DATA if self.view.has_services(namespace) else _NO_NAME
        service = self.view.service(namespace, labels[-2])
        if service is None:
            return _NO_NAME
        if service.external_name:
            is_itself = len(labels) == 2
            return self._alias(name, type_, service) if is_itself else _NO_NAME
        match labels[:-2]:
            case []:
                return self._service(name, type_, service)
            case [label] if not label.startswith("_"):
                return self._peer(name, type_, service, label)
            case [protocol]:
                known = any(f"_{port.protocol}" == protocol for port in service.ports)
                return _NO_DATA if known else _NO_NAME
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return self._port(name, type_, service, port[1:], protocol[1:])
            case _:
                return _NO_NAME

    def _service(self, name: str, type_: str, service: NamedService) -> Answer:
        if type_ == "SRV":
            return self._located(name, service, service.ports)
        ips: Iterable[str] = service.ips
        if not service.ips:
            peers = self.view.peers(service.namespace, service.name)
            ips = dict.fromkeys(peer.ip for peer in peers)
        return _select(type_, _addresses(name, ips))

    def _peer(
        self, name: str, type_: str, service: NamedService, hostname: str
    ) -> Answer:
        peers = self.view.peers(service.namespace, service.name)
        ips = [peer.ip for peer in peers if peer.hostname == hostname]
        if not ips:
            return _NO_NAME
        return _select(type_, _addresses(name, dict.fromkeys(ips)))

    def _port(
        self, name: str, type_: str, service: NamedService, port: str, protocol: str
    ) -> Answer:
        ports = [p for p in service.ports if (p.name, p.protocol) == (port, protocol)]
        if not ports:
            return _NO_NAME
        return self._located(name, service, ports) if type_ == "SRV" else _NO_DATA

    def _located(
        self, name: str, service: NamedService, ports: Iterable[ServicePort]
    ) -> Answer:
        """Return SRV records, and the addresses of what they name."""
        own = f"{service.name}.{service.namespace}.svc.{self.settings.domain}"
        if service.ips:
            targets = [(own, port.number) for port in ports]
            hosts = {own: list(service.ips)}
        else:
            wanted = {(port.name, port.protocol) for port in ports}
            targets = []
            hosts = {}
            for peer in self.view.peers(service.namespace, service.name):
                host = f"{peer.hostname}.{own}"
                hosts.setdefault(host, []).append(peer.ip)
                targets += [
                    (host, port.number)
                    for port in peer.ports
                    if (port.name, port.protocol) in wanted
                ]
        targets = list(dict.fromkeys(targets))
        weight = max(100 // len(targets), 1) if targets else 0
        return Answer(
            tuple(
                Record(name, "SRV", f"0 {weight} {number} {host}.")
                for host, number in targets
            ),
            tuple(
                record
                for host in dict.fromkeys(host for host, _ in targets)
                for record in _addresses(host, hosts[host])
            ),
        )

    def _alias(self, name: str, type_: str, service: NamedService) -> Answer:
        target = service.external_name.rstrip(".").lower()
        if not target or _is_ip(target):
            return _NO_DATA
        alias = Record(name, "CNAME", f"{target}.")
        if type_ in {"CNAME", "ANY"}:
            return Answer((alias,))
        domain = self.settings.domain
        if target != domain and not target.endswith(f".{domain}"):
            return Answer((alias,), follow=target)
        self.chain += 1
        if self.chain > _MAX_CHAIN:
            return Answer((alias,))
        beyond = self.answer(target, type_)
        return replace(beyond, records=(alias, *beyond.records))

    def _below_pod(self, name: str, type_: str, labels: list[str]) -> Answer:
        namespace = labels[-1]
        if len(labels) == 1:
            return _NO_DATA if self.view.has_pods(namespace) else _NO_NAME
        if len(labels) > 2:
            return _NO_NAME
        for separator in (".", ":"):
            ip = labels[0].replace("-", separator)
            if _is_ip(ip) and self.view.has_pod(namespace, ip):
                return _select(type_, _addresses(name, [ip]))
        return _NO_NAME


def _apex(domain: str) -> list[Record]:
    return [Record(domain, "NS", f"ns.dns.{domain}.")]


def _addresses(name: str, ips: Iterable[str]) -> Iterator[Record]:
    for ip in ips:
        yield Record(name, "AAAA" if ":" in ip else "A", ip)


def _select(type_: str, records: Iterable[Record]) -> Answer:
    return Answer(tuple(r for r in records if type_ in {r.type, "ANY"}))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _reverse(name: str, type_: str, view: View, settings: DnsSettings) -> Answer | None:
    ip = _reversed(name)
    if ip is None:
        return None
    zone = _zone_of(ip, settings)
    names = [
        ".".join(filter(None, (hostname, service, namespace, "svc", settings.domain)))
        for namespace, service, hostname in view.names_of(str(ip))
    ]
    if names:
        records = [Record(name, "PTR", f"{found}.") for found in dict.fromkeys(names)]
        return replace(_select(type_, records), zone=zone or name)
    return Answer(exists=False, zone=zone) if zone else None


def _reversed(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a name of the reverse tree stands for."""
    try:
        if name.endswith(_REVERSE_4):
            digits = name.removesuffix(_REVERSE_4).split(".")
            return ipaddress.IPv4Address(".".join(reversed(digits)))
        nibbles = "".join(reversed(name.removesuffix(_REVERSE_6).split(".")))
        return ipaddress.IPv6Address(bytes.fromhex(nibbles))
    except ValueError:
        return None


def _zone_of(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, settings: DnsSettings
) -> str:
    for text in settings.networks:
        network = ipaddress.ip_network(text)
        if ip not in network:
            continue
        if network.version == 4:
            octets = str(network.network_address).split(".")[: network.prefixlen // 8]
            return ".".join(reversed(octets)) + _REVERSE_4
        nibbles = network.network_address.exploded.replace(":", "")
        return ".".join(reversed(nibbles[: network.prefixlen // 4])) + _REVERSE_6
    return ""
