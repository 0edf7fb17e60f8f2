"""Deliveries of hooks in the node's journal: at least once, across crashes.

A row is open from before the delivery until its end. After a crash an open row means
that the hook may or may not have run: it is delivered again, as the next attempt.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import structlog

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.api.documents import Document
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.hooks.build import build_delivery_id, handler_name
from podyard.store.backend import StoreError
from podyard.store.node_journal import JournalRecord, NodeJournal

log = structlog.get_logger()

KIND: Final = "hook"
HookName = Literal["PostStart", "PreStop"]
_GONE: Final[Document] = {"result": "container gone"}
_INTERRUPTED: Final[Document] = {"interrupted": True, "result": "interrupted"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """An open row. ``record_id`` is ``None`` where the journal could not be written."""

    record_id: int | None
    attempt: int


class Deliveries:
    """Opens, finds and closes the rows of hooks.

    Args:
        journal: the node's journal.
        clock: dates the rows.
    """

    def __init__(self, journal: NodeJournal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        #: Rows this process has opened; an open row that is not here is from before.
        self._mine: dict[tuple[str, HookName], Delivery] = {}
        #: Those of them whose handler runs.
        self._running: set[tuple[str, HookName]] = set()

    async def expect(
        self, pod: Pod, container: Container, container_id: str, hook: HookName
    ) -> Delivery:
        """Open a row, before the container is started or the hook delivered."""
        delivery = await self._open(pod, container, container_id, hook, attempt=1)
        self._mine[container_id, hook] = delivery
        return delivery

    async def begin(
        self, pod: Pod, container: Container, container_id: str, hook: HookName
    ) -> Delivery | None:
        """Return the row of a delivery that starts now.

        A row left open by a dead process is closed and followed by the next attempt.

        Returns:
            The open row, or ``None`` where an earlier delivery has come to its end.
        """
        mine = self._mine.get((container_id, hook))
        if mine is not None:
            self._running.add((container_id, hook))
            return mine
        earlier = await self._rows(pod.uid, container_id, hook)
        if any(not row.is_open for row in earlier if not row.body.get("interrupted")):
            return None
        attempt = 1 + max(
            (int(row.body.get("attempt", 1)) for row in earlier), default=0
        )
        # The next row before the end of the last: a death in between leaves one open.
        delivery = await self._open(pod, container, container_id, hook, attempt=attempt)
        self._mine[container_id, hook] = delivery
        self._running.add((container_id, hook))
        for row in earlier:
            if row.is_open:
                await self._close(row.id, _INTERRUPTED)
        return delivery

    async def interrupt(
        self, pod: Pod, container: Container, container_id: str, hook: HookName
    ) -> None:
        """Close the row of a delivery that was cut off, with the next one open."""
        delivery = self._let_go(container_id, hook)
        if delivery is None:
            return
        self._mine[container_id, hook] = await self._open(
            pod, container, container_id, hook, attempt=delivery.attempt + 1
        )
        if delivery.record_id is not None:
            await self._close(delivery.record_id, _INTERRUPTED)

    async def end(
        self,
        container_id: str,
        hook: HookName,
        *,
        result: str,
        took_s: float,
        error: str = "",
    ) -> None:
        """Close the row: ``succeeded``, ``failed`` or ``given up``.

        Args:
            container_id: the instance.
            hook: which of its hooks.
            result: how it ended.
            took_s: how long the handler took, seconds.
            error: why it failed, without anything the hook has put out.
        """
        delivery = self._let_go(container_id, hook)
        if delivery is None or delivery.record_id is None:
            return
        body: Document = {"result": result, "tookSeconds": round(took_s, 3)}
        if error:
            body["error"] = error
        await self._close(delivery.record_id, body)

    async def owed(self, pod_uid: str, hook: HookName) -> frozenset[str]:
        """Return the ids of containers with an open row that nobody delivers."""
        return frozenset(
            str(row.body["containerID"])
            for row in await self._idle_rows(pod_uid)
            if row.body.get("hook") == hook
        )

    async def settle(self, pod_uid: str, alive: AbstractSet[str]) -> None:
        """Close what is owed to containers that can have it no more.

        Args:
            pod_uid: the Pod.
            alive: ids of its containers that run, or may yet.
        """
        for row in await self._idle_rows(pod_uid):
            container_id = str(row.body["containerID"])
            if container_id not in alive:
                self._mine.pop((container_id, row.body["hook"]), None)
                await self._close(row.id, _GONE)

    async def settle_others(self, is_known: Callable[[str], bool]) -> None:
        """Close what is owed to Pods that are no longer here."""
        for row in await self._idle_rows(""):
            if not is_known(row.pod_uid):
                await self._close(row.id, _GONE)

    def _let_go(self, container_id: str, hook: HookName) -> Delivery | None:
        self._running.discard((container_id, hook))
        return self._mine.pop((container_id, hook), None)

    async def _idle_rows(self, pod_uid: str) -> tuple[JournalRecord, ...]:
        try:
            rows = await self._journal.list(pod_uid, kind=KIND, only_open=True)
        except StoreError:
            log.exception("hook_journal_unreadable")
            return ()
        return tuple(
            row
            for row in rows
            if (str(row.body["containerID"]), row.body["hook"]) not in self._running
        )

    async def _rows(
        self, pod_uid: str, container_id: str, hook: HookName
    ) -> tuple[JournalRecord, ...]:
        try:
            rows = await self._journal.list(pod_uid, kind=KIND)
        except StoreError:
            log.exception("hook_journal_unreadable")
            return ()
        return tuple(
            row
            for row in rows
            if row.body.get("containerID") == container_id
            and row.body.get("hook") == hook
        )

    async def _open(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        hook: HookName,
        *,
        attempt: int,
    ) -> Delivery:
        body: Document = {
            "hook": hook,
            "namespace": pod.namespace,
            "pod": pod.name,
            "container": container.name,
            "containerID": container_id,
            "handler": handler_name(_handler(container, hook)),
            "deliveryID": build_delivery_id(hook, container_id),
            "attempt": attempt,
        }
        try:
            record_id = await self._journal.open(
                KIND, pod.uid, body, at=self._clock.now()
            )
        except StoreError:
            # A full disk must not keep a Pod from starting or stopping.
            log.exception("hook_journal_unwritable", hook=hook, pod_uid=pod.uid)
            return Delivery(None, attempt)
        return Delivery(record_id, attempt)

    async def _close(self, record_id: int, result: Document) -> None:
        try:
            await self._journal.close(record_id, at=self._clock.now(), result=result)
        except StoreError:
            log.exception("hook_journal_unwritable", record_id=record_id)


def _handler(container: Container, hook: HookName) -> Handler | None:
    lifecycle = container.lifecycle
    if lifecycle is None:
        return None
    return lifecycle.post_start if hook == "PostStart" else lifecycle.pre_stop
