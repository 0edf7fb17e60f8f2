"""Services, EndpointSlices and Pods → what is to be forwarded where.

Sources: https://kubernetes.io/docs/reference/networking/virtual-ips/,
https://kubernetes.io/docs/reference/networking/service-protocols/ and the
``hostPort`` of https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: An address and a port.
Endpoint = tuple[str, int]

_SERVICE_NAME: Final = "kubernetes.io/service-name"
#: What the kernel lets no packet leave by: nothing can be led away from there.
_NOWHERE: Final = "::1"
_ANY: Final = {"", "0.0.0.0", "::"}  # noqa: S104 - what a Pod may write
_PROTOCOLS: Final = frozenset({"TCP", "UDP", "SCTP"})
_AFFINITY_S: Final = 10800


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """One port of a Service, of one address family.

    Attributes:
        ips: ClusterIPs.
        protocol: ``TCP``, ``UDP`` or ``SCTP``.
        endpoints: where to; empty when nobody serves.
        node_port: 0 for none.
        external_ips: further addresses, for clients from outside.
        outside: where to for node port and external addresses; ``None`` for the same
            as ``endpoints``.
        drops_inside: a policy of ``Local`` leaves nobody: clients are not answered.
        drops_outside: likewise for node port and external addresses.
        affinity_s: a client stays with its endpoint for so long; 0 for not at all.
    """

    ips: tuple[str, ...]
    port: int
    protocol: str
    endpoints: tuple[Endpoint, ...]
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    outside: tuple[Endpoint, ...] | None = None
    drops_inside: bool = False
    drops_outside: bool = False
    affinity_s: int = 0


@dataclass(frozen=True, slots=True)
class HostPort:
    """One ``hostPort``; ``host_ip`` is empty for every address of ``to``'s family."""

    port: int
    protocol: str
    to: Endpoint
    host_ip: str = ""


def slice_owner(item: Document) -> tuple[str, str]:
    """Return namespace and name of the Service an EndpointSlice is of.

    The name is empty where there is none.
    """
    metadata = item["metadata"]
    name = (metadata.get("labels") or {}).get(_SERVICE_NAME) or ""
    return str(metadata.get("namespace", "")), str(name)


