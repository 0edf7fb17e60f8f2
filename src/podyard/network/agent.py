"""The network agent: what the API says of Pods and Services → rules of this host.

Informers tell it of changes; any number of them that come while rules are being
loaded make one more round, and no timer is involved. What a Service means is worked
out again only when it or one of its slices changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import structlog

from podyard.api.documents import Document
from podyard.network.build import (
    HostPort,
    ServiceRule,
    host_ports,
    host_ports_of,
    rules_of,
    slice_owner,
)
from podyard.network.decide import NetworkFacts, UdpTargets, decide_table, udp_targets
from podyard.network.nftables import NftablesError
from podyard.network.table import Table

log = structlog.get_logger()


class Objects(Protocol):
    """A local copy of the objects of one kind; an informer is one."""

    def items(self) -> Iterable[Document]:
        """Return the objects as last heard of."""

    async def wait_synced(self) -> None:
        """Wait until everything has been heard of once."""


class ServiceTable:
    """The rules of every Service, and the slices of each.

    Args:
        pod_cidrs: the addresses of this node's Pods.
    """

    def __init__(self, pod_cidrs: Sequence[str]) -> None:
        self._pod_cidrs = pod_cidrs
        self._services: dict[tuple[str, str], Document] = {}
        self._slices: dict[tuple[str, str], dict[str, Document]] = {}
        self._rules: dict[tuple[str, str], tuple[ServiceRule, ...]] = {}
        self._outdated: set[tuple[str, str]] = set()

    def take_service(self, old: Document | None, new: Document | None) -> None:
        """Hear of a Service."""
        document = new or old
        assert document is not None
        metadata = document["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        if new is None:
            self._services.pop(key, None)
        else:
            self._services[key] = new
        self._outdated.add(key)

    def take_slice(self, old: Document | None, new: Document | None) -> None:
        """Hear of an EndpointSlice."""
        for document in (old, new):
            if document is None:
                continue
            key, name = slice_owner(document), str(document["metadata"]["name"])
            slices = self._slices.setdefault(key, {})
            if document is new:
                slices[name] = document
            else:
                slices.pop(name, None)
            if not slices:
                del self._slices[key]
            self._outdated.add(key)

    def rules(self) -> list[ServiceRule]:
        """Return the rules of all Services, in an order that stays."""
        for key in self._outdated:
            service = self._services.get(key)
            slices = list(self._slices.get(key, {}).values())
            rules = (
                ()
                if service is None
                else tuple(rules_of(service, slices, pod_cidrs=self._pod_cidrs))
            )
            if rules:
                self._rules[key] = rules
            else:
                self._rules.pop(key, None)
        self._outdated.clear()
        return [rule for key in sorted(self._rules) for rule in self._rules[key]]


class NetworkAgent:
    """Keeps the rules of this host up to date."""

    def __init__(
        self,
        facts: NetworkFacts,
        *,
        apply: Callable[[Table], Awaitable[object]],
        forget_stale: Callable[[UdpTargets], Awaitable[object]],
        retry_after_s: float = 5.0,
    ) -> None:
        """Describe it; nothing is applied yet.

        Args:
            facts: what of this node the rules depend on.
            apply: loads a table; raises ``NftablesError``.
            forget_stale: makes the kernel forget the UDP flows that lead elsewhere;
                called after the rules changed where UDP goes.
            retry_after_s: how long to wait after nft refused.
        """
        self._facts = facts
        self._apply = apply
        self._forget_stale = forget_stale
        self._retry_after_s = retry_after_s
        self._services = ServiceTable(facts.pod_cidrs)
        self._udp: UdpTargets | None = None
        self._changed = asyncio.Event()
        self._changed.set()

    def on_service(self, old: Document | None, new: Document | None) -> None:
        """Hear of a Service; the ``on_change`` of its informer."""
        self._services.take_service(old, new)
        self._changed.set()

    def on_slice(self, old: Document | None, new: Document | None) -> None:
        """Hear of an EndpointSlice; the ``on_change`` of its informer."""
        self._services.take_slice(old, new)
        self._changed.set()

    def on_pod(self, old: Document | None, new: Document | None) -> None:
        """Hear of a Pod; the ``on_change`` of its informer."""
        if _host_ports(old) != _host_ports(new):
            self._changed.set()

    async def run(self, *, pods: Objects, services: Objects, slices: Objects) -> None:
        """Follow the changes for ever.

        Args:
            pods: the Pods of this node.
            services: all Services.
            slices: all EndpointSlices.
        """
        for objects in (pods, services, slices):
            await objects.wait_synced()
        self._changed.set()  # also when it starts anew after a crash
        while True:
            await self._changed.wait()
            self._changed.clear()
            rules, ports = self._services.rules(), host_ports(pods.items())
            table = decide_table(self._facts, services=rules, ports=ports)
            try:
                await self._apply(table)
            except NftablesError as error:
                log.warning("nftables_refused", error=str(error))
                self._changed.set()
                await asyncio.sleep(self._retry_after_s)
            else:
                await self._forget(udp_targets(rules, ports))

    async def _forget(self, targets: UdpTargets) -> None:
        if targets == self._udp:
            return
        try:
            await self._forget_stale(targets)
        except OSError as error:
            log.warning("udp_flows_kept", error=error.strerror)
        self._udp = targets


def _host_ports(pod: Document | None) -> tuple[HostPort, ...]:
    return () if pod is None else tuple(host_ports_of(pod))
