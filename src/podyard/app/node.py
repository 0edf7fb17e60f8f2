"""The node's rooms, made and joined: an ordinary client of any Kubernetes API."""

import asyncio
import os
import random
import resource
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal

import structlog

import podyard
from podyard.api.core_v1 import Pod
from podyard.api.defaults import default_object
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.feature_gates import FeatureGates
from podyard.api.identity import User
from podyard.api.quantity import to_bytes
from podyard.api.restart import CRASH_LOOP
from podyard.api.schema import Schemas
from podyard.api.scheme import (
    ENDPOINT_SLICE,
    PERSISTENT_VOLUME,
    POD,
    RUNTIME_CLASS,
    SERVICE,
)
from podyard.api.storage import NODE_LABEL, VOLUMES_DIR, node_label
from podyard.api.validation import validate_create
from podyard.app.cluster_dns import dns_loop, dns_servers_of_pods
from podyard.app.config import Config, shutdown_periods
from podyard.app.credentials import PodTokens, source_context, token_audiences
from podyard.app.eviction import PodPlaces, make_eviction, memory_kept
from podyard.app.host import Host
from podyard.app.instances import Instance
from podyard.app.machine import make_shutdown
from podyard.app.pki import Pki, server_tls
from podyard.app.pull_progress import ContainerdProgress
from podyard.app.registries import credential_files
from podyard.app.resolv_conf import read_resolv_conf
from podyard.app.runtimes import Runtime, mounts_images
from podyard.client.connection import ApiConnection
from podyard.client.events import EventRecorder
from podyard.client.grpc_health import check_health
from podyard.client.http import HttpApiClient
from podyard.client.informer import Informer, OnChange
from podyard.client.referenced import ReferencedObjects
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.metrics import Computed, Metric
from podyard.lib.parts import load_parts
from podyard.lib.values import dataclass
from podyard.network.agent import NetworkAgent
from podyard.network.conntrack import forget_stale_flows
from podyard.network.decide import NetworkFacts
from podyard.network.dns.names import ClusterNames
from podyard.network.dns.sockets import DnsSockets
from podyard.network.nftables import Nftables
from podyard.node.agent import NodeAgent, NodeConfig, NodeParts, PodEvents
from podyard.node.credentials.manager import CredentialManager
from podyard.node.credentials.watch import NodeFileWatch
from podyard.node.endpoints.explain import ExplainParts, PodExplainer
from podyard.node.endpoints.server import EndpointsConfig, NodeEndpoints
from podyard.node.environment.build import DNSSettings
from podyard.node.environment.manager import EnvironmentManager
from podyard.node.hooks import handlers as hook_handlers
from podyard.node.hooks.deliveries import Deliveries
from podyard.node.hooks.handler import HookHandler
from podyard.node.hooks.output import HookLog
from podyard.node.hooks.runner import HookRunner
from podyard.node.images.access.decide import VerificationSettings, parse_policy
from podyard.node.images.access.records import ImageAccess
from podyard.node.images.decide import GcSettings
from podyard.node.images.gc import ImageGc
from podyard.node.images.manager import ImageManager
from podyard.node.images.pulls import ImageSettings
from podyard.node.logs.rotation import RotationSettings
from podyard.node.pleg.health import RuntimeHealth
from podyard.node.probes import handlers as probe_handlers
from podyard.node.probes.handler import ProbeHandler
from podyard.node.probes.manager import ProbeManager
from podyard.node.registration.build import NodeSettings
from podyard.node.resources.cgroups import PodCgroups
from podyard.node.resources.host import observe_cgroups, observe_host_limits
from podyard.node.runtime_classes.manager import RuntimeClassManager
from podyard.node.sources.build import ManifestError
from podyard.node.sync.act import ActSettings
from podyard.node.sync.admission.decide import HostAbilities
from podyard.node.sync.build import BuildSettings
from podyard.node.volumes.manager import VolumeManager
from podyard.node.volumes.mounts import ensure_shared
from podyard.node.volumes.parts import VolumeServices
from podyard.node.volumes.reclaim import VolumeReclaimer
from podyard.node.volumes.tokens import TokenManager
from podyard.store.node_journal import NodeJournal
from podyard.store.sqlite_journal import open_node_journal

log = structlog.get_logger()

