"""The allocation table: what one instance has, no other gets."""

import ipaddress
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podyard.app.instances import (
    Instance,
    InstanceError,
    InstanceTable,
    Wishes,
    check_name,
    parse_instance,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def run_dir() -> Iterator[Path]:
    # Socket paths are short, and pytest's directories are not.
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "run"


@pytest.fixture
def table(run_dir) -> InstanceTable:
    return InstanceTable(run_dir)


def allocate(table: InstanceTable, tmp_path: Path, name: str, **wishes) -> Instance:
    wishes = {"api_port": 0, "node_port": 0} | wishes
    return table.allocate(name, Wishes(tmp_path / "data" / name, **wishes))


def test_instances_share_nothing(table, tmp_path):
    rows = [allocate(table, tmp_path, name) for name in ("a", "b", "c")]

    for field in ("bridge", "pod_cidr", "service_cidr", "node_port_range", "run_dir"):
        assert len({getattr(row, field) for row in rows}) == 3
    ports = [port for row in rows for port in (row.api_port, row.node_port)]
    assert len(set(ports)) == 6
    networks = [n for row in rows for n in (row.pod_cidr, row.service_cidr)]
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)


def test_ipv6_ranges_are_given_where_they_are_wished_for(table, tmp_path):
    plain = allocate(table, tmp_path, "a")
    rows = [allocate(table, tmp_path, name, ipv6=True) for name in ("b", "c")]
    again = allocate(table, tmp_path, "b", ipv6=True)
    with pytest.raises(InstanceError, match="podyard down"):
        allocate(table, tmp_path, "b")
    table.release("b")
    without = allocate(table, tmp_path, "b")

    assert (plain.pod_cidrs, plain.gateway_6) == ((str(plain.pod_cidr),), None)
    assert again == rows[0] == parse_instance(rows[0].to_json())
    networks = [n for row in rows for n in (row.pod_cidr_6, row.service_cidr_6)]
    assert all(network.is_private for network in networks)
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    assert rows[0].node_ips == (str(rows[0].pod_cidr[1]), str(rows[0].pod_cidr_6[1]))
    assert len(without.service_cidrs) == 1


def test_ranges_may_be_wished_for(table, tmp_path):
    wished = {
        "ipv6": True,
        "pod_cidrs": ("198.18.8.0/24", "fd98:1::/64"),
        "service_cidrs": ("198.18.9.0/24",),
    }
    row = allocate(table, tmp_path, "a", **wished)

    assert row.pod_cidrs == ("198.18.8.0/24", "fd98:1::/64")
    assert row.service_cidr == ipaddress.ip_network("198.18.9.0/24")
    assert row.service_cidr_6 is not None
    assert allocate(table, tmp_path, "a", **wished) == row
    with pytest.raises(InstanceError, match=r"Pods .* run with addresses of 198.18.8"):
        allocate(table, tmp_path, "a", pod_cidrs=("198.18.7.0/24",))
    for taken in ("198.18.8.128/25", "127.0.0.0/8"):
        with pytest.raises(InstanceError, match=f"--pod-cidr {taken}: overlaps"):
            allocate(table, tmp_path, "b", pod_cidrs=(taken,))
    with pytest.raises(InstanceError, match="--service-cidr fd98:1::/112: overlaps"):
        allocate(
            table,
            tmp_path,
            "b",
            ipv6=True,
            service_cidrs=("198.18.6.0/24", "fd98:1::/112"),
        )
    table.release("a")
    assert allocate(table, tmp_path, "a", pod_cidrs=("198.18.7.0/24",)).pod_cidrs == (
        "198.18.7.0/24",
    )


def test_first_instance_has_the_node_ports_of_every_kubernetes(table, tmp_path):
    assert allocate(table, tmp_path, "a").node_port_range == (30000, 32767)


def test_row_is_kept_while_held_and_after(table, tmp_path):
    row = allocate(table, tmp_path, "a")

    assert allocate(table, tmp_path, "a") == row
    assert table.get("a") == row
    assert table.release("a")
    assert table.get("a") is None
    again = allocate(table, tmp_path, "a")

    assert again == row


