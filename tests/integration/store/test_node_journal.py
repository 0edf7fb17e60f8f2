"""The node's journal: open before the deed, closed after it, whatever happens."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podyard.store.backend import StoreClosedError, StoreLockedError
from podyard.store.node_journal import KEEP_PER_POD, JournalRecord, NodeJournal
from podyard.store.sqlite_journal import open_node_journal

pytestmark = pytest.mark.integration

NOW = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[NodeJournal]:
    async with open_node_journal(tmp_path / "journal.db") as opened:
        yield opened


async def test_a_record_is_open_until_it_is_closed(journal: NodeJournal) -> None:
    record = await journal.open("hook", "uid-1", {"container": "web"}, at=NOW)
    (before,) = await journal.list("uid-1", only_open=True)

    await journal.close(record, at=NOW + SECOND, result={"exitCode": 0})

    assert before.is_open
    assert await journal.list(only_open=True) == ()
    assert await journal.list("uid-1") == (
        JournalRecord(
            record,
            "hook",
            "uid-1",
            {"container": "web", "exitCode": 0},
            NOW,
            NOW + SECOND,
        ),
    )


async def test_closing_twice_keeps_the_first_ending(journal: NodeJournal) -> None:
    record = await journal.open("stop", "uid-1", {}, at=NOW)
    await journal.close(record, at=NOW, result={"how": "first"})

    await journal.close(record, at=NOW + SECOND, result={"how": "second"})
    await journal.close(12345, at=NOW, result={})

    (kept,) = await journal.list()
    assert kept.body == {"how": "first"}


async def test_records_are_listed_by_pod_and_kind_oldest_first(
    journal: NodeJournal,
) -> None:
    await journal.note("pull", "uid-1", {"n": 1}, at=NOW)
    await journal.note("hook", "uid-1", {"n": 2}, at=NOW)
    await journal.note("pull", "uid-2", {"n": 3}, at=NOW)

    assert [r.body["n"] for r in await journal.list()] == [1, 2, 3]
    assert [r.body["n"] for r in await journal.list("uid-1")] == [1, 2]
    assert [r.body["n"] for r in await journal.list(kind="pull")] == [1, 3]
    assert [r.body["n"] for r in await journal.list("uid-1", kind="pull")] == [1]


async def test_pruning_keeps_the_last_of_each_pod_and_what_is_open(
    journal: NodeJournal,
) -> None:
    open_one = await journal.open("hook", "uid-1", {}, at=NOW)
    for number in range(KEEP_PER_POD + 10):
        await journal.note("pull", "uid-1", {"n": number}, at=NOW)
    await journal.note("pull", "uid-2", {}, at=NOW - timedelta(days=8))
    await journal.open("hook", "uid-3", {}, at=NOW - timedelta(days=8))

    removed = await journal.prune(now=NOW)

    kept = await journal.list("uid-1")
    assert removed == 12
    assert kept[0].id == open_one
    assert [r.body["n"] for r in kept[1:]] == list(range(10, KEEP_PER_POD + 10))
    assert await journal.list("uid-2") == ()
    assert await journal.list("uid-3") == ()


async def test_ids_never_come_back_after_pruning(journal: NodeJournal) -> None:
    old = await journal.note("pull", "uid-1", {}, at=NOW - timedelta(days=8))
    await journal.prune(now=NOW)

    assert await journal.note("pull", "uid-1", {}, at=NOW) > old


async def test_the_file_is_private_and_belongs_to_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_node_journal(path) as journal:
        with pytest.raises(StoreLockedError):
            async with open_node_journal(path):
                pass
        await journal.note("pull", "uid-1", {}, at=NOW)

        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    with pytest.raises(StoreClosedError):
        await journal.list()


DIES = """
import asyncio, os, pathlib, signal, sys
from datetime import datetime, UTC
from podyard.store.sqlite_journal import open_node_journal

async def main():
    async with open_node_journal(pathlib.Path(sys.argv[1])) as journal:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        done = await journal.open("hook", "uid-1", {"n": 1}, at=at)
        await journal.close(done, at=at, result={})
        await journal.open("hook", "uid-1", {"n": 2}, at=at)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_killed_process_leaves_what_it_was_doing_open(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    source = str(Path(__file__).parents[3] / "src")

    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DIES, str(path)],
        env={**os.environ, "PYTHONPATH": source},
        check=False,
    )

    async with open_node_journal(path) as journal:
        (left,) = await journal.list(only_open=True)
        assert left.body == {"n": 2}
        assert len(await journal.list()) == 2
