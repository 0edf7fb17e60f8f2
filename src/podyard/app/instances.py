"""Which instance owns what of this machine: one row a name, taken under a lock.

A row stands in ``/run/podyard/instances`` while the instance holds its things, and
a copy in the data directory, so that the next start gets the same addresses. Rows are
given back only after everything they name has been removed from the machine.
"""

import errno
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Final

import structlog

from podyard.lib.values import dataclass
from podyard.network.netlink import Netlink

log = structlog.get_logger()

#: Where the rows of this machine are kept.
RUN_DIR: Final = Path("/run/podyard")

#: The ports that are taken where they are free.
USUAL_API_PORT: Final = 6443
USUAL_NODE_PORT: Final = 10250

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MAX_SOCKET_PATH: Final = 107
_MAX_DEVICE_NAME: Final = 15
_POD_POOLS: Final = ("10.88.0.0/16", "10.42.0.0/16", "172.30.0.0/16", "10.200.0.0/16")
_POD_PREFIX: Final = 24
#: Of a /48 of our own (RFC 4193): Pods have one /64, Services the start of another.
_POD_PREFIX_6: Final = 64
_SERVICE_PREFIX_6: Final = 112
_TRIES: Final = 100
_SERVICE_POOLS: Final = ("10.96.0.0/12", "10.43.0.0/16", "172.31.0.0/16")
_SERVICE_PREFIX: Final = 20
#: The first instance has the range every Kubernetes has; others a slice below it.
_NODE_PORT_RANGES: Final = (
    (30000, 32767),
    *((first, first + 499) for first in range(20000, 30000, 500)),
)


class InstanceError(Exception):
    """The instance cannot have what it needs; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person asked for.

    Attributes:
        api_port: ``None`` for the usual one where it is free, 0 for any free one.
        node_port: likewise, of the node's own endpoints.
        ipv6: whether Pods and Services are to have IPv6 addresses, too.
        pod_cidrs: the addresses of Pods, at most one range a family; those that are
            left out are chosen.
        service_cidrs: likewise, the ClusterIPs.
    """

    data_dir: Path
    api_port: int | None = None
    node_port: int | None = None
    ipv6: bool = False
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One row: everything an instance owns outside (and where inside) its data dir."""

    name: str
    data_dir: Path
    run_dir: Path
    bridge: str
    pod_cidr: ipaddress.IPv4Network
    service_cidr: ipaddress.IPv4Network
    node_port_range: tuple[int, int]
    api_port: int
    node_port: int
    pod_cidr_6: ipaddress.IPv6Network | None = None
    service_cidr_6: ipaddress.IPv6Network | None = None

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The addresses of Pods, IPv4 first."""
        return tuple(str(net) for net in (self.pod_cidr, self.pod_cidr_6) if net)

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """The ClusterIPs, IPv4 first."""
        both = (self.service_cidr, self.service_cidr_6)
        return tuple(str(net) for net in both if net)

    @property
    def node_ips(self) -> tuple[str, ...]:
        """The node's addresses, IPv4 first."""
        both = (self.gateway, self.gateway_6)
        return tuple(str(address.ip) for address in both if address)

    @property
    def gateway_6(self) -> ipaddress.IPv6Interface | None:
        """The bridge's IPv6 address; ``None`` for IPv4 alone."""
        if self.pod_cidr_6 is None:
            return None
        return ipaddress.IPv6Interface((self.pod_cidr_6[1], self.pod_cidr_6.prefixlen))

    @property
    def gateway(self) -> ipaddress.IPv4Interface:
        """The bridge's address, which is the node's IP."""
        return ipaddress.IPv4Interface((self.pod_cidr[1], self.pod_cidr.prefixlen))

    @property
    def kubernetes_service_ip(self) -> str:
        """The ClusterIP of the ``kubernetes`` Service."""
        return str(self.service_cidr[1])

    @property
    def cluster_dns_ip(self) -> str:
        """The ClusterIP that DNS is to have."""
        return str(self.service_cidr[10])

    @property
    def cgroup_root(self) -> str:
        """The cgroup below which all of its Pods live."""
        return f"/podyard-{self.name}"

    @property
    def nft_table(self) -> str:
        """Its nftables table, of family inet."""
        return f"podyard-{self.name}"

    @property
    def network(self) -> str:
        """The name of its CNI network."""
        return f"podyard-{self.name}"

    @property
    def control_socket(self) -> Path:
        """Where ``podyard status`` and ``down`` reach it."""
        return self.run_dir / "control.sock"

    @property
    def containerd_socket(self) -> Path:
        """Where its private containerd listens."""
        return self.run_dir / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        """Mounts and sockets of running tasks."""
        return self.run_dir / "containerd"

    @property
    def runc_root(self) -> Path:
        """Where runc keeps its state."""
        return self.run_dir / "runc"

    @property
    def cni_state_dir(self) -> Path:
        """Where host-local keeps the addresses in use."""
        return self.run_dir / "cni"

    @property
    def containerd_root(self) -> Path:
        """Images and container layers."""
        return self.data_dir / "containerd"

    @property
    def runtime_dir(self) -> Path:
        """Config, log and pid file of the runtime."""
        return self.data_dir / "runtime"

    def to_json(self) -> str:
        """Return the row as it is kept."""
        values = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }
        return json.dumps(values, default=str, indent=1) + "\n"


