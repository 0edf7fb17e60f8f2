"""The store on real files: crashes, full and broken disks, compaction, continuity."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podyard.lib.clock import SystemClock
from podyard.store import writer as writer_module
from podyard.store.backend import (
    Backend,
    Change,
    StoreClosedError,
    StoreCorruptError,
    StoreFullError,
    StoreIOError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreSchemaError,
    WatchOverflowError,
)
from podyard.store.sqlite import SqliteStore, StoreSettings, open_store

pytestmark = pytest.mark.integration

PODS = "/registry/core/pods/"
WEB = f"{PODS}default/web"
CLOCK = SystemClock()

WRITES_UNTIL_KILLED = """
import asyncio, pathlib, sys
from podyard.lib.clock import SystemClock
from podyard.store.sqlite import open_store

async def main():
    async with open_store(pathlib.Path(sys.argv[1]), clock=SystemClock()) as store:
        async def write(number):
            row = await store.create(f"/registry/core/pods/default/p{number}", b"0")
            count = 0
            while True:
                print(row.key, row.rev, count, flush=True)
                count += 1
                row = await store.update(row.key, b"%d" % count, expected_rev=row.rev)
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(write(number))

asyncio.run(main())
"""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    source = str(Path(__file__).parents[3] / "src")
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_killed_store_keeps_every_answered_write_and_never_reuses_a_revision(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    process = start(WRITES_UNTIL_KILLED, str(path))
    assert process.stdout is not None
    answered: dict[str, tuple[int, int]] = {}
    highest = 0
    for number, line in enumerate(process.stdout):
        if number == 1000:
            process.send_signal(signal.SIGKILL)
        if not line.endswith("\n"):
            break
        key, rev, count = line.split()
        answered[key] = (int(rev), int(count))
        highest = max(highest, int(rev))
    process.wait()
    process.stdout.close()

    async def check() -> None:
        async with open_store(path, clock=CLOCK) as store:
            assert store.current_rev >= highest
            for key, (rev, count) in answered.items():
                row = await store.get(key)
                assert row is not None
                # One more write may have been committed and not yet answered.
                assert (row.rev, int(row.value)) >= (rev, count)
                assert int(row.value) - count <= 1
            new = await store.create(WEB, b"1")
            assert new.rev > highest

    asyncio.run(check())


async def test_watchers_hear_the_log_under_concurrent_writes_from_any_point(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "store.db", clock=CLOCK) as store:
        written: list[int] = []
        done = asyncio.Event()

        async def write(number: int) -> None:
            row = await store.create(f"{PODS}default/p{number}", b"0")
            written.append(row.rev)
            for count in range(60):
                row = await store.update(row.key, b"%d" % count, expected_rev=row.rev)
                written.append(row.rev)

        async def watch(cut_after: int) -> list[int]:
            """Read, break off now and then, resume after the last one heard."""
            heard: list[int] = []
            since = 1
            while not done.is_set() or since < store.current_rev:
                subscription = await store.watch(PODS, since_rev=since)
                try:
                    async with asyncio.timeout(0.05):
                        while len(heard) % cut_after != cut_after - 1:
                            heard.append((await anext(subscription)).rev)
                        heard.append((await anext(subscription)).rev)
                except TimeoutError:
                    pass
                except WatchOverflowError:
                    pass
                since = heard[-1] if heard else since
                subscription.close()
            return heard

        async with asyncio.TaskGroup() as readers:
            heard = [readers.create_task(watch(cut)) for cut in (3, 17, 101, 10**6)]
            async with asyncio.TaskGroup() as writers:
                for number in range(32):
                    writers.create_task(write(number))
            done.set()

        everything = sorted(written)
        assert len(everything) == 32 * 61
        for one in heard:
            assert one.result() == everything


async def test_long_history_is_replayed_from_the_file_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with open_store(path, clock=CLOCK) as store:
        row = first = await store.create(WEB, b"0")
        async with asyncio.TaskGroup() as group:
            for number in range(2500):
                group.create_task(store.create(f"{PODS}a/p{number:04}", b"%d" % number))
        row = await store.update(WEB, b"1", expected_rev=row.rev)
        gone = await store.delete(WEB, expected_rev=row.rev)

    async with open_store(path, clock=CLOCK) as store:
        watch = await store.watch(PODS, since_rev=first.rev)
        heard = [await anext(watch) for _ in range(2502)]
        live = await store.create(WEB, b"2")

        assert [c.rev for c in heard] == list(range(first.rev + 1, gone.rev + 1))
        assert heard[-2] == Change(row.rev, WEB, "update", b"1", b"0")
        assert heard[-1] == Change(gone.rev, WEB, "delete", b"1", b"1")
        assert (await anext(watch)).rev == live.rev > gone.rev


async def test_compaction_removes_history_keeps_state_and_shrinks_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with open_store(path, clock=CLOCK) as store:
        keep = await store.create(WEB, b"keep")
        row = await store.create(f"{PODS}default/busy", b"x")
        async with asyncio.TaskGroup() as group:
            for number in range(3000):
                group.create_task(store.create(f"{PODS}a/p{number}", b"y" * 3000))
        page = await store.list(f"{PODS}a/")
        async with asyncio.TaskGroup() as group:
            for one in page.rows:
                group.create_task(store.delete(one.key, expected_rev=one.rev))
        row = await store.update(row.key, b"z", expected_rev=row.rev)
        current = store.current_rev

        removed = await store.compact(current)

        assert removed == 6001
        assert store.statistics().log_rows == 2
        assert (await store.list(PODS)).rows == (row, keep)
        assert await store.compact(current) == 0
    assert path.stat().st_size < 3_000_000

    async with open_store(path, clock=CLOCK) as store:
        assert (store.current_rev, store.compact_rev) == (current, current)
        assert (await store.create(f"{PODS}a/new", b"1")).rev == current + 1


async def test_background_compaction_keeps_its_window(tmp_path: Path) -> None:
    settings = StoreSettings(keep_s=0.2, keep_revs=5, look_every_s=0.05)
    async with (
        open_store(tmp_path / "store.db", clock=CLOCK, settings=settings) as store,
        asyncio.TaskGroup() as group,
    ):
        compactor = group.create_task(store.run())
        row = await store.create(WEB, b"0")
        for count in range(20):
            row = await store.update(WEB, b"%d" % count, expected_rev=row.rev)
        async with asyncio.timeout(10):
            while store.compact_rev < row.rev - 5:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)

        assert store.compact_rev == row.rev - 5
        # Each look also leaves the size of the file for statistics.
        assert store.statistics().file_bytes > 0
        compactor.cancel()


async def test_the_file_and_its_companions_are_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.db"
    path.parent.mkdir()
    path.touch(mode=0o644)
    async with open_store(path, clock=CLOCK) as store:
        await store.create(WEB, b"1")
        modes = {
            file.name: stat.S_IMODE(file.stat().st_mode)
            for file in path.parent.iterdir()
        }

    assert modes == {
        "store.db": 0o600,
        "store.db-wal": 0o600,
        "store.db-shm": 0o600,
        "store.db.lock": 0o600,
    }


async def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(path, clock=CLOCK):
        with pytest.raises(StoreLockedError) as locked:
            async with open_store(path, clock=CLOCK):
                pass
        assert locked.value.holder_pid == os.getpid()

    async with open_store(path, clock=CLOCK):
        pass


async def test_a_file_of_a_newer_podyard_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(path, clock=CLOCK):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()

    with pytest.raises(StoreSchemaError) as newer:
        async with open_store(path, clock=CLOCK):
            pass

    assert newer.value.found == 99
    assert str(path) in str(newer.value)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"certainly not a database" * 100)

    with pytest.raises(StoreCorruptError):
        async with open_store(path, clock=CLOCK):
            pass

    assert path.read_bytes().startswith(b"certainly")


async def test_someone_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    with pytest.raises(StoreCorruptError, match="not one of ours"):
        async with open_store(path, clock=CLOCK):
            pass


async def test_damaged_pages_are_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(path, clock=CLOCK) as store:
        for number in range(50):
            await store.create(f"{PODS}default/p{number}", b"z" * 2000)
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    path.write_bytes(content)

    with pytest.raises(StoreCorruptError):
        async with open_store(path, clock=CLOCK):
            pass


async def test_a_folder_that_cannot_be_is_an_error_not_a_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreIOError):
        async with open_store(tmp_path / "file" / "store.db", clock=CLOCK):
            pass


async def test_closed_store_refuses_everything(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store.db", clock=CLOCK) as store:
        watch = await store.watch(PODS, since_rev=store.current_rev)

    with pytest.raises(StoreClosedError):
        await anext(watch)
    with pytest.raises(StoreClosedError):
        await store.get(WEB)
    with pytest.raises(StoreClosedError):
        await store.create(WEB, b"1")
    with pytest.raises(StoreClosedError):
        await store.wait_for_rev(10**9, within_s=1)


async def test_writes_queued_at_closing_are_still_answered(tmp_path: Path) -> None:
    async with (
        asyncio.TaskGroup() as group,
        open_store(tmp_path / "store.db", clock=CLOCK) as store,
    ):
        writes = [
            group.create_task(store.create(f"{PODS}default/p{n}", b"1"))
            for n in range(200)
        ]
        await asyncio.sleep(0)

    assert len({write.result().rev for write in writes}) == 200


async def test_a_cancelled_writer_leaves_the_write_and_its_announcement(
    tmp_path: Path,
) -> None:
    async with (
        open_store(tmp_path / "store.db", clock=CLOCK) as store,
        asyncio.TaskGroup() as group,
    ):
        watch = await store.watch(PODS, since_rev=store.current_rev)
        write = group.create_task(store.create(WEB, b"1"))
        await asyncio.sleep(0)
        write.cancel()

        async with asyncio.timeout(5):
            told = await anext(watch)

        assert told.key == WEB
        assert await store.get(WEB) is not None


async def test_a_commit_that_failed_but_reached_the_disk_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is an error, the truth is the disk, and no revision is doubled."""
    real = writer_module.Writer._append

    def append_then_fail(self: writer_module.Writer, rows: list[object]) -> None:
        real(self, rows)  # type: ignore[arg-type]
        self._unsure = True
        monkeypatch.setattr(writer_module.Writer, "_append", real)
        raise sqlite3.OperationalError("disk I/O error")

    async with open_store(tmp_path / "store.db", clock=CLOCK) as store:
        first = await store.create(WEB, b"1")
        watch = await store.watch(PODS, since_rev=first.rev)
        monkeypatch.setattr(writer_module.Writer, "_append", append_then_fail)
        with pytest.raises(StoreIOError):
            await store.create(f"{PODS}default/maybe", b"1")

        later = await store.create(f"{PODS}default/later", b"1")

        told = [await anext(watch), await anext(watch)]
        assert [c.rev for c in told] == [first.rev + 1, later.rev]
        assert told[0].key == f"{PODS}default/maybe"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(store: SqliteStore, *, value: bytes) -> int:
    for number in range(10_000):
        try:
            await store.create(f"{PODS}default/p{number}", value)
        except StoreFullError:
            return number
    raise AssertionError("the disk never filled")


