"""The one engine: an append-only log of revisions in a SQLite file.

* ``log(rev, key, op, prev, crev, val)``: every revision; ``prev`` is the one it
  supersedes. A revision is never given out twice: the next one is above both the
  newest row and everything ever compacted.
* ``cur(key, rev, crev)``: which revision of a key is its current one.
* ``meta``: ``compact_rev`` (history below it may be gone) and ``compacted_upto`` (how
  far the removal has come, so that it goes on after a crash).

Current rows are answered from memory, older ones and long histories from the file
by reader threads. WAL with ``synchronous=FULL``: what was answered is on the disk.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.store.backend import (
    Change,
    CompactedError,
    FutureRevisionError,
    Op,
    Page,
    Row,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreStatistics,
)
from podyard.store.broadcast import Broadcast, Replay, WatchSubscription
from podyard.store.database import (
    FileLock,
    connect,
    give_back_space,
    make_private_file,
    prepare,
    translated_errors,
)
from podyard.store.decide import (
    Append,
    CompactTo,
    Head,
    Mark,
    decide_compaction,
    decide_write,
    forget_marks,
)
from podyard.store.rows import CurrentRows, prefix_end
from podyard.store.writer import OP_CODES, OP_NAMES, Answer, LogRow, Writer, refuse

log = structlog.get_logger()
_T = TypeVar("_T")

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = f"""
CREATE TABLE log (
  rev INTEGER PRIMARY KEY, key TEXT NOT NULL, op INTEGER NOT NULL,
  prev INTEGER NOT NULL, crev INTEGER NOT NULL, val BLOB NOT NULL);