#: Requests under way at once: each needs a connection, and connections cost more.
REQUESTS_AT_ONCE: Final = 6
#: How often old records of the journal are removed, seconds.
PRUNE_S: Final = 3600.0


def node_name_of(config: Config) -> str:
    """Return the Node's name: the host's, in lower case, unless one is given."""
    return config.node_name or socket.gethostname().lower()


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """What a node is made from.

    Attributes:
        config: what a person chose.
        row: what the instance owns on this machine.
        host: what the machine can do.
        pki: certificates of the node's own endpoints.
        connection: how the node reaches its API.
        runtime: the CRI runtime.
        facts: what the network rules depend on.
        schemas: the definitions static Pods are checked with.
        name: the Node's name.
        dns: where the built-in DNS listens; ``None`` when it is switched off.
    """

    config: Config
    row: Instance
    host: Host
    pki: Pki
    connection: ApiConnection
    runtime: Runtime
    facts: NetworkFacts
    schemas: Schemas
    name: str
    dns: DnsSockets | None = None


class NodeEvents(PodEvents):
    """Events about Pods, and about the Node itself."""

    def __init__(self, recorder: EventRecorder, node_name: str) -> None:
        super().__init__(recorder)
        # The field's habit: events of a Node carry its name as the uid.
        self._node: Document = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node_name, "uid": node_name},
        }

    def node_event(
        self, event_type: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Tell users something about the node."""
        self.event(self._node, event_type, reason, message)


class Followed:
    """The kinds a node follows whole: Services, their slices, RuntimeClasses."""

    def __init__(
        self,
        client: HttpApiClient,
        network: NetworkAgent,
        names: ClusterNames,
        name: str,
    ) -> None:
        self.services = Informer(
            client, SERVICE, on_change=_both(network.on_service, names.on_service)
        )
        self.slices = Informer(
            client, ENDPOINT_SLICE, on_change=_both(network.on_slice, names.on_slice)
        )
        self.classes = Informer(client, RUNTIME_CLASS, on_change=self._class_changed)
        self._tell_new_class: Callable[[str], None] = lambda _: None
        self.pods = Informer(
            client,
            POD,
            on_change=_both(network.on_pod, names.on_pod),
            field_selector=f"spec.nodeName={name}",
        )

    async def wait_synced(self) -> None:
        """Wait until Pods can be started: Services and classes are known."""
        await self.services.wait_synced()
        await self.classes.wait_synced()

    async def wait_named(self) -> None:
        """Wait until everything that has a name is known."""
        for informer in (self.services, self.slices, self.pods):
            await informer.wait_synced()

    def known_services(self) -> Iterable[Document] | None:
        """Return the Services, ``None`` before they have been heard of."""
        return self.services.items() if self.services.is_synced else None

    def find_class(self, name: str) -> Document | None:
        """Return a RuntimeClass, or ``None``."""
        return self.classes.get("", name)

    def on_new_class(self, tell: Callable[[str], None]) -> None:
        """Have ``tell(name)`` called whenever a RuntimeClass appears."""
        self._tell_new_class = tell

    def _class_changed(self, old: Document | None, new: Document | None) -> None:
        if old is None and new is not None:
            self._tell_new_class(str(new["metadata"]["name"]))


def _both(first: OnChange, second: OnChange) -> OnChange:
    def tell(old: Document | None, new: Document | None) -> None:
        first(old, new)
        second(old, new)

    return tell


def _retry_pods_of_class(agent: NodeAgent, name: str) -> None:
    """Have Pods that waited for their RuntimeClass try again at once."""
    for pod in agent.all_pods():
        if pod.spec.runtime_class_name == name:
            agent.retry_now(pod.uid)


class Node:
    """A node that runs: agent, endpoints and network."""

    def __init__(
        self,
        setup: NodeSetup,
        agent: NodeAgent,
        endpoints: NodeEndpoints,
        health: RuntimeHealth,
        hooks: HookRunner,
    ) -> None:
        self._setup = setup
        self._agent = agent
        self._endpoints = endpoints
        self._health = health
        self._hooks = hooks

    async def run(self) -> None:
        """Run the agent until cancelled; containers run on."""
        await self._agent.run()

    async def wait_ready(self) -> None:
        """Wait until the API has been told that the node is Ready."""
        await self._agent.registration.wait_registered()
        await self._health.wait_known()

    async def stop_pods(self, *, within_s: float) -> None:
        """Stop every Pod, the least important first."""
        await self._agent.stop_pods(within_s=within_s)

    def describe(self) -> Document:
        """Return what ``podyard status`` shows of it."""
        errors = self._agent.ready_errors
        pods = sorted(self._agent.all_pods(), key=lambda p: (p.namespace, p.name))
        return {
            "node": self._setup.name,
            "nodeReady": "; ".join(errors) if errors else "yes",
            "pods": [_describe_pod(pod, self._agent.pod_status(pod)) for pod in pods],
        }


def _pulling(statuses: Iterable[Document]) -> str:
    """Return how far the pull is that goes on; empty where there is none."""
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in {"ContainerCreating", "PodInitializing"}:
            message = str(waiting.get("message") or "")
            if message:
                return message
    return ""


def _describe_pod(pod: Pod, status: Document) -> Document:
    containers = status.get("containerStatuses") or []
    ready = sum(1 for container in containers if container.get("ready"))
    waiting = [
        (container.get("state") or {}).get("waiting", {}).get("reason")
        for container in (*(status.get("initContainerStatuses") or ()), *containers)
    ]
    reason = next((why for why in waiting if why), "")
    if pod.deleting:
        reason = "Terminating"
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "status": reason or status.get("reason") or status.get("phase") or "Pending",
        "ready": f"{ready}/{len(pod.spec.containers)}",
        "restarts": sum(c.get("restartCount", 0) for c in containers),
        "ip": status.get("podIP") or "",
        "pulling": _pulling(
            (*(status.get("initContainerStatuses") or ()), *containers)
        ),
    }


@asynccontextmanager
async def open_node(setup: NodeSetup, *, clock: Clock) -> AsyncGenerator[Node, None]:
    """Make a node and listen; close everything at the end.

    Raises:
        StoreError: the node's journal cannot be used.
        OSError: an address or port cannot be had, or a mount is refused.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            HttpApiClient(
                setup.connection, user_agent="podyard-node", in_flight=REQUESTS_AT_ONCE
            )
        )
        journal = await stack.enter_async_context(
            open_node_journal(setup.config.data_dir / "journal.db")
        )
        pods_dir = setup.config.data_dir / "pods"
        pods_dir.mkdir(mode=0o750, exist_ok=True)
        await asyncio.to_thread(ensure_shared, pods_dir)
        node = await _make_node(setup, client, journal, clock=clock, stack=stack)
        yield node