async def test_full_disk_fails_writes_lets_reads_go_on_and_recovers(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"b" * 600_000)
    async with open_store(small_disk / "store.db", clock=CLOCK) as store:
        first = await store.create(WEB, b"1")
        count = await fill(store, value=b"z" * 20_000)
        at_full = store.current_rev

        assert store.statistics().full
        assert len((await store.list(PODS)).rows) == count + 1
        assert len((await store.list(PODS, rev=first.rev)).rows) == 1
        with pytest.raises(StoreFullError):
            await store.update(WEB, b"z" * 20_000, expected_rev=first.rev)
        ballast.unlink()
        after = await store.update(WEB, b"2", expected_rev=first.rev)

        assert after.rev == at_full + 1
        assert not store.statistics().full

    async with open_store(small_disk / "store.db", clock=CLOCK) as store:
        assert len((await store.list(PODS)).rows) == count + 1
        assert await store.get(WEB) == after


async def test_a_full_disk_at_start_is_told_as_that(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(b"b" * 5_000_000)

    with pytest.raises(StoreFullError):
        async with open_store(small_disk / "store.db", clock=CLOCK):
            pass


async def test_a_read_only_disk_is_told_as_that(small_disk: Path) -> None:
    async with open_store(small_disk / "store.db", clock=CLOCK) as store:
        await store.create(WEB, b"1")
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(remount, check=False).returncode != 0:
        pytest.skip("cannot remount a tmpfs read-only")

    with pytest.raises(StoreReadOnlyError):
        async with open_store(small_disk / "store.db", clock=CLOCK):
            pass


async def test_statistics_count_what_happened(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store.db", clock=CLOCK) as store:
        backend: Backend = store
        watch = await backend.watch(PODS, since_rev=backend.current_rev)
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(backend.create(f"{PODS}default/p{number}", b"1"))

        statistics = backend.statistics()
        watch.close()

        assert (statistics.writes, statistics.rows, statistics.log_rows) == (100,) * 3
        assert statistics.commits < 50, "waiting writes share a commit"
        assert statistics.subscriptions == 1
        assert backend.statistics().subscriptions == 0