CREATE INDEX log_by_key ON log (key, rev, op);
CREATE TABLE cur (
  key TEXT PRIMARY KEY, rev INTEGER NOT NULL, crev INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER log_moves_cur AFTER INSERT ON log WHEN new.op != {OP_CODES["delete"]}
BEGIN
  INSERT INTO cur (key, rev, crev) VALUES (new.key, new.rev, new.crev)
  ON CONFLICT (key) DO UPDATE SET rev = excluded.rev, crev = excluded.crev;
END;
CREATE TRIGGER log_drops_cur AFTER INSERT ON log WHEN new.op = {OP_CODES["delete"]}
BEGIN
  DELETE FROM cur WHERE key = new.key;
END;
INSERT INTO meta (name, value) VALUES ('compact_rev', 1), ('compacted_upto', 1)
"""  # noqa: S608 - only our own numbers
_COMPACT_ROWS: Final = 1000
_VACUUM_PAGES: Final = 512
_REPLAY_CHANGES: Final = 1000
_READERS: Final = 2


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How much history the store keeps.

    Attributes:
        keep_s: seconds of history that watchers and pages can count on.
        keep_revs: so many of the newest revisions stay whatever their age.
        look_every_s: seconds between two looks at what may be compacted.
    """

    keep_s: float = 300.0
    keep_revs: int = 1000
    look_every_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is known after opening the file."""

    connection: sqlite3.Connection
    rows: tuple[Row, ...]
    last_rev: int
    compact_rev: int
    compacted_upto: int
    log_rows: int
    file_bytes: int


class SqliteStore:
    """``Backend`` on one SQLite file; made by ``open_store``.

    It belongs to the event loop it was opened in. ``run`` compacts in the background.
    """

    def __init__(
        self, path: Path, loaded: _Loaded, *, clock: Clock, settings: StoreSettings
    ) -> None:
        self._path = path
        self._clock = clock
        self._settings = settings
        self._compact_rev = loaded.compact_rev
        self._compacted_upto = loaded.compacted_upto
        self._log_rows = loaded.log_rows
        self._file_bytes = loaded.file_bytes
        self._full = False
        self._closed = False
        self._rows = CurrentRows(loaded.rows)
        self._compacting = asyncio.Lock()
        self._readers = _Readers(path)
        self._broadcast = Broadcast(
            current_rev=loaded.last_rev, read_history=self._read_history
        )
        self._writer = Writer(
            loaded.connection,
            path,
            heads=loaded.rows,
            last_rev=loaded.last_rev,
            publish=self._publish,
        )
        self._writer.start()

    @classmethod
    async def open(
        cls, path: Path, *, clock: Clock, settings: StoreSettings | None = None
    ) -> Self:
        """Open the file, making it where it is missing. The caller holds its lock.

        Raises:
            StoreError: one of its subclasses says what is wrong with the file.
        """
        loaded = await asyncio.to_thread(_load, path)
        return cls(path, loaded, clock=clock, settings=settings or StoreSettings())

    async def close(self) -> None:
        """Commit what is queued, end all watches and close the file."""
        if self._closed:
            return
        self._closed = True
        await self._writer.stop()
        self._broadcast.close()
        await self._readers.close()
        await asyncio.to_thread(self._writer.close_connection)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path} at revision {self.current_rev}>"

    @property
    def current_rev(self) -> int:
        """The newest published revision."""
        return self._broadcast.current_rev

    @property
    def compact_rev(self) -> int:
        """The oldest revision that can still be listed at or watched from."""
        return self._compact_rev

    def statistics(self) -> StoreStatistics:
        """Return counters, without touching the disk."""
        return StoreStatistics(
            current_rev=self.current_rev,
            compact_rev=self._compact_rev,
            rows=len(self._rows),
            log_rows=self._log_rows,
            file_bytes=self._file_bytes,
            subscriptions=self._broadcast.subscriptions,
            writes=self._writer.writes,
            commits=self._writer.commits,
            overflows=self._broadcast.overflows,
            full=self._full,
        )

    # ── reading ─────────────────────────────────────────────────────────────────

    async def get(self, key: str) -> Row | None:
        """Return the key's current row, or ``None`` where it does not exist."""
        self._check_open()
        return self._rows.get(key)

    async def list(
        self,
        prefix: str,
        *,
        rev: int | None = None,
        start_after: str = "",
        limit: int = 0,
    ) -> Page:
        """Return rows under ``prefix``; see ``Backend.list``."""
        self._check_open()
        at = self.current_rev if rev is None else rev
        if at > self.current_rev:
            raise FutureRevisionError(at, self.current_rev)
        if at < self._compact_rev:
            raise CompactedError(at, self._compact_rev)
        if not self._broadcast.may_have_changed(prefix, since_rev=at):
            return self._rows.page(prefix, rev=at, start_after=start_after, limit=limit)
        return await self._readers.run(
            lambda connection: _old_page(
                connection, prefix, rev=at, start_after=start_after, limit=limit
            )
        )

    async def watch(self, prefix: str, *, since_rev: int) -> WatchSubscription:
        """Return every change under ``prefix`` after ``since_rev``, in order."""
        self._check_open()
        if since_rev < self._compact_rev:
            raise CompactedError(since_rev, self._compact_rev)
        return self._broadcast.subscribe(prefix, since_rev=since_rev)

    async def wait_for_rev(self, rev: int, *, within_s: float) -> None:
        """Wait until the store has reached ``rev``."""
        await self._broadcast.wait_for_rev(rev, within_s=within_s)

    async def _read_history(self, prefix: str, after_rev: int) -> Replay:
        self._check_open()
        upto_rev = self.current_rev
        return await self._readers.run(
            lambda connection: _history(
                connection, prefix, after_rev=after_rev, upto_rev=upto_rev
            )
        )

    # ── writing ─────────────────────────────────────────────────────────────────

    async def create(self, key: str, value: bytes) -> Row:
        """Write a new key."""
        return await self._write("create", key, value, expected_rev=0)

    async def update(self, key: str, value: bytes, *, expected_rev: int) -> Row:
        """Replace a key that still stands at ``expected_rev``."""
        return await self._write("update", key, value, expected_rev=expected_rev)

    async def delete(
        self, key: str, *, expected_rev: int, value: bytes | None = None
    ) -> Row:
        """Remove a key that still stands at ``expected_rev``."""
        return await self._write("delete", key, value, expected_rev=expected_rev)

    async def _write(
        self, op: Op, key: str, value: bytes | None, *, expected_rev: int
    ) -> Row:
        self._check_open()
        # A first look at what is published refuses most conflicts without the disk;
        # the writer decides again, on what is committed.
        row = self._rows.get(key)
        head = Head(row.rev, row.create_rev) if row is not None else None
        decision = decide_write(head, expected_rev=expected_rev, op=op)
        if not isinstance(decision, Append):
            raise refuse(decision, key, expected_rev)
        if value is None:
            assert row is not None, "only a delete comes without a value"
            value = row.value
        try:
            written = await self._writer.write(
                op, key, value, expected_rev=expected_rev
            )
        except StoreFullError:
            if not self._full:
                self._full = True
                log.warning("store_full", path=str(self._path))
            raise
        if self._full:
            self._full = False
            log.info("store_has_space_again", path=str(self._path))
        return written

    def _publish(self, rows: Sequence[LogRow], answers: Sequence[Answer]) -> None:
        """Make commits visible: rows first, then watchers, then the writers."""
        self._broadcast.publish([self._apply(row) for row in rows])
        self._log_rows += len(rows)
        for answer in answers:
            if answer.future.done():
                continue
            if answer.error is not None:
                answer.future.set_exception(answer.error)
            else:
                answer.future.set_result(answer.result)

    def _apply(self, row: LogRow) -> Change:
        before = self._rows.get(row.key)
        previous = before.value if before is not None else None
        op = OP_NAMES[row.op]
        if op == "delete":
            self._rows.remove(row.key)
        else:
            self._rows.put(Row(row.key, row.rev, row.crev, row.val))
        return Change(row.rev, row.key, op, row.val, previous)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed")

    # ── compaction ──────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Compact for ever, keeping the window of the settings."""
        marks: tuple[Mark, ...] = ()
        keep_s = self._settings.keep_s
        while True:
            now_s = self._clock.monotonic_s()
            marks = forget_marks(
                (*marks, Mark(now_s, self.current_rev)), now_s=now_s, keep_s=keep_s
            )
            target = decide_compaction(
                marks,
                now_s=now_s,
                current_rev=self.current_rev,
                compact_rev=self._compact_rev,
                keep_s=keep_s,
                keep_revs=self._settings.keep_revs,
            )
            if isinstance(target, CompactTo):
                await self._try_compact(target.rev)
            self._file_bytes = await asyncio.to_thread(_file_bytes, self._path)
            await asyncio.sleep(self._settings.look_every_s)

    async def _try_compact(self, rev: int) -> None:
        try:
            removed = await self.compact(rev)
        except StoreClosedError:
            raise
        except StoreError as error:
            log.warning("store_compaction_failed", error=str(error))
        else:
            log.debug("store_compacted", below_rev=rev, removed=removed)

    async def compact(self, rev: int) -> int:
        """Forget history below ``rev``; see ``Backend.compact``."""
        self._check_open()
        removed = 0
        async with self._compacting:
            target = max(min(rev, self.current_rev), self._compact_rev)
            if target > self._compact_rev:
                # Announced first: from here on nobody may ask for what is removed.
                await self._writer.job(lambda db: _set_meta(db, compact_rev=target))
                self._compact_rev = target
            while self._compacted_upto < target:
                upto, batch = await self._writer.job(
                    lambda db: _compact_batch(db, self._compacted_upto, target)
                )
                self._compacted_upto = upto
                self._log_rows -= batch
                removed += batch
            while await self._writer.job(
                lambda db: give_back_space(db, pages=_VACUUM_PAGES)
            ):
                pass
            self._file_bytes = await asyncio.to_thread(_file_bytes, self._path)
        return removed


@contextlib.asynccontextmanager
async def open_store(
    path: Path, *, clock: Clock, settings: StoreSettings | None = None
) -> AsyncIterator[SqliteStore]:
    """Lock and open the store; close it and let the lock go at the end.

    Args:
        path: the database file; ``<path>.lock`` beside it is the lock.
        clock: measures the age of history.
        settings: how much history to keep.

    Raises:
        StoreLockedError: another process has it.
        StoreError: another subclass says what is wrong with the file.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        await asyncio.to_thread(_lock, lock, path)
        store = await SqliteStore.open(path, clock=clock, settings=settings)
        try:
            yield store
        finally:
            await store.close()
    finally:
        lock.release()


class _Readers:
    """A few threads with a reading connection each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READERS, "podyard-store-reader")

    async def run(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``read`` in one snapshot."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._read, read)

    async def close(self) -> None:
        """End the threads and their connections."""
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._connections:
            connection.close()

    def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        with translated_errors(self._path):
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return read(connection)
            finally:
                connection.rollback()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "db", None)
        if connection is None:
            connection = connect(self._path)
            connection.execute("PRAGMA query_only=1")
            self._local.db = connection
            self._connections.append(connection)
        return connection