def parse_instance(text: str) -> Instance:
    """Return a row that was kept.

    Raises:
        ValueError: this is no row.
    """
    try:
        values = json.loads(text)
        first, last = values["node_port_range"]
        return Instance(
            name=str(values["name"]),
            data_dir=Path(values["data_dir"]),
            run_dir=Path(values["run_dir"]),
            bridge=str(values["bridge"]),
            pod_cidr=ipaddress.IPv4Network(values["pod_cidr"]),
            service_cidr=ipaddress.IPv4Network(values["service_cidr"]),
            node_port_range=(int(first), int(last)),
            api_port=int(values["api_port"]),
            node_port=int(values["node_port"]),
            pod_cidr_6=_network_6(values.get("pod_cidr_6")),
            service_cidr_6=_network_6(values.get("service_cidr_6")),
        )
    except (KeyError, TypeError) as error:
        known = ", ".join(field.name for field in fields(Instance))
        raise ValueError(f"not an instance row ({known}): {error!r}") from error


def _network_6(text: str | None) -> ipaddress.IPv6Network | None:
    return ipaddress.IPv6Network(text) if text else None


class InstanceTable:
    """The rows of this machine."""

    def __init__(self, run_dir: Path = RUN_DIR) -> None:
        """Keep the rows under ``run_dir``, which must not survive a reboot."""
        self._run_dir = run_dir
        self._rows_dir = run_dir / "instances"

    @property
    def sysctl_record(self) -> Path:
        """Where kernel settings changed for all instances are noted."""
        return self._run_dir / "sysctls.json"

    def list(self) -> tuple[Instance, ...]:
        """Return all rows, by name; a damaged one is left out with a log line."""
        rows = []
        for file in sorted(self._rows_dir.glob("*.json")):
            row = _read(file)
            if row is not None:
                rows.append(row)
        return tuple(rows)

    def get(self, name: str) -> Instance | None:
        """Return the row of that name while the instance holds it."""
        return _read(self._rows_dir / f"{name}.json")

    def allocate(self, name: str, wishes: Wishes) -> Instance:
        """Return the instance's row, made now where there is none.

        What it had before is kept as long as nobody else took it meanwhile.

        Raises:
            InstanceError: a bad name, a port in use, another data dir, no address free.
        """
        check_name(name)
        with self._locked():
            others = [row for row in self.list() if row.name != name]
            held = self.get(name)
            if held is not None and held.data_dir != wishes.data_dir:
                raise InstanceError(
                    f"the instance {name!r} is in use with --data-dir {held.data_dir}; "
                    "give another --name, or end it with 'podyard down'"
                )
            for other in others:
                if other.data_dir == wishes.data_dir:
                    raise InstanceError(
                        f"--data-dir {wishes.data_dir} belongs to the instance "
                        f"{other.name!r}, which is in use"
                    )
            row = self._choose(name, wishes, others, held)
            self._rows_dir.mkdir(parents=True, exist_ok=True)
            row.run_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
            wishes.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(self._rows_dir / f"{name}.json", row.to_json())
            _write(wishes.data_dir / "instance.json", row.to_json())
        return row

    def release(
        self, name: str, *, when_last: Callable[[], object] = lambda: None
    ) -> bool:
        """Give a row back; tell whether it was the last of this machine.

        Args:
            name: the instance.
            when_last: called when no row is left, before anybody can take a new one;
                then the run directory goes too.
        """
        if not self._rows_dir.is_dir():
            return True
        with self._locked():
            (self._rows_dir / f"{name}.json").unlink(missing_ok=True)
            if any(self._rows_dir.glob("*.json")):
                return False
            when_last()
            self._lock_file.unlink(missing_ok=True)
            for directory in (self._rows_dir, self._run_dir):
                with suppress(OSError):  # not empty: somebody else's
                    directory.rmdir()
        return True

    @property
    def _lock_file(self) -> Path:
        return self._rows_dir / ".lock"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        while True:
            try:
                self._rows_dir.mkdir(parents=True, exist_ok=True)
                lock = self._lock_file.open("w")
            except FileNotFoundError:
                continue  # the last one is just going
            except OSError as error:
                raise InstanceError(
                    f"{self._rows_dir} cannot be written ({error.strerror}); "
                    "Podyard runs as root"
                ) from error
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_same(lock.fileno(), self._lock_file):
                    continue  # removed while we waited
                yield
                return

    def _choose(
        self,
        name: str,
        wishes: Wishes,
        others: Sequence[Instance],
        held: Instance | None,
    ) -> Instance:
        before = held or _read(wishes.data_dir / "instance.json")
        bridge = _bridge_name(name)
        used = _host_networks(besides=bridge)
        used += [net for row in others for net in (row.pod_cidr, row.service_cidr)]
        pods = (
            _wished_4("--pod-cidr", wishes.pod_cidrs, used)
            or _keep(before.pod_cidr if before else None, used)
            or _free(_POD_POOLS, _POD_PREFIX, used, "Pods")
        )
        used.append(pods)
        services = (
            _wished_4("--service-cidr", wishes.service_cidrs, used)
            or _keep(before.service_cidr if before else None, used)
            or _free(_SERVICE_POOLS, _SERVICE_PREFIX, used, "Services")
        )
        pods_6, services_6 = _choose_6(name, wishes, others, before)
        if held is not None and _differs(held, wishes):
            raise InstanceError(
                f"the Pods of the instance {name!r} run with addresses of "
                f"{', '.join(held.pod_cidrs)}; end it with 'podyard down' to give it "
                "others"
            )
        run_dir = self._run_dir / name
        row = Instance(
            name=name,
            data_dir=wishes.data_dir,
            run_dir=run_dir,
            bridge=bridge,
            pod_cidr=pods,
            service_cidr=services,
            node_port_range=_node_ports(before, others),
            api_port=0,
            node_port=0,
            pod_cidr_6=pods_6,
            service_cidr_6=services_6,
        )
        longest = f"{row.containerd_socket}.ttrpc"
        if len(longest) > _MAX_SOCKET_PATH:
            raise InstanceError(
                f"{longest} is longer than a socket path may be ({_MAX_SOCKET_PATH})"
            )
        taken = {port for other in others for port in (other.api_port, other.node_port)}
        api_port = _port(
            "--port",
            wishes.api_port,
            USUAL_API_PORT,
            taken,
            held.api_port if held else None,
            before.api_port if before else None,
        )
        node_port = _port(
            "--node-port",
            wishes.node_port,
            USUAL_NODE_PORT,
            taken | {api_port},
            held.node_port if held else None,
            before.node_port if before else None,
        )
        return replace(row, api_port=api_port, node_port=node_port)


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def check_name(name: str) -> None:
    """Refuse a name that cannot name cgroups, devices and directories.

    Raises:
        InstanceError: it is no DNS label, or one Podyard uses itself.
    """
    if not _LABEL.fullmatch(name):
        raise InstanceError(
            f"--name {name!r}: must be lower-case letters, digits and '-', begin and "
            "end with a letter or digit, and have at most 63 characters"
        )
    if name == "instances":
        raise InstanceError(f"--name {name!r}: this name is reserved")


