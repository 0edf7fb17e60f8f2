"""A control plane on loopback: store, API server, controllers and scheduler."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import EVENT, Kind, find_kind_by_name
from podyard.app.controlplane import (
    ControlPlane,
    ControlPlaneConfig,
    bootstrap_cluster,
    control_plane,
    run_houses,
)
from podyard.app.pki import Names, Pki, ensure_pki
from podyard.client.connection import ApiConnection
from podyard.client.http import HttpApiClient
from podyard.controllers.parts import Controller
from podyard.controllers.runner import ControllerRunner
from podyard.lib.clock import SystemClock

_T = TypeVar("_T")

NODE_IP = "10.255.0.1"


@dataclass(frozen=True)
class Cluster:
    """A control plane that answers, and its admin."""

    plane: ControlPlane
    config: ControlPlaneConfig
    pki: Pki
    admin: HttpApiClient

    def client(self, *, token: str = "") -> HttpApiClient:
        """Return a client with a token and no certificate."""
        whole = self.plane.connection(self.pki.admin)
        return HttpApiClient(
            ApiConnection(server=whole.server, ca_pem=whole.ca_pem, token=token)
        )

    async def apply(self, document: Document) -> Document:
        """Create an object."""
        kind = find_kind_by_name(document["apiVersion"], document["kind"])
        assert kind is not None
        return await self.admin.create(kind, document)

    async def find(self, kind: Kind, name: str, namespace: str = "") -> Document | None:
        """Return an object, or None where it is absent."""
        try:
            return await self.admin.get(kind, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def is_gone(self, kind: Kind, name: str, namespace: str = "") -> bool:
        """Say whether an object is absent."""
        return await self.find(kind, name, namespace) is None

    async def events(self, reason: str) -> list[str]:
        """Return the messages of the Events with a reason."""
        listed = await self.admin.list(EVENT, field_selector=f"reason={reason}")
        return [item["message"] for item in listed["items"]]


@asynccontextmanager
async def cluster(directory: Path, *, houses: bool = True) -> AsyncIterator[Cluster]:
    """Run a control plane while the body runs."""
    clock = SystemClock()
    pki = await asyncio.to_thread(
        ensure_pki, directory / "pki", Names("n1", (NODE_IP,)), now=clock.now()
    )
    config = ControlPlaneConfig(
        store_path=directory / "store.db",
        addresses=("127.0.0.1",),
        node_ip=NODE_IP,
        port=_free_port(),
        service_cidrs=("10.96.0.0/16",),
        node_ports=(30000, 30999),
        kubernetes_service_ip="10.96.0.1",
        cluster_domain="cluster.local",
    )
    async with (
        asyncio.TaskGroup() as group,
        control_plane(config, pki, clock=clock, group=group) as plane,
        HttpApiClient(plane.connection(pki.admin)) as admin,
    ):
        await bootstrap_cluster(plane, config)
        running = group.create_task(run_houses(plane, clock=clock)) if houses else None
        try:
            yield Cluster(plane, config, pki, admin)
        finally:
            if running is not None:
                running.cancel()


@asynccontextmanager
async def controllers(
    running: Cluster, parts: Sequence[Controller]
) -> AsyncIterator[None]:
    """Run some controllers while the body runs."""
    identity = running.plane.connection(running.pki.controller_manager)
    async with HttpApiClient(identity) as client, asyncio.TaskGroup() as group:
        runner = ControllerRunner(
            client, parts, SystemClock(), ca_pem=running.pki.ca_pem.decode()
        )
        task = group.create_task(runner.run())
        try:
            await runner.caches.wait_synced()
            yield
        finally:
            task.cancel()


async def until(
    ask: Callable[[], Awaitable[_T]], *, within_s: float = 10.0, what: str = ""
) -> _T:
    """Wait until an answer is true, and return it."""
    answer: Any = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                answer = await ask()
                if answer:
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what or 'it'} did not come true: {answer!r}") from None


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def config_map(name: str, namespace: str = "default", **metadata: Any) -> Document:
    """Return a small object of no consequence."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
    }


def node(name: str, *, ready: str = "True", cpu: str = "2", **spec: Any) -> Document:
    """Return a Node as its agent would register it."""
    condition = {"type": "Ready", "status": ready, "reason": "x", "message": "y"}
    amounts = {"cpu": cpu, "memory": "4Gi", "pods": "110", "ephemeral-storage": "10Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [condition],
        },
    }


def pod(
    name: str, namespace: str = "default", *, cpu: str = "", **spec: Any
) -> Document:
    """Return a Pod with one container."""
    container: Document = {"name": "c", "image": "registry.example/i:1"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], **spec},
    }
