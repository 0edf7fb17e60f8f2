"""The Pod bridge: made before the first Pod, gone after the last.

The bridge's address is the node's IP, and servers listen there, so it cannot wait for
the first Pod. The service CIDR is routed to the bridge as well: a packet of the host
to a ClusterIP then has a way to go, and is rewritten before it goes.
"""

import fcntl
import ipaddress
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from podyard.lib.values import dataclass
from podyard.network.netlink import Link, Netlink

log = structlog.get_logger()

_SYSCTLS = Path("/proc/sys")


class BridgeError(Exception):
    """The Pod network could not be made; the message says what stood in the way."""


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """The Pod bridge of one instance.

    Attributes:
        name: the device, at most 15 characters.
        gateway: its address with the Pod CIDR's prefix.
        service_cidr: routed to it.
        gateway_6: likewise of IPv6; ``None`` for IPv4 alone.
        service_cidr_6: routed to it, too.
    """

    name: str
    gateway: ipaddress.IPv4Interface
    service_cidr: ipaddress.IPv4Network
    gateway_6: ipaddress.IPv6Interface | None = None
    service_cidr_6: ipaddress.IPv6Network | None = None


def ensure_bridge(config: BridgeConfig) -> bool:
    """Make the bridge with its address and route, idempotently (blocking).

    Returns:
        Whether the bridge had to be made.

    Raises:
        BridgeError: not permitted, or a device of that name is no bridge.
    """
    try:
        with Netlink() as netlink:
            return _ensure(netlink, config)
    except OSError as error:
        raise BridgeError(
            f"the bridge {config.name} ({config.gateway}) cannot be set up: "
            f"{error.strerror}"
        ) from error


def _ensure(netlink: Netlink, config: BridgeConfig) -> bool:
    link = netlink.link(config.name)
    made = link is None
    if link is None:
        with suppress(FileExistsError):
            netlink.add_link(config.name, "bridge", mac=_mac(config.gateway.ip))
        link = netlink.link(config.name)
    if link is None or link.kind != "bridge":
        raise BridgeError(f"the device {config.name} exists and is no bridge")
    with suppress(FileNotFoundError):  # a kernel without IPv6
        # A Pod that says it is a router does not become ours.
        _write_sysctl(f"net/ipv6/conf/{config.name}/accept_ra", "0")
    netlink.add_address(link.index, config.gateway)
    if config.gateway_6 is not None:
        netlink.add_address(link.index, config.gateway_6)
    netlink.set_up(link.index)
    netlink.replace_route(config.service_cidr, link.index)
    if config.service_cidr_6 is not None:
        netlink.replace_route(config.service_cidr_6, link.index)
    # hostPort on 127.0.0.1: the rewritten packet leaves with a loopback source until
    # it is masqueraded. Our table drops loopback addresses coming from the bridge.
    _write_sysctl(f"net/ipv4/conf/{config.name}/route_localnet", "1")
    return made


def remove_bridge(name: str) -> bool:
    """Remove the bridge and the devices still plugged into it (blocking).

    Returns:
        Whether there was anything to remove.
    """
    with Netlink() as netlink:
        bridge = netlink.link(name)
        if bridge is None:
            return False
        for link in netlink.links():
            if link.master == bridge.index:
                with suppress(OSError):
                    netlink.delete_link(link.index)
        with suppress(OSError):
            netlink.delete_link(bridge.index)
        return True


def bridged_packets_are_filtered() -> bool:
    """Tell whether the kernel shows bridged IPv4 packets to nftables (br_netfilter)."""
    try:
        path = _SYSCTLS / "net/bridge/bridge-nf-call-iptables"
        return path.read_text().strip() == "1"
    except OSError:
        return False


def _mac(address: ipaddress.IPv4Address) -> bytes:
    """Return a MAC that stays: without one a bridge changes it with its ports."""
    return b"\x0a\x58" + address.packed


def has_ipv6() -> bool:
    """Tell whether the kernel takes part in IPv6 (blocking)."""
    try:
        switched_off = _SYSCTLS / "net/ipv6/conf/all/disable_ipv6"
        default_off = _SYSCTLS / "net/ipv6/conf/default/disable_ipv6"
        return switched_off.read_text() == default_off.read_text() == "0\n"
    except OSError:
        return False


def forwarding_6() -> dict[str, str]:
    """Return the kernel settings that forward IPv6 at no cost to the host (blocking).

    A kernel that forwards no longer listens to routers, and drops the routes it has of
    them, unless a device is set to listen all the same. The host's own devices that
    listen are; bridges, and what is plugged into one, lead to no router.
    """
    settings: dict[str, str] = {}
    if (_SYSCTLS / "net/ipv6/conf/all/forwarding").read_text().strip() == "1":
        return settings
    with Netlink() as netlink:
        devices = [link.name for link in netlink.links() if _is_a_way_out(link)]
    for device in devices:
        name = f"net/ipv6/conf/{device}/accept_ra"
        with suppress(OSError):  # a device that is just going
            if (_SYSCTLS / name).read_text().strip() == "1":
                settings[name] = "2"
    return settings | {"net/ipv6/conf/all/forwarding": "1"}


def _is_a_way_out(link: Link) -> bool:
    plugged = bool(link.master) or link.kind == "bridge"
    return link.is_up and not plugged and link.name != "lo"


class HostSysctls:
    """Kernel settings that several instances need and that were not ours to begin with.

    The value found first is kept in a file, and put back when the last instance goes.
    """

    def __init__(self, file: Path) -> None:
        """Keep the old values in ``file``, which all instances share."""
        self._file = file

    def ensure(self, wanted: Mapping[str, str]) -> None:
        """Set what differs, e.g. ``{"net/ipv4/ip_forward": "1"}`` (blocking).

        Raises:
            BridgeError: the kernel refused.
        """
        with self._locked() as found:
            for name, value in wanted.items():
                try:
                    now = (_SYSCTLS / name).read_text().strip()
                except FileNotFoundError:
                    continue  # a device that is gone
                if now == value:
                    continue
                found.setdefault(name, {"was": now, "set": value})
                try:
                    _write_sysctl(name, value)
                except OSError as error:
                    raise BridgeError(
                        f"the kernel setting {name} cannot be set to {value}: "
                        f"{error.strerror}"
                    ) from error

    def restore(self) -> None:
        """Put back what we set and nobody changed since (blocking)."""
        with self._locked() as found:
            for name, values in found.items():
                with suppress(OSError):
                    if (_SYSCTLS / name).read_text().strip() == values["set"]:
                        _write_sysctl(name, values["was"])
            found.clear()
        self._file.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, dict[str, str]]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            try:
                found = json.loads(file.read() or "{}")
            except ValueError:
                log.warning("sysctl_record_damaged", file=str(self._file))
                found = {}
            yield found
            file.seek(0)
            file.truncate()
            file.write(json.dumps(found))


def _write_sysctl(name: str, value: str) -> None:
    (_SYSCTLS / name).write_text(value)
