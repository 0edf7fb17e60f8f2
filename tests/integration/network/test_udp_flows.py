"""UDP flows are seen and forgotten, in a network namespace of the test's own."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from podyard.network.bridge import has_ipv6
from podyard.network.conntrack import forget_flows, udp_flows
from podyard.network.nftables import run_nft

pytestmark = pytest.mark.integration

_NEW_NETWORK = 0x40000000
#: Without a rule that asks for states the kernel keeps none.
TRACKING = """
table inet tracks {
  chain c {
    type filter hook output priority 0;
    ct state new accept
  }
}
"""


@pytest.fixture
def own_network() -> Iterator[None]:
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None)
    assert libc.unshare(_NEW_NETWORK) == 0
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        run_nft(TRACKING)
        yield
    finally:
        assert libc.setns(before, 0) == 0
        os.close(before)


@pytest.mark.parametrize(
    ("version", "family", "ip"),
    [
        pytest.param(4, socket.AF_INET, "127.0.0.1", id="ipv4"),
        pytest.param(
            6,
            socket.AF_INET6,
            "::1",
            marks=pytest.mark.skipif(not has_ipv6(), reason="the kernel has no IPv6"),
            id="ipv6",
        ),
    ],
)
def test_a_flow_is_seen_and_forgotten_once(own_network, version, family, ip):
    with (
        socket.socket(family, socket.SOCK_DGRAM) as client,
        socket.socket(family, socket.SOCK_DGRAM) as server,
    ):
        for one in (client, server):
            one.bind((ip, 0))
        client.sendto(b"x", server.getsockname()[:2])

        seen = udp_flows(version)

        (flow,) = seen
        assert flow.source == client.getsockname()[:2]
        assert flow.to == flow.answers == server.getsockname()[:2]
        assert forget_flows(seen) == 1
        assert udp_flows(version) == ()
        assert forget_flows(seen) == 0