def _bridge_name(name: str) -> str:
    whole = f"pyd-{name}"
    if len(whole) <= _MAX_DEVICE_NAME:
        return whole
    # The dot cannot stand in a name, so a shortened name never meets a whole one.
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"pyd-{name[:4]}.{digest}"


def _host_networks(*, besides: str) -> list[ipaddress.IPv4Network]:
    """Return what the host routes or has, the default route and our bridge left out."""
    with Netlink() as netlink:
        own = {link.index for link in netlink.links() if link.name == besides}
        found = [
            route.network
            for route in netlink.routes()
            if route.network.prefixlen and route.link_index not in own
        ]
        found += [
            address.interface.network
            for address in netlink.addresses()
            if address.link_index not in own
        ]
    return [net for net in found if isinstance(net, ipaddress.IPv4Network)]


def _choose_6(
    name: str, wishes: Wishes, others: Sequence[Instance], before: Instance | None
) -> tuple[ipaddress.IPv6Network | None, ipaddress.IPv6Network | None]:
    """Return the IPv6 ranges of Pods and Services; nothing where none are wished."""
    if not wishes.ipv6:
        return None, None
    bridge = _bridge_name(name)
    used: list[ipaddress.IPv6Network] = list(_host_networks_6(besides=bridge))
    used += [
        net for row in others for net in (row.pod_cidr_6, row.service_cidr_6) if net
    ]
    pods = _wished_6("--pod-cidr", wishes.pod_cidrs, used)
    used += [pods] if pods else []
    services = _wished_6("--service-cidr", wishes.service_cidrs, used)
    if pods is None or services is None:
        free = _site(name, wishes, used, before)
        pods, services = pods or free[0], services or free[1]
    return pods, services