async def _make_node(
    setup: NodeSetup,
    client: HttpApiClient,
    journal: NodeJournal,
    *,
    clock: Clock,
    stack: AsyncExitStack,
) -> Node:
    config, row, runtime = setup.config, setup.row, setup.runtime.runtime
    recorder = EventRecorder(client, component="kubelet", host=setup.name, clock=clock)
    events = NodeEvents(recorder, setup.name)
    health = RuntimeHealth(runtime)
    network = NetworkAgent(
        setup.facts,
        apply=Nftables(row.nft_table).apply,
        forget_stale=lambda targets: asyncio.to_thread(
            forget_stale_flows, targets, setup.facts
        ),
    )
    names = ClusterNames(int(clock.now().timestamp()))
    followed = Followed(client, network, names, setup.name)
    # Credential plugins that are told of ServiceAccounts hear of changes at once.
    accounts = bool(await asyncio.to_thread(token_audiences, config))
    referenced = ReferencedObjects(client, accounts=accounts)
    limits = await asyncio.to_thread(lambda: observe_host_limits(observe_cgroups()))
    classes = RuntimeClassManager(
        followed.find_class,
        lambda: health.status,
        lambda: health.version.runtime_name if health.version else "",
    )
    tokens = TokenManager(client, clock)
    access = await _open_access(setup, clock)
    images = ImageManager(
        setup.runtime.images,
        CredentialManager(
            await asyncio.to_thread(
                partial(source_context, config, referenced, tokens=PodTokens(tokens))
            ),
            semantics="upstream" if config.semantics == "upstream" else "documented",
        ),
        events,
        clock,
        settings=ImageSettings(
            serialize_image_pulls=config.serialize_image_pulls,
            max_parallel_image_pulls=None
            if config.serialize_image_pulls
            else config.max_parallel_image_pulls,
            registry_pull_qps=config.registry_pull_qps,
            registry_burst=config.registry_burst,
            progress_timeout_s=config.image_pull_progress_timeout_s,
        ),
        journal=journal,
        access=access,
        progress=_pull_progress(setup, clock, stack),
        remote=setup.runtime.images,
    )
    credential_watch = NodeFileWatch(credential_files(config), images.pods_in_back_off)
    allocatable: dict[str, str] = {}
    volumes = VolumeManager(
        config.data_dir / "pods",
        VolumeServices(
            objects=referenced,
            tokens=tokens,
            node_allocatable=lambda: allocatable,
            mounts_images=mounts_images(await runtime.version()),
            volumes_dir=_volumes_dir(config),
        ),
        events,
        clock,
        recursive_read_only=classes.recursive_read_only,
    )
    own_volumes, reclaimer = _reclaimer(setup, client, events)
    hooks = HookRunner(
        runtime,
        Deliveries(journal, clock),
        load_parts(hook_handlers, HookHandler),
        clock=clock,
        documented=config.semantics == "documented",
        warn=lambda pod, reason, message: events.event(
            pod.document, "Warning", reason, message
        ),
        output=HookLog(config.data_dir / "logs" / "pods", clock),
    )
    probes = ProbeManager(
        runtime,
        load_parts(probe_handlers, ProbeHandler),
        grpc_check=check_health,
        record=lambda document, kind, reason, message, path: events.event(
            document, kind, reason, message, field_path=path
        ),
        clock=clock,
        chance=random.Random(),  # noqa: S311 - spreads probes, hides nothing
    )
    gc = ImageGc(
        setup.runtime.images,
        runtime,
        events,
        clock,
        settings=GcSettings(
            high_percent=config.image_gc_high_threshold_percent,
            low_percent=config.image_gc_low_threshold_percent,
            min_age_s=config.image_minimum_gc_age_s,
            max_age_s=config.image_maximum_gc_age_s,
        ),
        access=access,
    )

    async def free_disk() -> None:
        await agent.collect_garbage()
        await gc.delete_unused()

    cgroups = PodCgroups(
        row.cgroup_root, _driver(setup), pids_max=max(config.pod_pids_limit, 0)
    )
    act = ActSettings(
        build=BuildSettings(
            seccomp_dir=str(config.data_dir / "seccomp"),
            seccomp_default=config.seccomp_default,
            stop_signals=_gates(config).enabled("ContainerStopSignals"),
        ),
        dns=DNSSettings(
            cluster_dns=dns_servers_of_pods(config, row, setup.dns),
            cluster_domain=config.cluster_domain,
            node=read_resolv_conf(config.resolv_conf),
        ),
        limits=limits,
        fail_refused_handlers=config.semantics == "documented",
    )
    environment = EnvironmentManager(
        referenced, followed.known_services, volumes.empty_dir
    )
    eviction = make_eviction(
        config,
        runtime=runtime,
        images=setup.runtime.images,
        places=PodPlaces(config.data_dir, volumes, cgroups),
        events=events,
        node_events=events,
        free_disk=free_disk,
        clock=clock,
    )
    machine = make_shutdown(config, events=events, clock=clock)
    agent = NodeAgent(
        NodeConfig(
            node=_node_settings(setup),
            act=act,
            pods_dir=config.data_dir / "pods",
            logs_dir=config.data_dir / "logs" / "pods",
            links_dir=config.data_dir / "logs" / "containers",
            manifest_dir=Path(config.static_pod_path)
            if config.static_pod_path
            else None,
            rotation=RotationSettings(
                max_bytes=to_bytes(config.container_log_max_size),
                max_files=config.container_log_max_files,
            ),
            host=HostAbilities(apparmor=_has_apparmor()),
            crash_loop=_crash_loop(config.max_container_restart_period_s),
            shutdown=shutdown_periods(config),
        ),
        NodeParts(
            runtime=runtime,
            image_service=setup.runtime.images,
            health=health,
            client=client,
            events=events,
            journal=journal,
            images=images,
            volumes=volumes,
            environment=environment,
            cgroups=cgroups,
            runtime_classes=classes,
            hooks=hooks,
            probes=probes,
            container_events=runtime.container_events,
            prepare_manifest=partial(_prepare_manifest, setup.schemas, _gates(config)),
            ready=followed.wait_synced,
            referenced=referenced,
            pressures=eviction.pressures,
            machine_going=lambda: machine is not None and machine.is_going,
            on_stop=hooks.leave_open,
            loops={
                "events": recorder.run,
                "services": followed.services.run,
                "endpoint-slices": followed.slices.run,
                "runtime-classes": followed.classes.run,
                "pods-for-network": followed.pods.run,
                "network": partial(
                    network.run,
                    pods=followed.pods,
                    services=followed.services,
                    slices=followed.slices,
                ),
                "referenced-objects": referenced.run,
                "volumes": volumes.run,
                "local-volumes": own_volumes.run,
                "reclaimed-volumes": reclaimer.run,
                "probes": probes.run,
                "image-gc": gc.run,
                "node-credentials": lambda: credential_watch.run(agent.retry_now),
                "eviction": lambda: eviction.run(agent),
                "journal": partial(_prune_for_ever, journal, clock),
                **({"machine": lambda: machine.run(agent)} if machine else {}),
                **dns_loop(config, row, setup.dns, names, followed.wait_named),
            },
        ),
        clock=clock,
        chance=random.Random(),  # noqa: S311 - spreads retries, hides nothing
    )
    eviction.on_change(agent.registration.change_soon)
    if machine is not None:
        machine.on_change(agent.registration.change_soon)
    allocatable.update(agent.allocatable)
    images.on_progress(agent.look_at)
    followed.on_new_class(partial(_retry_pods_of_class, agent))
    explainer = PodExplainer(
        setup.name,
        ExplainParts(
            journal=journal,
            pods=agent,
            environment=environment,
            runtime_classes=classes,
            handlers=partial(_handlers, health),
            image_environment=setup.runtime.image_environment,
            container_environment=setup.runtime.container_environment,
            status=agent.pod_status,
            story=agent.explain_pod,
            host_ips=row.node_ips,
            allocatable=partial(_allocatable, agent),
        ),
    )
    endpoints = _make_endpoints(setup, agent, clock, explainer)
    tls = server_tls(setup.pki.node_serving, setup.pki.ca_path)
    await endpoints.start(("127.0.0.1", str(row.gateway.ip)), row.node_port, tls)
    stack.push_async_callback(endpoints.stop)
    return Node(setup, agent, endpoints, health, hooks)


