"""Rules of the core kinds without a file of their own.

Source: ``pkg/apis/core/validation`` (v1.36).
"""

import base64
import binascii
import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid,
    required,
)
from podyard.api.resources import parse_resources
from podyard.api.syntax import (
    check_cidr,
    check_config_key,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_ip,
    check_port_number,
    check_qualified_name,
)
from podyard.api.validation.containers import PROTOCOLS
from podyard.api.validation.faults import (
    check_choice,
    check_immutable,
    check_text,
    too_long,
)
from podyard.api.validation.object_meta import check_kube_finalizer
from podyard.api.validation.resources import check_quantity
from podyard.api.validation.scheduling import check_taints

#: What a Secret or a ConfigMap may hold in all.
MAX_DATA_BYTES: Final = 1024 * 1024
_FROZEN: Final = "field is immutable when `immutable` is set"
_REDACTED: Final = "<secret contents redacted>"
_ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"


# --- Secrets and ConfigMaps ----------------------------------------------------------


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def check_secret(secret: Document) -> Iterator[FieldError]:
    """Check the keys, the size and what the type asks for."""
    data = secret.get("data") or {}
    for key in data:
        for text in check_config_key(key):
            yield invalid(f"data[{key}]", key, text)
    if sum(_decoded_length(value) for value in data.values()) > MAX_DATA_BYTES:
        yield too_long("data", MAX_DATA_BYTES)
    yield from _check_secret_type(secret, data)


def _decoded_length(text: str) -> int:
    return len(text) // 4 * 3 - text[-2:].count("=")


