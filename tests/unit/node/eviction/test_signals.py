"""What is read of the machine, and what is measured of a Pod."""

import os
from pathlib import Path

import pytest

from podyard.api.core_v1 import Pod
from podyard.node.eviction.decide import ContainerUse, Observation
from podyard.node.eviction.signals import HostSignals, measure_tree
from podyard.testing.fake_cri import FakeRuntime

KI = 1024


class Places:
    def __init__(self, top: Path) -> None:
        self.top = top

    def logs_of(self, pod: Pod) -> Path:
        return self.top / "logs" / pod.uid

    def empty_dir(self, uid: str, volume: str) -> Path:
        return self.top / uid / volume

    def process_count(self, pod: Pod) -> int:
        return 7


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    kernel = tmp_path / "proc/sys/kernel"
    kernel.mkdir(parents=True)
    (kernel / "pid_max").write_text("4194304\n")
    (kernel / "threads-max").write_text("1000\n")
    (tmp_path / "proc/loadavg").write_text("0.1 0.2 0.3 2/345 6789\n")
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  400 kB\n"
    )
    return tmp_path / "proc"


def signals(top: Path, proc: Path) -> HostSignals:
    runtime = FakeRuntime()
    return HostSignals(runtime, runtime, top, Places(top), proc=proc)


async def test_the_machine_is_read(tmp_path: Path, proc: Path) -> None:
    seen = await signals(tmp_path, proc).observe()

    assert seen["memory.available"] == Observation(400 * KI, 1000 * KI)
    assert seen["pid.available"] == Observation(655, 1000)
    disk = os.statvfs(tmp_path)
    assert seen["nodefs.available"].capacity == disk.f_blocks * disk.f_frsize


async def test_what_cannot_be_read_is_left_out(tmp_path: Path, proc: Path) -> None:
    (proc / "meminfo").unlink()

    seen = await signals(tmp_path, proc).observe()

    assert "memory.available" not in seen
    assert "pid.available" in seen


async def test_volumes_and_processes_are_measured(tmp_path: Path, proc: Path) -> None:
    place = tmp_path / "u/v"
    place.mkdir(parents=True)
    (place / "x").write_bytes(b"x" * 100 * KI)
    pod = Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": []},
        }
    )

    use = (await signals(tmp_path, proc).measure([pod]))["u"]

    assert use.volumes["v"] >= 100 * KI
    assert (use.processes, use.volume_inodes) == (7, 1)


def test_files_with_two_names_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 64 * KI)
    alone, _ = measure_tree(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("/")

    both, files = measure_tree(tmp_path)

    assert both == alone
    assert files == 2


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert measure_tree(tmp_path / "none") == (0, 0)
    assert ContainerUse(rootfs_bytes=2, log_bytes=3).disk_bytes == 5
