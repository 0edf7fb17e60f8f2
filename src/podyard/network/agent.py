"""The network agent: what the API says of Pods and Services → rules of this host.

Informers call :meth:`NetworkAgent.on_change`; any number of changes that come while
rules are being loaded make one more round, and no timer is involved.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from podyard.api.documents import Document
from podyard.network.decide import (
    NetworkFacts,
    decide_ruleset,
    host_ports,
    service_rules,
)
from podyard.network.nftables import NftablesError

log = structlog.get_logger()


class Objects(Protocol):
    """A local copy of the objects of one kind; an informer is one."""

    def items(self) -> Iterable[Document]:
        """Return the objects as last heard of."""

    async def wait_synced(self) -> None:
        """Wait until everything has been heard of once."""


class NetworkAgent:
    """Keeps the rules of this host up to date."""

    def __init__(
        self,
        facts: NetworkFacts,
        *,
        apply: Callable[[str], Awaitable[object]],
        retry_after_s: float = 5.0,
    ) -> None:
        """Describe it; nothing is applied yet.

        Args:
            facts: what of this node the rules depend on.
            apply: loads a ruleset; raises ``NftablesError``.
            retry_after_s: how long to wait after nft refused.
        """
        self._facts = facts
        self._apply = apply
        self._retry_after_s = retry_after_s
        self._changed = asyncio.Event()
        self._changed.set()

    def on_change(self, _old: Document | None, _new: Document | None) -> None:
        """Look again; the ``on_change`` of the informers."""
        self._changed.set()

    async def apply_base(self) -> None:
        """Load the rules that depend on nothing: masquerade and refusals.

        Raises:
            NftablesError: nft is missing or refused.
        """
        await self._apply(decide_ruleset(self._facts))

    async def run(self, *, pods: Objects, services: Objects, slices: Objects) -> None:
        """Follow the changes for ever.

        Args:
            pods: the Pods of this node.
            services: all Services.
            slices: all EndpointSlices.
        """
        for objects in (pods, services, slices):
            await objects.wait_synced()
        while True:
            await self._changed.wait()
            self._changed.clear()
            ruleset = decide_ruleset(
                self._facts,
                services=service_rules(services.items(), slices.items()),
                ports=host_ports(pods.items()),
            )
            try:
                await self._apply(ruleset)
            except NftablesError as error:
                log.warning("nftables_refused", error=str(error))
                self._changed.set()
                await asyncio.sleep(self._retry_after_s)
