"""What a node writes down for itself: hook deliveries, pulls, stops, schedules.

A record is opened *before* the deed and closed after it, so that after a crash an
open record says "this may have happened". Kept on the node, since a node that has
joined another control plane has no store of ours. Never a secret value in a body.
"""

from datetime import datetime, timedelta
from typing import Final, Protocol

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: How many records of one Pod are kept, and for how long.
KEEP_PER_POD: Final = 50
KEEP_FOR: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One deed.

    Attributes:
        id: grows with time; names the record.
        kind: ``hook``, ``pull``, ``stop``, ``schedule`` …
        pod_uid: the Pod it was for.
        body: what was about to be done, and after closing also how it went.
        opened_at: when it was about to be done.
        closed_at: when it was over; ``None`` while open, or after a crash.
    """

    id: int
    kind: str
    pod_uid: str
    body: Document
    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether nobody has said how it ended."""
        return self.closed_at is None


class NodeJournal(Protocol):
    """The node's journal. A returned call survives the death of the process.

    Calls raise ``podyard.store.backend.StoreError`` subclasses: ``StoreFullError``,
    ``StoreReadOnlyError``, ``StoreIOError``, ``StoreClosedError``.
    """

    async def open(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        """Write that something is about to be done.

        Returns:
            The record's id, for ``close``.
        """

    async def close(self, record_id: int, *, at: datetime, result: Document) -> None:
        """Write how it ended: ``result`` is merged over the record's body.

        An unknown or already closed record is left alone.
        """

    async def note(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        """Write something that is already over: opened and closed in one."""

    async def list(
        self, pod_uid: str = "", *, kind: str = "", only_open: bool = False
    ) -> tuple[JournalRecord, ...]:
        """Return records, oldest first; of all Pods where no uid is given."""

    async def prune(self, *, now: datetime) -> int:
        """Remove closed records beyond ``KEEP_PER_POD`` a Pod, all past ``KEEP_FOR``.

        Returns:
            How many were removed.
        """
