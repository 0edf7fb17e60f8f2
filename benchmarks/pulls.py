"""Pulls: Podyard, containerd's own clients and podman, from one registry, in turns.

Two images: one layer of 256 MiB that does not compress, and 50 small layers. Each
client pulls into an empty store: what it had is removed first, with all its content.
"""

import asyncio
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

from benchmarks import podman
from benchmarks.figures import Report, p50
from benchmarks.instance import Bench, delete, pod
from podyard.api.documents import Document
from podyard.api.scheme import EVENT, POD
from podyard.app.host import snapshotter_for
from podyard.app.instances import InstanceTable
from podyard.client.http import HttpApiClient
from podyard.cri.client import CriChannel, GrpcImageService, GrpcRuntimeService
from podyard.lib.durations import parse_duration

LARGE = "one layer of 256 MiB"
SMALL = "50 layers of 64 KiB"
_LAYERS = {LARGE: [256 << 20], SMALL: [64 << 10] * 50}
_REPOSITORIES = {LARGE: "bench/large", SMALL: "bench/small"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: How one client pulls an image; and how it loses it again.
Pull = Callable[[str], Awaitable[float]]


@dataclass
class Client:
    """Something that pulls.

    Attributes:
        pull: pulls an image, returns the seconds it took.
        forget: removes an image with its content.
        took_s: by image, what was measured.
        told_s: by image, how much of that the pull itself was, where that is told.
    """

    name: str
    pull: Pull
    forget: Callable[[str], Awaitable[None]]
    took_s: dict[str, list[float]] = field(default_factory=dict)
    told_s: Mapping[str, list[float]] = field(default_factory=dict)


# -- the registry


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Run Debian's registry; yields host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": host, "secret": "bench"},
    }
    directory.mkdir()
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(
        ["docker-registry", "serve", str(directory / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
    )
    try:
        _wait_for(host)
        yield host
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(host: str) -> None:
    until_s = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return


def push(host: str, repository: str, sizes: Sequence[int]) -> str:
    """Push an image with layers of these sizes, of random bytes; return its name."""
    descriptors: list[Document] = []
    diff_ids: list[str] = []
    for number, size in enumerate(sizes):
        packed, diff_id = _layer(f"data-{number}", size)
        diff_ids.append(diff_id)
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        descriptors.append(_push_blob(host, repository, packed, kind))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}
    config = {
        "os": "linux",
        "architecture": machine.get(platform.machine(), platform.machine()),
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _push_blob(
            host,
            repository,
            json.dumps(config).encode(),
            "application/vnd.oci.image.config.v1+json",
        ),
        "layers": descriptors,
    }
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/1",
        json.dumps(manifest).encode(),
        {"Content-Type": _MANIFEST},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    return f"{host}/{repository}:1"


def _layer(name: str, size: int) -> tuple[bytes, str]:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return gzip.compress(plain.getvalue(), 1), _digest(plain.getvalue())


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _push_blob(host: str, repository: str, data: bytes, media_type: str) -> Document:
    begin = f"http://{host}/v2/{repository}/blobs/uploads/"
    with urllib.request.urlopen(urllib.request.Request(begin, method="POST")) as answer:
        location = urljoin(begin, answer.headers["Location"])
    digest = _digest(data)
    request = urllib.request.Request(
        f"{location}{'&' if '?' in location else '?'}digest={digest}",
        data,
        {"Content-Type": "application/octet-stream"},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


# -- the clients


async def _run(*command: str) -> float:
    """Run a program to its end; return the seconds it took."""
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command}: {output.decode()[-500:]}")
    return time.perf_counter() - begin


class Pods:
    """Pulls as users have Podyard do it: a Pod is created, and its image is Pulled."""

    def __init__(self, client: HttpApiClient, runtime: GrpcRuntimeService) -> None:
        self._client = client
        self._runtime = runtime
        self._pulled: dict[str, asyncio.Future[str]] = {}
        self._number = 0
        #: Of each pull, how long the node says that it took, seconds.
        self.told_s: dict[str, list[float]] = {}

    async def run(self) -> None:
        """Watch events for ever."""
        async with aclosing(self._client.watch(EVENT, "default")) as events:
            async for event in events:
                if event.object.get("reason") != "Pulled":
                    continue
                whose = event.object["involvedObject"]["name"]
                if whose in self._pulled and not self._pulled[whose].done():
                    self._pulled[whose].set_result(event.object["message"])

    async def pull(self, image: str) -> float:
        """Create a Pod of an image; return when the event Pulled is seen."""
        self._number += 1
        name = f"pull-{self._number}"
        document = pod(name)
        document["spec"]["containers"][0] |= {
            "image": image,
            "imagePullPolicy": "Always",
        }
        pulled = self._pulled[name] = asyncio.get_running_loop().create_future()
        begin = time.perf_counter()
        await self._client.create(POD, document, "default")
        async with asyncio.timeout(120):
            message = await pulled
        took_s = time.perf_counter() - begin
        told = re.search(r"pulled image .* in (\S+) \(", message)
        assert told is not None, message
        self.told_s.setdefault(image, []).append(parse_duration(told[1]))
        await delete(self._client, name)
        # A container's snapshot would keep the layers for whoever pulls next.
        async with asyncio.timeout(120):
            while await self._is_there(name):
                await asyncio.sleep(0.05)
        return took_s

    async def _is_there(self, name: str) -> bool:
        listed = (await self._client.list(POD, "default"))["items"]
        sandboxes = await self._runtime.list_pod_sandboxes()
        return bool(listed) or any(one.name == name for one in sandboxes)


@asynccontextmanager
async def containerd_clients(bench: Bench) -> AsyncIterator[list[Client]]:
    """Yield all that pull into the containerd of a running Podyard."""
    row = InstanceTable().get(bench.name)
    assert row is not None
    channel = CriChannel(f"unix://{row.containerd_socket}")
    images = GrpcImageService(channel)
    ctr = ("ctr", "-a", str(row.containerd_socket), "-n", "k8s.io", "images")
    snapshotter = ("--snapshotter", snapshotter_for(bench.data_dir))

    async def by_cri(image: str) -> float:
        begin = time.perf_counter()
        await images.pull_image(image, auth=None)
        return time.perf_counter() - begin

    async def by_ctr(image: str) -> float:
        return await _run(*ctr, "pull", "--plain-http", *snapshotter, image)

    async def by_command(image: str) -> float:
        places = ("--name", bench.name, "--data-dir", str(bench.data_dir))
        command = (sys.executable, "-m", "podyard", "image", "pull", *places, image)
        return await _run(*command)

    async def forget(image: str) -> None:
        found = await images.image_status(image)
        if found is not None:
            await images.remove_image(found.id)
        # What ctr has named is not CRI's alone.
        await _run(*ctr, "rm", "--sync", image)

    async with bench.client() as client, asyncio.TaskGroup() as group:
        pods = Pods(client, GrpcRuntimeService(channel))
        watch = group.create_task(pods.run())
        try:
            yield [
                Client(
                    "Podyard, POST to Pulled", pods.pull, forget, told_s=pods.told_s
                ),
                Client("podyard image pull", by_command, forget),
                Client("containerd's CRI", by_cri, forget),
                Client("ctr", by_ctr, forget),
            ]
        finally:
            watch.cancel()
            await channel.close()


def podman_client(scratch: Path) -> Client:
    """Return podman with a store of its own, away from that of the machine."""
    # Its lock on the store lives as long as the directory does.
    command = podman.command(scratch)

    async def pull(image: str) -> float:
        return await _run(*command, "pull", "-q", "--tls-verify=false", image)

    async def forget(image: str) -> None:
        await _run(*command, "rmi", "--force", "--ignore", image)

    return Client("podman pull", pull, forget)


# -- the run


async def measure_pulls(bench: Bench, report: Report, rounds: int) -> None:
    """(i) Pull each image by each client, in turns."""
    if shutil.which("docker-registry") is None:
        report.add("(i) pulls", "docker-registry is not installed")
        return
    scratch = Path(tempfile.mkdtemp(prefix="podyard-bench-pulls-"))
    try:
        with registry(scratch / "registry") as host:
            names = {
                what: await asyncio.to_thread(
                    push, host, _REPOSITORIES[what], _LAYERS[what]
                )
                for what in _LAYERS
            }
            async with containerd_clients(bench) as clients:
                if podman.is_installed():
                    clients.append(podman_client(scratch))
                for what, image in names.items():
                    await _take_turns(clients, what, image, rounds)
                    _tell(report, clients, what, image)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _take_turns(
    clients: list[Client], what: str, image: str, rounds: int
) -> None:
    for number in range(rounds + 1):
        for client in clients[number % 2 :: 2] + clients[(number + 1) % 2 :: 2]:
            took_s = await client.pull(image)
            await client.forget(image)
            if number:  # the first warms up
                client.took_s.setdefault(what, []).append(took_s)


def _tell(report: Report, clients: list[Client], what: str, image: str) -> None:
    took_s = {client.name: p50(client.took_s[what]) for client in clients}
    inner = {
        client.name: f"; the pull itself {p50(client.told_s[image]):.2f} s"
        if image in client.told_s
        else ""
        for client in clients
    }
    for name, seconds in took_s.items():
        figure = f"{seconds:.2f} s"
        share = seconds / took_s["ctr"]
        report.add(f"(i) {what}: {name}", figure, f"{share:.2f} of ctr{inner[name]}")
    if "podman pull" not in took_s:
        report.add(f"(i) {what}: podman pull", "not installed")
