"""A private containerd for tests: made by our own code, gone without a trace after.

``running_containerd(tmp)`` is a plain context manager, so that one containerd may
serve a whole module although every test has an event loop of its own; inside a test,
``connect(running)`` gives the two CRI services.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.api.runtime import (
    ContainerConfig,
    Label,
    NamespaceMode,
    NamespaceOptions,
    SandboxConfig,
    SandboxSecurity,
)
from podyard.app.cleanup import census, remove_instance
from podyard.app.host import observe_host
from podyard.app.instances import Instance, InstanceTable, Wishes
from podyard.app.private_runtime import (
    PrivateRuntime,
    RuntimeWishes,
    prepare_network,
)
from podyard.app.runtime_events import ContainerdRuntimeService
from podyard.containerd.events import ContainerdEvents
from podyard.containerd.own_images import busybox_image
from podyard.containerd.supervise import Started
from podyard.cri.client import CriChannel, GrpcImageService
from podyard.lib.clock import SystemClock
from podyard.network.bridge import HostSysctls
from podyard.network.decide import NetworkFacts, decide_ruleset
from podyard.network.nftables import run_nft

#: The image every test may run; its programs are busybox'.
BUSYBOX = "podyard.local/busybox:test"
APPLETS = (
    "cat echo false grep hostname id ip kill ls mkdir mount nc nslookup ping printf ps "
    "pwd rm sh sleep stat tail touch tr true wc wget vi env date head httpd seq test"
)


@dataclass(slots=True)
class RunningContainerd:
    """What a test needs of the containerd that runs for it."""

    row: Instance
    table: InstanceTable
    runtime: PrivateRuntime
    started: Started
    facts: NetworkFacts

    @property
    def endpoint(self) -> str:
        """The CRI endpoint."""
        return self.runtime.endpoint


@dataclass(frozen=True, slots=True)
class Services:
    """The two CRI services of one connection."""

    runtime: ContainerdRuntimeService
    images: GrpcImageService


def find_busybox() -> Path:
    """Return the static busybox that the set-up unpacks; skip where it is missing."""
    for path in (Path(sys.prefix, "tools", "busybox"), Path("/usr/bin/busybox-static")):
        if path.is_file():
            return path
    pytest.skip("no static busybox at .venv/tools/busybox (scripts/setup unpacks it)")


def skip_unless_runnable() -> None:
    """Skip where a private containerd cannot run; say what is missing."""
    host = observe_host()
    if not host.is_root:
        pytest.skip("needs root")
    if host.cni_bin_dir is None:
        pytest.skip("needs the CNI plugins")
    if host.catatonit is None:
        pytest.skip("needs a static catatonit")


@contextmanager
def running_containerd(
    tmp: Path, *, wishes: RuntimeWishes | None = None, with_busybox: bool = True
) -> Iterator[RunningContainerd]:
    """Start an instance's runtime and network; remove every trace of it after."""
    skip_unless_runnable()
    busybox = find_busybox() if with_busybox else None
    table = InstanceTable()
    name = f"t{secrets.token_hex(4)}"
    row = table.allocate(name, Wishes(tmp / "data", api_port=0, node_port=0))
    try:
        facts = prepare_network(row, HostSysctls(table.sysctl_record))
        run_nft(decide_ruleset(facts))
        runtime = PrivateRuntime(
            row, observe_host(), clock=SystemClock(), wishes=wishes
        )
        # The caller may sit in an event loop already.
        with ThreadPoolExecutor(1) as apart:
            started = apart.submit(asyncio.run, _start(runtime, busybox)).result()
        yield RunningContainerd(row, table, runtime, started, facts)
    finally:
        left = remove_instance(row, table)
    assert left == ()
    assert census(row) == frozenset()


async def _start(runtime: PrivateRuntime, busybox: Path | None) -> Started:
    started = await runtime.start()
    if busybox is not None:
        spec = busybox_image(busybox, APPLETS.split(), name=BUSYBOX)
        await runtime.importer.ensure(spec, labels={})
        async with connect_to(runtime) as services:
            while await services.images.image_status(BUSYBOX) is None:
                await asyncio.sleep(0.005)
    return started


@asynccontextmanager
async def connect_to(runtime: PrivateRuntime) -> AsyncIterator[Services]:
    """Open a connection to a private runtime."""
    channel = CriChannel(runtime.endpoint)
    events = ContainerdEvents(runtime.containerd.config.socket)
    try:
        yield Services(
            ContainerdRuntimeService(channel, events), GrpcImageService(channel)
        )
    finally:
        await channel.close()


def connect(running: RunningContainerd) -> AbstractAsyncContextManager[Services]:
    """Open a connection to the containerd of a fixture."""
    return connect_to(running.runtime)


def sandbox_config(
    row: Instance | None = None,
    *,
    name: str = "pod",
    host_network: bool = False,
    log_directory: str = "",
) -> SandboxConfig:
    """Return a sandbox as the agent would ask for it."""
    uid = f"uid-{name}-{secrets.token_hex(3)}"
    network = NamespaceMode.NODE if host_network else NamespaceMode.POD
    return SandboxConfig(
        name=name,
        namespace="tests",
        uid=uid,
        hostname="" if host_network else name,
        log_directory=log_directory,
        labels={
            Label.POD_NAME: name,
            Label.POD_NAMESPACE: "tests",
            Label.POD_UID: uid,
        },
        cgroup_parent=f"{row.cgroup_root}/kubepods/pod{uid}" if row else "",
        security=SandboxSecurity(namespaces=NamespaceOptions(network=network)),
    )


def container_config(
    sandbox: SandboxConfig,
    *command: str,
    name: str = "main",
    image: str = BUSYBOX,
    attempt: int = 0,
) -> ContainerConfig:
    """Return a container as the agent would ask for it."""
    return ContainerConfig(
        name=name,
        attempt=attempt,
        image=image,
        user_specified_image=image,
        command=command or ("sleep", "inf"),
        labels={**sandbox.labels, Label.CONTAINER_NAME: name},
        annotations={"io.kubernetes.container.restartCount": str(attempt)},
        log_path=f"{name}/{attempt}.log" if sandbox.log_directory else "",
    )


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median of spans, in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[len(ordered) // 2] * 1000, 1)


def stopwatch() -> float:
    """Return seconds of a clock for measuring."""
    return time.perf_counter()
