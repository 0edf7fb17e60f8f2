"""Rules of EndpointSlices.

Source: ``pkg/apis/discovery/validation`` (v1.36).
"""

import ipaddress
from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, duplicate, invalid, required
from podyard.api.syntax import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_fqdn,
    check_ip,
    check_label_value,
    check_port_number,
    check_qualified_name,
)
from podyard.api.validation.containers import PROTOCOLS
from podyard.api.validation.core import check_endpoint_ip
from podyard.api.validation.faults import (
    check_choice,
    check_immutable,
    check_text,
    too_many,
)

_TYPES: Final = ("IPv4", "IPv6", "FQDN")
_MAX_ENDPOINTS: Final = 1000
_MAX_PORTS: Final = 20_000
_MAX_ADDRESSES: Final = 100
_MAX_ZONE_HINTS: Final = 8


def check_endpoint_slice(endpoint_slice: Document) -> Iterator[FieldError]:
    """Check the endpoints and ports of a slice."""
    type_ = endpoint_slice.get("addressType") or ""
    yield from check_choice("addressType", type_, _TYPES)
    endpoints = endpoint_slice.get("endpoints") or ()
    if len(endpoints) > _MAX_ENDPOINTS:
        yield too_many("endpoints", len(endpoints), _MAX_ENDPOINTS)
    for index, endpoint in enumerate(endpoints):
        yield from _check_endpoint(endpoint, f"endpoints[{index}]", type_)
    yield from _check_ports(endpoint_slice.get("ports") or ())


def _check_endpoint(endpoint: Document, field: str, type_: str) -> Iterator[FieldError]:
    addresses = endpoint.get("addresses") or ()
    where = f"{field}.addresses"
    if not addresses:
        yield required(where, "must contain at least 1 address")
    elif len(addresses) > _MAX_ADDRESSES:
        yield too_many(where, len(addresses), _MAX_ADDRESSES)
    for index, address in enumerate(addresses):
        yield from _check_address(address, f"{where}[{index}]", type_)
    topology = endpoint.get("deprecatedTopology") or {}
    for key, value in topology.items():
        where = f"{field}.deprecatedTopology[{key}]"
        yield from check_text(where, key, check_qualified_name)
        yield from check_text(where, value, check_label_value)
    if endpoint.get("nodeName") is not None:
        yield from check_text(
            f"{field}.nodeName", endpoint["nodeName"], check_dns1123_subdomain
        )
    if endpoint.get("zone") is not None:
        yield from check_text(f"{field}.zone", endpoint["zone"], check_label_value)
    if endpoint.get("hostname") is not None:
        yield from check_text(
            f"{field}.hostname", endpoint["hostname"], check_dns1123_label
        )
    hints = (endpoint.get("hints") or {}).get("forZones") or ()
    if len(hints) > _MAX_ZONE_HINTS:
        yield too_many(f"{field}.hints.forZones", len(hints), _MAX_ZONE_HINTS)


def _check_address(address: str, field: str, type_: str) -> Iterator[FieldError]:
    if type_ == "FQDN":
        yield from check_text(field, address, check_fqdn)
        return
    faults = list(check_text(field, address, check_ip))
    yield from faults
    if faults:
        return
    if type_ in {"IPv4", "IPv6"}:
        version = ipaddress.ip_address(address).version
        if type_ != f"IPv{version}":
            yield invalid(field, address, f"must be a valid {type_} address")
    yield from check_endpoint_ip(address, field)


def _check_ports(
    ports: "tuple[Document, ...] | list[Document]",
) -> Iterator[FieldError]:
    if len(ports) > _MAX_PORTS:
        yield too_many("ports", len(ports), _MAX_PORTS)
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"ports[{index}]"
        name = port.get("name") or ""
        if name:
            yield from check_text(f"{where}.name", name, check_dns1123_label)
        if name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        yield from check_choice(f"{where}.protocol", port.get("protocol"), PROTOCOLS)
        if port.get("port") is not None:
            for text in check_port_number(port["port"]):
                yield invalid(f"{where}.port", port["port"], text)
        if port.get("appProtocol") is not None:
            yield from check_text(
                f"{where}.appProtocol", port["appProtocol"], check_qualified_name
            )


def check_endpoint_slice_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that the address type stays."""
    yield from check_immutable(
        "addressType", new.get("addressType"), old.get("addressType")
    )
