"""The one thread that writes the log: compare-and-swap and group commit.

All writes that wait while a commit is on its way to the disk go into the next one.
A batch is *one* SQL statement (a trigger moves the current pointers), so the thread
gives the interpreter lock away once per commit and not once per row.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, assert_never

import structlog

from podyard.lib.values import dataclass
from podyard.store.backend import (
    AlreadyExistsError,
    ConflictError,
    MissingError,
    Op,
    Row,
    StoreClosedError,
    StoreError,
)
from podyard.store.database import to_store_error
from podyard.store.decide import (
    AlreadyExists,
    Append,
    Conflict,
    Head,
    NotFound,
    WriteDecision,
    decide_write,
)

log = structlog.get_logger()

#: One commit takes at most so many writes and about so many bytes.
BATCH_WRITES: Final = 64
BATCH_BYTES: Final = 4 * 1024 * 1024

#: How the log spells what a revision did.
OP_CODES: Final[Mapping[Op, int]] = {"create": 1, "update": 2, "delete": 3}
OP_NAMES: Final[Mapping[int, Op]] = {code: op for op, code in OP_CODES.items()}


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row of the log table, in its columns' order."""

    rev: int
    key: str
    op: int
    prev: int
    crev: int
    val: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One write that somebody waits for."""

    op: Op
    key: str
    value: bytes
    expected_rev: int
    future: asyncio.Future[Row]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Something else to do on the writer's connection."""

    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What to tell one waiter."""

    future: asyncio.Future[Any]
    result: object = None
    error: Exception | None = None


#: Called in the event loop's thread with what was committed and whom to tell.
Publish: TypeAlias = Callable[[Sequence[LogRow], Sequence[Answer]], None]


class Writer:
    """Owns the writing connection and decides every write.

    Args:
        connection: used by this thread only from ``start`` to ``stop``.
        path: the file, for error texts.
        heads: where every key stands.
        last_rev: the newest revision ever given out.
        publish: takes commits, in order, in the loop's thread.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        heads: Iterable[Row],
        last_rev: int,
        publish: Publish,
    ) -> None:
        self._connection = connection
        self._path = path
        self._heads = {row.key: Head(row.rev, row.create_rev) for row in heads}
        self._last_rev = last_rev
        self._publish = publish
        self._inbox: queue.SimpleQueue[Write | Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, name="podyard-store-writer", daemon=True
        )
        self._held: list[Write | Job | None] = []
        self._stopping = False
        self._unsure = False
        #: Counters for statistics; written by the thread, read by anyone.
        self.writes = 0
        self.commits = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        if not self._stopping:
            self._stopping = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def close_connection(self) -> None:
        """Close the connection; after ``stop``."""
        self._connection.close()

    async def write(
        self, op: Op, key: str, value: bytes, *, expected_rev: int = 0
    ) -> Row:
        """Queue a write and wait until it is on the disk and published."""
        future: asyncio.Future[Row] = self._loop.create_future()
        self._put(Write(op, key, value, expected_rev, future))
        return await future

    async def job(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run something on the writing connection, between two commits."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._put(Job(run, future))
        return await future

    def _put(self, item: Write | Job) -> None:
        if self._stopping:
            raise StoreClosedError("the store is closed")
        self._inbox.put(item)

    # ── the thread ──────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, Job):
                self._do(item)
            else:
                self._commit(self._collect(item))

    def _next(self) -> Write | Job | None:
        return self._held.pop() if self._held else self._inbox.get()

    def _collect(self, first: Write) -> list[Write]:
        """Take the writes that wait; hold back what is something else."""
        batch = [first]
        size = len(first.value)
        while len(batch) < BATCH_WRITES and size < BATCH_BYTES:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, Write):
                self._held.append(item)
                break
            batch.append(item)
            size += len(item.value)
        return batch

    def _do(self, job: Job) -> None:
        try:
            answer = Answer(job.future, job.run(self._connection))
        except Exception as error:  # noqa: BLE001 - told to the waiter
            self._roll_back()
            answer = Answer(job.future, error=self._translate(error))
        self._tell((), (answer,))

    def _commit(self, batch: Sequence[Write]) -> None:
        committed: Sequence[LogRow] = ()
        try:
            committed = self._settle()
            rows, answers = self._decide(batch)
            if rows:
                self._append(rows)
                self._move_heads(rows)
                committed = (*committed, *rows)
        except Exception as error:  # noqa: BLE001 - told to every waiter
            self._roll_back()
            answers = [
                Answer(write.future, error=self._translate(error)) for write in batch
            ]
        self._tell(committed, answers)

    def _decide(self, batch: Sequence[Write]) -> tuple[list[LogRow], list[Answer]]:
        """Decide each write in order, each seeing the ones before it."""
        rows: list[LogRow] = []
        answers: list[Answer] = []
        moved: dict[str, Head | None] = {}
        rev = self._last_rev
        for write in batch:
            key = write.key
            head = moved[key] if key in moved else self._heads.get(key)
            decision = decide_write(head, expected_rev=write.expected_rev, op=write.op)
            if isinstance(decision, Append):
                rev += 1
                created = decision.create_rev or rev
                op = OP_CODES[write.op]
                rows.append(
                    LogRow(rev, key, op, decision.previous_rev, created, write.value)
                )
                moved[key] = None if write.op == "delete" else Head(rev, created)
                answers.append(
                    Answer(write.future, Row(key, rev, created, write.value))
                )
            else:
                refusal = refuse(decision, key, write.expected_rev)
                answers.append(Answer(write.future, error=refusal))
        return rows, answers

    def _append(self, rows: Sequence[LogRow]) -> None:
        values = ",".join(["(?,?,?,?,?,?)"] * len(rows))
        arguments: list[object] = []
        for row in rows:
            arguments += (row.rev, row.key, row.op, row.prev, row.crev, row.val)
        self._unsure = True
        self._connection.execute(
            f"INSERT INTO log (rev, key, op, prev, crev, val) VALUES {values}",  # noqa: S608 - only placeholders
            arguments,
        )
        self._unsure = False
        self.writes += len(rows)
        self.commits += 1

    def _settle(self) -> Sequence[LogRow]:
        """After a failed commit: find out whether the disk took it after all."""
        if not self._unsure:
            return ()
        found = self._connection.execute(
            "SELECT rev, key, op, prev, crev, val FROM log WHERE rev > ? ORDER BY rev",
            (self._last_rev,),
        ).fetchall()
        self._unsure = False
        rows = [LogRow(*columns) for columns in found]
        self._move_heads(rows)
        return rows

    def _move_heads(self, rows: Iterable[LogRow]) -> None:
        for row in rows:
            self._last_rev = row.rev
            if row.op == OP_CODES["delete"]:
                self._heads.pop(row.key, None)
            else:
                self._heads[row.key] = Head(row.rev, row.crev)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.rollback()
        except sqlite3.Error as error:
            log.warning("store_rollback_failed", error=str(error))

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            return to_store_error(error, self._path)
        if not isinstance(error, StoreError):
            log.error("store_writer_crashed", exc_info=error)
        return error

    def _tell(self, rows: Sequence[LogRow], answers: Sequence[Answer]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._publish, rows, answers)
        except RuntimeError:
            # The loop is gone: nobody waits, and what is on the disk stays there.
            log.debug("store_answer_without_loop", answers=len(answers))


def refuse(
    decision: WriteDecision, key: str, expected_rev: int
) -> AlreadyExistsError | ConflictError | MissingError:
    """Return the error that a refused write's caller gets."""
    match decision:
        case AlreadyExists(current_rev):
            return AlreadyExistsError(key, current_rev)
        case Conflict(current_rev):
            return ConflictError(key, expected_rev, current_rev)
        case NotFound():
            return MissingError(key)
        case Append():
            raise ValueError("an appended write is not refused")
        case unknown:
            assert_never(unknown)