def _handlers(health: RuntimeHealth) -> tuple[str, ...]:
    status = health.status
    return tuple(handler.name for handler in status.handlers) if status else ()


def _allocatable(agent: NodeAgent) -> Mapping[str, str]:
    status = agent.registration.document.get("status") or {}
    return dict(status.get("allocatable") or {})


def _make_endpoints(
    setup: NodeSetup, agent: NodeAgent, clock: Clock, explainer: PodExplainer
) -> NodeEndpoints:
    api_server = setup.pki.api_server_client.name

    def may(user: User, _subresource: str) -> bool:
        return user.name == api_server or "system:masters" in user.groups

    def healthy() -> str | None:
        return "; ".join(agent.ready_errors) or None

    config = setup.config
    return NodeEndpoints(
        EndpointsConfig(
            node_name=setup.name,
            logs_dir=config.data_dir / "logs" / "pods",
            config_document={
                "kind": "KubeletConfiguration",
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "maxPods": config.max_pods,
                "clusterDomain": config.cluster_domain,
                "clusterDNS": list(dns_servers_of_pods(config, setup.row, setup.dns)),
                "cgroupDriver": _driver(setup),
                "staticPodPath": config.static_pod_path,
                "serializeImagePulls": config.serialize_image_pulls,
                "containerLogMaxSize": config.container_log_max_size,
                "containerLogMaxFiles": config.container_log_max_files,
            },
        ),
        runtime=setup.runtime.runtime,
        pods=agent,
        may=may,
        metrics=partial(_metrics, agent),
        healthy=healthy,
        clock=clock,
        explainer=explainer,
    )


