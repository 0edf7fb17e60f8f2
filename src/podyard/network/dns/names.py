"""The names of the cluster in memory, as informers tell of it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.network.build import slice_owner
from podyard.network.dns.decide import NamedService, Peer, ServicePort

_Key = tuple[str, str]
_FINISHED: Final = frozenset({"Succeeded", "Failed"})


class ClusterNames:
    """Services, endpoints and Pods by name and by address.

    Args:
        serial: the number the first state has; each later one has the next.
    """

    def __init__(self, serial: int) -> None:
        #: Changes whenever an answer may.
        self.serial = serial
        self._services: dict[str, dict[str, NamedService]] = {}
        self._peers: dict[_Key, dict[str, tuple[Peer, ...]]] = {}
        self._pods: dict[str, dict[str, set[str]]] = {}
        self._by_ip: dict[str, dict[tuple[str, str, str], int]] = {}

    # --- what it is told ---

    def on_service(self, old: Document | None, new: Document | None) -> None:
        """Hear of a Service; the ``on_change`` of its informer."""
        after = None if new is None else read_service(new)
        document = new or old
        assert document is not None
        metadata = document["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        known = self._services.get(key[0], {}).get(key[1])
        if known == after:
            return
        self._count_service(known, -1)
        self._count_service(after, 1)
        # Whether endpoints have reverse names depends on the Service.
        if (known is None or not known.ips) != (after is None or not after.ips):
            self._recount_peers(key, was=known, now=after)
        services = self._services.setdefault(key[0], {})
        if after is None:
            services.pop(key[1], None)
            if not services:
                del self._services[key[0]]
        else:
            services[key[1]] = after
        self.serial += 1

    def _count_service(self, service: NamedService | None, step: int) -> None:
        if service is not None:
            for ip in service.ips:
                self._count(ip, (service.namespace, service.name, ""), step)

    def _recount_peers(
        self, key: _Key, *, was: NamedService | None, now: NamedService | None
    ) -> None:
        for peers in self._peers.get(key, {}).values():
            if was is None or not was.ips:
                self._count_peers(key, peers, -1)
            if now is None or not now.ips:
                self._count_peers(key, peers, 1)

    def _count_peers(self, key: _Key, peers: Iterable[Peer], step: int) -> None:
        for peer in peers:
            self._count(peer.ip, (*key, peer.hostname), step)

    def _count(self, ip: str, name: tuple[str, str, str], step: int) -> None:
        names = self._by_ip.setdefault(ip, {})
        names[name] = names.get(name, 0) + step
        if not names[name]:
            del names[name]
        if not names:
            del self._by_ip[ip]

    def on_slice(self, old: Document | None, new: Document | None) -> None:
        """Hear of an EndpointSlice; the ``on_change`` of its informer."""
        for document in (old, new):
            if document is None:
                continue
            key = slice_owner(document)
            if document is old and new is not None and slice_owner(new) == key:
                continue
            peers = read_peers(document) if document is new else ()
            self._put_peers(key, str(document["metadata"]["name"]), peers)

    def _put_peers(self, key: _Key, name: str, peers: tuple[Peer, ...]) -> None:
        slices = self._peers.setdefault(key, {})
        known = slices.get(name, ())
        if known != peers:
            service = self._services.get(key[0], {}).get(key[1])
            if service is None or not service.ips:
                self._count_peers(key, known, -1)
                self._count_peers(key, peers, 1)
            self.serial += 1
        if peers:
            slices[name] = peers
        else:
            slices.pop(name, None)
        if not slices:
            del self._peers[key]

    def on_pod(self, old: Document | None, new: Document | None) -> None:
        """Hear of a Pod; the ``on_change`` of its informer."""
        before, after = _addresses(old), _addresses(new)
        if before == after:
            return
        for document, ips, change in (
            (old, before, set.discard),
            (new, after, set.add),
        ):
            if document is not None:
                self._put_pod(document, ips, change)
        self.serial += 1

    def _put_pod(
        self,
        pod: Document,
        ips: Iterable[str],
        change: Callable[[set[str], str], None],
    ) -> None:
        metadata = pod["metadata"]
        pods = self._pods.setdefault(str(metadata["namespace"]), {})
        for ip in ips:
            uids = pods.setdefault(ip, set())
            change(uids, str(metadata["uid"]))
            if not uids:
                del pods[ip]
        if not pods:
            del self._pods[str(metadata["namespace"])]

    # --- what it is asked ---

    def service(self, namespace: str, name: str) -> NamedService | None:
        """Return a Service."""
        return self._services.get(namespace, {}).get(name)

    def peers(self, namespace: str, name: str) -> Sequence[Peer]:
        """Return the ready endpoints of a Service."""
        slices = self._peers.get((namespace, name), {})
        return [peer for peers in slices.values() for peer in peers]

    def has_services(self, namespace: str) -> bool:
        """Tell whether a namespace has Services."""
        return namespace in self._services

    def has_pod(self, namespace: str, ip: str) -> bool:
        """Tell whether a Pod of a namespace has an address."""
        return ip in self._pods.get(namespace, {})

    def has_pods(self, namespace: str) -> bool:
        """Tell whether a namespace has Pods with an address."""
        return namespace in self._pods

    def names_of(self, ip: str) -> Sequence[tuple[str, str, str]]:
        """Return namespace, Service and hostname of an address."""
        names = sorted(self._by_ip.get(ip, {}))
        return [name for name in names if self.service(name[0], name[1]) is not None]


def read_service(document: Document) -> NamedService:
    """Return a Service as names see it."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    is_alias = spec.get("type") == "ExternalName"
    listed = spec.get("clusterIPs") or [spec.get("clusterIP")]
    ips = tuple(str(ip) for ip in listed if ip and ip != "None")
    return NamedService(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata["name"]),
        ips=() if is_alias else ips,
        ports=tuple(map(_port, spec.get("ports") or ())),
        external_name=str(spec.get("externalName") or "") if is_alias else "",
    )


def read_peers(item: Document) -> tuple[Peer, ...]:
    """Return the ready endpoints of an EndpointSlice."""
    if item.get("addressType") == "FQDN":
        return ()
    ports = tuple(_port(port) for port in item.get("ports") or () if port.get("port"))
    return tuple(
        Peer(str(ip), str(endpoint.get("hostname") or dashed(str(ip))), ports)
        for endpoint in item.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for ip in (endpoint.get("addresses") or ())[:1]
    )


def dashed(ip: str) -> str:
    """Return the label that stands for an address."""
    return ip.replace(".", "-").replace(":", "-")


def _port(port: Document) -> ServicePort:
    return ServicePort(
        str(port.get("name") or "").lower(),
        int(port["port"]),
        str(port.get("protocol") or "TCP").lower(),
    )


def _addresses(pod: Document | None) -> tuple[str, ...]:
    """Return the addresses a Pod has names for: its own, while it runs."""
    if pod is None or (pod.get("spec") or {}).get("hostNetwork"):
        return ()
    status = pod.get("status") or {}
    if status.get("phase") in _FINISHED:
        return ()
    listed = [entry.get("ip") for entry in status.get("podIPs") or ()]
    return tuple(str(ip) for ip in listed or [status.get("podIP")] if ip)
