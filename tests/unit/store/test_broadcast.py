"""Watchers: order, catching up from the ring or the log, overflow, bookmarks."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from podyard.store import broadcast as module
from podyard.store.backend import (
    Change,
    CompactedError,
    FutureRevisionError,
    StoreClosedError,
    WatchOverflowError,
)
from podyard.store.broadcast import Broadcast, Replay, WatchSubscription

PODS = "/registry/core/pods/"


def change(rev: int, key: str = f"{PODS}default/web", size: int = 2) -> Change:
    return Change(rev, key, "update", b"x" * size, None)


class Log:
    """History as the file would give it, two changes at a time."""

    def __init__(self, compact_rev: int = 1) -> None:
        self.changes: list[Change] = []
        self.compact_rev = compact_rev
        self.upto_rev = 1

    async def read(self, prefix: str, after_rev: int) -> Replay:
        if after_rev < self.compact_rev:
            raise CompactedError(after_rev, self.compact_rev)
        await asyncio.sleep(0.01)
        found = [
            c
            for c in self.changes
            if after_rev < c.rev <= self.upto_rev and c.key.startswith(prefix)
        ][:2]
        return Replay(found, found[-1].rev if len(found) == 2 else self.upto_rev)


def make(log: Log, history: Sequence[Change] = ()) -> Broadcast:
    log.changes.extend(history)
    log.upto_rev = history[-1].rev if history else 1
    return Broadcast(current_rev=log.upto_rev, read_history=log.read)


async def take(subscription: WatchSubscription, count: int) -> list[int]:
    return [(await anext(subscription)).rev for _ in range(count)]


async def test_live_watcher_hears_its_prefix_only_and_in_order() -> None:
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)

    cast.publish([change(2), change(3, "/registry/core/secrets/a/b"), change(4)])

    assert await take(watcher, 2) == [2, 4]
    assert watcher.progress_rev == 4


async def test_progress_moves_on_without_matching_changes() -> None:
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)

    cast.publish([change(2, "/registry/core/secrets/a/b")])

    assert watcher.progress_rev == 2


async def test_waiting_watcher_is_woken() -> None:
    cast = make(Log())
    watcher = cast.subscribe(f"{PODS}default/", since_rev=1)

    async with asyncio.TaskGroup() as group:
        heard = group.create_task(take(watcher, 1))
        await asyncio.sleep(1)
        cast.publish([change(2)])

    assert heard.result() == [2]


async def test_a_cancelled_wait_loses_nothing() -> None:
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(watcher)

    cast.publish([change(2)])

    assert await take(watcher, 1) == [2]


async def test_recent_changes_come_from_the_ring() -> None:
    cast = make(Log(compact_rev=99))
    cast.publish([change(2), change(3), change(4)])

    watcher = cast.subscribe(PODS, since_rev=2)

    assert await take(watcher, 2) == [3, 4]


async def test_older_changes_come_from_the_log_and_then_live() -> None:
    history = [change(rev) for rev in range(2, 9)]
    log = Log()
    cast = make(log, history)
    watcher = cast.subscribe(PODS, since_rev=3)

    async with asyncio.TaskGroup() as group:
        heard = group.create_task(take(watcher, 7))
        await asyncio.sleep(0.015)
        cast.publish([change(9), change(10)])

    assert heard.result() == [4, 5, 6, 7, 8, 9, 10]


async def test_log_without_matching_changes_is_read_once() -> None:
    history = [change(rev, "/registry/core/secrets/a/b") for rev in range(2, 9)]
    cast = make(Log(), history)
    watcher = cast.subscribe(PODS, since_rev=1)

    async with asyncio.TaskGroup() as group:
        heard = group.create_task(take(watcher, 1))
        await asyncio.sleep(0.05)
        assert watcher.progress_rev == 8
        cast.publish([change(9)])

    assert heard.result() == [9]


async def test_history_compacted_meanwhile_is_told() -> None:
    cast = make(Log(compact_rev=5), [change(rev) for rev in range(2, 9)])
    watcher = cast.subscribe(PODS, since_rev=3)

    with pytest.raises(CompactedError):
        await anext(watcher)


async def test_slow_watcher_gets_what_was_queued_and_then_the_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUEUE_CHANGES", 3)
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)
    quick = cast.subscribe(PODS, since_rev=1)

    for rev in range(2, 7):
        cast.publish([change(rev)])
        assert await take(quick, 1) == [rev]

    assert await take(watcher, 3) == [2, 3, 4]
    with pytest.raises(WatchOverflowError) as told:
        await anext(watcher)
    assert told.value.last_rev == 4
    assert (cast.overflows, cast.subscriptions) == (1, 1)


async def test_big_changes_overflow_by_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 100)
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)

    cast.publish([change(2, size=500), change(3)])

    assert await take(watcher, 1) == [2]
    with pytest.raises(WatchOverflowError):
        await anext(watcher)


async def test_ring_forgets_by_count_and_by_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RING_CHANGES", 3)
    monkeypatch.setattr(module, "RING_BYTES", 100)
    cast = make(Log())

    cast.publish([change(rev) for rev in range(2, 7)])
    assert not cast.may_have_changed("/registry/core/nodes/", since_rev=3)
    assert cast.may_have_changed("/registry/core/nodes/", since_rev=2)
    assert cast.may_have_changed(PODS, since_rev=5)

    cast.publish([change(7, size=99)])
    assert cast.may_have_changed("/registry/core/nodes/", since_rev=5)


async def test_closing_a_watch_ends_a_waiting_reader() -> None:
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)

    async with asyncio.TaskGroup() as group:
        rest = group.create_task(_all(watcher))
        await asyncio.sleep(1)
        watcher.close()

    assert rest.result() == []
    assert cast.subscriptions == 0


async def test_closing_the_store_fails_watches_and_waits() -> None:
    cast = make(Log())
    watcher = cast.subscribe(PODS, since_rev=1)

    async with asyncio.TaskGroup() as group:
        waits = group.create_task(_refusal(cast.wait_for_rev(9, within_s=60)))
        reads = group.create_task(_refusal(watcher.__anext__()))
        await asyncio.sleep(1)
        cast.close()

    assert waits.result() is reads.result() is StoreClosedError


async def test_a_revision_of_the_future_is_waited_for_and_then_refused() -> None:
    cast = make(Log())
    async with asyncio.TaskGroup() as group:
        group.create_task(cast.wait_for_rev(2, within_s=3))
        await asyncio.sleep(1)
        cast.publish([change(2)])

    with pytest.raises(FutureRevisionError) as told:
        await cast.wait_for_rev(5, within_s=3)

    assert (told.value.rev, told.value.current_rev) == (5, 2)
    with pytest.raises(FutureRevisionError):
        cast.subscribe(PODS, since_rev=3)


async def test_a_prefix_without_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="slash"):
        make(Log()).subscribe("/registry/core/pods", since_rev=1)


async def _all(watcher: WatchSubscription) -> list[Change]:
    return [c async for c in watcher]


async def _refusal(work: Awaitable[object]) -> type[Exception]:
    try:
        await work
    except StoreClosedError as error:
        return type(error)
    raise AssertionError("was not refused")
