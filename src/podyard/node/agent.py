"""The node agent, our kubelet: Pods in, containers out, and the truth back.

``NodeAgent`` is given everything it works with and is run once::

    agent = NodeAgent(config, parts, clock=SystemClock(), chance=random.Random())
    await agent.run()

Cancelling ``run`` stops only the agent: containers run on, and the next agent finds
them as they are. ``stop_pods`` beforehand stops them, too.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Final, Literal

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import ContainerEvent, ContainerState
from podyard.api.predicates import Rejection
from podyard.api.quantity import QuantityError
from podyard.api.restart import CRASH_LOOP
from podyard.api.runtime import Label
from podyard.api.scheme import Kind
from podyard.client.events import EventRecorder, subject_of
from podyard.client.referenced import ReferencedObjects
from podyard.client.services import ApiClient
from podyard.cri.services import CRIError, ImageService, RuntimeService
from podyard.lib.aio import supervise
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.logs.rotation import ContainerLog, LogRotation, RotationSettings
from podyard.node.pleg.evented import EventedPleg
from podyard.node.pleg.health import RuntimeHealth
from podyard.node.pleg.relist import Relister
from podyard.node.registration.build import (
    NodeCondition,
    NodeSettings,
    RuntimeFacts,
    build_allocatable,
)
from podyard.node.registration.facts import observe_machine
from podyard.node.registration.heartbeat import NodeRegistration
from podyard.node.shutdown.decide import ShutdownPeriod, decide_shutdown
from podyard.node.sources.api import NAME as API
from podyard.node.sources.api import ApiSource
from podyard.node.sources.manifest_dir import NAME as FILE
from podyard.node.sources.manifest_dir import ManifestDirSource, Prepare
from podyard.node.sources.mirrors import MirrorPods
from podyard.node.status.decide import TERMINAL, NodeView, PodFailure
from podyard.node.status.manager import StatusManager
from podyard.node.sync.act import ActParts, ActSettings, NodeNow, PodActor
from podyard.node.sync.admission.decide import (
    HostAbilities,
    decide_critical_preemption,
    decide_node_admission,
    decide_pressure_admission,
)
from podyard.node.sync.files import Blocking, PodFiles
from podyard.node.sync.garbage.collector import GarbageCollector
from podyard.node.sync.ledger import OpenStop, StopLedger
from podyard.node.sync.observe import Observer
from podyard.node.sync.parts import (
    Environment,
    Events,
    Hooks,
    Images,
    PodCgroups,
    Probes,
    RuntimeClasses,
    Volumes,
)
from podyard.node.sync.pod import PodEnding, PodSync, Stage
from podyard.node.sync.terminate import StopTools
from podyard.node.sync.tools import PodTools
from podyard.node.workers import PodWorkers
from podyard.store.node_journal import NodeJournal

log = structlog.get_logger()

#: Between two rounds of garbage collection, seconds.
GARBAGE_S: Final = 60.0
#: After a crash of one of the agent's loops it starts again, seconds.
RESTART_S: Final = 1.0
#: Whether Pods that end for a critical one are over is asked so often, seconds.
ROOM_POLL_S: Final = 0.2
#: What is said of a Pod that ends for a critical one.
PREEMPTING: Final = "Preempting"
PREEMPTED_MESSAGE: Final = "Preempted in order to admit critical pod"
#: What is said of a Pod that comes while the machine goes down.
NODE_SHUTDOWN: Final = "NodeShutdown"
NODE_SHUTDOWN_MESSAGE: Final = "Pod was rejected as the node is shutting down."


class PodEvents:
    """Records Events about documents through an ``EventRecorder``."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def event(
        self,
        document: Document,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Tell users something about an object; never waits, never fails."""
        subject = subject_of(document, field_path=field_path)
        self._recorder.record(subject, event_type, reason, message)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How this node is.

    Attributes:
        node: how it presents itself.
        act: what of it goes into its Pods.
        pods_dir: holds a directory for each Pod uid.
        logs_dir: holds the container logs, as ``/var/log/pods`` does.
        links_dir: holds links to them, as ``/var/log/containers`` does.
        manifest_dir: static Pods; ``None`` for none.
        rotation: when logs are rotated.
        host: what the host can enforce.
        shutdown: how long Pods get when the node goes away, by priority; without any
            they share what there is.
    """

    node: NodeSettings
    act: ActSettings
    pods_dir: Path
    logs_dir: Path
    links_dir: Path
    manifest_dir: Path | None = None
    rotation: RotationSettings = field(default_factory=RotationSettings)
    host: HostAbilities = field(default_factory=HostAbilities)
    crash_loop: Backoff = CRASH_LOOP
    shutdown: tuple[ShutdownPeriod, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What the agent works with.

    Attributes:
        runtime: the runtime.
        image_service: the runtime's images, for the node's status.
        health: asks the runtime how it is; others read it, too.
        client: the API.
        events: records Events.
        journal: the node's own records.
        container_events: opens the runtime's event stream.
        prepare_manifest: defaults and validates a static Pod.
        ready: awaited before Pods of the API are taken: what they refer to
            (Services, RuntimeClasses) has been heard of then.
        referenced: follows ConfigMaps and Secrets of Pods; ``None`` for none.
        pressures: returns the node's pressure conditions that are True.
        machine_going: says whether the machine is about to go down.
        on_stop: called first when the agent is told to stop.
        loops: what else runs as long as the agent does, by name (probes, followers).
    """

    runtime: RuntimeService
    image_service: ImageService
    health: RuntimeHealth
    client: ApiClient
    events: Events
    journal: NodeJournal
    images: Images
    volumes: Volumes
    environment: Environment
    cgroups: PodCgroups
    runtime_classes: RuntimeClasses
    hooks: Hooks
    probes: Probes
    container_events: Callable[[], AsyncIterator[ContainerEvent]]
    prepare_manifest: Prepare
    ready: Callable[[], Awaitable[None]]
    referenced: ReferencedObjects | None = None
    pressures: Callable[[], frozenset[str]] = frozenset
    machine_going: Callable[[], bool] = lambda: False
    on_stop: Callable[[], None] = lambda: None
    loops: Mapping[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)


class NodeAgent:
    """One node.

    Args:
        config: how it is.
        parts: what it works with.
        clock: the time.
        chance: spreads retries.
        blocking: runs file work.
    """

    def __init__(
        self,
        config: NodeConfig,
        parts: NodeParts,
        *,
        clock: Clock,
        chance: random.Random,
        blocking: Blocking = asyncio.to_thread,
    ) -> None:
        self._config = config
        self._parts = parts
        self._clock = clock
        self._chance = chance
        self._blocking = blocking
        config.pods_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        config.logs_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._facts = observe_machine(config.pods_dir)
        self._allocatable = build_allocatable(config.node, self._facts)
        self._pods: dict[str, Pod] = {}
        self._held_static: dict[tuple[str, str], Pod] = {}
        self._room_for: dict[str, frozenset[str]] = {}
        self._room_wanted = asyncio.Event()
        self._sources = {API} | ({FILE} if config.manifest_dir else set())
        self._reported: set[str] = set()
        self._collect_soon = asyncio.Event()
        self._workers: PodWorkers | None = None
        self._open_stops: dict[str, tuple[OpenStop, ...]] = {}
        self._hooks_settled = False
        self._files = PodFiles(config.pods_dir, config.logs_dir, config.links_dir)
        self._observer = Observer(parts.runtime, self._files, blocking)
        self._ledger = StopLedger(parts.journal, clock)
        self.registration = NodeRegistration(
            parts.client,
            config.node,
            facts=lambda: self._facts,
            runtime=self._runtime_facts,
            condition=self._condition,
            images=parts.image_service,
            events=parts.events,
            clock=clock,
        )
        self._mirrors = MirrorPods(
            parts.client,
            config.node.name,
            lambda: self.registration.uid,
            self._static_pods,
            lambda: self.sources_ready,
        )
        self.status = StatusManager(parts.client, self._mirrors.find)
        self._relister = Relister(
            parts.runtime, self._wake, lambda: self._evented.works, clock
        )
        self._evented = EventedPleg(
            parts.container_events,
            self._uid_of,
            self._wake,
            self._relister.look_soon,
        )
        self._tools = self._build_tools()
        self._garbage = GarbageCollector(
            parts.runtime,
            self._observer,
            self._files,
            volumes=parts.volumes,
            cgroups=parts.cgroups,
            known=self._is_known,
            blocking=blocking,
        )
        self._rotation = LogRotation(
            parts.runtime,
            self._running_logs,
            config.rotation,
            clock=clock,
            blocking=blocking,
        )

    def _build_tools(self) -> PodTools:
        parts, config = self._parts, self._config
        actor = PodActor(
            ActParts(
                runtime=parts.runtime,
                images=parts.images,
                volumes=parts.volumes,
                environment=parts.environment,
                cgroups=parts.cgroups,
                runtime_classes=parts.runtime_classes,
                hooks=parts.hooks,
                events=parts.events,
            ),
            self._files,
            config.act,
            self._node_now,
            self._blocking,
        )
        return PodTools(
            observer=self._observer,
            actor=actor,
            stops=StopTools(
                parts.runtime, parts.hooks, parts.events, self._ledger, self._clock
            ),
            status=self.status,
            probes=parts.probes,
            volumes=parts.volumes,
            cgroups=parts.cgroups,
            files=self._files,
            blocking=self._blocking,
            clock=self._clock,
            network_error=lambda: parts.health.network_error,
            node_view=self._node_view,
            chance=self._chance.random,
            crash_loop=config.crash_loop,
        )

    # --- running ---

    async def run(self) -> None:
        """Run until cancelled."""
        self._open_stops = await self._ledger.load()
        self._parts.probes.on_change(self._wake)
        self._parts.health.on_change(self._runtime_changed)
        if self._parts.referenced is not None:
            self._parts.referenced.on_change(self._reference_changed)
        async with asyncio.TaskGroup() as group:
            self._workers = PodWorkers(
                group,
                self._make_life,
                self._clock,
                self._chance.random,
                on_gone=self._pod_gone,
            )
            for name, run in self._loops():
                group.create_task(self._supervised(name, run), name=name)
            try:
                await asyncio.Event().wait()
            finally:
                # Before any task is cancelled: what is cut now is cut by the node.
                self._parts.on_stop()

    def _loops(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        loops: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("runtime-health", self._parts.health.run),
            ("status-manager", self.status.run),
            ("node-registration", self.registration.run),
            ("pleg-events", self._evented.run),
            ("pleg-relist", self._relister.run),
            ("mirror-pods", self._mirrors.run),
            ("garbage", self._collect_for_ever),
            ("critical-pods", self._admit_critical_for_ever),
            ("log-rotation", self._rotation.run),
            (
                "pods-api",
                ApiSource(
                    self._parts.client, self._config.node.name, self, self._ready
                ).run,
            ),
            *self._parts.loops.items(),
        ]
        if self._config.manifest_dir is not None:
            source = ManifestDirSource(
                self._config.manifest_dir,
                self._config.node.name,
                self,
                prepare=self._parts.prepare_manifest,
                report=self._manifest_broken,
                clock=self._clock,
                blocking=self._blocking,
            )
            loops.append(("pods-manifests", source.run))
        return loops

    async def _ready(self) -> None:
        await self._parts.ready()
        # Before that the Node lacks the labels that its Pods were placed by.
        await self.registration.wait_registered()

    async def _supervised(
        self, name: str, run: Callable[[], Awaitable[object]]
    ) -> None:
        def crashed(crash: Exception) -> None:
            log.error("loop_crashed", loop=name, exc_info=crash)

        await supervise(run, restart_after_s=RESTART_S, on_crash=crashed)

    def _make_life(
        self, pod: Pod, group: asyncio.TaskGroup, wake: Callable[[float], None]
    ) -> PodSync:
        stops = self._open_stops.pop(pod.uid, ())
        return PodSync(pod, self._tools, group, wake, stops)

    # --- what others ask ---

    @property
    def sources_ready(self) -> bool:
        """Whether every source has told of all it has."""
        return self._reported >= self._sources

    @property
    def allocatable(self) -> Document:
        """What this node has to give to Pods."""
        return self._allocatable

    @property
    def ready_errors(self) -> tuple[str, ...]:
        """Why the node is not ready; empty where it is."""
        return self._condition().errors

    def find_pod(self, namespace: str, name: str) -> Pod | None:
        """Return a Pod by name; a static Pod is found by its own name."""
        for pod in self._pods.values():
            if (pod.namespace, pod.name) == (namespace, name):
                return pod
        return None

    def all_pods(self) -> tuple[Pod, ...]:
        """Return every Pod of this node."""
        return tuple(self._pods.values())

    def pod_status(self, pod: Pod) -> Document:
        """Return a Pod's status as this node sees it, told to the API or not."""
        return self.status.previous(pod)

    def explain_pod(self, uid: str) -> Document | None:
        """Return what was seen and done lately for a Pod, ``None`` if not here."""
        worker = self._workers.get(uid) if self._workers else None
        life = worker.life if worker else None
        return life.describe() if life else None

    def end_pod(self, uid: str, ending: PodEnding) -> bool:
        """End a Pod for a reason of the node's; return whether it is here."""
        return self._workers.end(uid, ending) if self._workers else False

    def active_pods(self) -> tuple[Pod, ...]:
        """Return the Pods that run here, or are about to."""
        return tuple(pod for pod in self._pods.values() if self._takes_room(pod))

    def is_over(self, uid: str) -> bool:
        """Say whether nothing of a Pod runs here any more."""
        worker = self._workers.get(uid) if self._workers else None
        return worker is None or worker.stage in (
            Stage.TERMINATED,
            Stage.FINISHED,
            Stage.PURGED,
        )

    async def wait_told(self, uid: str) -> None:
        """Wait until the API has taken, or refused, what is known of a Pod."""
        await self.status.wait_sent(uid)

    async def stop_pods(self, *, within_s: float) -> None:
        """Stop all Pods, the least important first, without ending them.

        Their objects stay as they are; an agent that comes later makes them anew.

        Args:
            within_s: what all grace periods together may take, seconds.
        """
        if self._workers is None:
            return
        until_s = self._clock.monotonic_s() + within_s
        pods = [(w.pod.uid, w.pod.spec.priority or 0) for w in self._workers]
        for group in decide_shutdown(pods, self._config.shutdown):
            left_s = max(until_s - self._clock.monotonic_s(), 1.0)
            if group.grace_s is not None:
                left_s = min(left_s, max(group.grace_s, 1.0))
            await self._workers.park(group.uids, left_s)

    # --- Pods come and go ---

    def take_pod(self, source: str, pod: Pod) -> None:
        """Take a new Pod, or a newer state of one."""
        if source == API and pod.is_mirror:
            self._mirrors.take(pod)
            self._resend_static(pod)
            return
        is_new = pod.uid not in self._pods
        self._pods[pod.uid] = pod
        if self._parts.referenced is not None:
            self._parts.referenced.register_pod(pod)
        if self._workers is None:
            return
        if pod.uid in self._workers:
            self._workers.update(pod)
        elif pod.is_static and self._is_namesake_here(pod):
            # An edited manifest is another Pod of the same name: one after the other.
            self._held_static[pod.namespace, pod.name] = pod
        elif is_new or not pod.is_static:
            self._begin(pod)
        if pod.is_static:
            self._mirrors.look_again()

    def drop_pod(self, source: str, pod: Pod) -> None:
        """Let go of a Pod that its source no longer has."""
        if source == API and pod.is_mirror:
            self._mirrors.drop(pod)
            return
        self._pods.pop(pod.uid, None)
        self._room_for.pop(pod.uid, None)
        if self._parts.referenced is not None:
            self._parts.referenced.unregister_pod(pod.uid)
        if self._workers is not None:
            self._workers.remove(pod.uid)
        held = self._held_static.get((pod.namespace, pod.name))
        if held is not None and held.uid == pod.uid:
            del self._held_static[pod.namespace, pod.name]
        if pod.is_static:
            self._mirrors.look_again()

    def source_ready(self, source: str) -> None:
        """Note that a source has told of everything it had."""
        if source in self._reported:
            return
        self._reported.add(source)
        if self.sources_ready:
            log.info("sources_ready", pods=len(self._pods))
            self._collect_soon.set()
            self._mirrors.look_again()

    def _begin(self, pod: Pod) -> None:
        assert self._workers is not None
        if pod.uid in self._room_for:
            return  # others are ending for it
        rejection = self._admit(pod)
        if rejection is not None and self._make_room(pod):
            return
        self._workers.update(pod)
        if rejection is not None:
            self._parts.events.event(
                pod.document, "Warning", rejection.reason, rejection.message
            )
            message = f"Pod was rejected: {rejection.message}"
            failure = PodFailure(rejection.reason, message)
            self._workers.end(pod.uid, PodEnding("rejected", failure=failure))

    def _admit(self, pod: Pod) -> Rejection | None:
        if pod.deleting or self._phase(pod) in TERMINAL:
            return None
        if self._parts.machine_going():
            return Rejection(NODE_SHUTDOWN, NODE_SHUTDOWN_MESSAGE)
        refusal = decide_pressure_admission(pod, self._parts.pressures())
        if refusal is not None and not self._has_run(pod):
            return refusal
        others = [
            other.document
            for other in self._pods.values()
            if other.uid != pod.uid and self._takes_room(other)
        ]
        try:
            return decide_node_admission(
                pod, self.registration.document, others, self._config.host
            )
        except QuantityError as error:
            return Rejection("UnexpectedAdmissionError", str(error))

    def _make_room(self, pod: Pod) -> bool:
        """End less important Pods for a critical one; return whether some end."""
        active = [p for p in self.active_pods() if p.uid != pod.uid]
        try:
            victims = decide_critical_preemption(
                pod, self.registration.document, active, self._config.host
            )
        except QuantityError:
            return False
        by_uid = {other.uid: other for other in active}
        for uid in victims:
            victim = by_uid[uid]
            self._parts.events.event(
                victim.document, "Warning", PREEMPTING, PREEMPTED_MESSAGE
            )
            failure = PodFailure(PREEMPTING, PREEMPTED_MESSAGE, disrupted=True)
            self.end_pod(uid, PodEnding("preempted", failure=failure))
            log.info("pod_preempted", pod=victim.full_name, by=pod.full_name)
        if victims:
            self._room_for[pod.uid] = frozenset(victims)
            self._room_wanted.set()
        return bool(victims)

    async def _admit_critical_for_ever(self) -> None:
        """Let critical Pods in as soon as those that end for them are over."""
        while True:
            await self._room_wanted.wait()
            for uid, victims in list(self._room_for.items()):
                if all(self.is_over(victim) for victim in victims):
                    del self._room_for[uid]
                    pod = self._pods.get(uid)
                    if pod is not None:
                        self._begin(pod)
            if self._room_for:
                await asyncio.sleep(ROOM_POLL_S)
            else:
                self._room_wanted.clear()

    def _has_run(self, pod: Pod) -> bool:
        """Return whether a Pod ran here before this agent started."""
        return bool(self.status.previous(pod).get("startTime"))

    def _takes_room(self, pod: Pod) -> bool:
        """Return whether a Pod holds resources here: it runs, or is about to."""
        worker = self._workers.get(pod.uid) if self._workers else None
        if worker is None:
            return False
        if worker.stage in (Stage.TERMINATED, Stage.FINISHED):
            return False
        return self._phase(pod) not in TERMINAL

    def _phase(self, pod: Pod) -> str:
        return str(self.status.previous(pod).get("phase") or "")

    def _is_namesake_here(self, pod: Pod) -> bool:
        assert self._workers is not None
        return any(
            (w.pod.namespace, w.pod.name) == (pod.namespace, pod.name)
            and w.pod.uid != pod.uid
            and w.pod.is_static
            for w in self._workers
        )

    def _pod_gone(self, pod: Pod) -> None:
        held = self._held_static.pop((pod.namespace, pod.name), None)
        if held is not None:
            self._begin(held)
            return
        again = self._pods.get(pod.uid)
        if again is not None:
            self._begin(again)

    def _static_pods(self) -> tuple[Pod, ...]:
        return tuple(p for p in self._pods.values() if p.is_static)

    def _resend_static(self, mirror: Pod) -> None:
        for pod in self._static_pods():
            if (pod.namespace, pod.name) == (mirror.namespace, mirror.name):
                self.status.resend(pod.uid)

    def _manifest_broken(self, path: str, error: str) -> None:
        self._parts.events.event(
            self.registration.reference(),
            "Warning",
            "FailedValidation",
            f"Error validating manifest {path}: {error}, ignoring",
        )

    # --- look again ---

    def look_at(self, uid: str) -> None:
        """Have a Pod looked at soon: something of it has changed."""
        self._wake(uid)

    def retry_now(self, uid: str) -> None:
        """Have a Pod try again at once what failed: what it waits for has changed."""
        if self._workers is not None:
            self._workers.retry_now(uid)

    def _wake(self, uid: str) -> None:
        if self._workers is None or self._workers.wake(uid):
            return
        if self.sources_ready:
            # Something of a Pod nobody knows: the next round sees to it.
            self._collect_soon.set()

    def _wake_all(self) -> None:
        for worker in self._workers or ():
            worker.order(lambda life: life.retry_now())

    def _runtime_changed(self) -> None:
        self.registration.change_soon()
        health = self._parts.health
        if not health.runtime_error and not health.network_error:
            self._relister.look_soon()
            self._wake_all()

    def _reference_changed(self, kind: Kind, namespace: str, name: str) -> None:
        referenced = self._parts.referenced
        if referenced is None or self._workers is None:
            return
        for uid in referenced.pods_of(kind, namespace, name):
            self._workers.retry_now(uid)

    def _uid_of(self, container_id: str) -> str:
        look = self._relister.look
        return look.uid_of(container_id) if look else ""

    def _is_known(self, uid: str) -> bool:
        if uid in self._pods or (self._workers is not None and uid in self._workers):
            return True
        return any(pod.uid == uid for pod in self._held_static.values())

    # --- what is known of the node ---

    def _runtime_facts(self) -> RuntimeFacts:
        return RuntimeFacts(self._parts.health.version, self._parts.health.status)

    def _condition(self) -> NodeCondition:
        health = self._parts.health
        network_error = "" if health.runtime_error else health.network_error
        going = "node is shutting down" if self._parts.machine_going() else ""
        errors = (health.runtime_error, network_error, self._relister.error, going)
        return NodeCondition(
            tuple(error for error in errors if error), self._parts.pressures()
        )

    def _node_now(self) -> NodeNow:
        status = self._parts.health.status
        return NodeNow(
            host_ips=self._config.node.ips,
            allocatable=self._allocatable,
            handlers=frozenset(h.name for h in status.handlers)
            if status
            else frozenset(),
        )

    def _node_view(self) -> NodeView:
        version = self._parts.health.version
        status = self._parts.health.status
        handlers = status.handlers if status else ()
        return NodeView(
            host_ips=self._config.node.ips,
            runtime_name=version.runtime_name if version else "containerd",
            recursive_read_only=any(
                h.recursive_read_only_mounts for h in handlers if not h.name
            ),
        )

    # --- garbage and logs ---

    async def _collect_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(GARBAGE_S):
                    await self._collect_soon.wait()
            except TimeoutError:
                pass
            self._collect_soon.clear()
            await self.collect_garbage()

    async def collect_garbage(self) -> None:
        """Remove what nobody wants: dead containers and what is left of old Pods."""
        try:
            look = await self._relister.relist()
        except CRIError as error:
            log.warning("garbage_waits", error=error.message)
            return
        await self._garbage.collect(look, sources_ready=self.sources_ready)
        if self.sources_ready:
            for uid in [uid for uid in self._open_stops if not self._is_known(uid)]:
                await self._ledger.abandon(self._open_stops.pop(uid))
            if not self._hooks_settled:
                self._hooks_settled = True
                await self._parts.hooks.settle_others(self._is_known)

    def _running_logs(self) -> list[ContainerLog]:
        look = self._relister.look
        return [
            ContainerLog(
                c.id,
                self._files.log_file(
                    c.labels.get(Label.POD_NAMESPACE, ""),
                    c.labels.get(Label.POD_NAME, ""),
                    c.pod_uid,
                    c.name,
                    c.restart_count,
                ),
            )
            for c in (look.containers if look else ())
            if c.state is ContainerState.RUNNING
        ]
