"""Objects whose owners are gone go, too."""

from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import CONFIG_MAP, NODE
from support.control_plane import Cluster, cluster, config_map, until

pytestmark = pytest.mark.integration


def _reference(owner: Document, **more: Any) -> Document:
    return {
        "apiVersion": "v1",
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }


async def _owned(running: Cluster, name: str, *owners: Document) -> Document:
    return await running.apply(config_map(name, ownerReferences=list(owners)))


async def _settle(running: Cluster) -> None:
    """Wait until the collector has seen everything so far: it removes a marker."""
    marker = await running.apply(config_map("marker"))
    await _owned(running, "marked", _reference(marker))
    await running.admin.delete(CONFIG_MAP, "marker", "default")
    await until(lambda: running.is_gone(CONFIG_MAP, "marked", "default"))


async def test_dependants_follow_their_owner(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        owner = await running.apply(config_map("owner"))
        child = await _owned(running, "child", _reference(owner))
        await _owned(running, "grandchild", _reference(child))
        await _owned(running, "stranger")

        await running.admin.delete(CONFIG_MAP, "owner", "default")

        await until(lambda: running.is_gone(CONFIG_MAP, "child", "default"))
        await until(lambda: running.is_gone(CONFIG_MAP, "grandchild", "default"))
        assert not await running.is_gone(CONFIG_MAP, "stranger", "default")


async def test_an_owner_deleted_in_the_foreground_goes_last(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        owner = await running.apply(config_map("owner"))
        reference = _reference(owner, blockOwnerDeletion=True)
        held = config_map(
            "held", ownerReferences=[reference], finalizers=["example.com/hold"]
        )
        await running.apply(held)
        await _owned(running, "free", reference)
        await _owned(running, "unblocking", _reference(owner))
        await _settle(running)

        await running.admin.delete(
            CONFIG_MAP, "owner", "default", propagation="Foreground"
        )

        await until(lambda: running.is_gone(CONFIG_MAP, "free", "default"))
        waiting = await running.admin.get(CONFIG_MAP, "owner", "default")
        assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
        await running.admin.patch(
            CONFIG_MAP, "held", {"metadata": {"finalizers": None}}, "default"
        )
        await until(lambda: running.is_gone(CONFIG_MAP, "owner", "default"))
        assert await running.is_gone(CONFIG_MAP, "held", "default")
        await until(lambda: running.is_gone(CONFIG_MAP, "unblocking", "default"))


async def test_orphans_are_let_go_first(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        owner = await running.apply(config_map("owner"))
        await _owned(running, "child", _reference(owner))
        await _settle(running)

        await running.admin.delete(CONFIG_MAP, "owner", "default", propagation="Orphan")

        await until(lambda: running.is_gone(CONFIG_MAP, "owner", "default"))
        await _settle(running)
        child = await running.admin.get(CONFIG_MAP, "child", "default")
        assert "ownerReferences" not in child["metadata"]


async def test_the_last_of_several_owners_counts(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        first = await running.apply(config_map("first"))
        second = await running.apply(config_map("second"))
        await _owned(running, "child", _reference(first), _reference(second))

        await running.admin.delete(CONFIG_MAP, "first", "default")

        async def owners() -> bool:
            child = await running.admin.get(CONFIG_MAP, "child", "default")
            return [o["name"] for o in child["metadata"]["ownerReferences"]] == [
                "second"
            ]

        await until(owners)
        await running.admin.delete(CONFIG_MAP, "second", "default")
        await until(lambda: running.is_gone(CONFIG_MAP, "child", "default"))


async def test_an_owner_that_never_was_makes_garbage_and_another_uid_does_too(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        owner = await running.apply(config_map("owner"))
        await _owned(running, "absent", {**_reference(owner), "name": "never"})
        await _owned(running, "older", {**_reference(owner), "uid": "older"})

        await until(lambda: running.is_gone(CONFIG_MAP, "older", "default"))
        assert not await running.is_gone(CONFIG_MAP, "owner", "default")


async def test_a_cluster_scoped_object_keeps_a_namespaced_owner_it_cannot_have(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "n1",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}
                ],
            },
        }
        await running.apply(node)

        await until(lambda: running.events("OwnerRefInvalidNamespace"))
        assert not await running.is_gone(NODE, "n1")


async def test_an_owner_of_an_unknown_kind_is_not_touched(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        strange = {"apiVersion": "x.example/v1", "kind": "X", "name": "x", "uid": "y"}
        await _owned(running, "child", strange)

        await _settle(running)

        assert not await running.is_gone(CONFIG_MAP, "child", "default")
