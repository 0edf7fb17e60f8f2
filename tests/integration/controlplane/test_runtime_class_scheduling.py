"""Pods land only where their RuntimeClass allows."""

from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import NODE, POD, SERVICE_ACCOUNT
from support.control_plane import Cluster, cluster, node, pod, until

pytestmark = pytest.mark.integration

TAINT = {"key": "sandboxed", "value": "yes", "effect": "NoSchedule"}


def runtime_class(name: str, cpu: str = "", **scheduling: Any) -> Document:
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": "runc",
        **({"scheduling": scheduling} if scheduling else {}),
        **({"overhead": {"podFixed": {"cpu": cpu}}} if cpu else {}),
    }


async def _three_nodes(running: Cluster) -> None:
    """Two nodes have the label ``runtime=vm``; the last is tainted too."""
    for name in ("plain", "vm", "vm-only"):
        await running.apply(node(name, cpu="2"))
    await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))

    async def untainted() -> bool:
        found = await running.admin.list(NODE)
        return all(not n["spec"].get("taints") for n in found["items"])

    await until(untainted)
    for name in ("vm", "vm-only"):
        patch = {"metadata": {"labels": {"runtime": "vm", "name": name}}}
        await running.admin.patch(NODE, name, patch)
    await running.admin.patch(NODE, "vm-only", {"spec": {"taints": [TAINT]}})


async def _decided(running: Cluster, name: str) -> str:
    """Wait for a Pod's node, or for why it has none; return that."""

    async def ask() -> str:
        found = await running.admin.get(POD, name, "default")
        if found["spec"].get("nodeName"):
            return str(found["spec"]["nodeName"])
        for condition in found["status"].get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return str(condition["message"])
        return ""

    return await until(ask)


async def test_pods_land_where_their_class_allows(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await _three_nodes(running)
        vm = {"runtime": "vm"}
        tolerated = [{"key": "sandboxed", "operator": "Exists"}]
        for document in (
            runtime_class("anywhere"),
            runtime_class("vm", nodeSelector=vm),
            runtime_class("vm-only", nodeSelector=vm, tolerations=tolerated),
            runtime_class("nowhere", nodeSelector={"runtime": "other"}),
            runtime_class("heavy", "1950m", nodeSelector=vm),
        ):
            await running.apply(document)

        # Of the two that the class allows, one is tainted.
        await running.apply(pod("on-vm", runtimeClassName="vm"))
        assert await _decided(running, "on-vm") == "vm"

        # The Pod and the class each choose a part: what both allow is left.
        both = pod("both", runtimeClassName="vm-only", nodeSelector={"name": "vm-only"})
        created = await running.apply(both)
        assert created["spec"]["nodeSelector"] == {"name": "vm-only", **vm}
        assert await _decided(running, "both") == "vm-only"

        await running.apply(pod("lost", runtimeClassName="nowhere"))
        assert (await _decided(running, "lost")).startswith(
            "0/3 nodes are available: 1 node(s) had untolerated taint {sandboxed: yes}, "
            "2 node(s) didn't match Pod's node affinity/selector. "
        )

        # Pods without the class stay away from the node it has for itself.
        for number in range(4):
            await running.apply(pod(f"other-{number}", cpu="400m"))
            assert await _decided(running, f"other-{number}") in {"plain", "vm"}

        # 100m of its own would fit; with 1950m of the class it does not.
        await running.apply(pod("heavy", runtimeClassName="heavy", cpu="100m"))
        assert "Insufficient cpu" in await _decided(running, "heavy")

        with pytest.raises(ApiError) as caught:
            await running.apply(
                pod("torn", runtimeClassName="vm", nodeSelector={"runtime": "runc"})
            )
        assert caught.value.code == 403
        assert caught.value.message == (
            'pods "torn" is forbidden: conflict: '
            "runtimeClass.scheduling.nodeSelector[runtime] = vm; "
            "pod.spec.nodeSelector[runtime] = runc"
        )


async def test_overhead_counts_where_a_pod_fits(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await _three_nodes(running)
        await running.apply(
            runtime_class("heavy", "1500m", nodeSelector={"name": "vm"})
        )

        await running.apply(pod("first", runtimeClassName="heavy", cpu="400m"))
        assert await _decided(running, "first") == "vm"
        await running.apply(pod("second", runtimeClassName="heavy", cpu="400m"))
        assert "1 Insufficient cpu" in await _decided(running, "second")
        # Without overhead it fits beside the first one.
        await running.apply(pod("light", cpu="100m", nodeSelector={"name": "vm"}))
        assert await _decided(running, "light") == "vm"
