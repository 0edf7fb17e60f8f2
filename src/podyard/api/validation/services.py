"""Rules of Services.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/services-networking/service/
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.syntax import (
    check_cidr,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_ip,
    check_port_number,
    check_qualified_name,
)
from podyard.api.validation.containers import PROTOCOLS
from podyard.api.validation.core import check_endpoint_ip
from podyard.api.validation.faults import check_choice, check_text
from podyard.api.validation.object_meta import check_labels
from podyard.api.validation.probes import check_port

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES: Final = ("ClientIP", "None")
_POLICIES: Final = ("Cluster", "Local")
_FAMILIES: Final = ("IPv4", "IPv6")
_FAMILY_POLICIES: Final = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_MAX_AFFINITY_S: Final = 86400
_ONLY_BALANCED: Final = "may only be used when `type` is 'LoadBalancer'"
_NOT_EXTERNAL: Final = "may not be set for ExternalName services"
_HEADLESS: Final = "None"
_SET_ONCE: Final = "may not change once set"


def cluster_ips(spec: Document) -> list[str]:
    """Return the cluster addresses, whichever of the two fields names them."""
    listed = spec.get("clusterIPs") or []
    single = spec.get("clusterIP") or ""
    return list(listed) or ([single] if single else [])


def is_headless(spec: Document) -> bool:
    """Say whether the Service has no address of its own."""
    return cluster_ips(spec) == [_HEADLESS]


def check_service(service: Document) -> Iterator[FieldError]:
    """Check the spec of a Service with its defaults filled in."""
    spec = service.get("spec") or {}
    ports, type_ = spec.get("ports") or (), spec.get("type") or ""
    if not ports and not is_headless(spec) and type_ != "ExternalName":
        yield required("spec.ports")
    yield from _check_type_fields(spec, type_)
    names: set[str] = set()
    for index, port in enumerate(ports):
        yield from _check_service_port(
            port, f"spec.ports[{index}]", names, name_required=len(ports) > 1
        )
    yield from check_labels(spec.get("selector"), "spec.selector")
    yield from check_choice(
        "spec.sessionAffinity", spec.get("sessionAffinity"), _AFFINITIES
    )
    yield from _check_affinity(spec)
    if type_ != "ExternalName":
        yield from _check_addresses(spec)
    yield from _check_external_ips(spec)
    yield from check_choice("spec.type", type_, _TYPES)
    yield from _check_port_clashes(ports, type_)
    yield from _check_balancer(spec, type_)
    yield from _check_traffic(spec, type_)


def _check_type_fields(spec: Document, type_: str) -> Iterator[FieldError]:
    if type_ in {"LoadBalancer", "NodePort"} and is_headless(spec):
        yield invalid(
            "spec.clusterIPs[0]",
            _HEADLESS,
            f"may not be set to 'None' for {type_} services",
        )
    if type_ != "ExternalName":
        return
    if cluster_ips(spec):
        yield forbidden_field("spec.clusterIPs", _NOT_EXTERNAL)
    if spec.get("ipFamilies"):
        yield forbidden_field("spec.ipFamilies", _NOT_EXTERNAL)
    if spec.get("ipFamilyPolicy") is not None:
        yield forbidden_field("spec.ipFamilyPolicy", _NOT_EXTERNAL)
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        yield required("spec.externalName")
    else:
        yield from check_text("spec.externalName", name, check_dns1123_subdomain)


def _check_service_port(
    port: Document, field: str, names: set[str], *, name_required: bool
) -> Iterator[FieldError]:
    name = port.get("name") or ""
    if name:
        yield from check_text(f"{field}.name", name, check_dns1123_label)
        if name in names:
            yield duplicate(f"{field}.name", name)
        names.add(name)
    elif name_required:
        yield required(f"{field}.name")
    number = port.get("port") or 0
    for text in check_port_number(number):
        yield invalid(f"{field}.port", number, text)
    yield from check_choice(f"{field}.protocol", port.get("protocol"), PROTOCOLS)
    yield from check_port(port.get("targetPort"), f"{field}.targetPort")
    if port.get("appProtocol") is not None:
        yield from check_text(
            f"{field}.appProtocol", port["appProtocol"], check_qualified_name
        )


def _check_affinity(spec: Document) -> Iterator[FieldError]:
    field = "spec.sessionAffinityConfig"
    config = spec.get("sessionAffinityConfig")
    if spec.get("sessionAffinity") == "None" and config is not None:
        yield forbidden_field(field, "must not be set when session affinity is None")
    if spec.get("sessionAffinity") != "ClientIP":
        return
    needed = "when session affinity type is ClientIP"
    if config is None:
        yield required(field, needed)
    elif config.get("clientIP") is None:
        yield required(f"{field}.clientIP", needed)
    elif config["clientIP"].get("timeoutSeconds") is None:
        yield required(f"{field}.clientIP.timeoutSeconds", needed)
    else:
        seconds = config["clientIP"]["timeoutSeconds"]
        if not 0 < seconds <= _MAX_AFFINITY_S:
            yield invalid(
                f"{field}.clientIP.timeoutSeconds",
                seconds,
                f"must be greater than 0 and less than {_MAX_AFFINITY_S}",
            )


def _check_addresses(spec: Document) -> Iterator[FieldError]:
    field, ips = "spec.clusterIPs", cluster_ips(spec)
    listed = spec.get("clusterIPs") or []
    single = spec.get("clusterIP") or ""
    if single and listed and listed[0] != single:
        yield invalid(field, listed, "first value must match `clusterIP`")
    if listed and not single:
        yield invalid(field, listed, "must be empty when `clusterIP` is not specified")
    yield from _check_families(spec)
    faults: list[FieldError] = []
    for index, ip in enumerate(ips):
        if index == 0 and ip == _HEADLESS:
            if len(ips) > 1:
                faults.append(
                    invalid(field, ips, "'None' must be the first and only value")
                )
            continue
        faults += check_text(f"{field}[{index}]", ip, check_ip)
    yield from faults
    if len(ips) > 2:
        yield invalid(field, ips, "may only hold up to 2 values")
    if not faults and ips and not is_headless(spec):
        yield from _check_address_families(ips, spec.get("ipFamilies") or [])


def _check_families(spec: Document) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        where = f"spec.ipFamilies[{index}]"
        if family not in _FAMILIES:
            yield not_supported(where, family, _FAMILIES)
        if family in seen:
            yield duplicate(where, family)
        seen.add(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        yield not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)


def _check_address_families(
    ips: Sequence[str], families: Sequence[str]
) -> Iterator[FieldError]:
    versions = [ipaddress.ip_address(ip).version for ip in ips]
    if len(ips) > 1 and len(set(versions)) != len(ips):
        yield invalid(
            "spec.clusterIPs",
            list(ips),
            "may specify no more than one IP for each IP family",
        )
    for index, (ip, version) in enumerate(zip(ips, versions, strict=True)):
        if index < len(families) and families[index] in _FAMILIES:
            wanted = families[index]
            if wanted != f"IPv{version}":
                yield invalid(
                    f"spec.clusterIPs[{index}]",
                    ip,
                    f"expected an {wanted} value as indicated by `ipFamilies[{index}]`",
                )


def _check_external_ips(spec: Document) -> Iterator[FieldError]:
    for index, ip in enumerate(spec.get("externalIPs") or ()):
        where = f"spec.externalIPs[{index}]"
        faults = list(check_text(where, ip, check_ip))
        yield from faults
        if not faults:
            yield from check_endpoint_ip(ip, where)


def _check_port_clashes(ports: Sequence[Document], type_: str) -> Iterator[FieldError]:
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        number = port.get("nodePort") or 0
        where = f"spec.ports[{index}].nodePort"
        if not number:
            continue
        if type_ == "ClusterIP":
            yield forbidden_field(where, "may not be used when `type` is 'ClusterIP'")
        claim = (port.get("protocol") or "", number)
        if claim in node_ports:
            yield duplicate(where, number)
        node_ports.add(claim)
    taken: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        claim = (port.get("protocol") or "", port.get("port") or 0)
        if claim in taken:
            shown = {
                "Name": "",
                "Protocol": claim[0],
                "AppProtocol": None,
                "Port": claim[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            yield duplicate(f"spec.ports[{index}]", shown)
        taken.add(claim)


def _check_balancer(spec: Document, type_: str) -> Iterator[FieldError]:
    balanced = type_ == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges and not balanced:
        yield forbidden_field("spec.LoadBalancerSourceRanges", _ONLY_BALANCED)
    for index, value in enumerate(ranges):
        yield from check_text(
            f"spec.LoadBalancerSourceRanges[{index}]", value.strip(), check_cidr
        )
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        yield forbidden_field("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCED)
    class_ = spec.get("loadBalancerClass")
    if class_ is not None and balanced:
        yield from check_text("spec.loadBalancerClass", class_, check_qualified_name)
    elif class_ is not None:
        yield forbidden_field("spec.loadBalancerClass", _ONLY_BALANCED)


def _check_traffic(spec: Document, type_: str) -> Iterator[FieldError]:
    policy = spec.get("externalTrafficPolicy") or ""
    is_external = type_ in {"NodePort", "LoadBalancer"} or (
        type_ == "ClusterIP" and bool(spec.get("externalIPs"))
    )
    if is_external:
        yield from check_choice("spec.externalTrafficPolicy", policy, _POLICIES)
    elif policy:
        yield invalid(
            "spec.externalTrafficPolicy",
            policy,
            "may only be set for externally-accessible services",
        )
    port = spec.get("healthCheckNodePort") or 0
    if port and not (type_ == "LoadBalancer" and policy == "Local"):
        yield invalid(
            "spec.healthCheckNodePort",
            port,
            "may only be set when `type` is 'LoadBalancer' and "
            "`externalTrafficPolicy` is 'Local'",
        )
    elif port:
        for text in check_port_number(port):
            yield invalid("spec.healthCheckNodePort", port, text)
    internal = spec.get("internalTrafficPolicy")
    if type_ in {"ClusterIP", "NodePort", "LoadBalancer"} or internal:
        yield from check_choice("spec.internalTrafficPolicy", internal, _POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)


def check_service_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that addresses, families and the balancer's class stay."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" not in {after.get("type"), before.get("type")}:
        yield from _check_same_addresses(after, before)
    both_balanced = after.get("type") == before.get("type") == "LoadBalancer"
    class_ = after.get("loadBalancerClass")
    if both_balanced and class_ != before.get("loadBalancerClass"):
        yield invalid("spec.loadBalancerClass", class_, _SET_ONCE)


def _check_same_addresses(new: Document, old: Document) -> Iterator[FieldError]:
    after, before = cluster_ips(new), cluster_ips(old)
    if is_headless(new) and is_headless(old):
        return
    if before and not after:
        yield invalid("spec.clusterIPs[0]", after, "primary clusterIP can not be unset")
        return
    shared = min(len(after), len(before))
    checked = shared if len(after) == len(before) else min(shared, 1)
    for index in range(checked):
        if after[index] != before[index]:
            yield invalid(f"spec.clusterIPs[{index}]", after, _SET_ONCE)
    if len(before) > len(after) == 1 and new.get("ipFamilyPolicy") != "SingleStack":
        yield invalid(
            "spec.ipFamilyPolicy",
            new.get("ipFamilyPolicy"),
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        )
    if is_headless(new) != is_headless(old):
        return
    families, old_families = new.get("ipFamilies") or [], old.get("ipFamilies") or []
    if families and old_families and families[0] != old_families[0]:
        yield invalid("spec.ipFamilies[0]", families, _SET_ONCE)


def check_service_status(service: Document) -> Iterator[FieldError]:
    """Check the addresses a load balancer reports."""
    field = "status.loadBalancer.ingress"
    status = (service.get("status") or {}).get("loadBalancer") or {}
    entries = status.get("ingress") or ()
    if entries and (service.get("spec") or {}).get("type") != "LoadBalancer":
        yield forbidden_field(
            field, "may only be used when `spec.type` is 'LoadBalancer'"
        )
        return
    for index, entry in enumerate(entries):
        where = f"{field}[{index}]"
        ip, mode = entry.get("ip") or "", entry.get("ipMode")
        if ip:
            yield from check_text(f"{where}.ip", ip, check_ip)
        if ip and mode is None:
            yield required(f"{where}.ipMode", "must be specified when `ip` is set")
        elif mode is not None and not ip:
            yield forbidden_field(
                f"{where}.ipMode", "may not be specified when `ip` is not set"
            )
        elif mode is not None and mode not in {"Proxy", "VIP"}:
            yield not_supported(f"{where}.ipMode", mode, ("Proxy", "VIP"))
        hostname = entry.get("hostname") or ""
        if hostname:
            where = f"{where}.hostname"
            yield from check_text(where, hostname, check_dns1123_subdomain)
            if not check_ip(hostname):
                yield invalid(where, hostname, "must be a DNS name, not an IP address")