def _site(
    name: str,
    wishes: Wishes,
    used: Sequence[ipaddress.IPv6Network],
    before: Instance | None,
) -> tuple[ipaddress.IPv6Network, ipaddress.IPv6Network]:
    """Return free ranges for Pods and Services: those it had, or two of one site."""
    if before and before.pod_cidr_6 and before.service_cidr_6:
        kept = (before.pod_cidr_6, before.service_cidr_6)
        if not any(net.overlaps(other) for net in kept for other in used):
            return kept
    for number in range(_TRIES):
        seed = f"{wishes.data_dir}/{name}/{number}/{_machine_id()}"
        site = b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5]
        whole = ipaddress.IPv6Network((site + bytes(10), 48))
        if not any(whole.overlaps(other) for other in used):
            pods = ipaddress.IPv6Network((site + bytes(10), _POD_PREFIX_6))
            services = (site + b"\0\1" + bytes(8), _SERVICE_PREFIX_6)
            return pods, ipaddress.IPv6Network(services)
    raise InstanceError("no IPv6 address range is free for Pods and Services")


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def _host_networks_6(*, besides: str) -> Iterator[ipaddress.IPv6Network]:
    with Netlink() as netlink:
        own = {link.index for link in netlink.links() if link.name == besides}
        for route in netlink.routes(6):
            network = route.network
            is_ours = route.link_index in own or not network.prefixlen
            if isinstance(network, ipaddress.IPv6Network) and not is_ours:
                yield network


