"""Telling watchers, after the commit and in revision order.

Everything here runs in the event loop's thread, without awaiting: between two
awaits the ring, the subscriptions and ``current_rev`` are one consistent picture.
A watcher gets its history from the ring of recent changes or, where that no longer
reaches back far enough, from the log; then it is live, with a bounded queue.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from podyard.lib.values import dataclass
from podyard.store.backend import (
    Change,
    FutureRevisionError,
    StoreClosedError,
    StoreError,
    WatchOverflowError,
)

#: Recent changes kept in memory: at most so many, of at most so many bytes.
RING_CHANGES: Final = 4096
RING_BYTES: Final = 8 * 1024 * 1024
#: What one live watcher may leave unread.
QUEUE_CHANGES: Final = 1024
QUEUE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Replay:
    """A stretch of history read from the log.

    Attributes:
        changes: matching changes in revision order.
        upto_rev: nothing else matches up to this revision.
    """

    changes: Sequence[Change]
    upto_rev: int


#: Reads history under a prefix after a revision; raises ``CompactedError``.
ReadHistory = Callable[[str, int], Awaitable[Replay]]


def _size(change: Change) -> int:
    return len(change.value) + len(change.previous or b"")


class Broadcast:
    """The ring of recent changes and everybody who listens.

    Args:
        current_rev: the newest revision at the start.
        read_history: reads older changes from the log.
    """

    def __init__(self, *, current_rev: int, read_history: ReadHistory) -> None:
        self._read_history = read_history
        self._ring: deque[Change] = deque()
        self._ring_bytes = 0
        self._ring_after = current_rev
        self._current_rev = current_rev
        self._live: dict[str, set[WatchSubscription]] = {}
        self._all: set[WatchSubscription] = set()
        self._waiters: set[tuple[int, asyncio.Future[None]]] = set()
        self._closed = False
        self._overflows = 0

    @property
    def current_rev(self) -> int:
        """The newest revision told."""
        return self._current_rev

    @property
    def subscriptions(self) -> int:
        """How many watches are open."""
        return len(self._all)

    @property
    def overflows(self) -> int:
        """How many watchers were let go for reading too slowly."""
        return self._overflows

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell watchers of committed changes; they come in revision order."""
        for change in changes:
            self._current_rev = change.rev
            self._remember(change)
            self._tell(change)
        for rev, future in tuple(self._waiters):
            if rev <= self._current_rev and not future.done():
                future.set_result(None)

    def subscribe(self, prefix: str, *, since_rev: int) -> "WatchSubscription":
        """Open a watch on keys under ``prefix``, from after ``since_rev``.

        Raises:
            FutureRevisionError: ``since_rev`` has not happened.
        """
        if self._closed:
            raise StoreClosedError("the store is closed")
        if not prefix.endswith("/"):
            raise ValueError(f"a watched prefix ends in a slash, not {prefix!r}")
        if since_rev > self._current_rev:
            raise FutureRevisionError(since_rev, self._current_rev)
        subscription = WatchSubscription(self, prefix, since_rev)
        self._all.add(subscription)
        self.catch_up(subscription)
        return subscription

    def may_have_changed(self, prefix: str, *, since_rev: int) -> bool:
        """Say whether something under ``prefix`` changed after ``since_rev``.

        True also where the ring does not reach back that far.
        """
        if since_rev < self._ring_after:
            return True
        for change in reversed(self._ring):
            if change.rev <= since_rev:
                return False
            if change.key.startswith(prefix):
                return True
        return False

    async def wait_for_rev(self, rev: int, *, within_s: float) -> None:
        """Wait until ``rev`` is told.

        Raises:
            FutureRevisionError: it was not within ``within_s`` seconds.
        """
        if rev <= self._current_rev:
            return
        if self._closed:
            raise StoreClosedError("the store is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (rev, future)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(within_s):
                await future
        except TimeoutError:
            raise FutureRevisionError(rev, self._current_rev) from None
        finally:
            self._waiters.discard(waiter)

    def close(self) -> None:
        """End every watch and every wait with ``StoreClosedError``."""
        self._closed = True
        for subscription in tuple(self._all):
            subscription.fail(StoreClosedError("the store is closed"))
        for _, future in tuple(self._waiters):
            if not future.done():
                future.set_exception(StoreClosedError("the store is closed"))

    def catch_up(self, subscription: "WatchSubscription") -> bool:
        """Make a watcher live if the ring reaches back to where it stands.

        Returns:
            Whether it is live now; if not, it must read the log.
        """
        if subscription.handed_rev < self._ring_after:
            return False
        missed: list[Change] = []
        for change in reversed(self._ring):
            if change.rev <= subscription.handed_rev:
                break
            if change.key.startswith(subscription.prefix):
                missed.append(change)
        subscription.go_live(reversed(missed))
        self._live.setdefault(subscription.prefix, set()).add(subscription)
        return True

    async def read_history(self, prefix: str, after_rev: int) -> Replay:
        """Read what the ring no longer has."""
        return await self._read_history(prefix, after_rev)

    def drop(self, subscription: "WatchSubscription", *, overflow: bool) -> None:
        """Forget a watcher."""
        self._all.discard(subscription)
        live = self._live.get(subscription.prefix)
        if live is not None:
            live.discard(subscription)
            if not live:
                del self._live[subscription.prefix]
        if overflow:
            self._overflows += 1

    def _remember(self, change: Change) -> None:
        self._ring.append(change)
        self._ring_bytes += _size(change)
        while len(self._ring) > RING_CHANGES or self._ring_bytes > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_bytes -= _size(oldest)
            self._ring_after = oldest.rev

    def _tell(self, change: Change) -> None:
        end = change.key.find("/")
        while end >= 0:
            watchers = self._live.get(change.key[: end + 1])
            if watchers:
                for watcher in tuple(watchers):
                    watcher.push(change)
            end = change.key.find("/", end + 1)


class WatchSubscription:
    """One watch; see ``backend.Subscription``."""

    def __init__(self, broadcast: Broadcast, prefix: str, since_rev: int) -> None:
        self.prefix = prefix
        #: Every matching change up to here has been handed out.
        self.handed_rev = since_rev
        self._broadcast = broadcast
        self._history: deque[Change] = deque()
        self._queue: deque[Change] = deque()
        self._queue_bytes = 0
        self._is_live = False
        self._replayed_rev = since_rev
        self._error: StoreError | None = None
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "live" if self._is_live else "behind"
        if self._is_closed:
            state = "closed"
        return (
            f"<WatchSubscription {self.prefix} {state} after {self.handed_rev}, "
            f"{len(self._history) + len(self._queue)} unread>"
        )

    @property
    def progress_rev(self) -> int:
        """Every matching change up to this revision has been handed out."""
        if self._is_live and not self._history and not self._queue:
            return max(self.handed_rev, self._broadcast.current_rev)
        return self.handed_rev

    def __aiter__(self) -> "WatchSubscription":
        return self

    async def __anext__(self) -> Change:
        while True:
            # History and the queue of a closed watch are not handed out any more;
            # those of one that overflowed are, so that it resumes where it stopped.
            if self._is_closed:
                raise StopAsyncIteration
            if self._history:
                return self._hand_out(self._history.popleft())
            if self._queue:
                change = self._queue.popleft()
                self._queue_bytes -= _size(change)
                return self._hand_out(change)
            if self._error is not None:
                self._raise()
            if self._is_live:
                await self._wait()
            else:
                await self._replay()

    def close(self) -> None:
        """End it; a waiting reader wakes."""
        self._is_closed = True
        self._history.clear()
        self._queue.clear()
        self._broadcast.drop(self, overflow=False)
        self._wake()

    def go_live(self, missed: Iterable[Change]) -> None:
        """Take what was missed; from now on ``push`` is called."""
        self._history.extend(missed)
        self._is_live = True

    def push(self, change: Change) -> None:
        """Queue a live change, or give up when the reader is too slow."""
        size = _size(change)
        too_many = len(self._queue) >= QUEUE_CHANGES
        too_big = self._queue and self._queue_bytes + size > QUEUE_BYTES
        if too_many or too_big:
            last = self._queue[-1].rev
            self._broadcast.drop(self, overflow=True)
            self._error = WatchOverflowError(last)
        else:
            self._queue.append(change)
            self._queue_bytes += size
        self._wake()

    def fail(self, error: StoreError) -> None:
        """End it with an error, after what is queued."""
        self._error = error
        self._broadcast.drop(self, overflow=False)
        self._wake()

    def _hand_out(self, change: Change) -> Change:
        self.handed_rev = change.rev
        return change

    def _raise(self) -> None:
        error = self._error
        assert error is not None
        self._is_closed = True
        raise error

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _replay(self) -> None:
        self.handed_rev = max(self.handed_rev, self._replayed_rev)
        if self._broadcast.catch_up(self):
            return
        try:
            replay = await self._broadcast.read_history(self.prefix, self.handed_rev)
        except StoreError as error:
            self.fail(error)
            return
        self._history.extend(replay.changes)
        self._replayed_rev = replay.upto_rev
