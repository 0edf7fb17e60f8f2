"""Objects whose owners are gone go, too.

Background: dependants of a deleted owner. Foreground: the owner waits for them.
Orphan: they are let go first.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from collections import OrderedDict
from typing import Final, assert_never

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import EVENT, EVENT_V1, KINDS, Kind, find_kind_by_name
from podyard.client.events import subject_of
from podyard.controllers.owners import (
    FOREGROUND,
    ORPHAN,
    Delete,
    DropReferences,
    Item,
    Keep,
    Owner,
    OwnerGraph,
    OwnerState,
    decide_fate,
    item_of,
)
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

log = structlog.get_logger()

#: Events come and go by their own rules and own nothing.
WATCHED: Final = tuple(kind for kind in KINDS if kind not in {EVENT, EVENT_V1})
#: So many owners are remembered as absent; a uid never comes back.
_REMEMBERED: Final = 1000


class GarbageCollector:
    """Follows owner references.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._recorder = context.recorder("garbage-collector-controller")
        self._graph = OwnerGraph()
        self._queue: WorkQueue[str] = WorkQueue("garbage-collector")
        self._absent: OrderedDict[tuple[str, str], None] = OrderedDict()

    # ── what is heard ───────────────────────────────────────────────────────────

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of any object."""
        if new is None:
            assert old is not None
            self._gone(str(old["metadata"]["uid"]))
            return
        item = item_of(kind, new)
        before = self._graph.put(item)
        if item.is_foreground or item.is_orphaning:
            self._queue.add(item.uid)
        if item.owners and (before is None or before.owners != item.owners):
            self._queue.add(item.uid)
        if before is not None and before.owners != item.owners:
            self._wake(before.owners)

    def _gone(self, uid: str) -> None:
        item = self._graph.get(uid)
        self._graph.remove(uid)
        for dependant in self._graph.dependants(uid):
            self._queue.add(dependant.uid)
        if item is not None:
            self._wake(item.owners)

    def _wake(self, owners: tuple[Owner, ...]) -> None:
        """Look at owners that wait for the last of their dependants."""
        for owner in owners:
            found = self._graph.get(owner.uid)
            if found is not None and found.is_foreground:
                self._queue.add(owner.uid)

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=4)

    # ── deciding and acting ─────────────────────────────────────────────────────

    async def _sync(self, uid: str) -> float | None:
        item = self._graph.get(uid)
        if item is None:
            return None
        if item.is_orphaning:
            for dependant in self._graph.dependants(uid):
                await self._drop_references(dependant, frozenset({uid}))
            await self._drop_finalizer(item, ORPHAN)
            return None
        if item.is_foreground:
            await self._foreground(item)
            return None
        states = [(owner, await self._state(item, owner)) for owner in item.owners]
        dependants = bool(self._graph.dependants(uid))
        match decide_fate(item, states, has_dependants=dependants):
            case Keep():
                pass
            case DropReferences(uids):
                await self._drop_references(item, uids)
            case Delete(propagation):
                await self._delete(item, propagation)
            case unknown:
                assert_never(unknown)
        return None

    async def _foreground(self, item: Item) -> None:
        """Let dependants go first; the last of them brings the owner back here."""
        blocking = self._graph.blocking(item.uid)
        if not blocking:
            await self._drop_finalizer(item, FOREGROUND)
            return
        for dependant in blocking:
            if not dependant.is_deleting:
                self._queue.add(dependant.uid)

    async def _state(self, item: Item, owner: Owner) -> OwnerState:
        found = self._graph.get(owner.uid)
        if found is not None and _is(found, item, owner):
            waits = found.is_foreground and owner.blocks
            return OwnerState.WAITING if waits else OwnerState.SOLID
        if (item.namespace, owner.uid) in self._absent:
            return OwnerState.ABSENT
        if await self._is_absent(item, owner):
            self._absent[(item.namespace, owner.uid)] = None
            if len(self._absent) > _REMEMBERED:
                self._absent.popitem(last=False)
            return OwnerState.ABSENT
        return OwnerState.SOLID

    async def _is_absent(self, item: Item, owner: Owner) -> bool:
        """Ask the server itself: a cache may lag behind, and deletion is for good."""
        kind = find_kind_by_name(owner.api_version, owner.kind)
        if kind is None:
            return False  # a kind nobody can look up here
        if kind.namespaced and not item.namespace:
            self._warn(item, owner)
            return False
        namespace = item.namespace if kind.namespaced else ""
        try:
            found = await self._client.get(kind, owner.name, namespace)
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        return bool(found["metadata"]["uid"] != owner.uid)

    def _warn(self, item: Item, owner: Owner) -> None:
        """Tell that a cluster-scoped object cannot have a namespaced owner."""
        document = {
            "apiVersion": item.kind.api_version,
            "kind": item.kind.kind,
            "metadata": {"name": item.name, "uid": item.uid},
        }
        message = (
            f"ownerRef [{owner.api_version}/{owner.kind}, namespace: , name: "
            f'{owner.name}, uid: {owner.uid}] does not exist in namespace ""'
        )
        self._recorder.record(
            subject_of(document), "Warning", "OwnerRefInvalidNamespace", message
        )

    async def _delete(self, item: Item, propagation: str) -> None:
        log.info(
            "garbage_collected",
            kind=item.kind.kind,
            namespace=item.namespace,
            name=item.name,
            propagation=propagation,
        )
        try:
            await self._client.delete(
                item.kind,
                item.name,
                item.namespace,
                uid=item.uid,
                propagation=propagation,
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise

    async def _drop_references(self, item: Item, uids: frozenset[str]) -> None:
        """Take owners away from an object that stays."""
        document = await self._read(item)
        if document is None:
            return
        present = document["metadata"].get("ownerReferences") or []
        left = [reference for reference in present if reference.get("uid") not in uids]
        if len(left) != len(present):
            await self._patch(document, item, {"ownerReferences": left or None})

    async def _drop_finalizer(self, item: Item, finalizer: str) -> None:
        document = await self._read(item)
        if document is None:
            return
        present = document["metadata"].get("finalizers") or []
        left = [name for name in present if name != finalizer]
        if len(left) != len(present):
            await self._patch(document, item, {"finalizers": left or None})

    async def _read(self, item: Item) -> Document | None:
        """Return the very object as it is now, or ``None`` where it is gone."""
        try:
            document = await self._client.get(item.kind, item.name, item.namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return document if document["metadata"]["uid"] == item.uid else None

    async def _patch(self, document: Document, item: Item, change: Document) -> None:
        metadata = {
            "uid": item.uid,
            "resourceVersion": document["metadata"]["resourceVersion"],
            **change,
        }
        await self._client.patch(
            item.kind, item.name, {"metadata": metadata}, item.namespace
        )


def _is(found: Item, item: Item, owner: Owner) -> bool:
    """Say whether the object of that uid is the one the reference means."""
    return (
        found.kind.kind == owner.kind
        and found.name == owner.name
        and found.namespace in {"", item.namespace}
    )


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return GarbageCollector(context)


PART: Final = Controller(name="garbage-collector", watches=WATCHED, make=make)
