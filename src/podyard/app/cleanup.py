"""Everything an instance owns outside its data directory, and how it goes away.

Written for the worst case: Podyard and its runtime are dead and nobody stopped the
Pods. Each step may find its work done already, and a step that fails does not keep the
next from running; what is left is told.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from podyard.app.host import cgroup_mounts
from podyard.app.instances import RUN_DIR, Instance, InstanceTable
from podyard.app.pod_addresses import RESULTS, find_results
from podyard.containerd.processes import (
    ProcessId,
    all_pids,
    command_line,
    find_daemon,
    find_shims,
    kill_all,
    read_process,
)
from podyard.lib.linux import (
    MNT_DETACH,
    UMOUNT_NOFOLLOW,
    read_mounts,
    remove_path,
    unmount,
    unmount_below,
)
from podyard.lib.values import dataclass
from podyard.network.bridge import HostSysctls, remove_bridge
from podyard.network.netlink import Netlink
from podyard.network.nftables import NftablesError, list_tables, remove_table

log = structlog.get_logger()

#: Where containerd before 2.0 puts shim sockets, whatever its state directory.
_SHIM_SOCKETS: Final = Path("/run/containerd/s")
#: Where containerd keeps its tasks, below its state directory.
TASKS: Final = "io.containerd.runtime.v2.task"
_NETNS_DIRS: Final = (Path("/run/netns"), Path("/var/run/netns"))
_KILL_WITHIN_S: Final = 5.0
_RMDIR_WITHIN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """What could not be removed, and why."""

    what: str
    reason: str


def remove_instance(
    row: Instance, table: InstanceTable, *, mount_dirs: Iterable[Path] = ()
) -> tuple[Leftover, ...]:
    """Remove what the instance owns outside its data dir, and its row (blocking).

    Containers that still run are killed; stop the Pods before.

    Args:
        row: the instance.
        table: where its row is; given back when nothing is left over.
        mount_dirs: directories in the data dir below which all mounts are ours.

    Returns:
        What is left over; empty when all is gone.
    """
    left: list[Leftover] = []

    def step(what: str, remove: Callable[[], object]) -> None:
        try:
            remove()
        except (OSError, NftablesError) as error:
            log.warning("cleanup_step_failed", what=what, error=str(error))
            left.append(Leftover(what, str(error)))

    traces = _read_traces(row)
    step("processes", lambda: _kill_processes(row, traces))
    for directory in (row.run_dir, row.containerd_root, *mount_dirs):
        step(f"mounts below {directory}", partial(unmount_below, directory))
    step("network namespaces", lambda: _remove_namespaces(traces))
    step(f"bridge {row.bridge}", lambda: remove_bridge(row.bridge))
    step(f"nftables table {row.nft_table}", lambda: remove_table(row.nft_table))
    step("CNI results", lambda: _remove_cni_results(row, traces))
    step("cgroups", lambda: _remove_cgroups(row, traces))
    step("shim sockets", lambda: _remove_shim_sockets(traces))
    step(f"directory {row.run_dir}", lambda: remove_path(row.run_dir))
    if not left:
        restore = HostSysctls(table.sysctl_record).restore
        step("row", lambda: table.release(row.name, when_last=restore))
    return tuple(left)


# ------------------------------------------------------------------------------ traces


@dataclass(frozen=True, slots=True)
class _Traces:
    """What the runtime's state says of containers, read before anything is removed."""

    shim_sockets: frozenset[Path]
    container_ids: frozenset[str]
    cgroups: frozenset[Path]
    init_pids: frozenset[ProcessId]
    namespaces: frozenset[Path]


