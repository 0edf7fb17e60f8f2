"""EndpointSlices and Endpoints follow Pods, on a real API server."""

from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
)
from podyard.client.services import PatchType
from support.control_plane import Cluster, cluster, until

pytestmark = pytest.mark.integration

CONTAINER = {
    "name": "c",
    "image": "busybox:1",
    "ports": [{"name": "http", "containerPort": 8080}],
}


def service(name: str = "web", **spec: Any) -> Document:
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


async def add_pod(running: Cluster, name: str, ip: str, *, ready: bool = True) -> None:
    await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))
    await running.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"app": "web"},
            },
            "spec": {"containers": [CONTAINER], "nodeName": "n1"},
        }
    )
    await say(running, name, ip, ready=ready)


async def say(running: Cluster, name: str, ip: str, *, ready: bool) -> None:
    """Tell a Pod's state as its node would."""
    status = {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    await running.admin.patch(
        POD,
        name,
        {"status": status},
        "default",
        patch_type=PatchType.MERGE,
        subresource="status",
    )


async def ready_ips(running: Cluster, name: str = "web") -> set[str]:
    listed = await running.admin.list(
        ENDPOINT_SLICE, "default", label_selector=f"kubernetes.io/service-name={name}"
    )
    return {
        address
        for item in listed["items"]
        for endpoint in item["endpoints"] or ()
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


async def test_slices_and_endpoints_follow_pods(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(service())
        await add_pod(running, "a", "10.1.0.2")
        await add_pod(running, "b", "10.1.0.3", ready=False)

        async def shows(*ips: str) -> bool:
            found = await running.find(ENDPOINTS, "web", "default")
            addresses = [
                address["ip"]
                for subset in (found or {}).get("subsets") or ()
                for address in subset.get("addresses") or ()
            ]
            return set(addresses) == set(ips) == await ready_ips(running)

        await until(lambda: shows("10.1.0.2"))
        await say(running, "b", "10.1.0.3", ready=True)
        await until(lambda: shows("10.1.0.2", "10.1.0.3"))
        await running.admin.delete(POD, "a", "default", grace_period_s=0)
        await until(lambda: shows("10.1.0.3"))
        (item,) = (
            await running.admin.list(
                ENDPOINT_SLICE,
                "default",
                label_selector="kubernetes.io/service-name=web",
            )
        )["items"]
        assert item["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]


async def test_a_deleted_slice_comes_back_and_an_edited_one_is_mended(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(service())
        await add_pod(running, "a", "10.1.0.2")
        await until(lambda: _is(running, {"10.1.0.2"}))
        (item,) = (
            await running.admin.list(
                ENDPOINT_SLICE,
                "default",
                label_selector="kubernetes.io/service-name=web",
            )
        )["items"]

        await running.admin.update(ENDPOINT_SLICE, {**item, "endpoints": []})
        await until(lambda: _is(running, {"10.1.0.2"}))
        await running.admin.delete(ENDPOINT_SLICE, item["metadata"]["name"], "default")
        await until(lambda: _is(running, {"10.1.0.2"}))


async def _is(running: Cluster, ips: set[str]) -> bool:
    return await ready_ips(running) == ips


async def test_a_deleted_service_takes_its_endpoints_along(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(service())
        await until(lambda: _exists(running))

        await running.admin.delete(SERVICE, "web", "default")

        await until(lambda: running.is_gone(ENDPOINTS, "web", "default"))

        async def no_slices() -> bool:
            listed = await running.admin.list(ENDPOINT_SLICE, "default")
            names = [item["metadata"]["name"] for item in listed["items"]]
            return names == ["kubernetes"]

        await until(no_slices)


async def _exists(running: Cluster) -> bool:
    return await running.find(ENDPOINTS, "web", "default") is not None


async def test_endpoints_of_services_without_a_selector_are_left_alone(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(service("mine", selector=None))
        await running.apply(
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "mine", "namespace": "default"},
                "subsets": [
                    {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}
                ],
            }
        )
        await running.apply(service())
        await until(lambda: _exists(running))

        kept = await running.find(ENDPOINTS, "mine", "default")
        assert kept is not None
        assert kept["subsets"][0]["addresses"] == [{"ip": "192.0.2.1"}]
        api = await running.find(ENDPOINTS, "kubernetes", "default")
        assert api is not None
        assert api["subsets"]


def written(*ips: str, **metadata: Any) -> Document:
    addresses = [{"ip": ip} for ip in ips]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "mine", "namespace": "default", **metadata},
        "subsets": [{"addresses": addresses, "ports": [{"port": 5432}]}],
    }


async def test_endpoints_that_a_person_wrote_are_shown_as_slices(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(service("mine", selector=None))
        await running.apply(written("192.0.2.1"))
        await until(lambda: _shows(running, {"192.0.2.1"}))

        present = await running.admin.get(ENDPOINTS, "mine", "default")
        changed = {**present, "subsets": written("192.0.2.2", "192.0.2.3")["subsets"]}
        await running.admin.update(ENDPOINTS, changed)
        await until(lambda: _shows(running, {"192.0.2.2", "192.0.2.3"}))

        await running.admin.delete(SERVICE, "mine", "default")
        await until(lambda: running.is_gone(ENDPOINTS, "mine", "default"))
        await until(lambda: _shows(running, set()))


async def _shows(running: Cluster, ips: set[str]) -> bool:
    return await ready_ips(running, "mine") == ips
