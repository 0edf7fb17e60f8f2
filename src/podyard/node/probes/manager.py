"""Probes of all Pods: one small task an instance of a probed container.

What was seen comes in by ``look``; verdicts go out by ``verdicts`` and ``on_change``.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field, replace
from datetime import datetime
from functools import partial
from typing import Final, Literal

import structlog

from podyard.api.core_v1 import Container, Pod, Probe
from podyard.api.documents import Document
from podyard.api.observed import ContainerState, ObservedPod
from podyard.cri.services import RuntimeService
from podyard.lib.clock import Clock
from podyard.lib.ticks import Ticks
from podyard.lib.values import dataclass
from podyard.node.probes.decide import (
    ProbeKind,
    Streak,
    decide_first_delay,
    decide_verdict,
    has_probes,
    probe_of,
)
from podyard.node.probes.handler import (
    Attempt,
    ProbeContext,
    ProbeFault,
    ProbeHandler,
    ProbeResult,
)
from podyard.node.probes.parts import ContainerVerdict, ProbeVerdicts

log = structlog.get_logger()

#: An event about an object: document, type, reason, message, field path.
Record = Callable[[Document, Literal["Normal", "Warning"], str, str, str], None]
GrpcCheck = Callable[[str, int, str, float], Awaitable[str | None]]

_FAULT_TRIES: Final = 3


@dataclass(slots=True)
class _Instance:
    """One running container that is probed."""

    container: Container
    container_id: str
    pod_ip: str
    started_at: datetime
    adopted: bool
    verdict: ContainerVerdict = field(default_factory=ContainerVerdict)
    tasks: dict[ProbeKind, asyncio.Task[None]] = field(default_factory=dict)

    def cancel(self, *kinds: ProbeKind) -> None:
        for kind in kinds or tuple(ProbeKind):
            task = self.tasks.pop(kind, None)
            if task is not None:
                task.cancel()


@dataclass(slots=True)
class _ProbedPod:
    pod: Pod
    instances: dict[str, _Instance] = field(default_factory=dict)


class ProbeManager:
    """Runs probes.

    Args:
        runtime: runs exec probes.
        handlers: the parts.
        grpc_check: see ``ProbeContext``.
        record: records events.
        clock: the time.
        chance: spreads first attempts after a restart of the agent.
    """

    def __init__(
        self,
        runtime: RuntimeService,
        handlers: Sequence[ProbeHandler],
        *,
        grpc_check: GrpcCheck,
        record: Record,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._runtime = runtime
        self._handlers = tuple(handlers)
        self._grpc_check = grpc_check
        self._record = record
        self._clock = clock
        self._chance = chance
        self._ticks = Ticks()
        self._agent_started_at = clock.now()
        self._pods: dict[str, _ProbedPod] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Give probes a home until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for uid in list(self._pods):
                self._begin_waiting(uid)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Have ``tell(uid)`` called whenever a verdict changes."""
        self._listeners.append(tell)

    def add_pod(self, pod: Pod) -> None:
        """Begin, or go on, to probe this Pod; a newer object replaces the older."""
        if not any(has_probes(container) for container in pod.all_containers()):
            return
        known = self._pods.get(pod.uid)
        if known is None:
            self._pods[pod.uid] = _ProbedPod(pod)
        else:
            known.pod = pod

    def remove_pod(self, uid: str) -> None:
        """End all probing of a Pod."""
        probed = self._pods.pop(uid, None)
        if probed is not None:
            for instance in probed.instances.values():
                instance.cancel()

    def verdicts(self, uid: str) -> ProbeVerdicts:
        """Return what the probes say now."""
        probed = self._pods.get(uid)
        if probed is None:
            return ProbeVerdicts()
        return ProbeVerdicts(
            {key: one.verdict for key, one in probed.instances.items()}
        )

    def look(
        self,
        pod: Pod,
        observed: ObservedPod,
        pod_ips: tuple[str, ...],
        *,
        held: frozenset[str],
        terminating: bool,
        started: frozenset[str] = frozenset(),
    ) -> None:
        """Take in what was just seen of the Pod; begin and end probing by it.

        Args:
            pod: the Pod.
            observed: what the runtime shows of it.
            pod_ips: its addresses.
            held: ids of containers whose PostStart has not returned; not probed yet.
            terminating: the Pod is on its way out: only readiness counts.
            started: ids of containers that the API shows as started. One that runs
                since before this agent has passed its startup probe then, and is not
                asked to again.
        """
        probed = self._pods.get(pod.uid)
        if probed is None:
            return
        probed.pod = pod
        running = {
            status.id: status
            for status in observed.containers
            if status.state is ContainerState.RUNNING
        }
        for container_id in [key for key in probed.instances if key not in running]:
            probed.instances.pop(container_id).cancel()
        for container in pod.all_containers():
            status = observed.newest(container.name)
            if status is None or status.id not in running or not has_probes(container):
                continue
            instance = probed.instances.get(status.id)
            if instance is None and status.id not in held:
                started_at = status.started_at or status.created_at
                instance = probed.instances[status.id] = _Instance(
                    container=container,
                    container_id=status.id,
                    pod_ip=pod_ips[0] if pod_ips else "",
                    started_at=started_at,
                    adopted=started_at < self._agent_started_at,
                )
                self._begin(pod.uid, instance, has_started=status.id in started)
            if instance is not None and terminating:
                instance.cancel(ProbeKind.STARTUP, ProbeKind.LIVENESS)

    # --- tasks ---

    def _begin_waiting(self, uid: str) -> None:
        for instance in self._pods[uid].instances.values():
            if not instance.tasks:
                self._begin(uid, instance, has_started=bool(instance.verdict.started))

    def _begin(self, uid: str, instance: _Instance, *, has_started: bool) -> None:
        startup = instance.container.startup_probe
        if startup is None or has_started:
            self._change(uid, instance, started=True)
            self._begin_after_startup(uid, instance)
            return
        self._change(uid, instance, started=False)
        self._spawn(uid, instance, ProbeKind.STARTUP, startup)

    def _begin_after_startup(self, uid: str, instance: _Instance) -> None:
        for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
            probe = probe_of(instance.container, kind)
            if probe is not None:
                self._spawn(uid, instance, kind, probe)

    def _spawn(
        self, uid: str, instance: _Instance, kind: ProbeKind, probe: Probe
    ) -> None:
        if self._group is not None:
            instance.tasks[kind] = self._group.create_task(
                self._probe_for_ever(uid, instance, kind, probe)
            )

    async def _probe_for_ever(
        self, uid: str, instance: _Instance, kind: ProbeKind, probe: Probe
    ) -> None:
        try:
            await self._probe_until_decided(uid, instance, kind, probe)
        except Exception:
            # One bad probe never ends the others.
            log.exception("probe_crashed", pod_uid=uid, kind=str(kind))

    async def _probe_until_decided(
        self, uid: str, instance: _Instance, kind: ProbeKind, probe: Probe
    ) -> None:
        attempt = self._prepare(uid, instance, kind, probe)
        jitter = self._chance.random() if instance.adopted else 0.0
        delay_s = decide_first_delay(
            probe, started_at=instance.started_at, now=self._clock.now(), jitter=jitter
        )
        streak = Streak()
        due_s = self._clock.monotonic_s() + delay_s
        while True:
            wait_s = due_s - self._clock.monotonic_s()
            if wait_s > 0:
                await self._ticks.sleep(wait_s)
            due_s = max(due_s + probe.period_s, self._clock.monotonic_s())
            result = await self._attempt(uid, instance, kind, attempt)
            if result is None:
                continue
            streak = streak.then(healthy=result.healthy)
            verdict = decide_verdict(streak, probe)
            if verdict is not None and self._conclude(
                uid, instance, kind, verdict=verdict
            ):
                return

    def _conclude(
        self, uid: str, instance: _Instance, kind: ProbeKind, *, verdict: bool
    ) -> bool:
        """Take a verdict in; return whether this probe is done with the instance."""
        match kind:
            case ProbeKind.READINESS:
                if verdict is not instance.verdict.ready:
                    self._change(uid, instance, ready=verdict)
                return False
            case ProbeKind.LIVENESS:
                if not verdict:
                    self._change(uid, instance, liveness_failed=True)
                return not verdict
            case ProbeKind.STARTUP:
                if verdict:
                    self._change(uid, instance, started=True)
                    self._begin_after_startup(uid, instance)
                else:
                    self._change(uid, instance, startup_failed=True)
                return True

    def _change(self, uid: str, instance: _Instance, **what: bool) -> None:
        verdict = replace(instance.verdict, **what)
        if verdict == instance.verdict:
            return
        instance.verdict = verdict
        for tell in self._listeners:
            tell(uid)

    # --- one attempt ---

    def _prepare(
        self, uid: str, instance: _Instance, kind: ProbeKind, probe: Probe
    ) -> Attempt:
        context = ProbeContext(
            container=instance.container,
            container_id=instance.container_id,
            pod_ip=instance.pod_ip,
            probe=probe,
            runtime=self._runtime,
            grpc_check=self._grpc_check,
        )
        try:
            return self._handler(probe).prepare(context, probe.handler)
        except ProbeFault as error:
            log.debug("probe_unfit", pod_uid=uid, kind=str(kind), error=str(error))
            return partial(_refuse, str(error))

    async def _attempt(
        self, uid: str, instance: _Instance, kind: ProbeKind, attempt: Attempt
    ) -> ProbeResult | None:
        fault = ""
        for _ in range(_FAULT_TRIES):
            try:
                result = await attempt()
            except ProbeFault as error:
                fault = str(error)
                continue
            if not result.healthy:
                self._tell(
                    uid, instance, "Unhealthy", f"{kind} probe failed: {result.output}"
                )
            elif result.warning:
                self._tell(
                    uid,
                    instance,
                    "ProbeWarning",
                    f"{kind} probe warning: {result.output}",
                )
            return result
        self._tell(
            uid,
            instance,
            "Unhealthy",
            f"{kind} probe errored and resulted in unknown state: {fault}",
        )
        return None

    def _handler(self, probe: Probe) -> ProbeHandler:
        for part in self._handlers:
            if part.claims(probe.handler):
                return part
        raise ProbeFault("missing probe handler")

    def _tell(self, uid: str, instance: _Instance, reason: str, message: str) -> None:
        probed = self._pods.get(uid)
        if probed is not None:
            pod = probed.pod
            path = pod.field_path(instance.container.name)
            self._record(pod.document, "Warning", reason, message, path)


async def _refuse(fault: str) -> ProbeResult:
    raise ProbeFault(fault)