def _read_traces(row: Instance) -> _Traces:
    sockets: set[Path] = set()
    ids: set[str] = set()
    tasks = row.containerd_state / TASKS
    for bundle in tasks.glob("*/*"):
        ids.add(bundle.name)
        for name in ("address", "bootstrap.json"):
            sockets.update(socket_paths(bundle / name))
    cgroups: set[Path] = set()
    inits: set[ProcessId] = set()
    namespaces: set[Path] = set()
    for state in row.runc_root.glob("*/*/state.json"):
        ids.add(state.parent.name)
        found = _read_runc_state(state)
        cgroups.update(Path(p) for p in (found.get("cgroup_paths") or {}).values())
        init = _live_init(found)
        if init is not None:
            inits.add(init)
        paths = (found.get("namespace_paths") or {}).values()
        namespaces.update(Path(p) for p in paths if Path(p).parent in _NETNS_DIRS)
    return _Traces(
        frozenset(sockets),
        frozenset(ids),
        frozenset(cgroups),
        frozenset(inits),
        frozenset(namespaces),
    )


def socket_paths(file: Path) -> Iterator[Path]:
    """Yield the socket that a bundle's address file names (blocking)."""
    try:
        text = file.read_text()
    except OSError:
        return
    with suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("address", ""))
    if text.startswith("unix://"):
        yield Path(text.removeprefix("unix://"))


def read_runc_init(file: Path) -> ProcessId | None:
    """Return the first process of the container of a runc state file (blocking)."""
    return _live_init(_read_runc_state(file))


def _live_init(state: dict[str, Any]) -> ProcessId | None:
    process = read_process(int(state.get("init_process_pid") or 0))
    start = str(state.get("init_process_start", ""))
    same = process is not None and str(process.start_ticks) == start
    return process if same else None


