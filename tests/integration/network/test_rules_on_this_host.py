"""Services, host ports and masquerade, with real Pods and a network outside."""

import ctypes
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.app.private_runtime import bridge_config
from podyard.network.bridge import ensure_bridge, remove_bridge
from podyard.network.build import HostPort, ServiceRule
from podyard.network.decide import NetworkFacts, decide_ruleset, decide_table
from podyard.network.netlink import Netlink
from podyard.network.nftables import Nftables, NftablesError, list_tables, run_nft
from podyard.network.table import Table
from support.containerd import (
    RunningContainerd,
    Services,
    connect,
    container_config,
    running_containerd,
    sandbox_config,
)

pytestmark = pytest.mark.integration

OUTSIDE = "198.51.100.2"
OUR_SIDE = "198.51.100.1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("network")) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Pod:
    ip: str
    container_id: str
    services: Services

    async def run(self, *command: str) -> str:
        result = await self.services.runtime.exec_sync(
            self.container_id, command, timeout_s=10
        )
        return result.stdout.decode()

    async def get(self, address: str) -> str:
        """GET a Pod's name (busybox' wget needs libc's resolver, nc does not)."""
        host, _, port = address.partition(":")
        request = r"printf 'GET /hostname HTTP/1.0\r\n\r\n'"
        answer = await self.run("sh", "-c", f"{request} | nc -w 3 {host} {port}")
        return answer.rpartition("\r\n\r\n")[2].strip()


async def start_pod(running: RunningContainerd, services: Services, name: str) -> Pod:
    """Run a Pod that answers on port 8080 with its name."""
    sandbox = sandbox_config(running.row, name=name)
    sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
    command = ("httpd", "-f", "-p", "8080", "-h", "/etc")
    container_id = await services.runtime.create_container(
        sandbox_id, container_config(sandbox, *command), sandbox
    )
    await services.runtime.start_container(container_id)
    (ip,) = (await services.runtime.pod_sandbox_status(sandbox_id)).ips
    return Pod(ip, container_id, services)


def get(host: str, port: int) -> str:
    """GET a Pod's name from the host."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/hostname")
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


@contextmanager
def outside() -> Iterator[int]:
    """A machine beyond the host's own links; yields its network namespace (a fd)."""
    process = subprocess.Popen(["unshare", "-n", "sleep", "100"])
    try:
        fd = _namespace_of(process.pid)
        for command in (
            f"ip link add pyt-out type veth peer name eth0 netns {process.pid}",
            f"ip addr add {OUR_SIDE}/24 dev pyt-out",
            "ip link set pyt-out up",
            f"nsenter -t {process.pid} -n ip addr add {OUTSIDE}/24 dev eth0",
            f"nsenter -t {process.pid} -n ip link set eth0 up",
        ):
            subprocess.run(command.split(), check=True, timeout=10)
        yield fd
        os.close(fd)
    finally:
        process.kill()
        process.wait()
        subprocess.run(
            ["ip", "link", "del", "pyt-out"], check=False, capture_output=True
        )


def _namespace_of(pid: int) -> int:
    own = Path("/proc/self/ns/net").stat().st_ino
    while True:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        if os.fstat(fd).st_ino != own:
            return fd
        os.close(fd)


