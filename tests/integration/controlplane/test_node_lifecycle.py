"""Nodes that fall silent, and Pods nobody looks after."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import LEASE, NODE, POD
from podyard.client.services import PatchType
from podyard.controllers.parts import Controller
from podyard.controllers.reconcilers.node_lifecycle import NodeLifecycleController
from podyard.controllers.reconcilers.pod_gc import PodGarbageCollector
from podyard.controllers.reconcilers.service_account import PART as SERVICE_ACCOUNTS
from support.control_plane import Cluster, cluster, controllers, node, pod, until

pytestmark = pytest.mark.integration

QUICK = Controller(
    "node-lifecycle",
    (LEASE, NODE, POD),
    partial(NodeLifecycleController, grace_s=1.0, startup_grace_s=1.0),
)
GC = Controller("pod-gc", (NODE, POD), partial(PodGarbageCollector, quarantine_s=0.2))
UNREACHABLE = "node.kubernetes.io/unreachable"


async def _taints(running: Cluster) -> list[tuple[str, str]]:
    found = await running.admin.get(NODE, "n1")
    return sorted((t["key"], t["effect"]) for t in found["spec"].get("taints") or ())


async def _ready(running: Cluster) -> Document:
    found = await running.admin.get(NODE, "n1")
    condition: Document = next(
        c for c in found["status"]["conditions"] if c["type"] == "Ready"
    )
    return condition


async def test_a_silent_node_is_marked_tainted_and_emptied(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, houses=False) as running,
        controllers(running, [QUICK, SERVICE_ACCOUNTS]),
    ):
        await running.apply(node("n1"))
        stay: dict[str, Any] = {"key": UNREACHABLE, "operator": "Exists"}

        async def created(name: str, seconds: int | None) -> bool:
            toleration = dict(stay, effect="NoExecute")
            if seconds is not None:
                toleration["tolerationSeconds"] = seconds
            document = pod(name, nodeName="n1", tolerations=[toleration])
            return bool(await running.apply(document))

        await until(partial(created, "goes", 0))
        await created("stays", None)

        await until(lambda: _taints(running))
        ready = await _ready(running)
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
        assert await _taints(running) == [
            (UNREACHABLE, "NoExecute"),
            (UNREACHABLE, "NoSchedule"),
        ]

        async def going() -> bool:
            found = await running.find(POD, "goes", "default")
            return found is None or "deletionTimestamp" in found["metadata"]

        await until(going)
        stays = await running.admin.get(POD, "stays", "default")
        assert "deletionTimestamp" not in stays["metadata"]
        assert await until(lambda: running.events("NodeNotReady")) == [
            "Node n1 status is now: NodeNotReady"
        ]
        assert await until(lambda: running.events("TaintManagerEviction")) == [
            "Marking for deletion Pod default/goes"
        ]

        condition = {**ready, "status": "True", "reason": "KubeletReady"}
        await running.admin.patch(
            NODE,
            "n1",
            {"status": {"conditions": [condition]}},
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )

        async def untainted() -> bool:
            return not await _taints(running)

        await until(untainted)


async def test_a_node_that_renews_its_lease_is_left_alone(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, houses=False) as running,
        controllers(running, [QUICK]),
    ):
        await running.apply(node("n1"))
        lease = await running.apply(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "n1", "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40},
            }
        )
        for second in range(6):
            time = f"2026-05-01T12:00:{second:02}.000000Z"
            lease["spec"]["renewTime"] = time
            lease = await running.admin.update(LEASE, lease)
            await _wait(0.4)

        assert (await _ready(running))["status"] == "True"
        assert await _taints(running) == []


async def _wait(seconds: float) -> None:
    """Let a node's grace pass in part: only real time can be late."""
    import asyncio

    await asyncio.sleep(seconds)


async def test_pods_of_a_node_that_is_gone_are_removed(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, houses=False) as running,
        controllers(running, [GC, SERVICE_ACCOUNTS]),
    ):
        await running.apply(node("n1"))

        async def created(name: str, where: str) -> bool:
            return bool(await running.apply(pod(name, nodeName=where)))

        await until(partial(created, "here", "n1"))
        await created("nowhere", "never")

        await until(partial(running.is_gone, POD, "nowhere", "default"))
        assert not await running.is_gone(POD, "here", "default")
        await running.admin.delete(NODE, "n1")
        await until(partial(running.is_gone, POD, "here", "default"))
