"""What the API server asks of its store: one append-only log of revisions.

Every write of one object is one revision; revisions are a single counter for the
whole store and never come back, not even after a crash. A value is the object's
JSON *without* ``metadata.resourceVersion``: the reader puts ``Row.rev`` there.

The shape follows etcd's (https://etcd.io/docs/latest/learning/data_model/): a key
has the revision of its last write and that of its creation; compare-and-swap is by
the revision last seen; a watch is "everything after revision N, in order".
"""

from typing import Literal, Protocol

from podyard.lib.values import dataclass

#: What a change did to its key.
Op = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Row:
    """One key as it stood at one revision.

    Attributes:
        key: ``/registry/<group>/<resource>/<namespace>/<name>``.
        rev: the revision of this state (the object's resourceVersion). Of a deleted
            row: the revision of the deletion.
        create_rev: the revision in which the key was created.
        value: the JSON document without ``metadata.resourceVersion``.
    """

    key: str
    rev: int
    create_rev: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One revision, as watchers are told.

    Attributes:
        rev: the revision of this change.
        key: the key it changed.
        op: what happened.
        value: the state after it; for a delete the last state.
        previous: the state before it, ``None`` for a create. (For a delete it may
            differ from ``value`` where the deleter recorded a newer last state.)
    """

    rev: int
    key: str
    op: Op
    value: bytes
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows under a prefix, ordered by key, all as of one revision.

    Attributes:
        rows: the rows of this page.
        rev: the revision of the snapshot; pass it to get the next page of the same.
        more: whether rows follow the last one of this page.
        remaining: how many rows follow it.
    """

    rows: tuple[Row, ...]
    rev: int
    more: bool
    remaining: int


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How the store is doing, for metrics and status pages.

    Attributes:
        current_rev: the newest published revision.
        compact_rev: revisions below it can no longer be listed or replayed.
        rows: keys that exist now.
        log_rows: revisions kept.
        file_bytes: size of the database file and its write-ahead log.
        subscriptions: watches open now.
        writes: writes committed since the start.
        commits: transactions they took (group commit makes it fewer).
        overflows: subscriptions closed because their reader was too slow.
        full: whether the last write failed for lack of space.
    """

    current_rev: int
    compact_rev: int
    rows: int
    log_rows: int
    file_bytes: int
    subscriptions: int
    writes: int
    commits: int
    overflows: int
    full: bool


class StoreError(Exception):
    """Something the store could not do."""


class AlreadyExistsError(StoreError):
    """A create met a key that exists.

    Attributes:
        key: the key.
        rev: the revision it stands at.
    """

    def __init__(self, key: str, rev: int) -> None:
        super().__init__(f"{key} already exists at revision {rev}")
        self.key = key
        self.rev = rev


class MissingError(StoreError):
    """An update or delete met no such key.

    Attributes:
        key: the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class ConflictError(StoreError):
    """The key has moved on since the caller read it.

    Attributes:
        key: the key.
        expected_rev: what the caller had seen.
        current_rev: where the key stands now.
    """

    def __init__(self, key: str, expected_rev: int, current_rev: int) -> None:
        super().__init__(f"{key} is at revision {current_rev}, not {expected_rev}")
        self.key = key
        self.expected_rev = expected_rev
        self.current_rev = current_rev


class CompactedError(StoreError):
    """The revision asked for is no longer kept (the API's 410 Expired).

    Attributes:
        rev: the revision asked for.
        compact_rev: the oldest one that can still be asked for.
    """

    def __init__(self, rev: int, compact_rev: int) -> None:
        super().__init__(f"revision {rev} is compacted; the oldest is {compact_rev}")
        self.rev = rev
        self.compact_rev = compact_rev


class FutureRevisionError(StoreError):
    """The revision asked for has not happened (the API's 504, too large).

    Attributes:
        rev: the revision asked for.
        current_rev: the newest there is.
    """

    def __init__(self, rev: int, current_rev: int) -> None:
        super().__init__(f"revision {rev} is in the future; the newest: {current_rev}")
        self.rev = rev
        self.current_rev = current_rev


class WatchOverflowError(StoreError):
    """A watcher read too slowly and was let go; it may resume after ``last_rev``.

    Attributes:
        last_rev: every change up to here was handed to the watcher.
    """

    def __init__(self, last_rev: int) -> None:
        super().__init__(f"the watcher fell too far behind after revision {last_rev}")
        self.last_rev = last_rev


class StoreFullError(StoreError):
    """The file system is full: writes fail, reads go on, space brings writes back."""


