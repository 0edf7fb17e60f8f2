"""Which Pods serve a Service: its EndpointSlices and its Endpoints. Pure.

Source: kubernetes ``staging/src/k8s.io/endpointslice``, ``pkg/controller/endpoint``
(v1.36) and KEP-1672 for endpoints that terminate.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: What an EndpointSlice belongs to.
SERVICE_NAME: Final = "kubernetes.io/service-name"
#: Who keeps an EndpointSlice.
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
SLICE_MANAGER: Final = "endpointslice-controller.k8s.io"
MIRROR_MANAGER: Final = "endpointslicemirroring-controller.k8s.io"
#: Who keeps an Endpoints.
ENDPOINTS_MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
ENDPOINTS_MANAGER: Final = "endpoint-controller"
HEADLESS: Final = "service.kubernetes.io/headless"
#: What the annotation of an Endpoints that had to leave addresses out says.
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
#: So many endpoints go into one EndpointSlice.
SLICE_SIZE: Final = 100
#: So many addresses go into one Endpoints.
ENDPOINTS_SIZE: Final = 1000
_FAMILIES: Final = ("IPv4", "IPv6")
_SKIP_MIRROR: Final = "endpointslice.kubernetes.io/skip-mirror"
_LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_OWN_LABELS: Final = frozenset(
    {SERVICE_NAME, MANAGED_BY, ENDPOINTS_MANAGED_BY, HEADLESS}
)

#: The ports of a group of endpoints, hashable.
PortKey = tuple[tuple[str, int, str, str], ...]


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What has to be written so that the slices of a Service are right."""

    create: tuple[Document, ...] = ()
    update: tuple[Document, ...] = ()
    delete: tuple[Document, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.update or self.delete)


