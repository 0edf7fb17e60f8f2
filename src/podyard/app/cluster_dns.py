"""The built-in DNS, made from what the node follows."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from podyard.app.config import Config
from podyard.app.instances import Instance
from podyard.app.resolv_conf import read_resolv_conf
from podyard.network.dns.decide import DnsSettings
from podyard.network.dns.names import ClusterNames
from podyard.network.dns.sockets import DnsSockets, wait_first_question

if TYPE_CHECKING:
    from podyard.network.dns.server import DnsServer

log = structlog.get_logger()


def dns_servers_of_pods(
    config: Config, row: Instance, sockets: DnsSockets | None
) -> tuple[str, ...]:
    """Return the DNS servers of Pods: those asked for, or our own."""
    if config.cluster_dns or sockets is None:
        return config.cluster_dns
    return (row.cluster_dns_ip,)


def dns_loop(
    config: Config,
    row: Instance,
    sockets: DnsSockets | None,
    names: ClusterNames,
    wait_named: Callable[[], Awaitable[object]],
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the server as a loop of the node, nothing when it is switched off.

    Args:
        config: what a person chose.
        row: what the instance owns.
        sockets: where it listens.
        names: the names of the cluster.
        wait_named: waits until all of them are known.
    """
    if sockets is None:
        return {}
    return {"dns": partial(_serve, config, row, sockets, names, wait_named)}


async def _serve(
    config: Config,
    row: Instance,
    sockets: DnsSockets,
    names: ClusterNames,
    wait_named: Callable[[], Awaitable[object]],
) -> None:
    await wait_first_question(sockets)
    server = await asyncio.to_thread(_make_server, config, row, names)
    await server.run(sockets, wait_ready=wait_named)


def _make_server(config: Config, row: Instance, names: ClusterNames) -> "DnsServer":
    # Megabytes that an instance whose Pods ask nothing need not hold.
    from podyard.network.dns.forward import Forwarder  # noqa: PLC0415
    from podyard.network.dns.server import DnsServer  # noqa: PLC0415

    settings = DnsSettings(
        config.cluster_domain.lower(),
        row.cluster_dns_ip,
        (*row.pod_cidrs, *row.service_cidrs),
    )
    chance = random.Random()  # noqa: S311 - spreads load, hides nothing
    forwarder = Forwarder(partial(_resolvers, config, row))
    return DnsServer(settings, names, forwarder, chance=chance)


def _resolvers(config: Config, row: Instance) -> tuple[str, ...]:
    """Return the host's own resolvers; we are none of them (blocking)."""
    ours = {row.cluster_dns_ip, *row.node_ips}
    servers = read_resolv_conf(config.resolv_conf).servers
    return tuple(server for server in servers if server not in ours)