class StoreReadOnlyError(StoreError):
    """The file system or the file may not be written."""


class StoreCorruptError(StoreError):
    """The file is not a database, or a damaged one."""


class StoreIOError(StoreError):
    """The disk failed in another way."""


class StoreSchemaError(StoreError):
    """The file was written by a newer Podyard.

    Attributes:
        found: its schema version.
        supported: the newest one this program knows.
    """

    def __init__(self, path: str, found: int, supported: int) -> None:
        super().__init__(
            f"{path} has schema version {found}, written by a newer Podyard; this one "
            f"knows versions up to {supported}"
        )
        self.found = found
        self.supported = supported


class StoreLockedError(StoreError):
    """Another process has the store open.

    Attributes:
        holder_pid: its process id, 0 where unknown.
    """

    def __init__(self, path: str, holder_pid: int) -> None:
        by = f" by process {holder_pid}" if holder_pid else " by another process"
        super().__init__(f"{path} is in use{by}")
        self.holder_pid = holder_pid


class StoreClosedError(StoreError):
    """The store was closed meanwhile."""


class Subscription(Protocol):
    """One watch: an async iterator of changes in revision order.

    It ends with ``StopAsyncIteration`` after ``close()``, and raises
    ``WatchOverflowError`` when its reader was too slow, ``CompactedError`` when
    history it still had to replay was compacted, ``StoreClosedError`` when the store
    went away. One reader at a time.
    """

    @property
    def progress_rev(self) -> int:
        """Every matching change up to this revision has been handed out.

        Moves on without matching changes too: the resourceVersion for a bookmark.
        """

    def __aiter__(self) -> "Subscription":
        """Return itself."""

    async def __anext__(self) -> Change:
        """Return the next change; wait for it if need be."""

    def close(self) -> None:
        """End it; a waiting reader wakes. May be called twice."""


class Backend(Protocol):
    """The store. Every read sees every write whose call has returned.

    All calls but the sync ones may raise ``StoreClosedError`` and ``StoreIOError``;
    writes also ``StoreFullError`` and ``StoreReadOnlyError``.
    """

    @property
    def current_rev(self) -> int:
        """The newest published revision; at least 1."""

    @property
    def compact_rev(self) -> int:
        """The oldest revision that can still be listed at or watched from."""

    async def get(self, key: str) -> Row | None:
        """Return the key's current row, or ``None`` where it does not exist."""

    async def list(
        self,
        prefix: str,
        *,
        rev: int | None = None,
        start_after: str = "",
        limit: int = 0,
    ) -> Page:
        """Return rows whose key begins with ``prefix``, ordered by key.

        Args:
            prefix: ends in a slash.
            rev: the revision to look at; ``None`` is the newest.
            start_after: the last key of the page before, empty for the first page.
            limit: most rows to return; 0 is all.

        Raises:
            CompactedError: ``rev`` is no longer kept.
            FutureRevisionError: ``rev`` has not happened.
        """

    async def create(self, key: str, value: bytes) -> Row:
        """Write a new key.

        Raises:
            AlreadyExistsError: it exists.
        """

    async def update(self, key: str, value: bytes, *, expected_rev: int) -> Row:
        """Replace a key that still stands at ``expected_rev``.

        Raises:
            ConflictError: it stands at another revision.
            MissingError: it does not exist.
        """

    async def delete(
        self, key: str, *, expected_rev: int, value: bytes | None = None
    ) -> Row:
        """Remove a key that still stands at ``expected_rev``.

        Args:
            key: the key.
            expected_rev: the revision the caller has seen.
            value: the last state to tell watchers; ``None`` is the stored one.

        Returns:
            The last state, with ``rev`` the revision of the deletion.

        Raises:
            ConflictError: it stands at another revision.
            MissingError: it does not exist.
        """

    async def watch(self, prefix: str, *, since_rev: int) -> Subscription:
        """Return every change under ``prefix`` after ``since_rev``, in order.

        Raises:
            CompactedError: ``since_rev`` is older than what is kept.
            FutureRevisionError: ``since_rev`` has not happened.
        """

    async def wait_for_rev(self, rev: int, *, within_s: float) -> None:
        """Wait until the store has reached ``rev``.

        Raises:
            FutureRevisionError: it had not after ``within_s`` seconds.
        """

    async def compact(self, rev: int) -> int:
        """Forget history below ``rev``; current rows stay.

        Returns:
            How many revisions were removed.
        """

    def statistics(self) -> StoreStatistics:
        """Return counters, without touching the disk."""
