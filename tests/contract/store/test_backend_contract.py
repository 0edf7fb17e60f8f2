"""What any Backend must do, against a dict that never forgets."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from podyard.lib.clock import SystemClock
from podyard.store.backend import (
    AlreadyExistsError,
    Backend,
    Change,
    CompactedError,
    ConflictError,
    FutureRevisionError,
    MissingError,
    Subscription,
)
from podyard.store.sqlite import open_store

T = TypeVar("T")

pytestmark = pytest.mark.contract

PODS = "/registry/core/pods/"
WEB = f"{PODS}default/web"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Backend]:
    async with open_store(tmp_path / "store.db", clock=SystemClock()) as opened:
        yield opened


async def test_a_new_store_has_a_revision_that_lists_can_show(store: Backend) -> None:
    page = await store.list(PODS)

    assert page.rows == ()
    assert page.rev == store.current_rev >= 1
    assert not page.more


async def test_what_was_created_is_read_back_with_its_revision(store: Backend) -> None:
    row = await store.create(WEB, b"{}")

    assert row.rev == row.create_rev == store.current_rev
    assert await store.get(WEB) == row
    assert (await store.list(PODS)).rows == (row,)


async def test_update_moves_the_revision_and_keeps_the_creation(store: Backend) -> None:
    first = await store.create(WEB, b"1")

    second = await store.update(WEB, b"2", expected_rev=first.rev)

    assert second.rev > first.rev
    assert second.create_rev == first.create_rev
    assert await store.get(WEB) == second


async def test_delete_returns_the_last_state_at_the_revision_of_the_deletion(
    store: Backend,
) -> None:
    first = await store.create(WEB, b"1")

    gone = await store.delete(WEB, expected_rev=first.rev)

    assert gone.value == b"1"
    assert gone.rev == store.current_rev > first.rev
    assert await store.get(WEB) is None


async def test_refusals_carry_what_the_caller_needs(store: Backend) -> None:
    row = await store.create(WEB, b"1")

    with pytest.raises(AlreadyExistsError) as exists:
        await store.create(WEB, b"2")
    with pytest.raises(ConflictError) as conflict:
        await store.update(WEB, b"2", expected_rev=row.rev - 1)
    with pytest.raises(ConflictError):
        await store.delete(WEB, expected_rev=row.rev + 1)
    with pytest.raises(MissingError) as missing:
        await store.update(f"{WEB}-2", b"2", expected_rev=row.rev)
    with pytest.raises(MissingError):
        await store.delete(f"{WEB}-2", expected_rev=row.rev)

    assert exists.value.rev == row.rev
    assert conflict.value.current_rev == row.rev
    assert missing.value.key == f"{WEB}-2"
    assert store.current_rev == row.rev


async def test_a_prefix_ends_at_its_slash(store: Backend) -> None:
    mine = await store.create(f"{PODS}a/web", b"1")
    await store.create(f"{PODS}ab/web", b"1")
    await store.create("/registry/core/podtemplates/a/web", b"1")

    assert (await store.list(f"{PODS}a/")).rows == (mine,)
    assert len((await store.list(PODS)).rows) == 2


async def test_pages_come_from_one_revision(store: Backend) -> None:
    rows = [await store.create(f"{PODS}default/p{n}", b"1") for n in range(5)]
    first = await store.list(PODS, limit=2)

    await store.delete(rows[3].key, expected_rev=rows[3].rev)
    await store.update(rows[2].key, b"2", expected_rev=rows[2].rev)
    await store.create(f"{PODS}default/p9", b"1")
    second = await store.list(
        PODS, rev=first.rev, start_after=first.rows[-1].key, limit=2
    )
    third = await store.list(
        PODS, rev=first.rev, start_after=second.rows[-1].key, limit=2
    )

    assert (first.more, first.remaining) == (True, 3)
    assert (second.more, second.remaining) == (True, 1)
    assert (third.more, third.remaining) == (False, 0)
    assert list(first.rows + second.rows + third.rows) == rows


async def test_watch_tells_every_change_after_its_revision_once(store: Backend) -> None:
    first = await store.create(WEB, b"1")
    watch = await store.watch(PODS, since_rev=first.rev)

    second = await store.update(WEB, b"2", expected_rev=first.rev)
    gone = await store.delete(WEB, expected_rev=second.rev, value=b"3")
    again = await store.create(WEB, b"4")

    assert [await anext(watch) for _ in range(3)] == [
        Change(second.rev, WEB, "update", b"2", b"1"),
        Change(gone.rev, WEB, "delete", b"3", b"2"),
        Change(again.rev, WEB, "create", b"4", None),
    ]
    assert watch.progress_rev == store.current_rev
    watch.close()
    assert [c async for c in watch] == []


async def test_past_and_future_are_refused(store: Backend) -> None:
    first = await store.create(WEB, b"1")
    second = await store.update(WEB, b"2", expected_rev=first.rev)
    await store.compact(second.rev)

    with pytest.raises(CompactedError) as compacted:
        await store.list(PODS, rev=first.rev)
    with pytest.raises(CompactedError):
        await store.watch(PODS, since_rev=first.rev)
    with pytest.raises(FutureRevisionError):
        await store.list(PODS, rev=second.rev + 1)
    with pytest.raises(FutureRevisionError):
        await store.watch(PODS, since_rev=second.rev + 1)

    assert compacted.value.compact_rev == store.compact_rev == second.rev
    assert len((await store.list(PODS, rev=second.rev)).rows) == 1


async def test_only_one_of_many_writers_wins(store: Backend) -> None:
    row = await store.create(WEB, b"0")
    won: list[int] = []

    async def attempt(number: int) -> None:
        with contextlib.suppress(ConflictError):
            await store.update(WEB, b"%d" % number, expected_rev=row.rev)
            won.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(attempt(number))

    assert len(won) == 1
    final = await store.get(WEB)
    assert final is not None
    assert final.value == b"%d" % won[0]


keys = st.sampled_from(
    [f"{PODS}{ns}/{name}" for ns in ("a", "b") for name in ("x", "x-1", "y")]
)
values = st.binary(min_size=1, max_size=8)
prefixes = st.sampled_from([PODS, f"{PODS}a/", f"{PODS}b/"])


async def _next(watch: Subscription) -> Change:
    async with asyncio.timeout(5):
        return await anext(watch)


class StoreMachine(RuleBasedStateMachine):
    """The store beside a dict of every state there ever was."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._open()
        self.now: dict[str, tuple[int, int, bytes]] = {}
        self.past: dict[int, dict[str, tuple[int, int, bytes]]] = {
            self.store.current_rev: {}
        }
        self.changes: list[Change] = []
        self.watches: list[tuple[str, int, Subscription, list[Change]]] = []

    def _open(self) -> None:
        path = Path(self._folder.name) / "store.db"
        self.store = self._run(
            self._stack.enter_async_context(open_store(path, clock=SystemClock()))
        )

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _record(self, change: Change) -> None:
        assert change.rev > max(self.past)
        self.past[change.rev] = dict(self.now)
        self.changes.append(change)

    @rule(key=keys, value=values)
    def create(self, key: str, value: bytes) -> None:
        if key in self.now:
            with pytest.raises(AlreadyExistsError):
                self._run(self.store.create(key, value))
            return
        row = self._run(self.store.create(key, value))
        self.now[key] = (row.rev, row.create_rev, value)
        self._record(Change(row.rev, key, "create", value, None))

    @rule(key=keys, value=values)
    def update(self, key: str, value: bytes) -> None:
        if key not in self.now:
            with pytest.raises(MissingError):
                self._run(self.store.update(key, value, expected_rev=1))
            return
        rev, created, before = self.now[key]
        with pytest.raises(ConflictError):
            self._run(self.store.update(key, value, expected_rev=rev - 1))
        row = self._run(self.store.update(key, value, expected_rev=rev))
        assert row.create_rev == created
        self.now[key] = (row.rev, created, value)
        self._record(Change(row.rev, key, "update", value, before))

    @rule(key=keys, last=st.none() | values)
    def delete(self, key: str, last: bytes | None) -> None:
        if key not in self.now:
            with pytest.raises(MissingError):
                self._run(self.store.delete(key, expected_rev=1))
            return
        rev, _, before = self.now.pop(key)
        row = self._run(self.store.delete(key, expected_rev=rev, value=last))
        told = before if last is None else last
        assert row.value == told
        self._record(Change(row.rev, key, "delete", told, before))

    @rule(prefix=prefixes, limit=st.integers(0, 4), data=st.data())
    def list_at_any_revision(
        self, prefix: str, limit: int, data: st.DataObject
    ) -> None:
        rev = data.draw(st.sampled_from(sorted(self.past)))
        if rev < self.store.compact_rev:
            with pytest.raises(CompactedError):
                self._run(self.store.list(prefix, rev=rev))
            return
        expected = sorted(
            (key, *state)
            for key, state in self.past[rev].items()
            if key.startswith(prefix)
        )
        seen = []
        after = ""
        while True:
            page = self._run(
                self.store.list(prefix, rev=rev, start_after=after, limit=limit)
            )
            seen += [(r.key, r.rev, r.create_rev, r.value) for r in page.rows]
            assert page.remaining == len(expected) - len(seen)
            if not page.more:
                break
            after = page.rows[-1].key
        assert seen == expected

    @rule(prefix=prefixes, data=st.data())
    def watch_from_any_revision(self, prefix: str, data: st.DataObject) -> None:
        rev = data.draw(st.sampled_from(sorted(self.past)))
        if rev < self.store.compact_rev:
            with pytest.raises(CompactedError):
                self._run(self.store.watch(prefix, since_rev=rev))
            return
        watch = self._run(self.store.watch(prefix, since_rev=rev))
        self.watches.append((prefix, rev, watch, []))

    @precondition(lambda self: self.watches)
    @rule()
    def watchers_hear_everything_once(self) -> None:
        for prefix, since, watch, heard in self.watches:
            expected = [
                c for c in self.changes if c.rev > since and c.key.startswith(prefix)
            ]
            try:
                while len(heard) < len(expected):
                    heard.append(self._run(_next(watch)))
            except CompactedError:
                # It was still reading history when that was compacted.
                assert watch.progress_rev < self.store.compact_rev
                expected = expected[: len(heard)]
            assert heard == expected
            watch.close()
        self.watches.clear()

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        rev = data.draw(st.sampled_from(sorted(self.past)))
        self._run(self.store.compact(rev))
        assert self.store.compact_rev >= rev

    @rule()
    def reopen(self) -> None:
        for _, _, watch, _ in self.watches:
            watch.close()
        self.watches.clear()
        before = (self.store.current_rev, self.store.compact_rev)
        self._run(self._stack.aclose())
        self._stack = contextlib.AsyncExitStack()
        self._open()
        assert (self.store.current_rev, self.store.compact_rev) == before

    @invariant()
    def current_state_is_the_dict(self) -> None:
        page = self._run(self.store.list("/registry/"))
        assert page.rev == max(self.past)
        assert {
            row.key: (row.rev, row.create_rev, row.value) for row in page.rows
        } == self.now

    def teardown(self) -> None:
        self._run(self._stack.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()


StoreMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreMachine = StoreMachine.TestCase