def socket_in(namespace: int) -> socket.socket:
    """Return a TCP socket that lives in another network namespace."""
    made: list[socket.socket] = []

    def make() -> None:
        assert ctypes.CDLL(None).setns(namespace, 0) == 0
        made.append(socket.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(3)
    return made[0]


def load(running: RunningContainerd, **parts: object) -> None:
    run_nft(decide_ruleset(running.facts, **parts))


async def test_host_port_is_reached_on_every_address_of_the_host(running):
    async with connect(running) as services:
        pod = await start_pod(running, services, "web")
        load(running, ports=[HostPort(18080, "TCP", (pod.ip, 8080))])

        assert get("127.0.0.1", 18080) == "web"
        assert get(str(running.row.gateway.ip), 18080) == "web"
        assert await pod.get(f"{running.row.gateway.ip}:18080") == "web"
        with outside() as namespace, socket_in(namespace) as client:
            client.connect((OUR_SIDE, 18080))
            client.send(b"GET /hostname HTTP/1.0\r\n\r\n")
            assert b"web" in client.makefile("rb").read()


async def test_host_port_with_an_address_answers_only_there(running):
    async with connect(running) as services:
        pod = await start_pod(running, services, "local")
        port = HostPort(18081, "TCP", (pod.ip, 8080), host_ip="127.0.0.1")
        load(running, ports=[port])

        assert get("127.0.0.1", 18081) == "local"
        with pytest.raises(ConnectionRefusedError):
            get(str(running.row.gateway.ip), 18081)


async def test_cluster_ip_is_reached_from_host_and_pods(running):
    cluster_ip = str(running.row.service_cidr[20])
    async with connect(running) as services:
        one = await start_pod(running, services, "one")
        two = await start_pod(running, services, "two")
        rule = ServiceRule((cluster_ip,), 80, "TCP", ((one.ip, 8080), (two.ip, 8080)))
        load(running, services=[rule])

        from_host = {get(cluster_ip, 80) for _ in range(20)}
        from_pod = {await one.get(f"{cluster_ip}:80") for _ in range(12)}

    assert from_host == {"one", "two"}
    assert from_pod == {"one", "two"}


async def test_pods_reach_each_other_without_br_netfilter(running):
    cluster_ip = str(running.row.service_cidr[21])
    facts = NetworkFacts(
        running.facts.table,
        running.facts.bridge,
        running.facts.pod_cidr,
        running.facts.service_cidr,
        bridged_packets_are_filtered=False,
    )
    async with connect(running) as services:
        server = await start_pod(running, services, "server")
        client = await start_pod(running, services, "client")
        rule = ServiceRule((cluster_ip,), 80, "TCP", ((server.ip, 8080),))
        run_nft(decide_ruleset(facts, services=[rule]))

        assert await client.get(f"{cluster_ip}:80") == "server"
        assert await server.get(f"{cluster_ip}:80") == "server"


async def test_pod_reaches_a_server_of_the_host_through_a_service(running):
    cluster_ip = running.row.kubernetes_service_ip
    gateway = str(running.row.gateway.ip)
    server = socket.create_server((gateway, 0))
    rule = ServiceRule((cluster_ip,), 443, "TCP", ((gateway, server.getsockname()[1]),))

    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.send(b"HTTP/1.0 200 OK\r\n\r\nthe host\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with server:
        async with connect(running) as services:
            pod = await start_pod(running, services, "client")
            load(running, services=[rule])

            assert await pod.get(f"{cluster_ip}:443") == "the host"
            assert get(cluster_ip, 443) == "the host"
        thread.join()


async def test_unknown_cluster_ip_is_refused_at_once(running):
    load(running)
    async with connect(running) as services:
        pod = await start_pod(running, services, "client")
        nobody = str(running.row.service_cidr[99])

        with pytest.raises(ConnectionRefusedError):
            get(nobody, 80)
        result = await services.runtime.exec_sync(
            pod.container_id, ["nc", "-w", "3", nobody, "80"], timeout_s=10
        )
        assert b"refused" in result.stderr


async def test_pods_leave_the_host_with_its_address(running):
    load(running)
    async with connect(running) as services:
        pod = await start_pod(running, services, "client")
        with outside() as namespace, socket_in(namespace) as server:
            server.bind((OUTSIDE, 9000))
            server.listen()
            seen: list[str] = []

            def answer() -> None:
                connection, (address, _) = server.accept()
                seen.append(address)
                with connection:
                    connection.recv(1000)
                    connection.send(b"HTTP/1.0 200 OK\r\n\r\noutside\n")

            thread = threading.Thread(target=answer)
            thread.start()
            assert await pod.get(f"{OUTSIDE}:9000") == "outside"
            thread.join()

    assert seen == [OUR_SIDE]


async def test_pods_do_not_reach_loopback_servers_of_the_host(running):
    load(running)
    async with connect(running) as services:
        pod = await start_pod(running, services, "client")
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(1.5)
            port = server.getsockname()[1]
            await pod.run("ip", "route", "add", "127.0.0.2", "via", pod.ip)
            await pod.run("nc", "-w", "1", "127.0.0.2", str(port))
            with pytest.raises(TimeoutError):
                server.accept()


async def test_ruleset_is_loaded_only_when_it_changed(running):
    nftables = Nftables(running.facts.table)
    table = decide_table(running.facts)

    assert await nftables.apply(table)
    assert not await nftables.apply(table)


async def test_refused_ruleset_leaves_the_old_one(running):
    load(running)
    nftables = Nftables(running.facts.table)

    with pytest.raises(NftablesError, match="syntax error"):
        await nftables.apply(Table("x", {}, {}, {"c": ("nonsense",)}))

    assert running.facts.table in list_tables()


def test_bridge_is_made_once_and_has_address_and_route(running):
    config = bridge_config(running.row)

    assert not ensure_bridge(config)

    with Netlink() as netlink:
        link = netlink.link(config.name)
        assert link is not None
        assert link.kind == "bridge"
        assert link.is_up
        interfaces = [
            address.interface
            for address in netlink.addresses()
            if address.link_index == link.index
        ]
        networks = {
            route.network
            for route in netlink.routes()
            if route.link_index == link.index
        }
    assert interfaces == [running.row.gateway]
    assert networks == {running.row.pod_cidr, running.row.service_cidr}
    localnet = Path(f"/proc/sys/net/ipv4/conf/{config.name}/route_localnet")
    assert localnet.read_text() == "1\n"


def test_removing_a_bridge_that_is_not_there_is_fine():
    assert not remove_bridge("pyt-none")