def test_addresses_taken_meanwhile_are_replaced(table, tmp_path):
    row = allocate(table, tmp_path, "a")
    table.release("a")
    thief = allocate(table, tmp_path, "b")

    again = allocate(table, tmp_path, "a")

    assert thief.pod_cidr == row.pod_cidr
    assert again.pod_cidr != row.pod_cidr
    assert again.node_port_range != thief.node_port_range


def test_row_survives_its_text(table, tmp_path):
    row = allocate(table, tmp_path, "a")

    assert parse_instance(row.to_json()) == row


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": "a"}', "null"])
def test_other_text_is_no_row(text):
    with pytest.raises(ValueError, match=r"row|Expecting"):
        parse_instance(text)


def test_damaged_row_is_left_out(table, run_dir, tmp_path):
    allocate(table, tmp_path, "a")
    allocate(table, tmp_path, "b")
    (run_dir / "instances/a.json").write_text("{")

    assert [row.name for row in table.list()] == ["b"]


def test_data_dir_of_another_instance_is_refused(table, tmp_path):
    allocate(table, tmp_path, "a")

    with pytest.raises(InstanceError, match="belongs to the instance 'a'"):
        table.allocate("b", Wishes(tmp_path / "data" / "a"))


def test_another_data_dir_for_a_running_instance_is_refused(table, tmp_path):
    allocate(table, tmp_path, "a")

    with pytest.raises(InstanceError, match="in use with --data-dir"):
        table.allocate("a", Wishes(tmp_path / "elsewhere"))


def test_port_in_use_is_refused_by_name(table, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(InstanceError, match=f"--port {port}: is in use"):
            allocate(table, tmp_path, "a", api_port=port)


def test_port_of_another_instance_is_refused(table, tmp_path):
    row = allocate(table, tmp_path, "a")

    with pytest.raises(InstanceError, match="belongs to another instance"):
        allocate(table, tmp_path, "b", node_port=row.api_port)


def test_wished_port_is_given_and_kept_without_a_wish(table, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    row = allocate(table, tmp_path, "a", api_port=port)
    table.release("a")

    again = allocate(table, tmp_path, "a")

    assert row.api_port == again.api_port == port


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a.b", "../x", "a" * 64, "instances"]
)
def test_names_that_cannot_name_things_are_refused(name):
    with pytest.raises(InstanceError, match="--name"):
        check_name(name)


def test_long_names_get_short_devices_and_sockets(table, tmp_path):
    one, two = "x" * 13 + "a", "x" * 13 + "b"
    rows = [allocate(table, tmp_path, name) for name in (one, two)]

    assert all(len(row.bridge) <= 15 for row in rows)
    assert rows[0].bridge != rows[1].bridge


def test_socket_path_that_is_too_long_is_told(tmp_path):
    table = InstanceTable(tmp_path / ("d" * 60))

    with pytest.raises(InstanceError, match="longer than a socket path may be"):
        allocate(table, tmp_path, "n" * 40)


def test_host_routes_are_left_alone(table, tmp_path):
    row = allocate(table, tmp_path, "a")
    routes = Path("/proc/net/route").read_text().splitlines()[1:]

    for line in routes:
        destination, mask = line.split()[1], line.split()[7]
        if mask == "00000000":
            continue
        network = int.from_bytes(bytes.fromhex(destination)[::-1], "big")
        first = int(row.pod_cidr.network_address)
        bits = int.from_bytes(bytes.fromhex(mask)[::-1], "big")
        assert first & bits != network


def test_last_row_takes_the_directory_along(table, run_dir, tmp_path):
    allocate(table, tmp_path, "a")
    allocate(table, tmp_path, "b")
    called = []
    for name in ("a", "b"):
        (run_dir / name).rmdir()

    assert not table.release("a", when_last=lambda: called.append("a"))
    assert table.release("b", when_last=lambda: called.append("b"))

    assert called == ["b"]
    assert not run_dir.exists()


def test_instances_that_start_at_once_get_different_addresses(table, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda n: allocate(table, tmp_path, f"i{n}"), range(8)))

    assert len({row.pod_cidr for row in rows}) == 8
