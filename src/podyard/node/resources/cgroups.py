"""The cgroups above the containers: of a Pod, of a QoS class, of all Pods.

The runtime makes the containers' own cgroups below a Pod's. On cgroup v1 only
those controllers are touched here that a Pod has a value for; the runtime makes the
others, and removal takes them all.
"""

import asyncio
import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.quantity import ZERO
from podyard.api.resources import (
    BEST_EFFORT,
    BURSTABLE,
    CPU,
    GUARANTEED,
    pod_requests,
    qos_class,
)
from podyard.node.resources.decide import (
    CPU_PERIOD_US,
    MIN_SHARES,
    SYSTEMD,
    CgroupValues,
    decide_pod_cgroup,
    kubepods_path,
    milli_to_shares,
    pod_cgroup_path,
    qos_path,
    shares_to_weight,
    uid_of_cgroup,
)
from podyard.node.resources.host import CgroupLayout, observe_cgroups

log = structlog.get_logger()

_TIERS: Final = (GUARANTEED, BURSTABLE, BEST_EFFORT)
#: Controllers a v2 Pod hands on to its containers.
_V2_CONTROLLERS: Final = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb")
#: A cgroup whose last process has just died may be busy for a moment.
_REMOVE_TRIES: Final = 20
_REMOVE_PAUSE_S: Final = 0.01


