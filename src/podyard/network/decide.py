"""Services, endpoints and host ports → one nftables table, as text.

Rewriting happens where a packet enters (prerouting, and output for the host itself);
masquerading where it leaves. A ClusterIP or port that nobody serves is refused.
Sources: https://kubernetes.io/docs/reference/networking/virtual-ips/ and the
``hostPort`` of https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from podyard.api.documents import Document

#: An IPv4 address and a port.
Endpoint = tuple[str, int]

_SERVICE_NAME: Final = "kubernetes.io/service-name"
_ANY: Final = {"", "0.0.0.0", "::"}  # noqa: S104 - what a Pod may write


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


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """One port of a Service.

    Attributes:
        ips: ClusterIPs and external IPs.
        protocol: ``TCP``, ``UDP`` or ``SCTP``.
        node_port: 0 for none.
        endpoints: where to; empty when nobody serves.
    """

    ips: tuple[str, ...]
    port: int
    protocol: str
    endpoints: tuple[Endpoint, ...]
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class HostPort:
    """One ``hostPort``; ``host_ip`` is empty for every address of the host."""

    port: int
    protocol: str
    to: Endpoint
    host_ip: str = ""


def service_rules(
    services: Iterable[Document], slices: Iterable[Document]
) -> tuple[ServiceRule, ...]:
    """Return the rules of all Services that have a ClusterIP.

    Endpoints that are ready are used; where none is, those that still serve while
    terminating (KEP-1669).
    """
    by_service: dict[tuple[str, str], list[Document]] = {}
    for item in slices:
        metadata = item["metadata"]
        name = (metadata.get("labels") or {}).get(_SERVICE_NAME)
        if name and item.get("addressType", "IPv4") == "IPv4":
            key = (metadata.get("namespace", ""), name)
            by_service.setdefault(key, []).append(item)
    rules: list[ServiceRule] = []
    for service in services:
        metadata = service["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        rules += _rules_of(service, by_service.get(key, []))
    return tuple(sorted(rules, key=lambda rule: (rule.ips, rule.port, rule.protocol)))


def _rules_of(service: Document, slices: list[Document]) -> Iterator[ServiceRule]:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return
    ips = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
    ips = [ip for ip in (*ips, *(spec.get("externalIPs") or ())) if _is_ipv4(ip)]
    if not ips:
        return
    for port in spec.get("ports") or ():
        yield ServiceRule(
            ips=tuple(dict.fromkeys(ips)),
            port=int(port["port"]),
            protocol=port.get("protocol") or "TCP",
            endpoints=_endpoints(slices, port.get("name") or ""),
            node_port=int(port.get("nodePort") or 0),
        )


def _is_ipv4(text: object) -> bool:
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True


def _endpoints(slices: list[Document], port_name: str) -> tuple[Endpoint, ...]:
    ready: set[Endpoint] = set()
    terminating: set[Endpoint] = set()
    for item in slices:
        ports = [
            int(port["port"])
            for port in item.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
        ]
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            addresses = [ip for ip in endpoint.get("addresses") or () if _is_ipv4(ip)]
            found = {(ip, port) for ip in addresses[:1] for port in ports}
            if conditions.get("ready", True) is not False:
                ready |= found
            elif conditions.get("serving") and conditions.get("terminating"):
                terminating |= found
    return tuple(sorted(ready or terminating))


def host_ports(pods: Iterable[Document]) -> tuple[HostPort, ...]:
    """Return the host ports of the Pods that have an address and run.

    A Pod on the host's network binds its ports itself. Where two Pods claim one port,
    the older Pod keeps it.
    """
    taken: dict[tuple[str, int, str], HostPort] = {}
    for pod in sorted(pods, key=_age):
        for port in _host_ports_of(pod):
            taken.setdefault((port.host_ip, port.port, port.protocol), port)
    return tuple(taken[key] for key in sorted(taken))


def _age(pod: Document) -> tuple[str, str, str]:
    metadata = pod["metadata"]
    return (
        str(metadata.get("creationTimestamp") or ""),
        str(metadata.get("namespace", "")),
        str(metadata["name"]),
    )


def _host_ports_of(pod: Document) -> Iterator[HostPort]:
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    ip = status.get("podIP") or ""
    if spec.get("hostNetwork") or not _is_ipv4(ip):
        return
    if status.get("phase") in {"Succeeded", "Failed"}:
        return
    sidecars = [
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    for container in (*sidecars, *(spec.get("containers") or ())):
        for port in container.get("ports") or ():
            if not port.get("hostPort"):
                continue
            host_ip = port.get("hostIP") or ""
            if host_ip not in _ANY and not _is_ipv4(host_ip):
                continue
            yield HostPort(
                port=int(port["hostPort"]),
                protocol=port.get("protocol") or "TCP",
                to=(ip, int(port["containerPort"])),
                host_ip="" if host_ip in _ANY else host_ip,
            )


def decide_ruleset(
    facts: NetworkFacts,
    *,
    services: Iterable[ServiceRule] = (),
    ports: Iterable[HostPort] = (),
) -> str:
    """Return the input of ``nft -f``: the whole table, replaced in one transaction."""
    table = f"inet {facts.table}"
    served = [rule for rule in services if rule.endpoints]
    plan = _Plan()
    for rule in served:
        plan.add_service(rule)
    for port in ports:
        plan.add_host_port(port)
    lines = [
        f"table {table}",
        f"delete table {table}",
        f"table {table} {{",
        *_map("cluster_ips", "ipv4_addr . inet_proto . inet_service", plan.addresses),
        *_map("host_ports", "inet_proto . inet_service", plan.host),
        *_hairpins(plan.targets),
    ]
    for name, endpoints in plan.chains.items():
        lines += [f"  chain {name} {{", f"    {_dnat(name, endpoints)}", "  }"]
    lines += _base_chains(facts)
    lines.append("}")
    return "\n".join(lines) + "\n"


class _Plan:
    """Chains and the map entries that lead to them."""

    def __init__(self) -> None:
        self.chains: dict[str, tuple[Endpoint, ...]] = {}
        self.addresses: dict[str, str] = {}
        self.host: dict[str, str] = {}
        self.targets: set[str] = set()

    def add_service(self, rule: ServiceRule) -> None:
        protocol = rule.protocol.lower()
        chain = f"service-{rule.ips[0]}-{protocol}-{rule.port}"
        self._add_chain(chain, rule.endpoints)
        for ip in rule.ips:
            self.addresses.setdefault(f"{ip} . {protocol} . {rule.port}", chain)
        if rule.node_port:
            self.host.setdefault(f"{protocol} . {rule.node_port}", chain)

    def add_host_port(self, port: HostPort) -> None:
        protocol = port.protocol.lower()
        chain = f"host-{port.host_ip or 'any'}-{protocol}-{port.port}"
        self._add_chain(chain, (port.to,))
        if port.host_ip:
            key = f"{port.host_ip} . {protocol} . {port.port}"
            self.addresses.setdefault(key, chain)
        else:
            self.host.setdefault(f"{protocol} . {port.port}", chain)

    def _add_chain(self, name: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.chains.setdefault(name, endpoints)
        self.targets.update(ip for ip, _ in endpoints)


def _map(name: str, kind: str, entries: Mapping[str, str]) -> list[str]:
    lines = [f"  map {name} {{", f"    type {kind} : verdict"]
    if entries:
        body = ", ".join(f"{key} : goto {chain}" for key, chain in entries.items())
        lines.append(f"    elements = {{ {body} }}")
    return [*lines, "  }"]


def _hairpins(targets: Iterable[str]) -> list[str]:
    """Return the set of addresses that may reach themselves through a Service."""
    lines = ["  set hairpins {", "    type ipv4_addr . ipv4_addr"]
    pairs = ", ".join(f"{ip} . {ip}" for ip in sorted(targets))
    if pairs:
        lines.append(f"    elements = {{ {pairs} }}")
    return [*lines, "  }"]


def _dnat(chain: str, endpoints: tuple[Endpoint, ...]) -> str:
    # The protocol is named again because a port can only be rewritten where it exists.
    protocol = chain.rsplit("-", 2)[1]
    if len(endpoints) == 1:
        ip, port = endpoints[0]
        return f"meta l4proto {protocol} dnat ip to {ip}:{port}"
    choices = ", ".join(
        f"{number} : {ip} . {port}" for number, (ip, port) in enumerate(endpoints)
    )
    return (
        f"meta l4proto {protocol} dnat ip addr . port to "
        f"numgen random mod {len(endpoints)} map {{ {choices} }}"
    )


def _base_chains(facts: NetworkFacts) -> list[str]:
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
    refuse = [
        # A reset is never held back by the limit on ICMP errors.
        f"ip daddr {facts.service_cidr} meta l4proto tcp reject with tcp reset",
        f"ip daddr {facts.service_cidr} reject",
    ]
    chains = {
        "services": [
            "ip daddr . meta l4proto . th dport vmap @cluster_ips",
            "fib daddr type local meta l4proto . th dport vmap @host_ports",
        ],
        "nat_prerouting": [
            "type nat hook prerouting priority dstnat; policy accept;",
            "jump services",
        ],
        "nat_output": [
            "type nat hook output priority -100; policy accept;",
            "jump services",
        ],
        "nat_postrouting": [
            "type nat hook postrouting priority srcnat; policy accept;",
            "ct status dnat ip saddr . ip daddr @hairpins masquerade",
            f"oifname {bridge} ip saddr 127.0.0.0/8 masquerade",
            *between_pods,
            leaving,
        ],
        "raw_prerouting": [
            "type filter hook prerouting priority raw; policy accept;",
            f"iifname {bridge} ip daddr 127.0.0.0/8 drop",
        ],
        "filter_forward": [
            "type filter hook forward priority filter; policy accept;",
            *refuse,
        ],
        "filter_output": [
            "type filter hook output priority filter; policy accept;",
            *refuse,
        ],
    }
    lines = []
    for name, rules in chains.items():
        lines += [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
    return lines
