"""What is to be forwarded → one nftables table.

Rewriting happens where a packet enters (prerouting, and output for the host itself);
masquerading where it leaves, and only where the answer would else go astray. An
address or port that nobody serves is refused. Connections that are established keep
their endpoint: they are known to the kernel, and pass the rules only once.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final

from podyard.lib.values import dataclass
from podyard.network.build import Endpoint, HostPort, ServiceRule
from podyard.network.table import Collection, Table, replace_table

_BY_ADDRESS: Final = "ipv4_addr . inet_proto . inet_service"
_BY_PORT: Final = "inet_proto . inet_service"
_PAIR: Final = "ipv4_addr . ipv4_addr"
#: So many endpoints are chosen from by one rule each, more by a map.
_RULES_BELOW: Final = 8
#: A set in which the kernel notes who was sent where.
_LEARNED: Final = "type ipv4_addr; size 65535; flags dynamic,timeout;"


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
    """

    table: str
    bridge: str
    pod_cidr: str
    service_cidr: str
    bridged_packets_are_filtered: bool


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
    plan = _Plan(ipaddress.IPv4Network(facts.pod_cidr))
    for rule in services:
        plan.add_service(rule)
    for port in ports:
        plan.add_host_port(port)
    hairpins = dict.fromkeys((f"{ip} . {ip}" for ip in sorted(plan.targets)), "")
    return Table(
        name=facts.table,
        collections={
            "cluster_ips": Collection(
                "map", f"{_BY_ADDRESS} : verdict", plan.addresses
            ),
            "host_ports": Collection("map", f"{_BY_PORT} : verdict", plan.host),
            "unserved_ips": Collection("map", f"{_BY_ADDRESS} : verdict", plan.no_ips),
            "unserved_ports": Collection("map", f"{_BY_PORT} : verdict", plan.no_ports),
            "hairpins": Collection("set", _PAIR, hairpins),
            "elsewhere": Collection(
                "set", _BY_ADDRESS, dict.fromkeys(sorted(plan.elsewhere), "")
            ),
        },
        learned=plan.learned,
        chains={"refuse": _REFUSE, **plan.chains, **_base_chains(facts)},
    )


#: A reset is never held back by the limit on ICMP errors.
_REFUSE: Final = ("meta l4proto tcp reject with tcp reset", "reject")


@dataclass(slots=True)
class _Plan:
    """Chains and the map entries that lead to them."""

    pods: ipaddress.IPv4Network
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    host: dict[str, str] = field(default_factory=dict)
    no_ips: dict[str, str] = field(default_factory=dict)
    no_ports: dict[str, str] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    #: Endpoint → whether it is a Pod of this node.
    targets: dict[str, bool] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    def add_service(self, rule: ServiceRule) -> None:
        protocol = rule.protocol.lower()
        where = f"{rule.ips[0]}-{protocol}-{rule.port}"
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
            self.chains.setdefault(name, _dnat(rule.protocol.lower(), endpoints))
        self._aim(rule.protocol.lower(), endpoints)
        return name

    def _add_sticky(
        self, name: str, rule: ServiceRule, endpoints: tuple[Endpoint, ...]
    ) -> None:
        choices: list[str] = []
        known: list[str] = []
        for ip, port in endpoints:
            one = f"{name}-to-{ip}-{port}"
            memory = f"seen-{one}"
            self.learned[memory] = _LEARNED
            self.chains[one] = (
                f"update @{memory} {{ ip saddr timeout {rule.affinity_s}s }}",
                *_dnat(rule.protocol.lower(), ((ip, port),)),
            )
            known.append(f"ip saddr @{memory} goto {one}")
            choices.append(f"{len(choices)} : goto {one}")
        pick = f"numgen random mod {len(choices)} vmap {{ {', '.join(choices)} }}"
        self.chains[name] = (*known, pick)

    def add_host_port(self, port: HostPort) -> None:
        protocol = port.protocol.lower()
        chain = f"host-{port.host_ip or 'any'}-{protocol}-{port.port}"
        self.chains.setdefault(chain, _dnat(protocol, (port.to,)))
        self._aim(protocol, (port.to,))
        if port.host_ip:
            key = f"{port.host_ip} . {protocol} . {port.port}"
            self.addresses.setdefault(key, f"goto {chain}")
        else:
            self.host.setdefault(f"{protocol} . {port.port}", f"goto {chain}")

    def _aim(self, protocol: str, endpoints: Iterable[Endpoint]) -> None:
        for ip, port in endpoints:
            if ip not in self.targets:
                self.targets[ip] = ipaddress.IPv4Address(ip) in self.pods
            if not self.targets[ip]:
                self.elsewhere.add(f"{ip} . {protocol} . {port}")


