"""The Podyard under test, and Pods made through its API."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.floor import IMAGE
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import POD
from podyard.client.http import HttpApiClient
from podyard.client.kubeconfig import load_kubeconfig

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Bench:
    """One instance, by its name and data directory."""

    name: str
    data_dir: Path

    def cli(self, *arguments: str, timeout_s: float = 180) -> str:
        """Run a podyard command; return stdout and stderr."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "podyard",
                arguments[0],
                "--name",
                self.name,
                "--data-dir",
                str(self.data_dir),
                *arguments[1:],
            ],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def up(self) -> tuple[float, str]:
        """Start it; return the seconds until the node was Ready, and its report."""
        begin = time.perf_counter()
        text = self.cli(
            "up", "--detach", "--wait", "60s", "--port", "0", "--node-port", "0"
        )
        return time.perf_counter() - begin, text

    def status(self) -> Document:
        """Return its status."""
        document: Document = orjson.loads(self.cli("status", "-o", "json"))
        return document

    def client(self) -> HttpApiClient:
        """Return an admin client."""
        return HttpApiClient(load_kubeconfig(self.data_dir / "kubeconfig"))

    def kill(self, pid: int) -> None:
        """Kill it the hard way."""
        os.kill(pid, signal.SIGKILL)


def pod(name: str) -> Document:
    """Return a Pod that sleeps."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"bench": "yes"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "c",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                }
            ],
        },
    }


class PodWatch:
    """Sees Pods become Running, and go."""

    def __init__(self) -> None:
        self.running_at: dict[str, float] = {}
        self.gone_at: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def run(self, client: HttpApiClient) -> None:
        """Watch for ever."""
        events = client.watch(POD, "default")
        async with aclosing(events):
            async for event in events:
                name = event.object["metadata"]["name"]
                now = time.perf_counter()
                if event.type == "DELETED":
                    self.gone_at[name] = now
                elif (event.object.get("status") or {}).get("phase") == "Running":
                    self.running_at.setdefault(name, now)
                self._changed.set()

    async def wait_running(self, *names: str) -> None:
        """Wait until all of them were seen Running."""
        await self._wait(lambda: all(name in self.running_at for name in names))

    async def wait_gone(self, *names: str) -> None:
        """Wait until all of them are gone."""
        await self._wait(lambda: all(name in self.gone_at for name in names))

    async def _wait(self, done) -> None:  # noqa: ANN001 - a small predicate
        async with asyncio.timeout(180):
            while not done():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(client: HttpApiClient) -> AsyncIterator[PodWatch]:
    """Watch Pods for the length of a block."""
    watch = PodWatch()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run(client))
        try:
            yield watch
        finally:
            task.cancel()


async def delete(client: HttpApiClient, name: str) -> None:
    """Delete a Pod without grace from its own spec."""
    try:
        await client.delete(POD, name, "default")
    except ApiError as error:
        if error.code != 404:
            raise


def usage(pid: int) -> tuple[float, float]:
    """Return resident bytes and CPU seconds of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu_s = (int(stat[11]) + int(stat[12])) / TICKS_PER_S
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024, cpu_s
    return 0, cpu_s