def _check_secret_type(secret: Document, data: Document) -> Iterator[FieldError]:
    match secret.get("type"):
        case "kubernetes.io/service-account-token":
            annotations = (secret.get("metadata") or {}).get("annotations") or {}
            if not annotations.get(_ACCOUNT_NAME):
                yield required(f"metadata.annotations[{_ACCOUNT_NAME}]")
        case "kubernetes.io/dockercfg":
            yield from _check_json(data, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            yield from _check_json(data, ".dockerconfigjson")
        case "kubernetes.io/basic-auth":
            if not {"username", "password"} & data.keys():
                yield required("data[username]")
                yield required("data[password]")
        case "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                yield required("data[ssh-privatekey]")
        case "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if key not in data:
                    yield required(f"data[{key}]")
        case _:
            return


def _check_json(data: Document, key: str) -> Iterator[FieldError]:
    field = f"data[{key}]"
    if key not in data:
        yield required(field)
        return
    content = _decode(data[key])
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        text = "unexpected end of JSON input" if not content.strip() else error.msg
        yield invalid(field, _REDACTED, text)
        return
    if not isinstance(found, dict):
        kinds = {list: "array", str: "string", bool: "bool"}
        kind = kinds.get(type(found), "number")
        if found is not None:
            yield invalid(
                field,
                _REDACTED,
                f"json: cannot unmarshal {kind} into Go value of type "
                "map[string]interface {}",
            )


def check_secret_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that type and frozen data stay."""
    yield from check_immutable("type", new.get("type"), old.get("type"))
    yield from _check_frozen(new, old, ("data",))


def check_config_map(config_map: Document) -> Iterator[FieldError]:
    """Check the keys of both bags, and the size."""
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    for key in data:
        for text in check_config_key(key):
            yield invalid(f"data[{key}]", key, text)
        if key in binary:
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in binary:
        for text in check_config_key(key):
            yield invalid(f"binaryData[{key}]", key, text)
    size = sum(len(value.encode()) for value in data.values())
    size += sum(_decoded_length(value) for value in binary.values())
    if size > MAX_DATA_BYTES:
        yield too_long("", MAX_DATA_BYTES)


def check_config_map_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that frozen data stays."""
    yield from _check_frozen(new, old, ("data", "binaryData"))


def _check_frozen(
    new: Document, old: Document, keys: Sequence[str]
) -> Iterator[FieldError]:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield forbidden_field("immutable", _FROZEN)
    for key in keys:
        if (new.get(key) or {}) != (old.get(key) or {}):
            yield forbidden_field(key, _FROZEN)


# --- Namespaces -----------------------------------------------------------------------


def check_namespace(namespace: Document) -> Iterator[FieldError]:
    """Check the finalizers of the spec."""
    for finalizer in (namespace.get("spec") or {}).get("finalizers") or ():
        yield from check_text("spec.finalizers", finalizer, check_qualified_name)
        yield from check_kube_finalizer("spec.finalizers", finalizer)


def check_namespace_status_update(
    new: Document, _old: Document
) -> Iterator[FieldError]:
    """Check that the phase agrees with the deletion mark."""
    phase = (new.get("status") or {}).get("phase") or ""
    deleted = (new.get("metadata") or {}).get("deletionTimestamp") is not None
    if not deleted and phase != "Active":
        yield invalid(
            "status.Phase",
            phase,
            "may only be 'Active' if `deletionTimestamp` is empty",
        )
    if deleted and phase != "Terminating":
        yield invalid(
            "status.Phase",
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        )


# --- Nodes ----------------------------------------------------------------------------


def check_node(node: Document) -> Iterator[FieldError]:
    """Check taints, amounts and address ranges."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    yield from check_taints(spec.get("taints") or (), "metadata.taints")
    for key in ("capacity", "allocatable"):
        for name, amount in parse_resources(status.get(key)).items():
            yield from check_quantity(name, amount, f"status.{key}.{name}")
    ranges = spec.get("podCIDRs") or []
    faults: list[FieldError] = []
    for index, value in enumerate(ranges):
        faults += check_text(f"spec.podCIDRs[{index}]", value, check_cidr)
    yield from faults
    if not faults and len(ranges) > 1:
        families = {
            ipaddress.ip_network(value, strict=False).version for value in ranges
        }
        if len(families) != len(ranges):
            yield invalid(
                "spec.podCIDRs",
                ranges,
                "may specify no more than one CIDR for each IP family",
            )


def check_node_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check what may be set once, and addresses without doubles."""
    seen: list[Document] = []
    for index, address in enumerate((new.get("status") or {}).get("addresses") or ()):
        if address in seen:
            yield duplicate(f"status.addresses[{index}]", address)
        seen.append(address)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if before.get("podCIDRs") and before["podCIDRs"] != (after.get("podCIDRs") or []):
        yield forbidden_field(
            "spec.podCIDRs",
            'node updates may not change podCIDR except from "" to valid',
        )
    if before.get("providerID") and before["providerID"] != after.get("providerID"):
        yield forbidden_field(
            "spec.providerID",
            'node updates may not change providerID except from "" to valid',
        )


# --- Endpoints ------------------------------------------------------------------------


def check_endpoints(endpoints: Document) -> Iterator[FieldError]:
    """Check the addresses and ports of every subset."""
    for index, subset in enumerate(endpoints.get("subsets") or ()):
        where = f"subsets[{index}]"
        ready = subset.get("addresses") or ()
        not_ready = subset.get("notReadyAddresses") or ()
        if not ready and not not_ready:
            yield required(where, "must specify `addresses` or `notReadyAddresses`")
        for key, addresses in (("addresses", ready), ("notReadyAddresses", not_ready)):
            for number, address in enumerate(addresses):
                yield from _check_endpoint_address(address, f"{where}.{key}[{number}]")
        ports = subset.get("ports") or ()
        for number, port in enumerate(ports):
            yield from _check_endpoint_port(
                port, f"{where}.ports[{number}]", name_required=len(ports) > 1
            )


def _check_endpoint_address(address: Document, field: str) -> Iterator[FieldError]:
    ip = address.get("ip") or ""
    faults = list(check_text(f"{field}.ip", ip, check_ip))
    yield from faults
    if address.get("hostname"):
        yield from check_text(
            f"{field}.hostname", address["hostname"], check_dns1123_label
        )
    if address.get("nodeName") is not None:
        yield from check_text(
            f"{field}.nodeName", address["nodeName"], check_dns1123_subdomain
        )
    if not faults:
        yield from check_endpoint_ip(ip, f"{field}.ip")


def check_endpoint_ip(address: str, field: str) -> Iterator[FieldError]:
    """Refuse addresses no Service can send traffic to."""
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        yield invalid(field, address, f"may not be unspecified ({address})")
    if ip.is_loopback:
        yield invalid(
            field, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        )
    if ip.is_link_local:
        yield invalid(
            field,
            address,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        )
    local = ipaddress.ip_network("224.0.0.0/24" if ip.version == 4 else "ff02::/16")
    if ip in local:
        yield invalid(
            field,
            address,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        )


def _check_endpoint_port(
    port: Document, field: str, *, name_required: bool
) -> Iterator[FieldError]:
    name = port.get("name") or ""
    if name:
        yield from check_text(f"{field}.name", name, check_dns1123_label)
    elif name_required:
        yield required(f"{field}.name")
    number = port.get("port") or 0
    for text in check_port_number(number):
        yield invalid(f"{field}.port", number, text)
    yield from check_choice(f"{field}.protocol", port.get("protocol"), PROTOCOLS)
    if port.get("appProtocol") is not None:
        yield from check_text(
            f"{field}.appProtocol", port["appProtocol"], check_qualified_name
        )