def _dnat(protocol: str, endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    # The protocol is named again because a port can only be rewritten where it exists.
    match = f"meta l4proto {protocol}"
    if len(endpoints) > _RULES_BELOW:
        choices = ", ".join(
            f"{number} : {ip} . {port}" for number, (ip, port) in enumerate(endpoints)
        )
        pick = f"numgen random mod {len(endpoints)} map {{ {choices} }}"
        return (f"{match} dnat ip addr . port to {pick}",)
    # A few rules load much faster than a map. Each takes its share of what is left.
    last = len(endpoints) - 1
    return tuple(
        f"{match} dnat ip to {ip}:{port}"
        if number == last
        else f"{match} numgen random mod {last + 1 - number} 0 dnat ip to {ip}:{port}"
        for number, (ip, port) in enumerate(endpoints)
    )


def _base_chains(facts: NetworkFacts) -> dict[str, tuple[str, ...]]:
    bridge = f'"{facts.bridge}"'
    between_pods = (
        []
        if facts.bridged_packets_are_filtered
        else [
            # The reply would go straight from Pod to Pod, past the rewriting.
            f"oifname {bridge} ct status dnat ip saddr {facts.pod_cidr} masquerade"
        ]
    )
    leaving = (
        f"ip saddr {facts.pod_cidr} "
        f"ip daddr != {{ {facts.pod_cidr}, 224.0.0.0/4 }} "
        f'oifname != {{ {bridge}, "lo" }} masquerade'
    )
    unserved = "ip daddr . meta l4proto . th dport vmap @unserved_ips"
    refuse = (unserved, f"ip daddr {facts.service_cidr} goto refuse")
    return {
        "services": (
            "ip daddr . meta l4proto . th dport vmap @cluster_ips",
            "fib daddr type local meta l4proto . th dport vmap @host_ports",
        ),
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
            "ct status dnat ip saddr . ip daddr @hairpins masquerade",
            f"oifname {bridge} ip saddr 127.0.0.0/8 masquerade",
            *between_pods,
            leaving,
            # An endpoint that is not here would answer the client past us.
            "ct status dnat ip daddr . meta l4proto . th dport @elsewhere masquerade",
        ),
        "raw_prerouting": (
            "type filter hook prerouting priority raw; policy accept;",
            f"iifname {bridge} ip daddr 127.0.0.0/8 drop",
        ),
        "filter_input": (
            "type filter hook input priority filter; policy accept;",
            unserved,
            # Only who begins: the host may have that port for its own end.
            (
                "ct state new fib daddr type local "
                "meta l4proto . th dport vmap @unserved_ports"
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
        ports: port of the host → endpoints.
    """

    addresses: Mapping[Endpoint, frozenset[Endpoint]]
    ports: Mapping[int, frozenset[Endpoint]]


def udp_targets(
    services: Iterable[ServiceRule], ports: Iterable[HostPort]
) -> UdpTargets:
    """Return where UDP goes by these rules."""
    addresses: dict[Endpoint, frozenset[Endpoint]] = {}
    host: dict[int, frozenset[Endpoint]] = {}
    for rule in services:
        if rule.protocol != "UDP":
            continue
        outside = frozenset(rule.endpoints if rule.outside is None else rule.outside)
        for ip in rule.ips:
            addresses.setdefault((ip, rule.port), frozenset(rule.endpoints))
        for ip in rule.external_ips:
            addresses.setdefault((ip, rule.port), outside)
        if rule.node_port:
            host.setdefault(rule.node_port, outside)
    for port in ports:
        if port.protocol == "UDP" and port.host_ip:
            addresses.setdefault((port.host_ip, port.port), frozenset({port.to}))
        elif port.protocol == "UDP":
            host.setdefault(port.port, frozenset({port.to}))
    return UdpTargets(addresses, host)


def stale_flows(
    flows: Iterable[Flow],
    targets: UdpTargets,
    *,
    service_cidr: str,
    host_ips: frozenset[str],
) -> Iterator[Flow]:
    """Yield the flows that lead where the rules would not send them now.

    UDP has no end: a client that goes on sending would talk to a gone endpoint for
    ever. TCP connections are left alone, they end by themselves.

    Args:
        flows: the UDP flows of this machine.
        targets: where UDP goes now.
        service_cidr: the ClusterIPs.
        host_ips: the addresses of this machine.
    """
    network = ipaddress.IPv4Network(service_cidr)
    for flow in flows:
        if flow.to in targets.addresses:
            wanted = targets.addresses[flow.to]
        elif ipaddress.IPv4Address(flow.to[0]) in network:
            wanted = frozenset()
        elif flow.to[0] in host_ips and flow.to[1] in targets.ports:
            wanted = targets.ports[flow.to[1]]
        else:
            continue
        if flow.answers not in wanted:
            yield flow
