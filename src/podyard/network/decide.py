"""What is to be forwarded → one nftables table.

Rewriting happens where a packet enters (prerouting, and output for the host itself);
masquerading where it leaves, and only where the answer would else go astray. An
address or port that nobody serves is refused. Connections that are established keep
their endpoint: they are known to the kernel, and pass the rules only once.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from podyard.lib.values import dataclass
from podyard.network.build import Endpoint, HostPort, ServiceRule
from podyard.network.table import Collection, Table, replace_table

_BY_PORT: Final = "inet_proto . inet_service"
#: So many endpoints are chosen from by one rule each, more by a map.
_RULES_BELOW: Final = 8
#: Every address on this link, or many: nothing of it is masqueraded.
_GROUPS: Final = {4: "224.0.0.0/4", 6: "ff00::/8"}


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What of this node the rules depend on.

    Attributes:
        table: name of the nftables table.
        bridge: the Pod bridge.
        pod_cidr: its Pods.
        service_cidr: the ClusterIPs.
        bridged_packets_are_filtered: the kernel's br_netfilter is on, so a reply
            between two Pods of the bridge passes connection tracking.
        pod_cidr_6: its Pods' IPv6 addresses; empty for IPv4 alone.
        service_cidr_6: likewise, the ClusterIPs.
    """

    table: str
    bridge: str
    pod_cidr: str
    service_cidr: str
    bridged_packets_are_filtered: bool
    pod_cidr_6: str = ""
    service_cidr_6: str = ""

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The addresses of its Pods, of each family."""
        return tuple(filter(None, (self.pod_cidr, self.pod_cidr_6)))

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """The ClusterIPs, of each family."""
        return tuple(filter(None, (self.service_cidr, self.service_cidr_6)))


@dataclass(frozen=True, slots=True)
class _Family:
    """One address family: what rules of it are called, and where Pods and Services are.

    Attributes:
        version: 4 or 6.
        pods: the addresses of its Pods.
        services: the ClusterIPs.
    """

    version: int
    pods: str
    services: str

    @property
    def word(self) -> str:
        """What nft calls it in a rule."""
        return "ip" if self.version == 4 else "ip6"

    @property
    def suffix(self) -> str:
        """What ends the names of its maps."""
        return "" if self.version == 4 else "_6"

    @property
    def type(self) -> str:
        """The type of its addresses."""
        return f"ipv{self.version}_addr"

    @property
    def by_address(self) -> str:
        """The type of address, protocol and port."""
        return f"{self.type} . inet_proto . inet_service"

    @property
    def learned(self) -> str:
        """A set in which the kernel notes who was sent where."""
        return f"type {self.type}; size 65535; flags dynamic,timeout;"

    @property
    def to(self) -> str:
        """What matches address, protocol and port."""
        return f"{self.word} daddr . meta l4proto . th dport"

    @property
    def only(self) -> str:
        """What matches its packets where no address does."""
        return f"meta nfproto ipv{self.version}"


def _families(facts: NetworkFacts) -> tuple[_Family, ...]:
    families = [_Family(4, facts.pod_cidr, facts.service_cidr)]
    if facts.pod_cidr_6:
        families.append(_Family(6, facts.pod_cidr_6, facts.service_cidr_6))
    return tuple(families)


def decide_ruleset(
    facts: NetworkFacts,
    *,
    services: Iterable[ServiceRule] = (),
    ports: Iterable[HostPort] = (),
) -> str:
    """Return the input of ``nft -f``: the whole table, replaced in one transaction."""
    return replace_table(decide_table(facts, services=services, ports=ports))


def decide_table(
    facts: NetworkFacts,
    *,
    services: Iterable[ServiceRule] = (),
    ports: Iterable[HostPort] = (),
) -> Table:
    """Return the table that forwards these."""
    families = _families(facts)
    plans = {
        family.version: _Plan(family, ipaddress.ip_network(family.pods))
        for family in families
    }
    for rule in services:
        plan = plans.get(_version(rule.ips[0]))
        if plan is not None:
            plan.add_service(rule)
    for port in ports:
        plan = plans.get(_version(port.to[0]))
        if plan is not None:
            plan.add_host_port(port)
    collections: dict[str, Collection] = {}
    learned: dict[str, str] = {}
    chains: dict[str, tuple[str, ...]] = {"refuse": _REFUSE}
    for plan in plans.values():
        collections |= plan.collections()
        learned |= plan.learned
        chains |= plan.chains
    return Table(
        name=facts.table,
        collections=collections,
        learned=learned,
        chains=chains | _base_chains(facts, families),
    )


def _version(ip: str) -> int:
    """Return the family of what is known to be an address."""
    return 6 if ":" in ip else 4


#: A reset is never held back by the limit on ICMP errors.
_REFUSE: Final = ("meta l4proto tcp reject with tcp reset", "reject")


@dataclass(slots=True)
class _Plan:
    """Chains and the map entries that lead to them."""

    family: _Family
    pods: ipaddress.IPv4Network | ipaddress.IPv6Network
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    host: dict[str, str] = field(default_factory=dict)
    no_ips: dict[str, str] = field(default_factory=dict)
    no_ports: dict[str, str] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    #: Endpoint → whether it is a Pod of this node.
    targets: dict[str, bool] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    def collections(self) -> dict[str, Collection]:
        """Return the maps and sets of this family, by name."""
        family, end = self.family, self.family.suffix
        to_verdict, from_port = (
            f"{family.by_address} : verdict",
            f"{_BY_PORT} : verdict",
        )
        pair = f"{family.type} . {family.type}"
        hairpins = dict.fromkeys((f"{ip} . {ip}" for ip in sorted(self.targets)), "")
        elsewhere = dict.fromkeys(sorted(self.elsewhere), "")
        return {
            f"cluster_ips{end}": Collection("map", to_verdict, self.addresses),
            f"host_ports{end}": Collection("map", from_port, self.host),
            f"unserved_ips{end}": Collection("map", to_verdict, self.no_ips),
            f"unserved_ports{end}": Collection("map", from_port, self.no_ports),
            f"hairpins{end}": Collection("set", pair, hairpins),
            f"elsewhere{end}": Collection("set", family.by_address, elsewhere),
        }

    def add_service(self, rule: ServiceRule) -> None:
        protocol = rule.protocol.lower()
        where = f"{_named(rule.ips[0])}-{protocol}-{rule.port}"
        keys = [f"{ip} . {protocol} . {rule.port}" for ip in rule.ips]
        more = [f"{ip} . {protocol} . {rule.port}" for ip in rule.external_ips]
        verdict = self._serve(f"service-{where}", rule, rule.endpoints)
        outside = verdict
        if rule.outside is not None:
            outside = self._serve(f"outside-{where}", rule, rule.outside)
        self._point(keys, verdict, self.addresses, self.no_ips, rule.drops_inside)
        self._point(more, outside, self.addresses, self.no_ips, rule.drops_outside)
        if rule.node_port:
            ports = [f"{protocol} . {rule.node_port}"]
            self._point(ports, outside, self.host, self.no_ports, rule.drops_outside)

    @staticmethod
    def _point(
        keys: Iterable[str],
        chain: str,
        served: dict[str, str],
        unserved: dict[str, str],
        drops: bool,  # noqa: FBT001 - one of several answers
    ) -> None:
        for key in keys:
            if chain:
                served.setdefault(key, f"goto {chain}")
            else:
                unserved.setdefault(key, "drop" if drops else "goto refuse")

    def _serve(
        self, name: str, rule: ServiceRule, endpoints: tuple[Endpoint, ...]
    ) -> str:
        """Add the chain of a Service; return its name, empty where nobody serves."""
        if not endpoints:
            return ""
        if rule.affinity_s:
            self._add_sticky(name, rule, endpoints)
        else:
            rules = _dnat(self.family, rule.protocol.lower(), endpoints)
            self.chains.setdefault(name, rules)
        self._aim(rule.protocol.lower(), endpoints)
        return name

    def _add_sticky(
        self, name: str, rule: ServiceRule, endpoints: tuple[Endpoint, ...]
    ) -> None:
        choices: list[str] = []
        known: list[str] = []
        for ip, port in endpoints:
            one = f"{name}-to-{_named(ip)}-{port}"
            memory = f"seen-{one}"
            source = f"{self.family.word} saddr"
            self.learned[memory] = self.family.learned
            self.chains[one] = (
                f"update @{memory} {{ {source} timeout {rule.affinity_s}s }}",
                *_dnat(self.family, rule.protocol.lower(), ((ip, port),)),
            )
            known.append(f"{source} @{memory} goto {one}")
            choices.append(f"{len(choices)} : goto {one}")
        pick = f"numgen random mod {len(choices)} vmap {{ {', '.join(choices)} }}"
        self.chains[name] = (*known, pick)

    def add_host_port(self, port: HostPort) -> None:
        protocol = port.protocol.lower()
        where = _named(port.host_ip) or f"any{self.family.suffix}"
        chain = f"host-{where}-{protocol}-{port.port}"
        self.chains.setdefault(chain, _dnat(self.family, protocol, (port.to,)))
        self._aim(protocol, (port.to,))
        if port.host_ip:
            key = f"{port.host_ip} . {protocol} . {port.port}"
            self.addresses.setdefault(key, f"goto {chain}")
        else:
            self.host.setdefault(f"{protocol} . {port.port}", f"goto {chain}")

    def _aim(self, protocol: str, endpoints: Iterable[Endpoint]) -> None:
        for ip, port in endpoints:
            if ip not in self.targets:
                self.targets[ip] = ipaddress.ip_address(ip) in self.pods
            if not self.targets[ip]:
                self.elsewhere.add(f"{ip} . {protocol} . {port}")


def _named(ip: str) -> str:
    """Return an address as a name may hold it."""
    return ip.replace(":", "-")


def _dnat(
    family: _Family, protocol: str, endpoints: tuple[Endpoint, ...]
) -> tuple[str, ...]:
    # The protocol is named again because a port can only be rewritten where it exists.
    match, word = f"meta l4proto {protocol}", family.word
    if len(endpoints) > _RULES_BELOW:
        choices = ", ".join(
            f"{number} : {ip} . {port}" for number, (ip, port) in enumerate(endpoints)
        )
        pick = f"numgen random mod {len(endpoints)} map {{ {choices} }}"
        return (f"{match} dnat {word} addr . port to {pick}",)
    # A few rules load much faster than a map. Each takes its share of what is left.
    last = len(endpoints) - 1
    rules = []
    for number, (ip, port) in enumerate(endpoints):
        chance = "" if number == last else f"numgen random mod {last + 1 - number} 0 "
        host = f"[{ip}]" if ":" in ip else ip
        rules.append(f"{match} {chance}dnat {word} to {host}:{port}")
    return tuple(rules)


def _base_chains(
    facts: NetworkFacts, families: Sequence[_Family]
) -> dict[str, tuple[str, ...]]:
    bridge = f'"{facts.bridge}"'
    refuse = [rule for family in families for rule in _refusals(family)]
    return {
        "services": tuple(_entries(families)),
        "nat_prerouting": (
            "type nat hook prerouting priority dstnat; policy accept;",
            "jump services",
        ),
        "nat_output": (
            "type nat hook output priority -100; policy accept;",
            "jump services",
        ),
        "nat_postrouting": (
            "type nat hook postrouting priority srcnat; policy accept;",
            f"oifname {bridge} ip saddr 127.0.0.0/8 masquerade",
            *(rule for family in families for rule in _masquerade(facts, family)),
        ),
        "raw_prerouting": (
            "type filter hook prerouting priority raw; policy accept;",
            f"iifname {bridge} ip daddr 127.0.0.0/8 drop",
        ),
        "filter_input": (
            "type filter hook input priority filter; policy accept;",
            *(f"{f.to} vmap @unserved_ips{f.suffix}" for f in families),
            # Only who begins: the host may have that port for its own end.
            *(
                f"ct state new {f.only} fib daddr type local "
                f"meta l4proto . th dport vmap @unserved_ports{f.suffix}"
                for f in families
            ),
        ),
        "filter_forward": (
            "type filter hook forward priority filter; policy accept;",
            *refuse,
        ),
        "filter_output": (
            "type filter hook output priority filter; policy accept;",
            *refuse,
        ),
    }


def _entries(families: Sequence[_Family]) -> Iterator[str]:
    for family in families:
        yield f"{family.to} vmap @cluster_ips{family.suffix}"
        # What the kernel never lets a packet from ::1 leave by, is not sent there.
        local = family.only if family.version == 4 else "ip6 daddr != ::1"
        yield (
            f"{local} fib daddr type local "
            f"meta l4proto . th dport vmap @host_ports{family.suffix}"
        )


def _masquerade(facts: NetworkFacts, family: _Family) -> Iterator[str]:
    bridge = f'"{facts.bridge}"'
    word, pods = family.word, family.pods
    pair = f"{word} saddr . {word} daddr"
    yield f"ct status dnat {pair} @hairpins{family.suffix} masquerade"
    if not facts.bridged_packets_are_filtered:
        # The reply would go straight from Pod to Pod, past the rewriting.
        yield f"oifname {bridge} ct status dnat {word} saddr {pods} masquerade"
    yield (
        f"{word} saddr {pods} "
        f"{word} daddr != {{ {pods}, {_GROUPS[family.version]} }} "
        f'oifname != {{ {bridge}, "lo" }} masquerade'
    )
    # An endpoint that is not here would answer the client past us.
    yield f"ct status dnat {family.to} @elsewhere{family.suffix} masquerade"


def _refusals(family: _Family) -> Iterator[str]:
    yield f"{family.to} vmap @unserved_ips{family.suffix}"
    yield f"{family.word} daddr {family.services} goto refuse"


# --- flows that lead nowhere ---


@dataclass(frozen=True, slots=True)
class Flow:
    """A UDP flow as connection tracking knows it.

    Attributes:
        source: who sends, as it was sent.
        to: whereto, as it was sent.
        answers: who answers, after rewriting.
    """

    source: Endpoint
    to: Endpoint
    answers: Endpoint


@dataclass(frozen=True, slots=True)
class UdpTargets:
    """Where UDP is sent on to.

    Attributes:
        addresses: address and port → endpoints.
        ports: address family (4 or 6) and port of the host → endpoints.
    """

    addresses: Mapping[Endpoint, frozenset[Endpoint]]
    ports: Mapping[tuple[int, int], frozenset[Endpoint]]


def udp_targets(
    services: Iterable[ServiceRule], ports: Iterable[HostPort]
) -> UdpTargets:
    """Return where UDP goes by these rules."""
    addresses: dict[Endpoint, frozenset[Endpoint]] = {}
    host: dict[tuple[int, int], frozenset[Endpoint]] = {}
    for rule in services:
        if rule.protocol != "UDP":
            continue
        outside = frozenset(rule.endpoints if rule.outside is None else rule.outside)
        for ip in rule.ips:
            addresses.setdefault((ip, rule.port), frozenset(rule.endpoints))
        for ip in rule.external_ips:
            addresses.setdefault((ip, rule.port), outside)
        if rule.node_port:
            host.setdefault((_version(rule.ips[0]), rule.node_port), outside)
    for port in ports:
        if port.protocol == "UDP" and port.host_ip:
            addresses.setdefault((port.host_ip, port.port), frozenset({port.to}))
        elif port.protocol == "UDP":
            key = (_version(port.to[0]), port.port)
            host.setdefault(key, frozenset({port.to}))
    return UdpTargets(addresses, host)


def stale_flows(
    flows: Iterable[Flow],
    targets: UdpTargets,
    *,
    service_cidrs: Iterable[str],
    host_ips: frozenset[str],
) -> Iterator[Flow]:
    """Yield the flows that lead where the rules would not send them now.

    UDP has no end: a client that goes on sending would talk to a gone endpoint for
    ever. TCP connections are left alone, they end by themselves.

    Args:
        flows: the UDP flows of this machine.
        targets: where UDP goes now.
        service_cidrs: the ClusterIPs.
        host_ips: the addresses of this machine.
    """
    networks = [ipaddress.ip_network(cidr) for cidr in service_cidrs]
    for flow in flows:
        if flow.to in targets.addresses:
            wanted = targets.addresses[flow.to]
        elif any(ipaddress.ip_address(flow.to[0]) in net for net in networks):
            wanted = frozenset()
        elif flow.to[0] in host_ips:
            port = (_version(flow.to[0]), flow.to[1])
            if port not in targets.ports:
                continue
            wanted = targets.ports[port]
        else:
            continue
        if flow.answers not in wanted:
            yield flow