def _differs(held: Instance, wishes: Wishes) -> bool:
    """Tell whether other Pod addresses are wished for than running Pods have."""
    asked = {str(ipaddress.ip_network(cidr)) for cidr in wishes.pod_cidrs}
    return wishes.ipv6 != bool(held.pod_cidr_6) or not asked <= set(held.pod_cidrs)


def _wished_4(
    flag: str, cidrs: Iterable[str], used: Sequence[ipaddress.IPv4Network]
) -> ipaddress.IPv4Network | None:
    for text in cidrs:
        if ":" not in text:
            network = ipaddress.IPv4Network(text)
            _refuse_overlap(flag, network, [n for n in used if n.overlaps(network)])
            return network
    return None


def _wished_6(
    flag: str, cidrs: Iterable[str], used: Sequence[ipaddress.IPv6Network]
) -> ipaddress.IPv6Network | None:
    for text in cidrs:
        if ":" in text:
            network = ipaddress.IPv6Network(text)
            _refuse_overlap(flag, network, [n for n in used if n.overlaps(network)])
            return network
    return None


def _refuse_overlap(flag: str, network: object, others: Sequence[object]) -> None:
    if others:
        raise InstanceError(
            f"{flag} {network}: overlaps {others[0]}, which the host or an instance has"
        )


def _keep(
    network: ipaddress.IPv4Network | None, used: Sequence[ipaddress.IPv4Network]
) -> ipaddress.IPv4Network | None:
    if network is None or any(network.overlaps(other) for other in used):
        return None
    return network


def _free(
    pools: Sequence[str],
    prefix: int,
    used: Sequence[ipaddress.IPv4Network],
    what: str,
) -> ipaddress.IPv4Network:
    for pool in pools:
        for candidate in ipaddress.IPv4Network(pool).subnets(new_prefix=prefix):
            if not any(candidate.overlaps(other) for other in used):
                return candidate
    raise InstanceError(
        f"no address range is free for {what}: the host's routes and other instances "
        f"cover {', '.join(pools)}"
    )


def _node_ports(before: Instance | None, others: Sequence[Instance]) -> tuple[int, int]:
    taken = {row.node_port_range for row in others}
    if before is not None and before.node_port_range not in taken:
        return before.node_port_range
    for candidate in _NODE_PORT_RANGES:
        if candidate not in taken:
            return candidate
    raise InstanceError(
        f"no NodePort range is left: {len(others)} instances run on this machine"
    )


def _port(
    flag: str,
    wish: int | None,
    usual: int,
    taken: set[int],
    held: int | None,
    before: int | None,
) -> int:
    if wish:
        if wish in taken:
            raise InstanceError(f"{flag} {wish}: belongs to another instance")
        if wish != held:
            _check_port(flag, wish)
        return wish
    if held:
        return held
    candidates = [port for port in (before, usual if wish is None else None) if port]
    for candidate in candidates:
        if candidate not in taken and port_is_free(candidate):
            return candidate
    return _any_port(taken)


def _check_port(flag: str, port: int) -> None:
    try:
        _bind(port).close()
    except OSError as error:
        reason = (
            "is in use by another program"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used: {error.strerror}"
        )
        raise InstanceError(
            f"{flag} {port}: {reason}; give another one, or 0 for any free port"
        ) from error


def port_is_free(port: int) -> bool:
    """Tell whether a TCP port can be listened on, on loopback."""
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def _any_port(taken: set[int]) -> int:
    while True:
        with _bind(0) as probe:
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _bind(port: int) -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen(1)
    except BaseException:
        probe.close()
        raise
    return probe


def _read(file: Path) -> Instance | None:
    try:
        text = file.read_text()
    except OSError:
        return None
    try:
        return parse_instance(text)
    except ValueError as error:
        log.warning("instance_row_damaged", file=str(file), error=str(error))
        return None


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    with suppress(OSError):
        scratch.chmod(0o600)
    scratch.replace(path)