# ── SQL, in whatever thread ─────────────────────────────────────────────────────


def _lock(lock: FileLock, path: Path) -> None:
    with translated_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(guards=path)


def _load(path: Path) -> _Loaded:
    with translated_errors(path):
        make_private_file(path)
        connection = connect(path)
        try:
            prepare(connection, path, schema=_SCHEMA, version=SCHEMA_VERSION)
            return _read_all(connection, path)
        except BaseException:
            connection.close()
            raise


def _read_all(connection: sqlite3.Connection, path: Path) -> _Loaded:
    meta = _meta(connection)
    newest, log_rows = connection.execute(
        "SELECT coalesce(max(rev), 0), count(*) FROM log"
    ).fetchone()
    found = connection.execute(
        "SELECT c.key, c.rev, c.crev, l.val FROM cur c LEFT JOIN log l ON l.rev = c.rev"
    ).fetchall()
    rows = tuple(Row(*columns) for columns in found)
    if any(row.value is None for row in rows):
        raise StoreCorruptError(f"{path} is damaged: a current row has no revision")
    return _Loaded(
        connection,
        rows,
        last_rev=max(newest, meta["compact_rev"]),
        compact_rev=meta["compact_rev"],
        compacted_upto=meta["compacted_upto"],
        log_rows=log_rows,
        file_bytes=_file_bytes(path),
    )