def _metrics(agent: NodeAgent) -> tuple[Metric, ...]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (
        Computed(
            "kubelet_active_pods",
            "Pods this node has been told to run.",
            lambda: {(): len(agent.all_pods())},
        ),
        Computed(
            "kubelet_node_ready",
            "1 where the node is Ready.",
            lambda: {(): 0 if agent.ready_errors else 1},
        ),
        Computed(
            "process_cpu_seconds_total",
            "CPU time of this process, user and system.",
            lambda: {(): usage.ru_utime + usage.ru_stime},
            kind="counter",
        ),
        Computed(
            "process_resident_memory_bytes",
            "Resident memory of this process.",
            lambda: {(): _resident_bytes()},
        ),
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _node_settings(setup: NodeSetup) -> NodeSettings:
    return NodeSettings(
        name=setup.name,
        ips=setup.row.node_ips,
        kubelet_version=f"{podyard.KUBERNETES_VERSION}+podyard-{podyard.__version__}",
        kubelet_port=setup.row.node_port,
        max_pods=setup.config.max_pods,
        eviction_memory=memory_kept(setup.config),
        pod_cidrs=setup.row.pod_cidrs,
        annotations={VOLUMES_DIR: str(_volumes_dir(setup.config))},
    )


def _volumes_dir(config: Config) -> Path:
    return config.data_dir.resolve() / "volumes"


def _reclaimer(
    setup: NodeSetup, client: HttpApiClient, events: NodeEvents
) -> tuple[Informer, VolumeReclaimer]:
    """Return who follows this node's volumes, and who removes their data."""
    made: list[Informer] = []

    def follow(tell: OnChange) -> Informer:
        selector = f"{NODE_LABEL}={node_label(setup.name)}"
        made.append(
            Informer(client, PERSISTENT_VOLUME, on_change=tell, label_selector=selector)
        )
        return made[0]

    reclaimer = VolumeReclaimer(client, events, _volumes_dir(setup.config), follow)
    return made[0], reclaimer


def _crash_loop(cap_s: float) -> Backoff:
    """Return the back-off under KEP-5593's cap: a lower cap is the first delay, too."""
    return Backoff(base_s=min(CRASH_LOOP.base_s, cap_s), cap_s=cap_s)


def _has_apparmor() -> bool:
    return Path("/sys/kernel/security/apparmor").is_dir()


def _driver(setup: NodeSetup) -> str:
    if setup.config.cgroup_driver:
        return setup.config.cgroup_driver
    return "systemd" if setup.host.systemd_cgroup else "cgroupfs"


def _gates(config: Config) -> FeatureGates:
    return FeatureGates(config.feature_gates or {})


def _pull_progress(
    setup: NodeSetup, clock: Clock, stack: AsyncExitStack
) -> ContainerdProgress:
    private = setup.runtime.private
    socket = setup.config.runtime_endpoint.removeprefix("unix://")
    if private is not None:
        socket = private.containerd.config.socket
    progress = ContainerdProgress(socket, clock)
    stack.push_async_callback(progress.close)
    return progress


async def _open_access(setup: NodeSetup, clock: Clock) -> ImageAccess:
    """Read who may use which images; what a crash cut off is made good.

    Raises:
        OSError: the records cannot be kept.
    """
    config = setup.config
    access = ImageAccess(
        config.data_dir / "image_manager",
        clock,
        VerificationSettings(
            parse_policy(config.pull_verification_policy),
            config.pull_verification_allowlist,
        ),
    )
    await access.load(await setup.runtime.images.list_images())
    return access


def _prepare_manifest(
    schemas: Schemas, gates: FeatureGates, document: Document
) -> Document:
    """Check and default a static Pod as the API server would.

    Raises:
        ManifestError: the API server would refuse it.
    """
    try:
        checked = schemas.decode("v1", "Pod", document)
    except ApiError as error:
        raise ManifestError(error.message) from error
    if checked.unknown:
        raise ManifestError(f"strict decoding error: {', '.join(checked.unknown)}")
    pod: Document = checked.document
    default_object(POD, pod)
    faults = validate_create(POD, pod, gates)
    if faults:
        raise ManifestError("; ".join(str(fault) for fault in faults))
    return pod


async def _prune_for_ever(journal: NodeJournal, clock: Clock) -> None:
    while True:
        await journal.prune(now=clock.now())
        await asyncio.sleep(PRUNE_S)
