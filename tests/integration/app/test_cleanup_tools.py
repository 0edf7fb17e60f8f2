"""Removal never reaches beyond what is ours; the host is looked at, not changed."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podyard.app.host import (
    Fact,
    Verdict,
    examine,
    filesystem_of,
    is_fit,
    observe_host,
    snapshotter_for,
)
from podyard.lib.linux import read_mounts, remove_path, unmount_below
from podyard.network.bridge import HostSysctls, forwarding_6, has_ipv6
from podyard.network.netlink import Netlink

pytestmark = pytest.mark.integration


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with files, links, and a foreign directory bound into it."""
    root = tmp_path / "ours"
    for name in ("a/b", "bound", "tmpfs"):
        (root / name).mkdir(parents=True)
    (root / "a/file").write_text("x")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("x")
    (root / "a/link").symlink_to(foreign)
    subprocess.run(["mount", "--bind", foreign, root / "bound"], check=True)
    yield root
    subprocess.run(["umount", root / "bound"], check=False, capture_output=True)


def test_tree_goes_but_links_are_not_followed(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").touch()
    root = tmp_path / "ours"
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/link").symlink_to(foreign)
    os.mkfifo(root / "pipe")

    remove_path(root)

    assert not root.exists()
    assert (foreign / "precious").exists()


def test_tree_with_a_mount_in_it_is_not_crossed(tree):
    with pytest.raises(OSError, match=r"cross-device|busy"):
        remove_path(tree)

    assert (tree.parent / "foreign/precious").exists()


def test_missing_tree_is_removed_already(tmp_path):
    remove_path(tmp_path / "none")
    remove_path(tmp_path / "none/none")


def test_a_tree_may_be_removed_by_two_at_once(tmp_path):
    root = tmp_path / "ours"
    for number in range(400):
        (root / f"{number % 20}" / f"{number}").mkdir(parents=True)
        (root / f"{number % 20}" / f"{number}" / "file").touch()

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(remove_path, root) for _ in range(2)]

    assert [one.result() for one in ends] == [None, None]
    assert not root.exists()


def test_mounts_go_first_and_then_the_tree(tree):
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "tmpfs"], check=True)
    (tree / "tmpfs/inner").mkdir()
    subprocess.run(["mount", "--bind", tree / "a", tree / "tmpfs/inner"], check=True)

    assert unmount_below(tree) == 3
    remove_path(tree)

    assert not tree.exists()
    assert (tree.parent / "foreign/precious").exists()


def test_names_of_mount_points_may_hold_spaces(tmp_path):
    odd = tmp_path / "with space\tand tab"
    odd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", odd], check=True)
    try:
        assert str(odd) in {mount.mount_point for mount in read_mounts()}
        assert filesystem_of(odd / "not/yet") == "tmpfs"
    finally:
        assert unmount_below(tmp_path) == 1


def test_overlay_on_overlay_is_avoided(tmp_path):
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = ",".join(
        f"{key}dir={tmp_path / key}" for key in ("lower", "upper", "work")
    )
    subprocess.run(
        ["mount", "-t", "overlay", "none", "-o", options, tmp_path / "merged"],
        check=True,
    )
    try:
        assert snapshotter_for(tmp_path / "merged/data") == "native"
        assert snapshotter_for(tmp_path / "data") == "overlayfs"
    finally:
        unmount_below(tmp_path)


def test_host_is_described_and_left_as_it_was(tmp_path):
    with Netlink() as netlink:
        links = [link.name for link in netlink.links()]
    mounts = read_mounts()

    facts = examine(data_dir=tmp_path / "data", ports=())

    names = {fact.name for fact in facts}
    assert {"user", "kernel", "cgroups", "containerd", "nft", "overlayfs"} <= names
    assert is_fit(facts), [f for f in facts if f.verdict is Verdict.MISSING]
    assert all(fact.advice for fact in facts if fact.verdict is not Verdict.OK)
    with Netlink() as netlink:
        after = [link.name for link in netlink.links()]
    assert "probe" not in {*after, *links}
    assert {m.mount_point for m in read_mounts()} >= {
        m.mount_point for m in mounts if m.mount_point in {"/", "/proc", "/sys"}
    }
    assert not (tmp_path / "data").exists()


def test_another_runtime_needs_no_programs_of_ours(tmp_path):
    facts = examine(data_dir=tmp_path, private_runtime=False, ports=())

    assert "containerd" not in {fact.name for fact in facts}


def test_missing_fact_makes_the_host_unfit():
    assert is_fit([Fact("a", "b", Verdict.WARN, "c")])
    assert not is_fit([Fact("a", "b", Verdict.MISSING, "c")])


def test_host_is_observed_quickly():
    host = observe_host()

    assert host.cgroup_version in {"v1", "v2", "hybrid"}
    assert host.cgroup_mounts
    assert "CAP_SYS_ADMIN" in host.capabilities


@pytest.mark.parametrize("check", ["_check_sysctls", "_check_routers_are_heard"])
def test_kernel_settings_are_put_back(tmp_path, check):
    """In a network namespace of its own, so that the host keeps its setting."""
    if "routers" in check and not has_ipv6():
        pytest.skip("the kernel has no IPv6")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ctypes.CDLL(None).unshare(0x40000000)
            code = globals()[check](tmp_path)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _check_routers_are_heard(tmp_path: Path) -> int:
    for command in (
        "ip link add up0 type veth peer name up1",
        "ip link add down0 type veth peer name down1",
        "ip link add bridge0 type bridge",
        "ip link set up1 master bridge0",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip link set bridge0 up",
    ):
        subprocess.run(command.split(), check=True)
    conf = Path("/proc/sys/net/ipv6/conf")
    before = {path: path.read_text() for path in conf.glob("*/accept_ra")}
    sysctls = HostSysctls(tmp_path / "record.json")
    sysctls.ensure(forwarding_6())
    heard = {p.parent.name for p in before if p.read_text() == "2\n"}
    assert heard == {"up0"}
    assert (conf / "all/forwarding").read_text() == "1\n"
    assert forwarding_6() == {}
    sysctls.restore()
    assert {path: path.read_text() for path in before} == before
    assert (conf / "all/forwarding").read_text() == "0\n"
    return 0


def _check_sysctls(tmp_path: Path) -> int:
    name = "net/ipv4/ip_forward"
    path = Path("/proc/sys") / name
    before = path.read_text().strip()
    other = "0" if before == "1" else "1"
    first, second = (HostSysctls(tmp_path / "record.json") for _ in range(2))
    first.ensure({name: other})
    second.ensure({name: other})
    assert path.read_text().strip() == other
    second.restore()
    assert path.read_text().strip() == before
    assert not (tmp_path / "record.json").exists()
    return 0