def _read_runc_state(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


# ----------------------------------------------------------------------------- removal


def _kill_processes(row: Instance, traces: _Traces) -> None:
    daemon = find_daemon(row.runtime_dir / "config.toml")
    own = os.getpid()
    # The daemon first, so that it does not report each death or start new shims.
    if daemon is not None:
        kill_all((daemon,), within_s=_KILL_WITHIN_S)
    until_s = time.monotonic() + _KILL_WITHIN_S
    while True:
        found = {
            *traces.init_pids,
            *(process for tree in cgroup_trees(row) for process in members(tree)),
            *find_shims(str(row.containerd_socket)),
        }
        found = {
            process
            for process in found
            if process.pid != own and read_process(process.pid) == process
        }
        if not found:
            return
        if time.monotonic() > until_s:
            pids = ", ".join(str(process.pid) for process in found)
            raise OSError(errno.EBUSY, f"processes {pids} do not end")
        kill_all(tuple(found), within_s=1.0)


def cgroup_trees(row: Instance) -> Iterator[Path]:
    """Yield the instance's cgroup in every hierarchy (blocking)."""
    for mount in cgroup_mounts():
        tree = Path(mount.mount_point) / row.cgroup_root.lstrip("/")
        if tree.is_dir():
            yield tree


def members(tree: Path) -> Iterator[ProcessId]:
    """Yield the processes in a cgroup and below it (blocking)."""
    for directory, _, _ in os.walk(tree, topdown=False):
        with suppress(OSError):
            for line in (Path(directory) / "cgroup.procs").read_text().split():
                process = read_process(int(line))
                if process is not None:
                    yield process


def _remove_namespaces(traces: _Traces) -> None:
    for path in traces.namespaces:
        remove_namespace(path)


def remove_namespace(path: Path) -> None:
    """Remove a network namespace that is kept by a mount, if it is there (blocking)."""
    with suppress(OSError):
        unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    path.unlink(missing_ok=True)


def _remove_cni_results(row: Instance, traces: _Traces) -> None:
    for file in find_results(row, traces.container_ids):
        file.unlink(missing_ok=True)
    # Made by the CNI library on first use; only an empty one goes.
    for directory in (RESULTS, RESULTS.parent):
        with suppress(OSError):
            directory.rmdir()


def _remove_cgroups(row: Instance, traces: _Traces) -> None:
    for tree in list(cgroup_trees(row)):
        remove_cgroup_tree(tree)
    for path in traces.cgroups:
        if path.is_dir():
            remove_cgroup_tree(path)
            with suppress(OSError):
                path.parent.rmdir()  # containerd's own parent, if nobody uses it


def remove_cgroup_tree(tree: Path) -> None:
    """Remove a cgroup and those below it, waiting for the dead to leave (blocking)."""
    until_s = time.monotonic() + _RMDIR_WITHIN_S
    for directory, _, _ in os.walk(tree, topdown=False):
        while True:
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                # Processes that were killed leave their cgroup a moment later.
                if error.errno != errno.EBUSY or time.monotonic() > until_s:
                    raise
                time.sleep(0.005)
            else:
                break


def _remove_shim_sockets(traces: _Traces) -> None:
    for path in traces.shim_sockets:
        path.unlink(missing_ok=True)
    # Shims make it; containerd's own service makes it anew when it needs it.
    for directory in (_SHIM_SOCKETS, _SHIM_SOCKETS.parent):
        with suppress(OSError):
            directory.rmdir()


# ------------------------------------------------------------------------------ census


def census(row: Instance | None = None) -> frozenset[str]:
    """Return what of Podyard there is on this host outside any data dir (blocking).

    Args:
        row: only what this instance owns; ``None`` for every trace of any instance.
    """
    run_dir = RUN_DIR if row is None else row.run_dir
    found: set[str] = set()
    for pid in all_pids():
        words = command_line(pid)
        if not words or not Path(words[0]).name.startswith("containerd"):
            continue
        if any(_is_below(word, run_dir) or _is_config(word, row) for word in words[1:]):
            found.add(f"process {pid} {Path(words[0]).name}")
    found.update(
        f"mount {mount.mount_point}"
        for mount in read_mounts()
        if _is_below(mount.mount_point, run_dir)
        or (row is not None and _is_below(mount.mount_point, row.containerd_root))
    )
    found.update(f"device {name}" for name in _census_devices(row))
    tables: tuple[str, ...] = ()
    with suppress(NftablesError):
        tables = list_tables()
    found.update(f"nftables table {name}" for name in tables if _is_ours(name, row))
    for mount in cgroup_mounts():
        for path in Path(mount.mount_point).glob("podyard-*"):
            if path.is_dir() and _is_ours(path.name, row):
                found.add(f"cgroup {path}")
    found.update(_census_files(row, run_dir))
    return frozenset(found)


def _census_devices(row: Instance | None) -> Iterator[str]:
    with Netlink() as netlink:
        links = netlink.links()
    bridges = {
        link.index
        for link in links
        if (link.name == row.bridge if row else link.name.startswith("pyd-"))
    }
    for link in links:
        if link.index in bridges or link.master in bridges:
            yield link.name


def _is_ours(name: str, row: Instance | None) -> bool:
    """Tell of a name shared by nftables tables and cgroups whether it is meant."""
    return name == row.nft_table if row else name.startswith("podyard-")


def _census_files(row: Instance | None, run_dir: Path) -> Iterator[str]:
    if run_dir.exists():
        yield f"directory {run_dir}"
    if row is not None:
        yield from (f"CNI result {file}" for file in find_results(row))
        traces = _read_traces(row)
        yield from (f"socket {p}" for p in traces.shim_sockets if p.exists())
        yield from (f"cgroup {p}" for p in traces.cgroups if p.exists())
        return
    for directory in (RESULTS, _SHIM_SOCKETS, *_NETNS_DIRS[:1]):
        if directory.is_dir():
            yield from (f"file {file}" for file in directory.iterdir())


def _is_below(text: str, directory: Path) -> bool:
    return text == str(directory) or text.startswith(f"{directory}/")


def _is_config(word: str, row: Instance | None) -> bool:
    if row is None:
        return word.endswith("/runtime/config.toml")
    return word == str(row.runtime_dir / "config.toml")
