"""Control plane and node in one process, joined by loopback TLS like any others."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

import podyard
from podyard.api.documents import Document
from podyard.api.feature_gates import FeatureGates
from podyard.app.bootstrap import DnsAddress
from podyard.app.config import Config, ConfigError, stop_grace_s
from podyard.app.control import AlreadyRunningError, ControlSocket
from podyard.app.controlplane import (
    ControlPlane,
    ControlPlaneConfig,
    bootstrap_cluster,
    control_plane,
    run_houses,
)
from podyard.app.credentials import token_audiences
from podyard.app.host import Host, HostLook, is_fit
from podyard.app.instances import Instance, InstanceError, InstanceTable, Wishes
from podyard.app.node import Node, NodeSetup, node_name_of, open_node
from podyard.app.pki import Names, Pki, ensure_pki
from podyard.app.private_runtime import prepare_network
from podyard.app.runtimes import Runtime, RuntimeStartError, open_runtime
from podyard.app.schema_data import SchemaDataError
from podyard.app.starting import Report, StartError
from podyard.client.kubeconfig import build_kubeconfig, write_kubeconfig
from podyard.lib.clock import Clock, SystemClock
from podyard.network.bridge import BridgeError, HostSysctls, has_ipv6
from podyard.network.decide import NetworkFacts
from podyard.network.dns.sockets import DnsSockets, open_dns_sockets
from podyard.server.admission.chain import UnknownPluginError
from podyard.store.backend import StoreError

log = structlog.get_logger()

LOOPBACK: Final = "127.0.0.1"


class Standalone:
    """One instance, from start to stop.

    Args:
        config: what a person chose.
        report: told each step and the seconds it took.
        ready: called once the node is Ready.
        look: returns what is known of the host; may block.
    """

    def __init__(
        self,
        config: Config,
        *,
        report: Report,
        ready: Callable[[], None],
        look: Callable[[], HostLook],
    ) -> None:
        self._config = config
        self._look = look
        self._token_audiences: frozenset[str] = frozenset()
        self._report = report
        self._ready = ready
        self._clock: Clock = SystemClock()
        self._stopping = asyncio.Event()
        self._stop_pods_within_s: float | None = None
        self._started_at = self._clock.now()
        self._node: Node | None = None
        self._row: Instance | None = None
        self._runtime: Runtime | None = None
        self._dns: DnsSockets | None = None

    async def run(self) -> None:
        """Start, run until told to stop, stop.

        Raises:
            StartError: it could not start; `podyard down` removes what was begun.
        """
        begin_s = self._clock.monotonic_s()
        host = await asyncio.to_thread(self._check_host)
        row = self._row = await self._allocate()
        self._report("host looked at", self._clock.monotonic_s() - begin_s)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        control = ControlSocket(
            row.control_socket, status=self._status, stop=self._told_to_stop
        )
        try:
            async with AsyncExitStack() as stack:
                try:
                    await control.start()
                except AlreadyRunningError as error:
                    raise StartError(
                        f'instance "{self._config.name}" is running already '
                        "(podyard status); give another one its own --name"
                    ) from error
                stack.push_async_callback(control.stop)
                stack.callback(self._close_dns)
                await self._run_houses(row, host)
        except* (
            StoreError,
            BridgeError,
            RuntimeStartError,
            SchemaDataError,
            UnknownPluginError,
        ) as group:
            raise StartError(str(_first(group))) from group
        except* StartError as group:
            raise _first(group) from group

    def _check_host(self) -> Host:
        try:
            self._token_audiences = token_audiences(self._config)
        except ConfigError as error:
            raise StartError(str(error), code=2) from error
        found = self._look()
        if not is_fit(found.facts):
            lacking = [fact for fact in found.facts if str(fact.verdict) == "missing"]
            lines = [f"{fact.name}: {fact.value}: {fact.advice}" for fact in lacking]
            raise StartError(
                "this host lacks what is needed (see podyard doctor):\n  "
                + "\n  ".join(lines),
                code=4,
            )
        return found.host

    async def _allocate(self) -> Instance:
        config = self._config
        wished = (*config.pod_cidrs, *config.service_cidrs)
        ipv6 = "IPv6" in config.ip_families or any(":" in cidr for cidr in wished)
        if ipv6 and not await asyncio.to_thread(has_ipv6):
            log.warning("no_ipv6_here", ip_families=config.ip_families)
            ipv6 = False
        wishes = Wishes(
            config.data_dir,
            config.port,
            config.node_port,
            ipv6=ipv6,
            pod_cidrs=config.pod_cidrs,
            service_cidrs=config.service_cidrs,
        )
        try:
            config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            return await asyncio.to_thread(
                InstanceTable().allocate, config.name, wishes
            )
        except InstanceError as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(f"--data-dir: {config.data_dir}: {error}") from error

    # --- running ---

    async def _run_houses(self, row: Instance, host: Host) -> None:
        name = node_name_of(self._config)
        begin_s = self._clock.monotonic_s()
        async with asyncio.TaskGroup() as group:
            runtime_task = group.create_task(self._open_runtime(row, host))
            facts = await asyncio.to_thread(
                prepare_network, row, HostSysctls(InstanceTable().sysctl_record)
            )
            if self._config.built_in_dns:
                self._dns = open_dns_sockets(str(row.gateway.ip))
            pki = await asyncio.to_thread(self._make_pki, row, name)
            plane_config = self._plane_config(row)
            try:
                async with control_plane(
                    plane_config, pki, clock=self._clock, group=group
                ) as plane:
                    await bootstrap_cluster(plane, plane_config)
                    await asyncio.to_thread(self._write_kubeconfig, plane, pki)
                    took_s = self._clock.monotonic_s() - begin_s
                    self._report(
                        f"API answers at https://{LOOPBACK}:{plane.port}", took_s
                    )
                    # They end before the API server they talk to.
                    async with asyncio.TaskGroup() as houses:
                        running = houses.create_task(
                            run_houses(plane, clock=self._clock)
                        )
                        async with await runtime_task as runtime:
                            self._runtime = runtime
                            await self._run_node(row, host, plane, runtime, facts, name)
                        running.cancel()
            except OSError as error:
                raise StartError(_explain(error, row, self._config)) from error

    async def _open_runtime(self, row: Instance, host: Host) -> Runtime:
        begin_s = self._clock.monotonic_s()
        runtime = await open_runtime(self._config, row, host, clock=self._clock)
        self._report(runtime.description, self._clock.monotonic_s() - begin_s)
        return runtime

    async def _run_node(
        self,
        row: Instance,
        host: Host,
        plane: ControlPlane,
        runtime: Runtime,
        facts: NetworkFacts,
        name: str,
    ) -> None:
        begin_s = self._clock.monotonic_s()
        setup = NodeSetup(
            config=self._config,
            row=row,
            host=host,
            pki=plane.pki,
            connection=plane.connection(plane.pki.node_client),
            runtime=runtime,
            facts=facts,
            schemas=plane.schemas,
            name=name,
            dns=self._dns,
        )
        async with (
            open_node(setup, clock=self._clock) as node,
            asyncio.TaskGroup() as group,
        ):
            self._node = node
            running = group.create_task(node.run())
            readiness = group.create_task(node.wait_ready())
            readiness.add_done_callback(partial(self._on_ready, name, begin_s))
            await self._stopping.wait()
            readiness.cancel()
            if self._stop_pods_within_s is not None:
                await node.stop_pods(within_s=self._stop_pods_within_s)
            running.cancel()

    def _on_ready(self, name: str, begin_s: float, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        self._report(f"node {name} is Ready", self._clock.monotonic_s() - begin_s)
        self._ready()

    def _plane_config(self, row: Instance) -> ControlPlaneConfig:
        return ControlPlaneConfig(
            store_path=self._config.data_dir / "store.db",
            addresses=self._addresses(row),
            node_ip=str(row.gateway.ip),
            port=row.api_port,
            service_cidrs=row.service_cidrs,
            node_ports=row.node_port_range,
            kubernetes_service_ip=row.kubernetes_service_ip,
            cluster_domain=self._config.cluster_domain,
            enable_admission_plugins=self._config.enable_admission_plugins,
            dns=self._dns_address(row),
            gates=FeatureGates(self._config.feature_gates or {}),
            node_token_audiences=self._token_audiences,
        )

    def _dns_address(self, row: Instance) -> DnsAddress | None:
        if self._dns is None:
            return None
        return DnsAddress(row.cluster_dns_ip, self._dns.ip, self._dns.port)

    def _close_dns(self) -> None:
        if self._dns is not None:
            self._dns.close()

    def _addresses(self, row: Instance) -> tuple[str, ...]:
        asked = self._config.listen
        everywhere = {"0.0.0.0", "::"} & set(asked)  # noqa: S104 - only when asked for
        if everywhere:
            return tuple(asked)
        return (LOOPBACK, str(row.gateway.ip), *asked)

    def _make_pki(self, row: Instance, name: str) -> Pki:
        gateway = str(row.gateway.ip)
        names = Names(
            node_name=name,
            api_server=(gateway, row.kubernetes_service_ip, *self._config.listen),
            node=(name, gateway, LOOPBACK),
            cluster_domain=self._config.cluster_domain,
        )
        return ensure_pki(self._config.data_dir / "pki", names, now=self._clock.now())

    def _write_kubeconfig(self, plane: ControlPlane, pki: Pki) -> None:
        name = f"podyard-{self._config.name}"
        document = build_kubeconfig(plane.connection(pki.admin), name=name)
        write_kubeconfig(self._config.data_dir / "kubeconfig", document)

    # --- the control socket ---

    def _told_to_stop(self, grace_s: float | None, keep_pods: bool) -> None:  # noqa: FBT001 - see Stop
        if not keep_pods:
            usual_s = stop_grace_s(self._config)
            self._stop_pods_within_s = usual_s if grace_s is None else grace_s
        self._stopping.set()

    async def _status(self) -> Document:
        row = self._row
        assert row is not None
        status: Document = {
            "name": self._config.name,
            "version": podyard.__version__,
            "pid": os.getpid(),
            "startedAt": self._started_at.isoformat(timespec="seconds"),
            "dataDir": str(self._config.data_dir),
            "server": f"https://{LOOPBACK}:{row.api_port}",
            "podCIDR": ",".join(row.pod_cidrs),
            "serviceCIDR": ",".join(row.service_cidrs),
            "runtime": self._runtime.description if self._runtime else "starting",
            "node": "starting",
            "stopGraceSeconds": stop_grace_s(self._config),
            "pods": [],
        }
        if self._node is not None:
            status.update(self._node.describe())
        return status


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _explain(error: OSError, row: Instance, config: Config) -> str:
    text = str(error)
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        where = ", ".join(config.listen)
        return f"--listen {where}: every one has to be an address of this host ({text})"
    if error.errno == errno.EADDRINUSE:
        return (
            f"a port is in use ({text}); choose others with --port and --node-port "
            f"(0 for any free one); this instance has "
            f"{row.api_port} and {row.node_port}"
        )
    return text
