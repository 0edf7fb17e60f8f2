"""Cgroups of Pods on this machine's own hierarchies."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from podyard.api.core_v1 import Pod
from podyard.node.resources.cgroups import PodCgroups
from podyard.node.resources.decide import CgroupValues
from podyard.node.resources.host import (
    CgroupLayout,
    has_sys_resource,
    hugepage_sizes,
    memory_capacity_bytes,
    observe_cgroups,
    observe_host_limits,
)

pytestmark = pytest.mark.integration

ROOT = f"/podyard-test-{os.getpid()}"


def make_pod(uid, resources=None):
    container = {"name": "c", "resources": resources or {}}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": uid},
            "spec": {"containers": [container]},
        }
    )


LIMITED = {
    "limits": {"cpu": "500m", "memory": "64Mi"},
    "requests": {"cpu": "500m", "memory": "64Mi"},
}


@pytest.fixture
async def cgroups():
    if observe_cgroups().version != 1:
        pytest.skip("this machine has no cgroup v1")
    made = PodCgroups(ROOT, "cgroupfs", pids_max=50)
    yield made
    await made.remove_all()
    left = [p for p in observe_cgroups().mount_points if (p / ROOT[1:]).exists()]
    assert left == []


def read(controller, path, file):
    mount_point = observe_cgroups().hierarchies[controller]
    return (mount_point / path.lstrip("/") / file).read_text().strip()


async def test_a_guaranteed_pod_is_limited(cgroups):
    path = await cgroups.ensure(make_pod("g1", LIMITED))

    assert path == f"{ROOT}/kubepods/podg1"
    assert read("cpu", path, "cpu.shares") == "512"
    assert read("cpu", path, "cpu.cfs_quota_us") == "50000"
    assert read("memory", path, "memory.limit_in_bytes") == str(64 << 20)
    assert read("pids", path, "pids.max") == "50"


async def test_burstable_pods_weigh_together(cgroups):
    for n in range(3):
        await cgroups.ensure(make_pod(f"b{n}", {"requests": {"cpu": "100m"}}))
    tier = f"{ROOT}/kubepods/burstable"

    assert read("cpu", tier, "cpu.shares") == "307"
    await cgroups.remove("b0")
    assert read("cpu", tier, "cpu.shares") == "204"
    assert read("cpu", f"{ROOT}/kubepods/besteffort", "cpu.shares") == "2"


async def test_uids_are_told_by_the_kernel(cgroups):
    await cgroups.ensure(make_pod("g1", LIMITED))
    await cgroups.ensure(make_pod("e1"))

    again = PodCgroups(ROOT, "cgroupfs")  # another agent, knowing nothing
    assert await again.uids() == {"g1", "e1"}
    await again.remove("g1")
    await again.remove("never-was")
    assert await again.uids() == {"e1"}


async def test_removal_takes_what_the_runtime_made(cgroups):
    path = await cgroups.ensure(make_pod("e1"))
    layout = observe_cgroups()
    for mount_point in layout.mount_points:
        (mount_point / path[1:] / "container").mkdir(parents=True, exist_ok=True)

    await cgroups.remove("e1")

    assert not any((m / path[1:]).exists() for m in layout.mount_points)


async def test_a_cgroup_with_processes_is_not_removed(cgroups):
    path = await cgroups.ensure(make_pod("e1"))
    procs = observe_cgroups().hierarchies["cpu"] / path[1:] / "cgroup.procs"
    child = os.fork()
    if child == 0:
        with suppress(KeyboardInterrupt):
            time.sleep(60)
        os._exit(0)
    procs.write_text(str(child))

    with pytest.raises(OSError, match="busy"):
        await cgroups.remove("e1")

    os.kill(child, 9)
    os.waitpid(child, 0)
    await cgroups.remove("e1")


async def test_the_cgroup_above_all_pods_is_limited(cgroups):
    await cgroups.ensure_node(CgroupValues(2048, memory_limit_bytes=1 << 30))

    path = f"{ROOT}/kubepods"
    assert read("cpu", path, "cpu.shares") == "2048"
    assert read("memory", path, "memory.limit_in_bytes") == str(1 << 30)


async def test_a_v2_machine_is_written_to_as_its_files_say(tmp_path):
    """The unified hierarchy is played by plain files: paths, order and texts."""

    def populate(directory):
        for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max"):
            (directory / name).touch()
        (directory / "cgroup.subtree_control").touch()

    root = tmp_path / "podyard-a/kubepods"
    for directory in (
        tmp_path,
        root.parent,
        root,
        root / "burstable",
        root / "besteffort",
        root / "podg1",
    ):
        directory.mkdir(exist_ok=True)
        populate(directory)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    cgroups = PodCgroups(
        "/podyard-a", "cgroupfs", CgroupLayout(2, {}, tmp_path), pids_max=50
    )

    path = await cgroups.ensure(make_pod("g1", LIMITED))

    assert path == "/podyard-a/kubepods/podg1"
    pod = root / "podg1"
    assert (pod / "cpu.weight").read_text() == "20"
    assert (pod / "cpu.max").read_text() == "50000 100000"
    assert (pod / "memory.max").read_text() == str(64 << 20)
    assert (pod / "pids.max").read_text() == "50"
    for level in (tmp_path, root, pod):
        control = (level / "cgroup.subtree_control").read_text()
        assert control == "+cpu +memory +pids"


async def test_systemd_slices_are_named_and_left_to_the_runtime(tmp_path):
    cgroups = PodCgroups("/podyard-a", "systemd", CgroupLayout(2, {}, tmp_path))

    path = await cgroups.ensure(make_pod("a-b"))

    assert path.endswith("/podyard_a-kubepods-besteffort-poda_b.slice")
    assert list(tmp_path.iterdir()) == []


def test_the_host_is_observed():
    layout = observe_cgroups()
    limits = observe_host_limits(layout)

    assert limits.cgroup_version == layout.version
    assert limits.memory_capacity_bytes == memory_capacity_bytes() > 1 << 20
    assert (limits.oom_score_adj_floor is None) is has_sys_resource()
    assert limits.hugepage_sizes == hugepage_sizes()
    assert all(isinstance(point, Path) for point in layout.mount_points)