def v1_files(values: CgroupValues) -> tuple[tuple[str, str, str], ...]:
    """Return ``(controller, file, text)`` for each value, in the order to write."""
    files: list[tuple[str, str, str]] = []
    if values.cpu_shares is not None:
        files.append(("cpu", "cpu.shares", str(values.cpu_shares)))
    if values.cpu_quota_us is not None:
        files.append(("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)))
        files.append(("cpu", "cpu.cfs_quota_us", str(values.cpu_quota_us)))
    if values.memory_limit_bytes is not None:
        limit = str(values.memory_limit_bytes)
        files.append(("memory", "memory.limit_in_bytes", limit))
    if values.pids_max is not None:
        files.append(("pids", "pids.max", _or_max(values.pids_max)))
    for size, limit_bytes in values.hugepages:
        file = f"hugetlb.{size}.limit_in_bytes"
        files.append(("hugetlb", file, str(limit_bytes)))
    return tuple(files)


def v2_files(values: CgroupValues) -> tuple[tuple[str, str, str], ...]:
    """Return ``(controller, file, text)`` for each value, in the order to write."""
    files: list[tuple[str, str, str]] = []
    if values.cpu_shares is not None:
        weight = str(shares_to_weight(values.cpu_shares))
        files.append(("cpu", "cpu.weight", weight))
    if values.cpu_quota_us is not None:
        quota = _or_max(values.cpu_quota_us)
        files.append(("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}"))
    if values.memory_limit_bytes is not None:
        limit = _or_max(values.memory_limit_bytes)
        files.append(("memory", "memory.max", limit))
    if values.pids_max is not None:
        files.append(("pids", "pids.max", _or_max(values.pids_max)))
    for size, limit_bytes in values.hugepages:
        files.append(("hugetlb", f"hugetlb.{size}.max", str(limit_bytes)))
    return tuple(files)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


class PodCgroups:
    """Cgroups of Pods under one root.

    Args:
        root: ours on this machine, as ``/podyard-NAME``.
        driver: ``cgroupfs`` or ``systemd``; with systemd the runtime makes the
            slices, and values are written where the slice is there already.
        layout: the hierarchies; read from the machine by default.
        pids_max: the limit of processes a Pod; 0 means none.
    """

    def __init__(
        self,
        root: str,
        driver: str,
        layout: CgroupLayout | None = None,
        *,
        pids_max: int = 0,
    ) -> None:
        self._root = root
        self._driver = driver
        self._layout = layout or observe_cgroups()
        self._pids_max = pids_max
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, CgroupValues]] = {}
        self._burstable: dict[str, int] = {}
        self._parents_made = False

    @property
    def version(self) -> int:
        """The cgroup version containers are limited by: 1 or 2."""
        return self._layout.version

    def parent(self, pod: Pod) -> str:
        """Return the ``cgroup_parent`` of a Pod, making nothing."""
        qos = qos_class(pod.document)
        return pod_cgroup_path(self._root, qos, pod.uid, driver=self._driver)

    def process_count(self, pod: Pod) -> int:
        """Return how many processes a Pod has, 0 where nobody counts. Blocks."""
        top = self._layout.hierarchies.get("pids") or self._layout.unified
        if top is None:
            return 0
        file = top / self.parent(pod).lstrip("/") / "pids.current"
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            return 0

    async def ensure(self, pod: Pod) -> str:
        """Make the Pod's cgroup and return the ``cgroup_parent`` for CRI.

        Costs nothing where nothing has changed.

        Raises:
            OSError: the kernel refused.
            QuantityError: an amount is no quantity.
        """
        path = self.parent(pod)
        values = decide_pod_cgroup(pod, pids_max=self._pids_max)
        if self._known.get(pod.uid) == (path, values):
            return path
        qos = qos_class(pod.document)
        milli = pod_requests(pod.document).get(CPU, ZERO).milli_value
        await asyncio.to_thread(self._ensure, pod.uid, qos, path, values, milli)
        return path

    async def remove(self, uid: str) -> None:
        """Remove the Pod's cgroup; a missing one is removed already.

        Raises:
            OSError: processes are still in it, or the kernel refused.
        """
        await asyncio.to_thread(self._remove, uid)

    async def uids(self) -> frozenset[str]:
        """Return the Pods that have a cgroup."""
        return await asyncio.to_thread(self._uids)

    async def ensure_node(self, values: CgroupValues) -> None:
        """Make the cgroup above all Pods, limited to what the node can give them.

        Raises:
            OSError: the kernel refused.
        """
        await asyncio.to_thread(self._ensure_node, values)

    async def remove_all(self) -> None:
        """Remove every cgroup of ours; used when the node goes for good.

        Raises:
            OSError: processes are still in one.
        """
        await asyncio.to_thread(self._remove_all)

    def _ensure(
        self, uid: str, qos: str, path: str, values: CgroupValues, milli: int
    ) -> None:
        with self._lock:
            self._make_parents()
            self._apply(path, values)
            self._known[uid] = (path, values)
            if qos == BURSTABLE:
                self._burstable[uid] = milli
                self._weigh_burstable()

    def _ensure_node(self, values: CgroupValues) -> None:
        with self._lock:
            self._make_parents()
            self._apply(kubepods_path(self._root, driver=self._driver), values)

    def _make_parents(self) -> None:
        if self._parents_made:
            return
        best_effort = qos_path(self._root, BEST_EFFORT, driver=self._driver)
        burstable = qos_path(self._root, BURSTABLE, driver=self._driver)
        self._apply(best_effort, CgroupValues(cpu_shares=MIN_SHARES))
        self._apply(burstable, CgroupValues(cpu_shares=MIN_SHARES))
        self._parents_made = True

    def _weigh_burstable(self) -> None:
        shares = milli_to_shares(sum(self._burstable.values()))
        path = qos_path(self._root, BURSTABLE, driver=self._driver)
        self._apply(path, CgroupValues(cpu_shares=shares))

    def _apply(self, path: str, values: CgroupValues) -> None:
        if self._layout.version == 2:
            self._apply_v2(path, values)
        else:
            self._apply_v1(path, values)

    def _apply_v1(self, path: str, values: CgroupValues) -> None:
        for controller, file, text in v1_files(values):
            mount_point = self._layout.hierarchies.get(controller)
            if mount_point is None:
                log.debug("cgroup_controller_missing", controller=controller)
                continue
            directory = mount_point / path.lstrip("/")
            if self._make(directory):
                _write(directory / file, text)

    def _apply_v2(self, path: str, values: CgroupValues) -> None:
        assert self._layout.unified is not None
        directory = self._layout.unified / path.lstrip("/")
        if not self._make(directory):
            return
        if self._driver != SYSTEMD:
            _delegate(self._layout.unified, directory)
        for controller, file, text in v2_files(values):
            target = directory / file
            if target.exists():
                _write(target, text)
            else:
                log.debug("cgroup_controller_missing", controller=controller)

    def _make(self, directory: Path) -> bool:
        if self._driver == SYSTEMD:
            return directory.is_dir()
        try:
            directory.mkdir(mode=0o755)
        except FileExistsError:
            pass
        except FileNotFoundError:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        return True

    def _remove(self, uid: str) -> None:
        with self._lock:
            self._known.pop(uid, None)
            if self._burstable.pop(uid, None) is not None and self._parents_made:
                self._weigh_burstable()
        for qos in _TIERS:
            path = pod_cgroup_path(self._root, qos, uid, driver=self._driver)
            for mount_point in self._layout.mount_points:
                _remove_cgroup(mount_point / path.lstrip("/"))

    def _remove_all(self) -> None:
        with self._lock:
            self._known.clear()
            self._burstable.clear()
            self._parents_made = False
        if not self._root.strip("/"):
            path = kubepods_path(self._root, driver=self._driver)
        else:
            path = kubepods_path(self._root, driver=self._driver).split("/")[1]
        for mount_point in self._layout.mount_points:
            _remove_cgroup(mount_point / path.lstrip("/"))

    def _uids(self) -> frozenset[str]:
        found: set[str] = set()
        for qos in _TIERS:
            path = qos_path(self._root, qos, driver=self._driver).lstrip("/")
            for mount_point in self._layout.mount_points:
                with suppress(FileNotFoundError):
                    found.update(
                        uid_of_cgroup(entry.name, driver=self._driver)
                        for entry in (mount_point / path).iterdir()
                    )
        return frozenset(found - {""})


def _write(file: Path, text: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _delegate(top: Path, directory: Path) -> None:
    """Switch the controllers on for a cgroup and for its children."""
    available = (top / "cgroup.controllers").read_text().split()
    wanted = [name for name in _V2_CONTROLLERS if name in available]
    chain = [top]
    for part in directory.relative_to(top).parts:
        chain.append(chain[-1] / part)
    for level in chain:
        control = level / "cgroup.subtree_control"
        missing = set(wanted) - set(control.read_text().split())
        if missing:
            _write(control, " ".join(f"+{name}" for name in sorted(missing)))


def _remove_cgroup(directory: Path) -> None:
    if not directory.is_dir():
        return
    for below, _, _ in os.walk(directory, topdown=False):
        _rmdir(Path(below))


def _rmdir(directory: Path) -> None:
    for last in [False] * _REMOVE_TRIES + [True]:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if last or error.errno != errno.EBUSY:
                raise
            time.sleep(_REMOVE_PAUSE_S)
        else:
            return
