"""The current rows in memory: encoded bytes by key, listed in key order."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from podyard.store.backend import Page, Row


def prefix_end(prefix: str) -> str:
    """Return the first string that sorts after every one with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class CurrentRows:
    """What exists now. Not thread-safe: it belongs to the event loop's thread.

    Args:
        rows: what exists at the start.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = {row.key: row for row in rows}
        self._keys = sorted(self._rows)

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: str) -> Row | None:
        """Return the row of ``key``, if it exists."""
        return self._rows.get(key)

    def put(self, row: Row) -> None:
        """Add a row, or replace that of its key."""
        if row.key not in self._rows:
            insort(self._keys, row.key)
        self._rows[row.key] = row

    def remove(self, key: str) -> None:
        """Remove a row; harmless where it does not exist."""
        if self._rows.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def page(self, prefix: str, *, rev: int, start_after: str, limit: int) -> Page:
        """Return the rows under ``prefix``; see ``Backend.list``."""
        keys = self._keys
        end = bisect_left(keys, prefix_end(prefix))
        start = bisect_left(keys, prefix)
        if start_after:
            start = max(start, bisect_right(keys, start_after))
        stop = min(start + limit, end) if limit > 0 else end
        rows = tuple(map(self._rows.__getitem__, keys[start:stop]))
        remaining = max(end - stop, 0)
        return Page(rows, rev, more=remaining > 0, remaining=remaining)