def is_selecting(service: Document) -> bool:
    """Tell whether the endpoints of a Service follow its selector.

    Those without a selector, and names of something outside, are other people's.
    """
    spec = service.get("spec") or {}
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def selects(service: Document, labels: Mapping[str, str]) -> bool:
    """Tell whether a Service selects Pods with such labels."""
    selector = (service.get("spec") or {}).get("selector") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def relevant(pod: Document) -> tuple[object, ...]:
    """Return what of a Pod its Services' endpoints depend on."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    status = pod.get("status") or {}
    return (
        metadata.get("uid"),
        metadata.get("labels"),
        metadata.get("deletionTimestamp") is None,
        spec.get("nodeName"),
        status.get("phase") in _FINISHED,
        _is_ready(pod),
        _ips(pod),
    )


def build_slices(
    service: Document, pods: Iterable[Document], present: Sequence[Document]
) -> SlicePlan:
    """Return what to write so that the slices of a Service show those Pods.

    Endpoints stay in the slice they are in; full slices are left alone.

    Args:
        service: a Service with a selector.
        pods: the Pods of its namespace that it selects.
        present: its slices that are ours.
    """
    listed = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
    families = (service.get("spec") or {}).get("ipFamilies") or ["IPv4"]
    labels = {
        **_labels(service),
        SERVICE_NAME: service["metadata"]["name"],
        MANAGED_BY: SLICE_MANAGER,
    }
    draft = _Draft(service["metadata"], _owned(service, "Service", labels), present)
    for family in families:
        # Without an endpoint one empty slice stays, so that readers know.
        draft.family(family, _grouped(service, listed, family) or {(): []})
    return draft.plan(families)


def build_mirrors(endpoints: Document, present: Sequence[Document]) -> SlicePlan:
    """Return what to write so that slices show an Endpoints that a person wrote.

    Args:
        endpoints: the Endpoints of a Service without a selector.
        present: the slices that mirror it.

    Source: kubernetes ``staging/src/k8s.io/endpointslice`` and KEP-0752 (v1.36).
    """
    metadata = endpoints["metadata"]
    labels = {
        **{k: v for k, v in (metadata.get("labels") or {}).items() if k != HEADLESS},
        SERVICE_NAME: metadata["name"],
        MANAGED_BY: MIRROR_MANAGER,
    }
    draft = _Draft(metadata, _owned(endpoints, "Endpoints", labels), present)
    for family in _FAMILIES:
        draft.family(family, _mirrored(endpoints, family))
    return draft.plan(_FAMILIES)


def is_mirrored(endpoints: Document, service: Document | None) -> bool:
    """Tell whether slices are to show an Endpoints: nobody else makes them."""
    metadata = endpoints["metadata"]
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if labels.get(_SKIP_MIRROR) == "true" or _LEADER in notes:
        return False
    spec = (service or {}).get("spec")
    return spec is not None and not spec.get("selector")


def _mirrored(endpoints: Document, family: str) -> dict[PortKey, list[Document]]:
    version = 6 if family == "IPv6" else 4
    groups: dict[PortKey, dict[str, Document]] = {}
    for subset in endpoints.get("subsets") or ():
        key = _port_key(subset.get("ports") or ())
        for field_name, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(field_name) or ():
                ip = str(address["ip"])
                if ipaddress.ip_address(ip).version != version:
                    continue
                found = groups.setdefault(key, {})
                if len(found) < ENDPOINTS_SIZE:
                    found[ip] = _mirror(address, ready=ready)
    return {key: list(found.values()) for key, found in groups.items()}


def _mirror(address: Document, *, ready: bool) -> Document:
    endpoint: Document = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for name in ("hostname", "nodeName", "targetRef"):
        if address.get(name):
            endpoint[name] = address[name]
    return endpoint


def _owned(owner: Document, kind: str, labels: dict[str, str]) -> Document:
    """Return the metadata of a slice that goes when its owner goes."""
    metadata = owner["metadata"]
    return {
        "namespace": metadata["namespace"],
        "labels": labels,
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": kind,
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


@dataclass(slots=True)
class _Draft:
    """A plan that grows.

    Attributes:
        owner: the metadata of whose endpoints these are.
        metadata: what every slice has.
        present: the slices that are there.
    """

    owner: Document
    metadata: Document
    present: Sequence[Document]
    create: list[Document] = field(default_factory=list)
    update: list[Document] = field(default_factory=list)
    delete: list[Document] = field(default_factory=list)

    def plan(self, families: Sequence[str]) -> SlicePlan:
        """Return the plan; slices of other families go."""
        self.delete += [
            item for item in self.present if item.get("addressType") not in families
        ]
        return SlicePlan(tuple(self.create), tuple(self.update), tuple(self.delete))

    def family(self, family: str, wanted: Mapping[PortKey, list[Document]]) -> None:
        """Put the endpoints of a family into slices, a group of ports each."""
        present = [item for item in self.present if item.get("addressType") == family]
        by_ports: dict[PortKey, list[Document]] = {}
        for item in sorted(present, key=lambda item: str(item["metadata"]["name"])):
            by_ports.setdefault(_port_key(item.get("ports") or ()), []).append(item)
        spare = [
            item
            for key, items in by_ports.items()
            if key not in wanted
            for item in items
        ]
        for key, endpoints in wanted.items():
            self._group(family, key, endpoints, by_ports.get(key, []), spare)
        self.delete += spare

    def _group(
        self,
        family: str,
        key: PortKey,
        endpoints: list[Document],
        present: Sequence[Document],
        spare: list[Document],
    ) -> None:
        left = {_identity(endpoint): endpoint for endpoint in endpoints}
        filled: list[tuple[Document, list[Document]]] = []
        for item in present:
            kept = [
                left.pop(_identity(old))
                for old in item.get("endpoints") or ()
                if _identity(old) in left
            ]
            filled.append((item, kept))
        rest = list(left.values())
        for _, kept in filled:
            room = max(SLICE_SIZE - len(kept), 0)
            kept.extend(rest[:room])
            del rest[:room]
        needs_placeholder = not endpoints
        for item, kept in filled:
            if kept or needs_placeholder:
                needs_placeholder = False
                self._write(item, family, key, kept)
            else:
                spare.append(item)
        while rest or needs_placeholder:
            needs_placeholder = False
            reused = spare.pop(0) if spare else None
            self._write(reused, family, key, rest[:SLICE_SIZE])
            del rest[:SLICE_SIZE]

    def _write(
        self,
        present: Document | None,
        family: str,
        key: PortKey,
        endpoints: list[Document],
    ) -> None:
        content: Document = {
            "endpoints": endpoints,
            "ports": [_port_of(port) for port in key],
        }
        if present is None:
            made: Document = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**self.metadata, "name": self._free_name(family)},
                "addressType": family,
                **content,
            }
            self.create.append(made)
            return
        metadata = {**present["metadata"], **self.metadata}
        changed = {**present, "metadata": metadata, **content}
        if _normal(changed) != _normal(present):
            self.update.append(changed)

    def _free_name(self, family: str) -> str:
        """Return a name that is the same whoever asks again: no slice comes twice."""
        taken = {item["metadata"]["name"] for item in (*self.present, *self.create)}
        number = 0
        while True:
            seed = f"{self.owner.get('uid')}/{family}/{number}".encode()
            suffix = hashlib.sha256(seed).hexdigest()[:5]
            name = f"{self.owner['name']}-{suffix}"
            if name not in taken:
                return name
            number += 1


def _normal(item: Document) -> object:
    return (
        item["metadata"].get("labels") or {},
        item["metadata"].get("ownerReferences") or [],
        item.get("endpoints") or [],
        _port_key(item.get("ports") or ()),
    )


def _identity(endpoint: Document) -> object:
    reference = endpoint.get("targetRef") or {}
    return reference.get("uid") or tuple(endpoint.get("addresses") or ())


def _labels(service: Document) -> dict[str, str]:
    labels = service["metadata"].get("labels") or {}
    kept = {name: value for name, value in labels.items() if name not in _OWN_LABELS}
    if is_headless(service):
        kept[HEADLESS] = ""
    return kept


def is_headless(service: Document) -> bool:
    """Tell whether a Service has no address of its own."""
    return (service.get("spec") or {}).get("clusterIP") == "None"


def _port_key(ports: Iterable[Document]) -> PortKey:
    return tuple(
        sorted(
            (
                port.get("name") or "",
                int(port.get("port") or 0),
                port.get("protocol") or "TCP",
                port.get("appProtocol") or "",
            )
            for port in ports
        )
    )


def _port_of(key: tuple[str, int, str, str]) -> Document:
    name, number, protocol, app_protocol = key
    port: Document = {"name": name, "port": number, "protocol": protocol}
    if app_protocol:
        port["appProtocol"] = app_protocol
    return port


def _grouped(
    service: Document, pods: Sequence[Document], family: str
) -> dict[PortKey, list[Document]]:
    """Return the endpoints of a family by the ports they have.

    Named target ports may be another number in every Pod.
    """
    groups: dict[PortKey, list[Document]] = {}
    for pod in pods:
        ip = _ip_of(pod, family)
        if ip and _is_listed(pod):
            key = _port_key(_ports(service, pod))
            groups.setdefault(key, []).append(_endpoint(service, pod, ip))
    return groups


def _is_listed(pod: Document) -> bool:
    return (pod.get("status") or {}).get("phase") not in _FINISHED


def _ips(pod: Document) -> tuple[str, ...]:
    status = pod.get("status") or {}
    listed = [entry.get("ip") for entry in status.get("podIPs") or ()]
    found = listed or [status.get("podIP")]
    return tuple(str(ip) for ip in found if ip)


def _ip_of(pod: Document, family: str) -> str:
    version = 6 if family == "IPv6" else 4
    for ip in _ips(pod):
        if ipaddress.ip_address(ip).version == version:
            return ip
    return ""


def _is_ready(pod: Document) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def _endpoint(service: Document, pod: Document, ip: str) -> Document:
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    serving = _is_ready(pod)
    terminating = bool(metadata.get("deletionTimestamp"))
    anyhow = bool((service.get("spec") or {}).get("publishNotReadyAddresses"))
    endpoint: Document = {
        "addresses": [ip],
        "conditions": {
            "ready": anyhow or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": _target(pod),
    }
    if spec.get("nodeName"):
        endpoint["nodeName"] = spec["nodeName"]
    hostname = _hostname(service, pod)
    if hostname:
        endpoint["hostname"] = hostname
    return endpoint


def _target(pod: Document) -> Document:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _hostname(service: Document, pod: Document) -> str:
    """Return the name a Pod has below its Service's name, if it asks for one."""
    spec = pod.get("spec") or {}
    if spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec.get("hostname") or "")
    return ""


