"""What this machine lets us do with cgroups and the OOM killer."""

import os
from pathlib import Path
from typing import Final

from podyard.lib.linux import read_mounts
from podyard.lib.values import dataclass
from podyard.node.resources.build import HostLimits

_CAP_SYS_RESOURCE: Final = 24


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """The cgroup hierarchies of a machine.

    Attributes:
        version: 2 where everything is in the one unified hierarchy, else 1 (hybrid
            machines keep their controllers in v1).
        hierarchies: v1 controller (``cpu``, ``name=systemd``) to its mount point;
            controllers mounted together share one. Empty on v2.
        unified: where cgroup v2 is mounted; ``None`` where it is not.
    """

    version: int
    hierarchies: dict[str, Path]
    unified: Path | None

    @property
    def mount_points(self) -> tuple[Path, ...]:
        """Every hierarchy once, the unified one last."""
        points = dict.fromkeys(self.hierarchies.values())
        if self.unified is not None:
            points[self.unified] = None
        return tuple(points)


def observe_cgroups() -> CgroupLayout:
    """Read which cgroup hierarchies are mounted."""
    controllers = {
        line.split("\t")[0]
        for line in Path("/proc/cgroups").read_text().splitlines()
        if not line.startswith("#")
    }
    hierarchies: dict[str, Path] = {}
    unified: Path | None = None
    for found in read_mounts("/sys/fs/cgroup"):
        point = Path(found.mount_point)
        if found.fstype == "cgroup2" and unified is None:
            unified = point
        elif found.fstype == "cgroup":
            for option in found.super_options:
                if option in controllers or option.startswith("name="):
                    hierarchies.setdefault(option, point)
    version = 1 if any(not name.startswith("name=") for name in hierarchies) else 2
    return CgroupLayout(version, hierarchies if version == 1 else {}, unified)


def observe_host_limits(
    layout: CgroupLayout, *, single_process_oom_kill: bool = False
) -> HostLimits:
    """Read what limits are built against."""
    swap_controller = (
        layout.version == 2
        and layout.unified is not None
        and any(layout.unified.glob("*/memory.swap.max"))
    )
    return HostLimits(
        memory_capacity_bytes=memory_capacity_bytes(),
        oom_score_adj_floor=None if has_sys_resource() else own_oom_score_adj(),
        cgroup_version=layout.version,
        hugepage_sizes=hugepage_sizes(),
        swap_controller=swap_controller,
        single_process_oom_kill=single_process_oom_kill,
    )


def memory_capacity_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def own_oom_score_adj() -> int:
    """Return this process's oom_score_adj."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def has_sys_resource() -> bool:
    """Return whether this process has CAP_SYS_RESOURCE in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def hugepage_sizes() -> tuple[str, ...]:
    """Return the huge page sizes of the kernel as cgroups name them (``2MB``)."""
    directory = Path("/sys/kernel/mm/hugepages")
    if not directory.is_dir():
        return ()
    kilobytes = sorted(
        int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        for entry in directory.iterdir()
    )
    return tuple(_size_name(size) for size in kilobytes)


def _size_name(kilobytes: int) -> str:
    size, unit = float(kilobytes), "KB"
    for larger in ("MB", "GB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:g}{unit}"
