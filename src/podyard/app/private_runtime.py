"""A private containerd for an instance: its row and what the host can do, combined."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from podyard import __version__
from podyard.app.handlers import offer_handlers
from podyard.app.host import Host, find_program, snapshotter_for
from podyard.app.instances import Instance
from podyard.app.orphans import (
    end_forgotten,
    find_unused_namespaces,
    remove_namespaces,
    remove_orphans,
)
from podyard.app.pod_addresses import find_owners, give_back
from podyard.containerd.build import ContainerdConfig, RuntimeHandlerConfig
from podyard.containerd.client import ContainerdError
from podyard.containerd.events import list_container_ids
from podyard.containerd.images import PINNED, ImageImporter
from podyard.containerd.own_images import ImageSpec, sandbox_image
from podyard.containerd.supervise import (
    Containerd,
    ContainerdStartError,
    RuntimeFiles,
    Started,
)
from podyard.cri.services import CRIError
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.network.bridge import (
    BridgeConfig,
    HostSysctls,
    bridged_packets_are_filtered,
    ensure_bridge,
    forwarding_6,
)
from podyard.network.decide import NetworkFacts

log = structlog.get_logger()

#: Kernel settings that Pods need, noted and put back by the last instance.
KERNEL_SETTINGS: Final = {"net/ipv4/ip_forward": "1"}

#: How long after a restart, and then again, orphans are looked for, seconds.
_TIDY_AGAIN_S: Final = (5.0, 30.0, 270.0)

#: How long what was made for a sandbox may be without a record of it, seconds.
_SANDBOX_IS_MADE_WITHIN_S: Final = 25.0

#: Variables of Podyard's own environment that pulls need too.
PROXY_VARIABLES: Final = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class RuntimeWishes:
    """What a person may choose of the private runtime.

    Attributes:
        cgroup_driver: ``systemd``, ``cgroupfs``, or empty for what fits the host.
        cni_bin_dir: where the plugins are; ``None`` to look for them.
        registry_dir: ``hosts.toml`` directories; ``None`` for one in the data dir.
        runtimes: handlers besides runc and those found on the host.
        environment: of containerd, for proxies.
    """

    cgroup_driver: str = ""
    cni_bin_dir: Path | None = None
    registry_dir: Path | None = None
    runtimes: tuple[RuntimeHandlerConfig, ...] = ()
    ignore_image_volumes: bool = False
    max_log_line_bytes: int = 16384
    environment: Mapping[str, str] | None = None


class PrivateRuntime:
    """The containerd of one instance with its sandbox image."""

    def __init__(
        self,
        row: Instance,
        host: Host,
        *,
        clock: Clock,
        wishes: RuntimeWishes | None = None,
    ) -> None:
        """Describe it; nothing runs yet (reads the sandbox's program).

        Raises:
            ContainerdStartError: a program that it takes is missing on the host.
        """
        wishes = wishes or RuntimeWishes()
        self._row = row
        binary = find_program("containerd")
        if binary is None:
            raise ContainerdStartError(
                "containerd is not installed (package containerd); 'podyard doctor' "
                "tells what else is missing, --runtime-endpoint takes another runtime"
            )
        self.sandbox_image: ImageSpec = _sandbox_image(host)
        self._offered = offer_handlers(
            wishes.runtimes,
            find_program=find_program,
            hidden_cgroup=host.hidden_cgroup,
            directory=row.runtime_dir,
        )
        config = containerd_config(
            row,
            host,
            sandbox_image=self.sandbox_image.name,
            wishes=replace(wishes, runtimes=self._offered.handlers),
        )
        self.containerd = Containerd(
            config,
            RuntimeFiles(
                row.runtime_dir,
                drop_in_dir=row.runtime_dir / "conf.d",
                cgroups=daemon_cgroups(row, host),
            ),
            clock=clock,
            binary=str(binary),
            environment=wishes.environment,
        )
        self._clock = clock
        self._unused: dict[Path | str, float] = {}
        self.importer = ImageImporter(
            config.socket,
            clock=clock,
            root=row.containerd_root,
            snapshotter=config.snapshotter,
        )

    @property
    def endpoint(self) -> str:
        """The CRI endpoint."""
        return f"unix://{self.containerd.config.socket}"

    async def start(self) -> Started:
        """Start or adopt containerd and have the sandbox image in it.

        Raises:
            ContainerdStartError: containerd did not come up.
            ContainerdError: it refused the image.
            OSError: a program of a handler cannot be written.
        """
        for handler, program in self._offered.missing.items():
            log.warning("handler_program_missing", handler=handler, program=program)
        await asyncio.to_thread(_write_programs, self._offered.programs)
        started = await self.containerd.start()
        await self.importer.ensure(self.sandbox_image, labels=PINNED)
        if not started.adopted:
            await self.tidy()
        return started

    async def watch(self) -> None:
        """Start containerd again whenever it dies, until cancelled.

        What a death has left may come to light only when CRI has removed the Pods of
        that moment, so it is looked for again later. The Podyard that was to do it may
        have died, too, so a start counts like a death.
        """
        restarted = asyncio.Event()
        restarted.set()

        async def again() -> None:
            await self.tidy()
            restarted.set()

        async def tidy_later() -> None:
            while True:
                await restarted.wait()
                restarted.clear()
                for pause_s in _TIDY_AGAIN_S:
                    await asyncio.sleep(pause_s)
                    await self.tidy()

        async with asyncio.TaskGroup() as group:
            group.create_task(tidy_later(), name="runtime-tidy")
            await self.containerd.watch(restarted=again)

    async def tidy(self) -> None:
        """Remove what a containerd that died has left and forgotten."""
        try:
            await remove_orphans(self._row)
            await end_forgotten(self._row)
            await self._tidy_unrecorded()
        except (ContainerdError, CRIError, OSError) as error:
            log.warning("orphans_not_removed", error=str(error))

    async def _tidy_unrecorded(self) -> None:
        """Remove what was made for sandboxes that containerd has no record of.

        One that is being made now has none either, for as long as the plugins take.
        """
        row = self._row
        spaces_seen = await asyncio.to_thread(find_unused_namespaces, row)
        owners = await asyncio.to_thread(find_owners, row)
        known = await list_container_ids(str(row.containerd_socket))
        unused: set[Path | str] = {*spaces_seen, *(owners - known)}
        now_s = self._clock.monotonic_s()
        self._unused = {one: self._unused.get(one, now_s) for one in unused}
        old = [
            one
            for one, since_s in self._unused.items()
            if now_s - since_s >= _SANDBOX_IS_MADE_WITHIN_S
        ]
        spaces = frozenset(one for one in old if isinstance(one, Path))
        if spaces:
            await asyncio.to_thread(remove_namespaces, spaces)
        # Only then: an address is free when nothing has it any more.
        ids = frozenset(one for one in old if isinstance(one, str))
        if ids:
            freed = await asyncio.to_thread(give_back, row, ids)
            log.info("orphan_addresses_freed", count=freed, ids=sorted(ids)[:10])


def _sandbox_image(host: Host) -> ImageSpec:
    if host.catatonit is None:
        raise ContainerdStartError(
            "a static catatonit is not installed (package catatonit); the sandbox "
            "image is made from it"
        )
    return sandbox_image(host.catatonit, version=__version__)


def containerd_config(
    row: Instance, host: Host, *, sandbox_image: str, wishes: RuntimeWishes
) -> ContainerdConfig:
    """Return the settings of the instance's containerd.

    Raises:
        ContainerdStartError: the CNI plugins are missing.
    """
    cni_bin_dir = wishes.cni_bin_dir or host.cni_bin_dir
    if cni_bin_dir is None:
        raise ContainerdStartError(
            "the CNI plugins are not installed (package containernetworking-plugins)"
        )
    driver = wishes.cgroup_driver or ("systemd" if host.systemd_cgroup else "cgroupfs")
    return ContainerdConfig(
        root=str(row.containerd_root),
        state=str(row.containerd_state),
        socket=str(row.containerd_socket),
        runc_root=str(row.runc_root),
        sandbox_image=sandbox_image,
        network=row.network,
        bridge=row.bridge,
        pod_cidrs=row.pod_cidrs,
        cni_conf_dir=str(row.runtime_dir / "net.d"),
        cni_bin_dir=str(cni_bin_dir),
        cni_state_dir=str(row.cni_state_dir),
        registry_dir=str(wishes.registry_dir or row.runtime_dir / "hosts"),
        systemd_cgroup=driver == "systemd",
        restrict_oom_score_adj=not host.can_lower_oom_score,
        oom_score=-999 if host.can_lower_oom_score else 0,
        snapshotter=snapshotter_for(row.containerd_root),
        max_log_line_bytes=wishes.max_log_line_bytes,
        ignore_image_volumes=wishes.ignore_image_volumes,
        runtimes=wishes.runtimes,
    )


def _write_programs(programs: Mapping[Path, str]) -> None:
    """Write programs whole: a container may be starting with the old one."""
    for path, text in programs.items():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(path)


def daemon_cgroups(row: Instance, host: Host) -> tuple[Path, ...]:
    """Return where containerd itself goes: trees that service managers kill by."""
    return tuple(
        mount / row.cgroup_root.lstrip("/") / "runtime"
        for mount in host.cgroup_mounts
        if mount.name in {"systemd", "unified"} or host.cgroup_version == "v2"
    )


def prepare_network(row: Instance, settings: HostSysctls) -> NetworkFacts:
    """Make the instance's bridge and return what the rules depend on (blocking).

    Raises:
        BridgeError: the kernel refused.
    """
    settings.ensure(KERNEL_SETTINGS | (forwarding_6() if row.pod_cidr_6 else {}))
    ensure_bridge(bridge_config(row))
    return NetworkFacts(
        table=row.nft_table,
        bridge=row.bridge,
        pod_cidr=str(row.pod_cidr),
        service_cidr=str(row.service_cidr),
        bridged_packets_are_filtered=bridged_packets_are_filtered(),
        pod_cidr_6=str(row.pod_cidr_6 or ""),
        service_cidr_6=str(row.service_cidr_6 or ""),
    )


def bridge_config(row: Instance) -> BridgeConfig:
    """Return the instance's bridge."""
    return BridgeConfig(
        row.bridge,
        row.gateway,
        row.service_cidr,
        gateway_6=row.gateway_6,
        service_cidr_6=row.service_cidr_6,
    )