def service_rules(
    services: Iterable[Document],
    slices: Iterable[Document],
    *,
    pod_cidrs: Sequence[str] = (),
) -> tuple[ServiceRule, ...]:
    """Return the rules of all Services that have a ClusterIP.

    Args:
        services: the Services.
        slices: their EndpointSlices.
        pod_cidrs: the addresses of this node's Pods, which policies of ``Local`` keep
            to; empty for any.
    """
    by_service: dict[tuple[str, str], list[Document]] = {}
    for item in slices:
        by_service.setdefault(slice_owner(item), []).append(item)
    rules: list[ServiceRule] = []
    for service in services:
        metadata = service["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        rules += rules_of(service, by_service.get(key, ()), pod_cidrs=pod_cidrs)
    return tuple(sorted(rules, key=lambda rule: (rule.ips, rule.port, rule.protocol)))


def rules_of(
    service: Document, slices: Sequence[Document], *, pod_cidrs: Sequence[str] = ()
) -> Iterator[ServiceRule]:
    """Yield the rules of one Service; of a headless one or a mere name, none."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return
    listed = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
    for version in (4, 6):
        ips = tuple(dict.fromkeys(ip for ip in listed if ip_version(ip) == version))
        if ips:
            local = _Local(pod_cidrs)
            yield from _rules_of_family(service, slices, ips, version, local)


def _rules_of_family(
    service: Document,
    slices: Sequence[Document],
    ips: tuple[str, ...],
    version: int,
    local: "_Local",
) -> Iterator[ServiceRule]:
    spec = service["spec"]
    for port in spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        if protocol not in _PROTOCOLS:
            continue
        endpoints = _endpoints(slices, port.get("name") or "", version)
        inside = local.limit(endpoints, spec.get("internalTrafficPolicy"))
        outside = local.limit(endpoints, spec.get("externalTrafficPolicy"))
        yield ServiceRule(
            ips=ips,
            port=int(port["port"]),
            protocol=protocol,
            endpoints=inside,
            node_port=int(port.get("nodePort") or 0),
            external_ips=_external_ips(service, version),
            outside=None if outside == inside else outside,
            drops_inside=bool(endpoints) and not inside,
            drops_outside=bool(endpoints) and not outside,
            affinity_s=_affinity_s(spec),
        )


class _Local:
    """What is on this node."""

    def __init__(self, pod_cidrs: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(cidr) for cidr in pod_cidrs]

    def limit(
        self, endpoints: tuple[Endpoint, ...], policy: str | None
    ) -> tuple[Endpoint, ...]:
        if policy != "Local" or not self._networks:
            return endpoints
        return tuple(e for e in endpoints if self._has(ipaddress.ip_address(e[0])))

    def _has(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(ip in network for network in self._networks)


def _external_ips(service: Document, version: int) -> tuple[str, ...]:
    found = list((service.get("spec") or {}).get("externalIPs") or ())
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    found += [
        entry.get("ip")
        for entry in balancer.get("ingress") or ()
        if entry.get("ipMode") != "Proxy"
    ]
    return tuple(dict.fromkeys(ip for ip in found if ip_version(ip) == version))


def _affinity_s(spec: Document) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or _AFFINITY_S)


def ip_version(text: object) -> int:
    """Return 4 or 6, and 0 where a text is no address."""
    try:
        return ipaddress.ip_address(str(text)).version
    except ValueError:
        return 0


def _endpoints(
    slices: Iterable[Document], port_name: str, version: int
) -> tuple[Endpoint, ...]:
    """Return where a port leads.

    Endpoints that are ready are used; where none is, those that still serve while
    terminating (KEP-1669).
    """
    ready: set[Endpoint] = set()
    terminating: set[Endpoint] = set()
    for item in slices:
        if item.get("addressType", "IPv4") != f"IPv{version}":
            continue
        ports = [
            int(port["port"])
            for port in item.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
        ]
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            addresses = endpoint.get("addresses") or ()
            good = [ip for ip in addresses if ip_version(ip) == version]
            found = {(ip, port) for ip in good[:1] for port in ports}
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
    taken: dict[tuple[int, str, int, str], HostPort] = {}
    for pod in sorted(pods, key=_age):
        for port in host_ports_of(pod):
            key = (ip_version(port.to[0]), port.host_ip, port.port, port.protocol)
            taken.setdefault(key, port)
    return tuple(taken[key] for key in sorted(taken))


def _age(pod: Document) -> tuple[str, str, str]:
    metadata = pod["metadata"]
    return (
        str(metadata.get("creationTimestamp") or ""),
        str(metadata.get("namespace", "")),
        str(metadata["name"]),
    )


def host_ports_of(pod: Document) -> Iterator[HostPort]:
    """Yield the host ports of one Pod while it has an address and runs."""
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    ips = [entry.get("ip") for entry in status.get("podIPs") or ()]
    ips = [ip for ip in ips or [status.get("podIP")] if ip_version(ip)]
    if spec.get("hostNetwork"):
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
            if host_ip == _NOWHERE:
                continue
            anywhere = host_ip in _ANY
            version = ip_version(host_ip)
            for ip in ips:
                # "0.0.0.0" means every address of IPv4 alone, "::" every one.
                if version not in {0, ip_version(ip)} and host_ip != "::":
                    continue
                if not version and not anywhere:
                    continue
                yield HostPort(
                    port=int(port["hostPort"]),
                    protocol=port.get("protocol") or "TCP",
                    to=(ip, int(port["containerPort"])),
                    host_ip="" if anywhere else host_ip,
                )
