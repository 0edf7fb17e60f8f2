"""``NodeJournal`` on a small SQLite file of its own.

WAL with ``synchronous=NORMAL``: a killed process loses nothing that was answered. A
power cut may lose the last moments, but it also ends every container they were about.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import orjson

from podyard.api.documents import Document
from podyard.store.backend import StoreClosedError
from podyard.store.database import (
    FileLock,
    connect,
    make_private_file,
    prepare,
    translated_errors,
)
from podyard.store.node_journal import KEEP_FOR, KEEP_PER_POD, JournalRecord

_T = TypeVar("_T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE record (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, pod_uid TEXT NOT NULL,
  body BLOB NOT NULL, opened_us INTEGER NOT NULL, closed_us INTEGER);
CREATE INDEX record_by_pod ON record (pod_uid, id);
CREATE INDEX record_by_time ON record (opened_us)
"""


class SqliteNodeJournal:
    """``NodeJournal``; made by ``open_node_journal``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._pool = ThreadPoolExecutor(1, "podyard-node-journal")
        self._closed = False

    async def shut(self) -> None:
        """Finish what is queued and close the file."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._connection.close)

    async def open(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        """Write that something is about to be done."""
        return await self._insert(kind, pod_uid, body, at=at, is_over=False)

    async def note(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        """Write something that is already over."""
        return await self._insert(kind, pod_uid, body, at=at, is_over=True)

    async def close(self, record_id: int, *, at: datetime, result: Document) -> None:
        """Write how it ended."""

        def work(connection: sqlite3.Connection) -> None:
            found = connection.execute(
                "SELECT body FROM record WHERE id = ? AND closed_us IS NULL",
                (record_id,),
            ).fetchone()
            if found is not None:
                body = orjson.dumps(orjson.loads(found[0]) | result)
                connection.execute(
                    "UPDATE record SET body = ?, closed_us = ? WHERE id = ?",
                    (body, _to_us(at), record_id),
                )

        await self._run(work)

    async def list(
        self, pod_uid: str = "", *, kind: str = "", only_open: bool = False
    ) -> tuple[JournalRecord, ...]:
        """Return records, oldest first."""

        def work(connection: sqlite3.Connection) -> tuple[JournalRecord, ...]:
            found = connection.execute(
                "SELECT id, kind, pod_uid, body, opened_us, closed_us FROM record"
                " WHERE (:pod_uid = '' OR pod_uid = :pod_uid)"
                " AND (:kind = '' OR kind = :kind)"
                " AND (NOT :only_open OR closed_us IS NULL) ORDER BY id",
                {"pod_uid": pod_uid, "kind": kind, "only_open": only_open},
            )
            return tuple(_to_record(*columns) for columns in found)

        return await self._run(work)

    async def prune(self, *, now: datetime) -> int:
        """Remove what is too much or too old; see ``NodeJournal.prune``."""

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM record WHERE opened_us < ? OR id IN ("
                " SELECT id FROM (SELECT id, closed_us, row_number()"
                " OVER (PARTITION BY pod_uid ORDER BY id DESC) AS place FROM record)"
                " WHERE place > ? AND closed_us IS NOT NULL)",
                (_to_us(now - KEEP_FOR), KEEP_PER_POD),
            ).rowcount

        return await self._run(work)

    async def _insert(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime, is_over: bool
    ) -> int:
        values = (
            kind,
            pod_uid,
            orjson.dumps(body),
            _to_us(at),
            _to_us(at) if is_over else None,
        )

        def work(connection: sqlite3.Connection) -> int:
            cursor = connection.execute(
                "INSERT INTO record (kind, pod_uid, body, opened_us, closed_us)"
                " VALUES (?, ?, ?, ?, ?)",
                values,
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._closed:
            raise StoreClosedError("the node's journal is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._in_thread, work)

    def _in_thread(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with translated_errors(self._path):
            return work(self._connection)


@contextlib.asynccontextmanager
async def open_node_journal(path: Path) -> AsyncIterator[SqliteNodeJournal]:
    """Lock and open the journal; close it at the end.

    Raises:
        StoreLockedError: another process has it.
        StoreError: another subclass says what is wrong with the file.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        connection = await asyncio.to_thread(_open, path, lock)
        journal = SqliteNodeJournal(path, connection)
        try:
            yield journal
        finally:
            await journal.shut()
    finally:
        lock.release()


def _open(path: Path, lock: FileLock) -> sqlite3.Connection:
    with translated_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(guards=path)
        make_private_file(path)
        connection = connect(path, synchronous="NORMAL")
        try:
            prepare(connection, path, schema=_SCHEMA, version=SCHEMA_VERSION)
        except BaseException:
            connection.close()
            raise
    return connection


def _to_us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _to_record(
    record_id: int,
    kind: str,
    pod_uid: str,
    body: bytes,
    opened_us: int,
    closed_us: int | None,
) -> JournalRecord:
    closed_at = None if closed_us is None else _from_us(closed_us)
    return JournalRecord(
        record_id, kind, pod_uid, orjson.loads(body), _from_us(opened_us), closed_at
    )
