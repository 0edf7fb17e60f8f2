"""The Service of the built-in DNS comes and goes with it."""

from pathlib import Path

import pytest

from podyard.api.scheme import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from podyard.app.bootstrap import DnsAddress, bootstrap_dns
from support.control_plane import NODE_IP, cluster

pytestmark = pytest.mark.integration

SYSTEM = "kube-system"


async def test_dns_has_a_service_that_leads_to_where_it_listens(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running:
        await bootstrap_dns(running.admin, DnsAddress("10.96.0.10", NODE_IP, 53))
        await bootstrap_dns(running.admin, DnsAddress("10.96.0.10", NODE_IP, 5300))

        service = await running.admin.get(SERVICE, "kube-dns", SYSTEM)
        item = await running.admin.get(ENDPOINT_SLICE, "kube-dns", SYSTEM)
        assert service["spec"]["clusterIP"] == "10.96.0.10"
        assert [port["protocol"] for port in service["spec"]["ports"]] == ["UDP", "TCP"]
        assert item["endpoints"][0]["addresses"] == [NODE_IP]
        assert {port["port"] for port in item["ports"]} == {5300}


async def test_dns_switched_off_leaves_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running:
        await bootstrap_dns(running.admin, DnsAddress("10.96.0.10", NODE_IP, 53))

        await bootstrap_dns(running.admin, None)

        for kind in (SERVICE, ENDPOINTS, ENDPOINT_SLICE):
            assert await running.is_gone(kind, "kube-dns", SYSTEM)
        await bootstrap_dns(running.admin, None)


async def test_a_dns_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running:
        made = await running.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": SYSTEM},
                "spec": {"selector": {"k8s-app": "coredns"}, "ports": [{"port": 53}]},
            }
        )

        await bootstrap_dns(running.admin, DnsAddress("10.96.0.10", NODE_IP, 53))
        await bootstrap_dns(running.admin, None)

        assert await running.admin.get(SERVICE, "kube-dns", SYSTEM) == made


async def test_a_taken_address_does_not_stop_the_start(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running:
        await running.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "first", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 53}]},
            }
        )

        await bootstrap_dns(running.admin, DnsAddress("10.96.0.10", NODE_IP, 53))

        assert await running.is_gone(SERVICE, "kube-dns", SYSTEM)
