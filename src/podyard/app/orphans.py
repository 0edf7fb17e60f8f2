"""What a killed containerd forgets: shims, task directories and cgroups of nobody.

containerd that dies while it makes or removes a container may come back without its
record, and leaves the shim, its processes and cgroups for ever. Whatever carries the
id of a container that containerd does not list is such an orphan.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from podyard.api.observed import ContainerState, SandboxState
from podyard.app.cleanup import (
    TASKS,
    cgroup_trees,
    members,
    read_runc_init,
    remove_cgroup_tree,
    remove_namespace,
    socket_paths,
)
from podyard.app.instances import Instance
from podyard.containerd.build import NAMESPACE
from podyard.containerd.events import list_container_ids
from podyard.containerd.processes import (
    ProcessId,
    command_line,
    find_shims,
    kill_all,
)
from podyard.containerd.tasks import end_task
from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.lib.linux import remove_path, unmount_below
from podyard.lib.values import dataclass

log = structlog.get_logger()

_ID: Final = re.compile(r"[0-9a-f]{64}")
#: Where CRI keeps network namespaces, below containerd's state directory.
_NAMESPACES: Final = "io.containerd.grpc.v1.cri/netns"


@dataclass(frozen=True, slots=True)
class _Traces:
    """What carries container ids on this host, by id."""

    shims: dict[str, ProcessId]
    bundles: dict[str, Path]
    states: dict[str, Path]
    cgroups: dict[str, tuple[Path, ...]]

    @property
    def ids(self) -> frozenset[str]:
        return frozenset({*self.shims, *self.bundles, *self.states, *self.cgroups})


async def remove_orphans(row: Instance) -> int:
    """Remove what belongs to no container of the instance's containerd.

    Call it when containerd has just come up: what is found is looked at before the
    list is asked for, so a container that is being made now is always listed.

    Returns:
        How many container ids had something left.

    Raises:
        ContainerdError: containerd does not answer.
    """
    traces = await asyncio.to_thread(_look, row)
    if not traces.ids:
        return 0
    known = await list_container_ids(str(row.containerd_socket))
    orphans = traces.ids - known
    if orphans:
        await asyncio.to_thread(_remove, traces, orphans)
        log.info("orphans_removed", count=len(orphans), ids=sorted(orphans)[:10])
    return len(orphans)


async def end_forgotten(row: Instance) -> int:
    """End what lives in containers and sandboxes that have ended, as CRI says.

    Call it when containerd has come up some seconds ago: one that dies while it makes
    the task of a container may have no more than the container when it is back, while
    the shim goes on with the task.

    Returns:
        How many there were.

    Raises:
        ContainerdError: containerd does not answer.
        CRIError: likewise.
    """
    # What has ended is asked for first: what lives now lives in spite of it.
    ended = await _ended(f"unix://{row.containerd_socket}")
    alive = await asyncio.to_thread(_find_alive, row, ended)
    for name, living in alive.items():
        log.info("forgotten_task_ended", id=name)
        await end_task(str(row.containerd_socket), name)
        # Those of a task that containerd has forgotten, too.
        await asyncio.to_thread(kill_all, living, within_s=5.0)
    return len(alive)


def _find_alive(row: Instance, ids: frozenset[str]) -> dict[str, tuple[ProcessId, ...]]:
    """Return the processes of those of some ids that have any (blocking)."""
    traces = _look(row)
    found = {name: tuple(_processes(traces, frozenset({name}))) for name in ids}
    return {name: living for name, living in found.items() if living}


async def _ended(endpoint: str) -> frozenset[str]:
    channel = CriChannel(endpoint)
    try:
        runtime = GrpcRuntimeService(channel)
        sandboxes = await runtime.list_pod_sandboxes()
        containers = await runtime.list_containers()
    finally:
        await channel.close()
    return frozenset(
        {s.id for s in sandboxes if s.state is SandboxState.NOT_READY}
        | {c.id for c in containers if c.state is ContainerState.EXITED}
    )


def find_unused_namespaces(row: Instance) -> frozenset[Path]:
    """Return network namespaces that no task of the runtime is in (blocking).

    CRI makes a namespace before the record of its sandbox, so a death in between
    leaves one that nobody knows; one that is being made now looks the same for as
    long as the network plugins take.
    """
    directory = row.containerd_state / _NAMESPACES
    try:
        found = frozenset(directory.iterdir())
    except FileNotFoundError:
        return frozenset()
    used: set[Path] = set()
    for config in (row.containerd_state / TASKS).glob("*/*/config.json"):
        try:
            spaces = json.loads(config.read_text())["linux"]["namespaces"]
            used.update(Path(space["path"]) for space in spaces if "path" in space)
        except FileNotFoundError:
            continue  # gone meanwhile
        except (OSError, ValueError, KeyError, TypeError):
            return frozenset()  # whose it is cannot be told; another look may
    return found - used


def remove_namespaces(paths: frozenset[Path]) -> None:
    """Remove network namespaces of nobody (blocking)."""
    for path in paths:
        with suppress(OSError):
            remove_namespace(path)
    log.info("orphan_namespaces_removed", count=len(paths))


def _look(row: Instance) -> _Traces:
    shims = {}
    for process in find_shims(str(row.containerd_socket)):
        words = command_line(process.pid)
        with suppress(ValueError, IndexError):
            shims[words[words.index("-id") + 1]] = process
    cgroups: dict[str, tuple[Path, ...]] = {}
    for tree in cgroup_trees(row):
        for directory, _, _ in os.walk(tree):
            found = _ID.search(Path(directory).name)
            if found is not None:
                paths = cgroups.get(found[0], ())
                cgroups[found[0]] = (*paths, Path(directory))
    return _Traces(
        shims=shims,
        bundles=_by_id(row.containerd_state / TASKS / NAMESPACE),
        states=_by_id(row.runc_root / NAMESPACE),
        cgroups=cgroups,
    )


def _by_id(directory: Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in directory.iterdir()}
    except FileNotFoundError:
        return {}


def _remove(traces: _Traces, orphans: frozenset[str]) -> None:
    # Processes first, and the shims last of them: they would report the deaths.
    kill_all(tuple(_processes(traces, orphans)), within_s=5.0)
    kill_all(
        tuple(shim for name, shim in traces.shims.items() if name in orphans),
        within_s=5.0,
    )
    for name in orphans:
        with suppress(OSError):
            _remove_files(traces, name)
        for path in traces.cgroups.get(name, ()):
            with suppress(OSError):
                remove_cgroup_tree(path)


def _processes(traces: _Traces, orphans: frozenset[str]) -> Iterator[ProcessId]:
    for name in orphans:
        for path in traces.cgroups.get(name, ()):
            yield from members(path)
        if name in traces.states:
            init = read_runc_init(traces.states[name] / "state.json")
            if init is not None:
                yield init


def _remove_files(traces: _Traces, name: str) -> None:
    bundle = traces.bundles.get(name)
    if bundle is not None:
        if name in traces.shims:
            for address in ("address", "bootstrap.json"):
                for socket in socket_paths(bundle / address):
                    socket.unlink(missing_ok=True)
        unmount_below(bundle)
        remove_path(bundle)
    if name in traces.states:
        remove_path(traces.states[name])