def _ports(service: Document, pod: Document) -> Iterator[Document]:
    """Yield a Pod's ports behind a Service; a name it does not know is left out."""
    for port in (service.get("spec") or {}).get("ports") or ():
        number = find_port(pod, port)
        if number is None:
            continue
        found: Document = {
            "name": port.get("name") or "",
            "port": number,
            "protocol": port.get("protocol") or "TCP",
        }
        if port.get("appProtocol"):
            found["appProtocol"] = port["appProtocol"]
        yield found


def find_port(pod: Document, port: Document) -> int | None:
    """Return the number that a Service's port has in a Pod, ``None`` without one."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    protocol = port.get("protocol") or "TCP"
    spec = pod.get("spec") or {}
    sidecars = [
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for candidate in container.get("ports") or ():
            if (
                candidate.get("name") == target
                and (candidate.get("protocol") or "TCP") == protocol
            ):
                return int(candidate["containerPort"])
    return None


# --- Endpoints ---


def build_endpoints(
    service: Document, pods: Iterable[Document], present: Document | None
) -> Document | None:
    """Return the Endpoints to write, or ``None`` where the present one is right.

    Args:
        service: a Service with a selector.
        pods: the Pods of its namespace that it selects.
        present: its Endpoints, if there is one.
    """
    metadata = service["metadata"]
    subsets, is_cut = _subsets(service, pods)
    old = (present or {}).get("metadata") or {}
    annotations = dict(old.get("annotations") or {})
    annotations.pop(OVER_CAPACITY, None)
    if is_cut:
        annotations[OVER_CAPACITY] = "truncated"
    wanted: Document = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            **old,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**_labels(service), ENDPOINTS_MANAGED_BY: ENDPOINTS_MANAGER},
            "annotations": annotations,
        },
        "subsets": subsets,
    }
    if present is not None and _same_endpoints(present, wanted):
        return None
    return wanted


def _same_endpoints(present: Document, wanted: Document) -> bool:
    old, new = present["metadata"], wanted["metadata"]
    return bool(
        (old.get("labels") or {}) == new["labels"]
        and (old.get("annotations") or {}) == new["annotations"]
        and (present.get("subsets") or []) == wanted["subsets"]
    )


def _subsets(
    service: Document, pods: Iterable[Document]
) -> tuple[list[Document], bool]:
    """Return the subsets, and whether addresses had to be left out."""
    anyhow = bool((service.get("spec") or {}).get("publishNotReadyAddresses"))
    family = ((service.get("spec") or {}).get("ipFamilies") or ["IPv4"])[0]
    addresses: dict[str, tuple[bool, Document]] = {}
    by_port: dict[tuple[str, int, str, str], set[str]] = {}
    bare: set[str] = set()
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        ip = _ip_of(pod, family)
        going = pod["metadata"].get("deletionTimestamp") and not anyhow
        if not ip or going or not _is_listed(pod):
            continue
        addresses[ip] = (anyhow or _is_ready(pod), _address(service, pod, ip))
        if is_headless(service) and not (service.get("spec") or {}).get("ports"):
            bare.add(ip)
        for port in _port_key(_ports(service, pod)):
            by_port.setdefault(port, set()).add(ip)
    is_cut = len(addresses) > ENDPOINTS_SIZE
    if is_cut:
        ready_first = sorted(addresses, key=lambda ip: (not addresses[ip][0], ip))
        addresses = {ip: addresses[ip] for ip in ready_first[:ENDPOINTS_SIZE]}
    groups: dict[frozenset[str], list[Document]] = {}
    if bare:
        groups[frozenset(bare)] = []
    for port in sorted(by_port):
        groups.setdefault(frozenset(by_port[port]), []).append(_port_of(port))
    subsets = [_subset(ips, ports, addresses) for ips, ports in groups.items()]
    return sorted(subsets, key=orjson.dumps), is_cut


def _subset(
    ips: Iterable[str],
    ports: list[Document],
    addresses: Mapping[str, tuple[bool, Document]],
) -> Document:
    known = [addresses[ip] for ip in sorted(ips, key=_number) if ip in addresses]
    parts = {
        "addresses": [address for ready, address in known if ready],
        "notReadyAddresses": [address for ready, address in known if not ready],
        "ports": [
            {k: v for k, v in port.items() if k != "name" or v} for port in ports
        ],
    }
    return {name: value for name, value in parts.items() if value}


def _number(ip: str) -> int:
    return int(ipaddress.ip_address(ip))


def _address(service: Document, pod: Document, ip: str) -> Document:
    address: Document = {"ip": ip, "targetRef": _target(pod)}
    hostname = _hostname(service, pod)
    if hostname:
        address["hostname"] = hostname
    if (pod.get("spec") or {}).get("nodeName"):
        address["nodeName"] = pod["spec"]["nodeName"]
    return address
