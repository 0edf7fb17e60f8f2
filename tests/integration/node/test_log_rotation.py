"""Logs that grow are rotated, compressed and dropped."""

import asyncio
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podyard.cri.services import CRIError
from podyard.node.logs.rotation import (
    ContainerLog,
    LogRotation,
    RotationSettings,
    rotated_files,
)

pytestmark = pytest.mark.integration


class Reopener:
    """A runtime that writes on into a new file, or refuses to."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.refuses = False

    async def reopen_container_log(self, container_id: str) -> None:
        if self.refuses:
            raise CRIError("ReopenContainerLog", "UNKNOWN", "no")
        self.log.write_text("")


class Ticking:
    """A clock a second later each time it is asked."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic_s(self) -> float:
        return 0.0


def make(tmp_path: Path) -> tuple[LogRotation, Reopener, Path]:
    log = tmp_path / "0.log"
    runtime = Reopener(log)
    rotation = LogRotation(
        runtime,
        lambda: [ContainerLog("c", log), ContainerLog("d", tmp_path / "gone.log")],
        RotationSettings(max_bytes=100, max_files=4),
        clock=Ticking(),
        blocking=asyncio.to_thread,
    )
    return rotation, runtime, log


async def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    rotation, _, log = make(tmp_path)
    log.write_text("x" * 100)

    await rotation.look()

    assert rotated_files(log) == []


async def test_a_large_log_is_rotated_and_the_oldest_dropped(tmp_path: Path) -> None:
    rotation, _, log = make(tmp_path)
    for number in range(6):
        log.write_text(f"{number}" * 101)
        await rotation.look()

    names = [path.name for path in rotated_files(log)]
    assert names == [
        "0.log.20260101-000004.gz",
        "0.log.20260101-000005.gz",
        "0.log.20260101-000006",
    ]
    packed = (tmp_path / names[0]).read_bytes()
    assert gzip.decompress(packed) == b"3" * 101
    assert (tmp_path / names[2]).read_text() == "5" * 101
    assert log.read_text() == ""


async def test_a_log_the_runtime_does_not_open_anew_gets_its_name_back(
    tmp_path: Path,
) -> None:
    rotation, runtime, log = make(tmp_path)
    runtime.refuses = True
    log.write_text("x" * 101)

    await rotation.look()

    assert log.read_text() == "x" * 101
    assert rotated_files(log) == []
