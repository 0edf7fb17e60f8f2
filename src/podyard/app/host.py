"""What this host can do: for ``podyard doctor``, and to fit the runtime to it.

Nothing here changes the host; kernel features are tried in namespaces of a thread
that ends with the question.
"""

import ctypes
import os
import platform
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from podyard.app.instances import USUAL_API_PORT, USUAL_NODE_PORT, port_is_free
from podyard.containerd.build import parse_version
from podyard.containerd.own_images import is_static_program
from podyard.lib.linux import MountInfo, mount_of, read_mounts
from podyard.lib.logind import has_logind
from podyard.lib.values import dataclass
from podyard.network.bridge import has_ipv6
from podyard.network.netlink import Netlink

#: Where distributions put the CNI plugins, the first that has them counts.
CNI_DIRS: Final = (
    Path("/opt/cni/bin"),
    Path("/usr/lib/cni"),
    Path("/usr/libexec/cni"),
)
CNI_PLUGINS: Final = ("bridge", "host-local", "loopback")

_SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_MKNOD": 27,
}
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_GIB: Final = 1024**3


class Verdict(StrEnum):
    """Whether a fact is in the way."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of ``podyard doctor``; ``advice`` is empty where all is well."""

    name: str
    value: str
    verdict: Verdict = Verdict.OK
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What the runtime's settings depend on.

    Attributes:
        cgroup_version: ``v1``, ``v2`` or ``hybrid`` (v1 with a v2 tree beside it).
        cgroup_mounts: where the hierarchies are, by controller list or ``unified``.
        hidden_cgroup: the v2 tree of a hybrid host when it has controllers: some
            programs (crun) work only where they do not see it.
        capabilities: effective ones, of those Podyard asks for.
        cni_bin_dir: where the plugins are; ``None`` when some are missing.
        catatonit: the static init of the sandbox image.
    """

    is_root: bool
    systemd_is_init: bool
    cgroup_version: str
    cgroup_mounts: tuple[Path, ...]
    capabilities: frozenset[str]
    cni_bin_dir: Path | None
    catatonit: Path | None
    hidden_cgroup: Path | None = None

    @property
    def systemd_cgroup(self) -> bool:
        """Whether systemd is to make the cgroups (kubeadm's rule)."""
        return self.systemd_is_init and self.cgroup_version == "v2"

    @property
    def can_lower_oom_score(self) -> bool:
        """Whether a process may be made less likely to be killed than we are."""
        return "CAP_SYS_RESOURCE" in self.capabilities


def observe_host() -> Host:
    """Look at the host (blocking; a millisecond)."""
    return Host(
        is_root=os.geteuid() == 0,
        systemd_is_init=Path("/run/systemd/system").is_dir(),
        cgroup_version=_cgroup_version(),
        cgroup_mounts=tuple(Path(mount.mount_point) for mount in cgroup_mounts()),
        capabilities=_capabilities(),
        cni_bin_dir=_cni_dir(),
        catatonit=_catatonit(),
        hidden_cgroup=_hidden_cgroup(),
    )


def cgroup_mounts() -> tuple[MountInfo, ...]:
    """Return every cgroup hierarchy, v1 and v2."""
    return tuple(one for one in read_mounts() if one.fstype.startswith("cgroup"))


def filesystem_of(path: Path) -> str:
    """Return the filesystem type under a path that may not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return mount_of(path.resolve()).fstype


def snapshotter_for(directory: Path) -> str:
    """Return the snapshotter that works there: an overlay cannot lie on an overlay."""
    on = filesystem_of(directory)
    return (
        "native" if on == "overlay" or on.startswith(("fuse", "nfs")) else "overlayfs"
    )


def find_program(name: str) -> Path | None:
    """Return a program of the search path, with the system directories added."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH}")
    return None if found is None else Path(found)


def _cgroup_version() -> str:
    kinds = {mount.fstype for mount in cgroup_mounts()}
    if not kinds:
        return "none"
    if kinds == {"cgroup2"}:
        return "v2"
    return "hybrid" if "cgroup2" in kinds else "v1"


def _hidden_cgroup() -> Path | None:
    mounts = cgroup_mounts()
    if all(mount.fstype == "cgroup2" for mount in mounts):
        return None
    for mount in mounts:
        if mount.fstype == "cgroup2" and _read_text(
            f"{mount.mount_point}/cgroup.controllers"
        ):
            return Path(mount.mount_point)
    return None


