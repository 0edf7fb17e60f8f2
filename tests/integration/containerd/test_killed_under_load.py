"""containerd killed again and again while Pods come and go leaves nothing behind."""

import asyncio
import os
import random
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from podyard.app.cleanup import TASKS, cgroup_trees
from podyard.containerd.processes import find_shims, send_signal
from podyard.containerd.supervise import Containerd
from podyard.cri.services import CRIError
from podyard.lib.backoff import Backoff
from podyard.lib.clock import SystemClock
from support.containerd import (
    RunningContainerd,
    Services,
    connect,
    container_config,
    running_containerd,
    sandbox_config,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KILLS = 12
CLIENTS = 3


async def churn(running: RunningContainerd, services: Services) -> None:
    """Make and remove Pods for ever; a runtime that is away is no surprise."""
    while True:
        sandbox = sandbox_config(running.row)
        with suppress(CRIError):
            sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
            container_id = await services.runtime.create_container(
                sandbox_id, container_config(sandbox), sandbox
            )
            await services.runtime.start_container(container_id)
            await services.runtime.stop_pod_sandbox(sandbox_id)
            await services.runtime.remove_pod_sandbox(sandbox_id)
        await asyncio.sleep(0.005)


async def settle(services: Services) -> None:
    """Remove every sandbox, as the agent's garbage collection does."""
    async with asyncio.timeout(60):
        while sandboxes := await services.runtime.list_pod_sandboxes():
            for sandbox in sandboxes:
                with suppress(CRIError):
                    await services.runtime.stop_pod_sandbox(sandbox.id)
                    await services.runtime.remove_pod_sandbox(sandbox.id)


async def test_nothing_is_left_after_many_kills(tmp_path: Path) -> None:
    chance = random.Random(7)
    with running_containerd(tmp_path) as running:
        containerd = Containerd(
            running.runtime.containerd.config,
            running.runtime.containerd.files,
            clock=SystemClock(),
            restart=Backoff(0.05, 0.05),
        )
        await containerd.start()
        async with connect(running) as services, asyncio.TaskGroup() as group:
            watching = group.create_task(
                containerd.watch(restarted=running.runtime.tidy)
            )
            await asyncio.sleep(0)
            clients = [
                group.create_task(churn(running, services)) for _ in range(CLIENTS)
            ]
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.1, 0.8))
                process = containerd.process
                assert process is not None
                send_signal(process, signal.SIGKILL)
                async with asyncio.timeout(30):
                    while containerd.process == process:
                        await asyncio.sleep(0.01)
            for client in clients:
                client.cancel()
            async with asyncio.timeout(30):
                while True:
                    with suppress(CRIError):
                        await services.runtime.version()
                        break
                    await asyncio.sleep(0.05)
            await settle(services)
            await running.runtime.tidy()
            watching.cancel()

        row = running.row
        assert find_shims(str(row.containerd_socket)) == ()
        assert list((row.containerd_state / TASKS).glob("*/*")) == []
        assert list(row.runc_root.glob("*/*")) == []
        cgroups = [
            directory
            for tree in cgroup_trees(row)
            for directory, _, _ in os.walk(tree)
            if re.search(r"[0-9a-f]{64}", directory)
        ]
        assert cgroups == []
