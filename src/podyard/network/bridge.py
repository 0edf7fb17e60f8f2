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
from podyard.network.netlink import Netlink

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
    """

    name: str
    gateway: ipaddress.IPv4Interface
    service_cidr: ipaddress.IPv4Network


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
    netlink.add_address(link.index, config.gateway)
    netlink.set_up(link.index)
    netlink.replace_route(config.service_cidr, link.index)
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
                now = (_SYSCTLS / name).read_text().strip()
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
