"""What ``podyard down`` does once Podyard itself has stopped."""

import asyncio
import os
import signal
from pathlib import Path

import structlog

from podyard.app.cleanup import remove_instance as remove_things
from podyard.app.config import Config
from podyard.app.instances import Instance, InstanceTable
from podyard.app.machine import delay_file
from podyard.containerd.processes import find_daemon, has_ended, kill_all
from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.cri.services import CRIError
from podyard.lib.linux import remove_path
from podyard.lib.logind import forget_delay
from podyard.node.volumes.mounts import release_shared

log = structlog.get_logger()


class TeardownError(Exception):
    """Something is left; the message names it."""


def wait_for_exit(pid: int, *, within_s: float) -> None:
    """Wait until a process is gone (blocking).

    Raises:
        TimeoutError: it is still there.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not has_ended(pidfd, within_s=within_s):
            raise TimeoutError(f"process {pid} is still there after {within_s:g} s")
    finally:
        os.close(pidfd)


def kill(pid: int) -> None:
    """Kill a Podyard that does not stop, and wait until it is gone (blocking)."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_for_exit(pid, within_s=10)


async def remove_instance(config: Config, *, grace_s: float) -> None:
    """Stop what runs without Podyard, and remove all it owned outside its data.

    Args:
        config: the instance.
        grace_s: seconds containers get, where Podyard was not there to stop them.

    Raises:
        TeardownError: something is left.
    """
    table = InstanceTable()
    row = table.get(config.name)
    if row is None:
        return
    await _stop_containers(row, grace_s)
    left = await asyncio.to_thread(_remove, row, table)
    if left:
        raise TeardownError("could not remove everything:\n  " + "\n  ".join(left))


async def _stop_containers(row: Instance, grace_s: float) -> None:
    """End containers that a dead Podyard has left, as gently as CRI alone can."""
    if not row.containerd_socket.is_socket():
        return
    channel = CriChannel(f"unix://{row.containerd_socket}")
    runtime = GrpcRuntimeService(channel)
    try:
        async with asyncio.timeout(grace_s + 30):
            containers = await runtime.list_containers()
            async with asyncio.TaskGroup() as group:
                for container in containers:
                    group.create_task(
                        runtime.stop_container(container.id, grace_s=int(grace_s))
                    )
            async with asyncio.TaskGroup() as group:
                for sandbox in await runtime.list_pod_sandboxes():
                    group.create_task(_remove_sandbox(runtime, sandbox.id))
    except* (CRIError, TimeoutError, OSError) as errors:
        # What CRI cannot end, the clean-up kills.
        log.warning("containers_not_stopped", errors=len(errors.exceptions))
    finally:
        await channel.close()


async def _remove_sandbox(runtime: GrpcRuntimeService, sandbox_id: str) -> None:
    await runtime.stop_pod_sandbox(sandbox_id)
    await runtime.remove_pod_sandbox(sandbox_id)


def _remove(row: Instance, table: InstanceTable) -> list[str]:
    daemon = find_daemon(row.runtime_dir / "config.toml")
    if daemon is not None:
        kill_all((daemon,), within_s=10)
    forget_delay(delay_file(row.name))
    pods_dir = row.data_dir / "pods"
    left = [
        f"{leftover.what}: {leftover.reason}"
        for leftover in remove_things(row, table, mount_dirs=[pods_dir])
    ]
    try:
        release_shared(pods_dir)
    except FileNotFoundError:
        pass
    except OSError as error:
        left.append(f"{pods_dir}: {error.strerror}")
    return left


def purge(data_dir: Path) -> None:
    """Delete the data directory, never across a mount.

    Raises:
        TeardownError: it cannot be deleted.
    """
    if not data_dir.exists():
        return
    try:
        remove_path(data_dir)
    except OSError as error:
        raise TeardownError(f"{data_dir}: {error}") from error
