"""What this machine is and has, from /proc, /sys, /etc and statvfs."""

import os
import platform
import socket
from pathlib import Path
from typing import Final

from podyard.node.registration.build import MachineFacts

_GO_ARCH: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}


def observe_machine(data_dir: Path) -> MachineFacts:
    """Return the facts of this machine; blocking and short.

    Args:
        data_dir: on the filesystem that Pods write to.
    """
    disk = os.statvfs(data_dir)
    return MachineFacts(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        arch=_GO_ARCH.get(platform.machine(), platform.machine()),
        hostname=socket.gethostname().lower(),
        kernel_version=platform.release(),
        os_image=_os_image(),
        machine_id=_read("/etc/machine-id") or _read("/var/lib/dbus/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid").lower(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        hugepages=_hugepages(),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _memory_bytes() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"


def _hugepages() -> dict[str, int]:
    found: dict[str, int] = {}
    root = Path("/sys/kernel/mm/hugepages")
    if not root.is_dir():
        return found
    for entry in sorted(root.iterdir()):
        kilobytes = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        number = int(_read(str(entry / "nr_hugepages")) or 0)
        size = (
            f"{kilobytes // 1024 // 1024}Gi"
            if kilobytes >= 1024 * 1024
            else f"{kilobytes // 1024}Mi"
            if kilobytes >= 1024
            else f"{kilobytes}Ki"
        )
        found[size] = number * kilobytes * 1024
    return found
