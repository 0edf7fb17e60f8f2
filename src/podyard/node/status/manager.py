"""Tells the API about Pods: newest wins, only what differs, for as long as it takes.

Nothing waits for it: a status is set and sent when the API takes it. After a Pod's
end its last status is sent first and the object is deleted then.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import POD
from podyard.client.services import ApiClient, ApiUnreachableError, PatchType
from podyard.lib.backoff import Backoff
from podyard.lib.values import dataclass
from podyard.node.status.build import (
    build_begun_anew,
    build_previous,
    build_status_patch,
)

log = structlog.get_logger()

#: So many Pods are told of at the same time.
SENDERS: Final = 8
RETRY: Final = Backoff(base_s=0.2, cap_s=10)
#: Answers that no repetition changes.
_FINAL_CODES: Final = frozenset({400, 403, 404, 405, 409, 410, 413, 422})


@dataclass(slots=True)
class _Entry:
    """What is known of one Pod's status.

    Attributes:
        pod: the newest object; for a static Pod its own, not the mirror.
        wanted: what the API is to show; ``None`` before anything was set.
        accepted: what it showed after the last patch.
        accepted_rev: the resourceVersion of that.
        delete: delete the object once ``wanted`` is accepted.
        busy: a sender has it, or it is queued.
        delay_s: the current retry delay.
    """

    pod: Pod
    wanted: Document | None = None
    accepted: Document | None = None
    accepted_rev: int = 0
    delete: bool = False
    busy: bool = False
    delay_s: float = 0.0


class StatusManager:
    """The one who writes ``pods/status``.

    Args:
        client: the API.
        mirror_of: returns the mirror object of a static Pod, or ``None``.
    """

    def __init__(
        self,
        client: ApiClient,
        mirror_of: Callable[[Pod], Pod | None] = lambda _: None,
    ) -> None:
        self._client = client
        self._mirror_of = mirror_of
        self._entries: dict[str, _Entry] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._told = asyncio.Event()

    def previous(self, pod: Pod) -> Document:
        """Return the status that the Pod's next one is made from."""
        entry = self._entries.get(pod.uid)
        shown = self._target(pod) or pod
        if pod.is_static and (entry is None or entry.wanted is None):
            return build_begun_anew(shown.status)
        return build_previous(entry.wanted if entry else None, shown.status)

    def set(self, pod: Pod, status: Document) -> None:
        """Have the API show this status; it replaces one not sent yet."""
        entry = self._entry(pod)
        entry.wanted = status
        self._enqueue(pod.uid, entry)

    def finish(self, pod: Pod) -> None:
        """Delete the object, with no grace, once its last status is there."""
        entry = self._entry(pod)
        entry.delete = True
        self._enqueue(pod.uid, entry)

    def resend(self, uid: str) -> None:
        """Look at a Pod again: its mirror has come."""
        entry = self._entries.get(uid)
        if entry is not None:
            entry.accepted = None
            self._enqueue(uid, entry)

    def forget(self, uid: str) -> None:
        """Drop a Pod that is no longer in the API."""
        self._entries.pop(uid, None)

    async def wait_sent(self, uid: str) -> None:
        """Wait until the API has taken, or refused, what was set last of a Pod."""
        while (entry := self._entries.get(uid)) is not None and entry.busy:
            await self._told.wait()

    async def run(self) -> None:
        """Send for ever."""
        for uid, entry in self._entries.items():
            entry.busy = False
            self._enqueue(uid, entry)
        async with asyncio.TaskGroup() as group:
            for number in range(SENDERS):
                group.create_task(self._send_all(), name=f"status-sender-{number}")

    def _entry(self, pod: Pod) -> _Entry:
        entry = self._entries.setdefault(pod.uid, _Entry(pod))
        entry.pod = pod
        return entry

    def _enqueue(self, uid: str, entry: _Entry) -> None:
        if not entry.busy:
            entry.busy = True
            self._queue.put_nowait(uid)

    def _requeue(self, uid: str, entry: _Entry) -> None:
        if self._entries.get(uid) is entry:
            self._queue.put_nowait(uid)

    def _rest(self, entry: _Entry) -> None:
        entry.busy = False
        self._told.set()
        self._told = asyncio.Event()

    async def _send_all(self) -> None:
        while True:
            uid = await self._queue.get()
            entry = self._entries.get(uid)
            if entry is None:
                continue
            try:
                await self._send(uid, entry)
            except (ApiError, ApiUnreachableError) as error:
                self._take_error(uid, entry, error)
            else:
                entry.delay_s = 0.0
                self._rest(entry)

    def _take_error(
        self, uid: str, entry: _Entry, error: ApiError | ApiUnreachableError
    ) -> None:
        if isinstance(error, ApiError) and error.code in _FINAL_CODES:
            if error.code not in {404, 409}:
                log.warning("status_refused", uid=uid, error=error.message)
            self._rest(entry)
            return
        if entry.delay_s == 0:
            log.info("status_waits", uid=uid, error=str(error))
        entry.delay_s = RETRY.after(entry.delay_s)
        loop = asyncio.get_running_loop()
        loop.call_later(entry.delay_s, self._requeue, uid, entry)

    async def _send(self, uid: str, entry: _Entry) -> None:
        """Send until what is wanted is what the API shows."""
        while self._entries.get(uid) is entry:
            target = self._target(entry.pod)
            if target is None:
                return
            wanted = entry.wanted
            if wanted is not None:
                base = self._base(entry, target)
                patch = build_status_patch(base, wanted, uid=target.uid)
                if patch is not None:
                    await self._patch(entry, target, patch)
                if entry.wanted is not wanted:
                    continue
            if entry.delete:
                await self._delete(uid, target)
            return

    def _target(self, pod: Pod) -> Pod | None:
        return self._mirror_of(pod) if pod.is_static else pod

    def _base(self, entry: _Entry, target: Pod) -> Document:
        shown = _revision(target.metadata.resource_version)
        if entry.accepted is not None and entry.accepted_rev >= shown:
            return entry.accepted
        return target.status

    async def _patch(self, entry: _Entry, target: Pod, patch: Document) -> None:
        stored = await self._client.patch(
            POD,
            target.name,
            patch,
            target.namespace,
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )
        entry.accepted = stored.get("status") or {}
        entry.accepted_rev = _revision(stored["metadata"].get("resourceVersion", ""))

    async def _delete(self, uid: str, target: Pod) -> None:
        try:
            await self._client.delete(
                POD,
                target.name,
                target.namespace,
                grace_period_s=0,
                uid=target.uid,
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        self.forget(uid)


def _revision(text: str) -> int:
    return int(text) if text.isdigit() else 0
