"""What a cluster has from its first second."""

from functools import partial
from pathlib import Path

import pytest

from podyard.api.errors import ApiError
from podyard.api.scheme import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    ENDPOINTS,
    NAMESPACE,
    SERVICE,
    SERVICE_ACCOUNT,
)
from podyard.app.bootstrap import NAMESPACES, ApiServerAddress, bootstrap
from support.control_plane import NODE_IP, cluster, config_map, until

pytestmark = pytest.mark.integration


async def test_a_cluster_begins_with_its_namespaces_and_its_own_service(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, houses=False) as running:
        listed = await running.admin.list(NAMESPACE)
        service = await running.admin.get(SERVICE, "kubernetes", "default")
        endpoints = await running.admin.get(ENDPOINTS, "kubernetes", "default")
        slices = await running.admin.get(ENDPOINT_SLICE, "kubernetes", "default")

        assert sorted(i["metadata"]["name"] for i in listed["items"]) == list(
            NAMESPACES
        )
        assert service["spec"]["clusterIP"] == "10.96.0.1"
        assert service["spec"]["ports"][0]["targetPort"] == running.plane.port
        assert endpoints["subsets"][0]["addresses"] == [{"ip": NODE_IP}]
        assert slices["endpoints"][0]["addresses"] == [NODE_IP]


async def test_a_second_start_writes_nothing_and_a_moved_server_is_corrected(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, houses=False) as running:
        port = running.plane.port
        same = ApiServerAddress("10.96.0.1", NODE_IP, port)
        moved = ApiServerAddress("10.96.0.9", "10.255.0.2", port + 1)

        assert await bootstrap(running.admin, same) == 0
        assert await bootstrap(running.admin, moved) == 3
        assert await bootstrap(running.admin, moved) == 0

        service = await running.admin.get(SERVICE, "kubernetes", "default")
        slices = await running.admin.get(ENDPOINT_SLICE, "kubernetes", "default")
        assert service["spec"]["clusterIP"] == "10.96.0.9"
        assert slices["endpoints"][0]["addresses"] == ["10.255.0.2"]
        assert slices["ports"][0]["port"] == port + 1


async def test_every_namespace_has_its_account_and_the_authority(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:

        async def has_both(namespace: str) -> bool:
            account = await running.find(SERVICE_ACCOUNT, "default", namespace)
            bundle = await running.find(CONFIG_MAP, "kube-root-ca.crt", namespace)
            wanted = {"ca.crt": running.pki.ca_pem.decode()}
            return bool(account and bundle and bundle["data"] == wanted)

        for name in NAMESPACES:
            await until(partial(has_both, name), what=name)

        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
        await running.apply(space)
        await until(lambda: has_both("new"), within_s=2)

        await running.admin.delete(SERVICE_ACCOUNT, "default", "new")
        await running.admin.delete(CONFIG_MAP, "kube-root-ca.crt", "new")
        await until(lambda: has_both("new"), within_s=2, what="restored")

        forged = config_map("kube-root-ca.crt", "new") | {"data": {"ca.crt": "mine"}}
        await running.admin.update(CONFIG_MAP, forged)
        await until(lambda: has_both("new"), within_s=2, what="undone")


async def test_the_first_namespaces_stay(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running:
        with pytest.raises(ApiError) as refusal:
            await running.admin.delete(NAMESPACE, "kube-system")

        assert refusal.value.code == 403
        assert refusal.value.message == (
            'namespaces "kube-system" is forbidden: this namespace may not be deleted'
        )
