"""A reboot of the machine, as far as one instance can tell.

Whatever a reboot takes is taken: every process of the instance at once, its mounts,
network namespaces, bridge, nftables table and cgroups, and all it has under ``/run``.
What lies on disk stays as the kill found it.
"""

import shutil
from pathlib import Path

from podyard.app.cleanup import (
    cgroup_trees,
    members,
    remove_cgroup_tree,
)
from podyard.app.instances import RUN_DIR, Instance
from podyard.containerd.processes import (
    ProcessId,
    find_daemon,
    find_shims,
    kill_all,
    read_process,
)
from podyard.lib.linux import unmount_below
from podyard.network.bridge import remove_bridge
from podyard.network.nftables import remove_table
from support.api import until


def reboot(row: Instance, pid: int) -> None:
    """Take from an instance what a reboot takes.

    Args:
        row: the instance.
        pid: of its Podyard.
    """
    sockets = _shim_sockets(row)
    # Podyard first: it would start containerd again, and report every death.
    main = read_process(pid)
    daemon = find_daemon(row.runtime_dir / "config.toml")
    kill_all(tuple(one for one in (main, daemon) if one is not None), within_s=10)
    until(lambda: _all_dead(row), within_s=20)
    for directory in (row.run_dir, row.data_dir):
        unmount_below(directory)
    for tree in list(cgroup_trees(row)):
        remove_cgroup_tree(tree)
    remove_bridge(row.bridge)
    remove_table(row.nft_table)
    for path in sockets:
        path.unlink(missing_ok=True)
    shutil.rmtree(row.run_dir)
    (RUN_DIR / "instances" / f"{row.name}.json").unlink()


def _all_dead(row: Instance) -> bool:
    alive: tuple[ProcessId, ...] = (
        *find_shims(str(row.containerd_socket)),
        *(process for tree in cgroup_trees(row) for process in members(tree)),
    )
    return not alive or (kill_all(alive, within_s=5) and False)


def _shim_sockets(row: Instance) -> list[Path]:
    return [
        Path(text.removeprefix("unix://"))
        for file in row.containerd_state.glob("*/*/*/address")
        if (text := file.read_text()).startswith("unix://")
    ]