def _meta(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, value FROM meta").fetchall())


def _set_meta(connection: sqlite3.Connection, *, compact_rev: int) -> None:
    connection.execute(
        "UPDATE meta SET value = ? WHERE name = 'compact_rev'", (compact_rev,)
    )


def _compact_batch(
    connection: sqlite3.Connection, done_upto: int, target: int
) -> tuple[int, int]:
    """Remove what the next revisions up to ``target`` have superseded.

    Returns:
        How far it has come, and how many rows it removed.
    """
    connection.execute("BEGIN IMMEDIATE")
    last, count = connection.execute(
        "SELECT max(rev), count(*) FROM (SELECT rev FROM log"
        " WHERE rev > ? AND rev <= ? ORDER BY rev LIMIT ?)",
        (done_upto, target, _COMPACT_ROWS),
    ).fetchone()
    upto = last if count == _COMPACT_ROWS else target
    removed = connection.execute(
        "DELETE FROM log WHERE rev IN"
        " (SELECT prev FROM log WHERE rev > ? AND rev <= ? AND prev > 0)",
        (done_upto, upto),
    ).rowcount
    removed += connection.execute(
        "DELETE FROM log WHERE rev > ? AND rev <= ? AND op = ?",
        (done_upto, upto, OP_CODES["delete"]),
    ).rowcount
    connection.execute(
        "UPDATE meta SET value = ? WHERE name = 'compacted_upto'", (upto,)
    )
    connection.execute("COMMIT")
    return upto, removed


def _old_page(
    connection: sqlite3.Connection,
    prefix: str,
    *,
    rev: int,
    start_after: str,
    limit: int,
) -> Page:
    compact_rev = _meta(connection)["compact_rev"]
    if rev < compact_rev:
        raise CompactedError(rev, compact_rev)
    # Answered from the index alone; sqlite takes ``op`` from the row of the maximum.
    found = connection.execute(
        "SELECT key, max(rev), op FROM log INDEXED BY log_by_key"
        " WHERE key >= ? AND key < ? AND key > ? AND rev <= ? GROUP BY key",
        (prefix, prefix_end(prefix), start_after, rev),
    )
    deleted = OP_CODES["delete"]
    revs = [key_rev for _, key_rev, op in found if op != deleted]
    wanted = revs[:limit] if limit > 0 else revs
    rows = tuple(
        Row(
            *connection.execute(
                "SELECT key, rev, crev, val FROM log WHERE rev = ?", (key_rev,)
            ).fetchone()
        )
        for key_rev in wanted
    )
    remaining = len(revs) - len(wanted)
    return Page(rows, rev, more=remaining > 0, remaining=remaining)


def _history(
    connection: sqlite3.Connection, prefix: str, *, after_rev: int, upto_rev: int
) -> Replay:
    compact_rev = _meta(connection)["compact_rev"]
    if after_rev < compact_rev:
        raise CompactedError(after_rev, compact_rev)
    # The plus keeps the planner on the revision order: no sort, stops at the limit.
    found = connection.execute(
        "SELECT l.rev, l.key, l.op, l.val, p.val FROM log l"
        " LEFT JOIN log p ON p.rev = l.prev"
        " WHERE l.rev > ? AND l.rev <= ? AND +l.key >= ? AND +l.key < ?"
        " ORDER BY l.rev LIMIT ?",
        (after_rev, upto_rev, prefix, prefix_end(prefix), _REPLAY_CHANGES),
    ).fetchall()
    changes = [
        Change(rev, key, OP_NAMES[op], value, previous)
        for rev, key, op, value, previous in found
    ]
    reached = changes[-1].rev if len(changes) == _REPLAY_CHANGES else upto_rev
    return Replay(changes, reached)


def _file_bytes(path: Path) -> int:
    total = 0
    for name in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(OSError):
            total += os.stat(name).st_size  # noqa: PTH116 - one call, no object
    return total