def _capabilities() -> frozenset[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(n for n, bit in _CAPABILITIES.items() if bits >> bit & 1)
    return frozenset()


def _cni_dir() -> Path | None:
    for directory in CNI_DIRS:
        if all(os.access(directory / plugin, os.X_OK) for plugin in CNI_PLUGINS):
            return directory
    return None


def _catatonit() -> Path | None:
    for name in ("/usr/bin/catatonit", "/usr/libexec/podman/catatonit"):
        if is_static_program(Path(name)):
            return Path(name)
    found = find_program("catatonit")
    return found if found is not None and is_static_program(found) else None


# ----------------------------------------------------------------------------- doctor


def examine(
    *,
    data_dir: Path,
    private_runtime: bool = True,
    ports: Sequence[int] = (USUAL_API_PORT, USUAL_NODE_PORT),
) -> tuple[Fact, ...]:
    """Return the table of ``podyard doctor`` (blocking; runs a few programs).

    Args:
        data_dir: where this instance's data is or is to be.
        private_runtime: Podyard runs its own containerd.
        ports: those that should be free.
    """
    host = observe_host()
    return (
        *_rights(host),
        *_kernel(),
        *_cgroups(host),
        *_programs(host, private_runtime=private_runtime),
        *_limits(data_dir),
        *_machine(),
        *_network_facts(ports),
    )


@dataclass(frozen=True, slots=True)
class HostLook:
    """What a start needs to know of the host.

    Attributes:
        host: what the machine can do.
        facts: the table of ``podyard doctor``, without ports.
    """

    host: Host
    facts: tuple[Fact, ...]


def look_at_host(*, data_dir: Path, private_runtime: bool) -> HostLook:
    """Look before a start (blocking; runs a few programs, 50 to 150 ms)."""
    facts = examine(data_dir=data_dir, private_runtime=private_runtime, ports=())
    return HostLook(observe_host(), facts)


def is_fit(facts: Iterable[Fact]) -> bool:
    """Tell whether nothing that is needed is missing."""
    return all(fact.verdict is not Verdict.MISSING for fact in facts)


def _need(name: str, value: str, advice: str, *, present: bool) -> Fact:
    if present:
        return Fact(name, value)
    return Fact(name, value, Verdict.MISSING, advice)


def _wish(name: str, value: str, advice: str, *, present: bool) -> Fact:
    return Fact(name, value) if present else Fact(name, value, Verdict.WARN, advice)


def _machine() -> Iterable[Fact]:
    told = has_logind()
    value = "by systemd-logind" if told else "no: there is no systemd-logind"
    yield Fact("shutdown announced", value)


def _rights(host: Host) -> Iterable[Fact]:
    yield _need(
        "user",
        "root" if host.is_root else f"uid {os.geteuid()}",
        "run Podyard as root (sudo)",
        present=host.is_root,
    )
    needed = set(_CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    lacking = sorted(needed - host.capabilities)
    yield _need(
        "capabilities",
        "lacking " + ", ".join(lacking) if lacking else "all that are needed",
        "give the container or service that Podyard runs in these capabilities",
        present=not lacking,
    )
    yield _wish(
        "CAP_SYS_RESOURCE",
        "yes" if host.can_lower_oom_score else "no",
        "OOM scores below Podyard's own are left as they are",
        present=host.can_lower_oom_score,
    )


def _kernel() -> Iterable[Fact]:
    yield Fact("kernel", f"{platform.release()} {platform.machine()}")
    overlay = _in_namespaces(_CLONE_NEWNS, _try_overlay)
    yield _need(
        "overlayfs",
        _yes(overlay),
        "modprobe overlay (CONFIG_OVERLAY_FS)",
        present=overlay,
    )
    for kind, needed in (("bridge", True), ("veth", True), ("dummy", False)):
        present = _in_namespaces(_CLONE_NEWNET, partial(_try_link, kind))
        advice = f"modprobe {kind} (CONFIG_{kind.upper()})"
        if needed:
            yield _need(f"{kind} devices", _yes(present), advice, present=present)
        else:
            note = "yes" if present else "no; the service CIDR is routed to the bridge"
            yield Fact(f"{kind} devices", note)
    seccomp = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    yield _wish(
        "seccomp", _yes(seccomp), "RuntimeDefault profiles do nothing", present=seccomp
    )
    users = _read_number("/proc/sys/user/max_user_namespaces")
    yield _wish(
        "user namespaces",
        str(users),
        "sysctl user.max_user_namespaces=15000, for Pods with hostUsers: false",
        present=users > 0,
    )
    shared = next(
        (m.shared for m in reversed(read_mounts()) if m.mount_point == "/"), False
    )
    yield Fact("/ is shared", _yes(shared) if shared else "no; volumes have their own")


def _cgroups(host: Host) -> Iterable[Fact]:
    yield _need(
        "cgroups",
        host.cgroup_version,
        "mount cgroup2 on /sys/fs/cgroup",
        present=host.cgroup_version != "none",
    )
    yield Fact("cgroup driver", "systemd" if host.systemd_cgroup else "cgroupfs")
    names = _controllers()
    lacking = [name for name in ("cpu", "memory", "pids") if name not in names]
    yield _wish(
        "cgroup controllers",
        ", ".join(sorted(names)),
        f"limits on {', '.join(lacking)} do nothing; enable them on the kernel's "
        "command line",
        present=not lacking,
    )


def _controllers() -> set[str]:
    names: set[str] = set()
    for mount in cgroup_mounts():
        if mount.fstype == "cgroup2":
            with suppress(OSError):
                names.update(
                    (Path(mount.mount_point) / "cgroup.controllers").read_text().split()
                )
        else:
            known = {"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"}
            names.update(known & set(mount.super_options))
    return names


def _programs(host: Host, *, private_runtime: bool) -> Iterable[Fact]:
    nft = find_program("nft")
    works = nft is not None and _output([str(nft), "list", "tables"]) is not None
    version = _version(nft, "--version")
    yield _need("nft", version, "apt-get install nftables", present=nft is not None)
    if nft is not None:
        yield _need("nf_tables", _yes(works), "modprobe nf_tables", present=works)
    if not private_runtime:
        yield Fact("runtime", "another's (--runtime-endpoint)")
        return
    yield _containerd()
    for name, package in (("runc", "runc"), ("crun", "")):
        program = find_program(name)
        value = _version(program, "--version")
        if package:
            advice = f"apt-get install {package}"
            yield _need(name, value, advice, present=program is not None)
        else:
            yield Fact(name, value if program else "no; optional")
    yield _need(
        "CNI plugins",
        str(host.cni_bin_dir or "missing"),
        "apt-get install containernetworking-plugins",
        present=host.cni_bin_dir is not None,
    )
    yield _need(
        "catatonit",
        _version(host.catatonit, "--version"),
        "apt-get install catatonit (a static build)",
        present=host.catatonit is not None,
    )


def _containerd() -> Fact:
    program = find_program("containerd")
    version = _version(program, "--version")
    try:
        fits = parse_version(version) >= (1, 6)
    except ValueError:
        fits = False
    return _need(
        "containerd", version, "apt-get install containerd (1.6 or newer)", present=fits
    )


def _version(program: Path | None, flag: str) -> str:
    if program is None:
        return "missing"
    lines = (_output([str(program), flag]) or "").splitlines()
    return lines[0].strip() if lines else f"{program} does not run"


def _limits(data_dir: Path) -> Iterable[Fact]:
    for name, least in (("max_user_instances", 512), ("max_user_watches", 65536)):
        value = _read_number(f"/proc/sys/fs/inotify/{name}")
        yield _wish(
            f"inotify {name}",
            str(value),
            f"sysctl fs.inotify.{name}={least * 2}, for many Pods",
            present=value >= least,
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield _wish(
        "open files",
        f"{soft} (may be {hard})",
        "ulimit -n 65536",
        present=hard >= 4096,
    )
    place = data_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield _wish(
        "data dir",
        f"{data_dir} on {filesystem_of(place)}, {free / _GIB:.1f} GiB free",
        "images need room; give another --data-dir",
        present=free >= _GIB,
    )


def _network_facts(ports: Sequence[int]) -> Iterable[Fact]:
    forward = _read_text("/proc/sys/net/ipv4/ip_forward")
    yield Fact("ip_forward", forward if forward == "1" else f"{forward}; set while up")
    bridged = _read_text("/proc/sys/net/bridge/bridge-nf-call-iptables")
    yield Fact(
        "bridge-nf-call-iptables",
        bridged if bridged == "1" else f"{bridged or 'absent'}; masquerade instead",
    )
    if not has_ipv6():
        yield Fact("IPv6", "no; --ip-families IPv4,IPv6 has no effect")
    else:
        six = _read_text("/proc/sys/net/ipv6/conf/all/forwarding") == "1"
        note = "forwarded" if six else "forwarded with --ip-families IPv4,IPv6"
        yield Fact("IPv6", f"yes; {note}")
    for port in ports:
        free = port_is_free(port)
        yield _wish(
            f"port {port}",
            "free" if free else "in use",
            "another port is taken, unless this is Podyard itself",
            present=free,
        )


def _yes(present: bool) -> str:  # noqa: FBT001 - its whole purpose
    return "yes" if present else "no"


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _read_number(path: str) -> int:
    text = _read_text(path)
    return int(text) if text.isdigit() else 0


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _in_namespaces(flags: int, attempt: Callable[[], None]) -> bool:
    """Tell whether something works, tried in namespaces that end with the thread."""
    works = False

    def run() -> None:
        nonlocal works
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(flags):
            return
        with suppress(OSError):
            attempt()
            works = True

    thread = threading.Thread(target=run, name="podyard-doctor")
    thread.start()
    thread.join()
    return works


def _try_link(kind: str) -> None:
    with Netlink() as netlink:
        netlink.add_link("probe", kind)


def _try_overlay() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    private, recursive = 1 << 18, 1 << 14
    _check(libc.mount(b"none", b"/", None, private | recursive, None))
    _check(libc.mount(b"probe", b"/tmp", b"tmpfs", 0, None))
    for name in ("lower", "upper", "work", "merged"):
        Path("/tmp", name).mkdir()  # noqa: S108 - a tmpfs of this thread alone
    options = b"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    _check(libc.mount(b"overlay", b"/tmp/merged", b"overlay", 0, options))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
