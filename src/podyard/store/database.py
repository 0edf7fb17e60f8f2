"""SQLite files: locked, private, opened the one right way, with typed errors.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/rescode.html and
https://www.sqlite.org/pragma.html#pragma_auto_vacuum (which must be set before the
first table and, as measured, before the journal mode).
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from podyard.store.backend import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreIOError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreSchemaError,
)

#: "pody" in ASCII: the files are ours.
APPLICATION_ID: Final = 0x706F6479
_BUSY_TIMEOUT_S: Final = 5.0
#: A file system with less than this counts as full when a write fails on it.
_FULL_BELOW_BYTES: Final = 1024 * 1024


class FileLock:
    """A lock file held by this process; the kernel frees it when the process dies.

    Args:
        path: the lock file, made where it is missing; it stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, *, guards: Path) -> None:
        """Take the lock for ``guards`` or fail at once.

        Raises:
            StoreLockedError: another process has it.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            pid = int(holder) if holder.isdecimal() else 0
            raise StoreLockedError(str(guards), pid) from None
        self._fd = fd
        os.ftruncate(fd, 0)
        # On a full disk the holder's number is lost, not the lock.
        with contextlib.suppress(OSError):
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the lock go; harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's and the file system's errors into the store's own."""
    try:
        yield
    except sqlite3.Error as error:
        raise to_store_error(error, path) from error
    except OSError as error:
        raise _from_os_error(error, path) from error


def to_store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the store's error for SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (
        primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and _is_full(path)
    ):
        return StoreFullError(f"{path}: no space left on the file system")
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return StoreReadOnlyError(f"{path} may not be written: {error}")
    if primary == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
        return StoreReadOnlyError(f"{path.parent} may not be written")
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreCorruptError(f"{path} is damaged or not a database: {error}")
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreLockedError(str(path), 0)
    return StoreIOError(f"{path}: {error}")


def _from_os_error(error: OSError, path: Path) -> StoreError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFullError(f"{path}: no space left on the file system")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreReadOnlyError(f"{path} may not be written: {error.strerror}")
    return StoreIOError(f"{path}: {error.strerror or error}")


def _is_full(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _FULL_BELOW_BYTES


def make_private_file(path: Path) -> None:
    """Make ``path`` and its folder where missing; only the owner may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    created = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_mode & 0o077:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
    if created:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def connect(
    path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL"
) -> sqlite3.Connection:
    """Open a connection for one thread at a time; transactions are explicit."""
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


def prepare(
    connection: sqlite3.Connection, path: Path, *, schema: str, version: int
) -> None:
    """Make the file what this program expects.

    Args:
        connection: the first connection to it.
        path: for error texts.
        schema: the statements that make an empty file one of ``version``.
        version: the schema version this program knows.

    Raises:
        StoreSchemaError: a newer program wrote it.
        StoreCorruptError: it is someone else's database.
    """
    found = _pragma(connection, "user_version")
    if found > version:
        raise StoreSchemaError(str(path), found, version)
    is_empty = _pragma(connection, "page_count") == 0
    if not is_empty and _pragma(connection, "application_id") != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables[0]:
            raise StoreCorruptError(f"{path} is a database, but not one of ours")
    if found == 0:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA journal_size_limit=16777216")
    if found == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {schema}; PRAGMA application_id={APPLICATION_ID};"
            f"PRAGMA user_version={version}; COMMIT;"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def give_back_space(connection: sqlite3.Connection, *, pages: int) -> bool:
    """Shrink the file by some free pages when a good part of it is free.

    Returns:
        Whether more is left to give back.
    """
    free = _pragma(connection, "freelist_count")
    if free < pages or free * 4 < _pragma(connection, "page_count"):
        return False
    # execute() would free one page only: it does not step the statement to its end.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    return True
