"""The claims of Pods: what is known of them, and their binding for a first Pod."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from podyard.api.documents import Document
from podyard.api.scheme import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
)
from podyard.api.storage import (
    SELECTED_NODE,
    PodClaim,
    PodStorage,
    claims_of,
    class_of,
    is_bound,
)
from podyard.client.informer import Informer
from podyard.client.services import ApiClient
from podyard.scheduler.accounts import is_finished

log = structlog.get_logger()

#: How long volumes may take before the Pod is scheduled anew, seconds.
BIND_WITHIN_S: Final = 600.0


class ClaimsNotBoundError(Exception):
    """The volumes of a Pod were not had; it has to be scheduled again."""


class Claims:
    """Claims, volumes and classes as the scheduler sees them.

    Args:
        client: the API.
        pods: the Pods, by their informer.
        changed: is set whenever something may have become schedulable.
        node_of: the node a Pod is on or on its way to, by uid; empty for none.
    """

    def __init__(
        self,
        client: ApiClient,
        pods: Informer,
        changed: asyncio.Event,
        node_of: Callable[[str], str],
    ) -> None:
        self._node_of = node_of
        self._client = client
        self._pods = pods
        self._changed = changed
        self._moved = asyncio.Event()
        self._claims, self._volumes, self._classes = (
            Informer(client, kind, on_change=self._on_change)
            for kind in (PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME, STORAGE_CLASS)
        )

    @property
    def informers(self) -> tuple[Informer, ...]:
        """What has to run and be synced before anything is decided."""
        return self._claims, self._volumes, self._classes

    def _on_change(self, _old: Document | None, _new: Document | None) -> None:
        self._changed.set()
        self._moved.set()

    def hear_of_pod(self) -> None:
        """Look again at whether a Pod is still to be bound."""
        self._moved.set()

    def of(self, pod: Document) -> PodStorage | None:
        """Return what is known of a Pod's claims; ``None`` where it has none."""
        names = claims_of(pod)
        if not names:
            return None
        claims = tuple(self._look_up(pod, name) for name in names)
        volumes = tuple(
            volume
            for volume in self._volumes.items()
            if (volume.get("status") or {}).get("phase") == "Available"
        )
        return PodStorage(claims, volumes)

    def _look_up(self, pod: Document, name: str) -> PodClaim:
        claim = self._claims.get(str(pod["metadata"]["namespace"]), name)
        if claim is None:
            return PodClaim(name, None)
        spec = claim.get("spec") or {}
        alone = "ReadWriteOncePod" in (spec.get("accessModes") or ())
        return PodClaim(
            name,
            claim,
            self._volumes.get("", str(spec.get("volumeName") or "")),
            self._classes.get("", class_of(claim)),
            self._users(pod, name) if alone else frozenset(),
        )

    def _users(self, pod: Document, name: str) -> frozenset[str]:
        """Return the nodes where another Pod uses a claim, or soon will."""
        metadata = pod["metadata"]
        return frozenset(
            self._node_of(str(other["metadata"]["uid"]))
            for other in self._pods.items()
            if other["metadata"]["namespace"] == metadata["namespace"]
            and other["metadata"]["uid"] != metadata["uid"]
            and self._node_of(str(other["metadata"]["uid"]))
            and not is_finished(other)
            and name in claims_of(other)
        )

    async def bind(self, pod: Document, node_name: str) -> bool:
        """Have every claim of a Pod bound for a node.

        Returns:
            Whether the Pod is still there.

        Raises:
            ClaimsNotBoundError: they are not, and the Pod must be decided on again.
            ApiError: the API refuses.
            ApiUnreachableError: it cannot be reached.
        """
        names = claims_of(pod)
        if not names:
            return True
        asked: set[str] = set()
        try:
            async with asyncio.timeout(BIND_WITHIN_S):
                while self._is_there(pod):
                    self._moved.clear()
                    waiting = self._unbound(pod, names)
                    if not waiting:
                        return True
                    if not await self._select(waiting, node_name, asked):
                        await self._moved.wait()
        except TimeoutError as error:
            raise ClaimsNotBoundError("binding volumes: timed out") from error
        return False

    def _is_there(self, pod: Document) -> bool:
        metadata = pod["metadata"]
        latest = self._pods.get(metadata["namespace"], metadata["name"])
        return (
            latest is not None
            and latest["metadata"]["uid"] == metadata["uid"]
            and not latest["metadata"].get("deletionTimestamp")
        )

    def _unbound(self, pod: Document, names: tuple[str, ...]) -> list[Document]:
        waiting = []
        for name in names:
            one = self._look_up(pod, name)
            if one.claim is None:
                text = f'binding volumes: persistentvolumeclaim "{name}" not found'
                raise ClaimsNotBoundError(text)
            if not is_bound(one.claim, one.volume):
                waiting.append(one.claim)
        return waiting

    async def _select(
        self, claims: list[Document], node_name: str, asked: set[str]
    ) -> bool:
        """Write the node on claims that have none yet; say whether any had not."""
        wrote = False
        for claim in claims:
            metadata = claim["metadata"]
            selected = (metadata.get("annotations") or {}).get(SELECTED_NODE)
            name = str(metadata["name"])
            if selected == node_name or name in asked:
                continue  # said; an answer is heard of, and the time limit ends it
            if (claim.get("spec") or {}).get("volumeName"):
                continue
            asked.add(name)
            await self._client.patch(
                PERSISTENT_VOLUME_CLAIM,
                name,
                {"metadata": {"annotations": {SELECTED_NODE: node_name}}},
                metadata["namespace"],
            )
            log.info("claim_selected", claim=name, node=node_name)
            wrote = True
        return wrote
