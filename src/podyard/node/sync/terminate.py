"""The kill path: PreStop, stop signal, SIGKILL, within one absolute deadline.

The grace period is a point in time, set once and only ever moved nearer. It counts
from before the hook; what the hook leaves goes to the stop signal, two seconds at
least. Moving it nearer interrupts whatever waits.

Source: Kubernetes docs "Pod Lifecycle" (termination of Pods), "Sidecar Containers",
KEP-753, and ``killContainer`` of ``pkg/kubelet/kuberuntime`` (v1.36).
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

import structlog

from podyard.api.core_v1 import Container, Pod, format_micro_time
from podyard.api.documents import Document
from podyard.cri.services import CRIError, CRINotFoundError, RuntimeService
from podyard.lib.aio import wait_first
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.hooks.parts import HookError
from podyard.node.status.decide import PodFailure
from podyard.node.sync.build import hook_of
from podyard.node.sync.ledger import StopLedger, stop_body, stop_shares
from podyard.node.sync.parts import Events, Hooks

log = structlog.get_logger()

#: What a container gets between its stop signal and SIGKILL in any case, seconds.
MIN_STOP_S: Final = 2
#: A grace period with less left than this is used up, seconds.
_NOTHING_S: Final = 0.05
_RETRY: Final = Backoff(base_s=1, cap_s=10)


class Deadline:
    """A point in time that only ever comes nearer, and tells those who wait.

    Args:
        clock: spans are measured on its monotonic side, so that setting the wall
            clock neither stretches nor cuts a grace period.
        in_s: seconds from now.
    """

    def __init__(self, clock: Clock, in_s: float) -> None:
        self._clock = clock
        self._at_s = clock.monotonic_s() + in_s
        self._moved = asyncio.Event()

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(self._at_s - self._clock.monotonic_s(), 0.0)

    @property
    def at(self) -> datetime:
        """The deadline on the wall clock as it stands now."""
        return self._clock.now() + timedelta(seconds=self.remaining_s)

    def shorten(self, in_s: float) -> bool:
        """Move it to ``in_s`` seconds from now where that is earlier."""
        at_s = self._clock.monotonic_s() + in_s
        if at_s >= self._at_s - 0.05:
            return False
        self._at_s = at_s
        self._moved.set()
        self._moved = asyncio.Event()
        return True

    async def wait_moved(self) -> None:
        """Wait until it has come nearer."""
        await self._moved.wait()

    async def wait_over(self) -> None:
        """Wait until it is there."""
        while (left_s := self.remaining_s) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._moved.wait()


class StopOrder:
    """Which of a Pod's containers may get its stop signal: sidecars wait.

    A sidecar waits for every running main container and for the sidecars after it.
    Without sidecars nobody waits.

    Args:
        pod: the Pod.
        running: names of containers that run.
    """

    def __init__(self, pod: Pod, running: Iterable[str]) -> None:
        sidecars = [c.name for c in pod.spec.init_containers if c.is_sidecar]
        alive = set(running)
        main = [
            c.name
            for c in (*pod.spec.containers, *pod.spec.init_containers)
            if c.name not in sidecars
        ]
        self._before: dict[str, set[str]] = {}
        for index, name in enumerate(sidecars):
            self._before[name] = {
                other for other in (*main, *sidecars[index + 1 :]) if other in alive
            }
        self._changed = asyncio.Event()

    def stopped(self, name: str) -> None:
        """Say that a container has ended."""
        for others in self._before.values():
            others.discard(name)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_turn(self, name: str) -> None:
        """Wait until it is this container's turn."""
        while self._before.get(name):
            await self._changed.wait()


@dataclass(frozen=True, slots=True)
class StopPlan:
    """One stop.

    Attributes:
        pod: the Pod; its hooks and names.
        container: its spec; ``None`` for an instance nobody has a spec of.
        container_id: the instance.
        name: its name.
        message: the text of the ``Killing`` event.
        why: a word for the records: ``deleted``, ``liveness`` …
        grace_s: the whole grace period; 0 means without hook.
        restart: whether it is started again afterwards.
        hook: whether PreStop is delivered.
        pod_ips: for the hook.
        failure: why the node ends the whole Pod, where it does.
    """

    pod: Pod
    container: Container | None
    container_id: str
    name: str
    message: str
    why: str
    grace_s: float
    restart: bool = False
    hook: bool = True
    pod_ips: tuple[str, ...] = ()
    failure: PodFailure | None = None


@dataclass(frozen=True, slots=True)
class StopTools:
    """What every stop uses."""

    runtime: RuntimeService
    hooks: Hooks
    events: Events
    ledger: StopLedger
    clock: Clock


class ContainerStop:
    """One container on its way out.

    Args:
        plan: what to do.
        tools: with what.
        order: whose turn it is, where sidecars are among those that stop.
        on_stopped: called once, as soon as it has stopped.
        record_id: the journal's row of this very stop, from before a restart.
    """

    def __init__(
        self,
        plan: StopPlan,
        tools: StopTools,
        *,
        order: StopOrder | None = None,
        on_stopped: Callable[[], None] = lambda: None,
        record_id: int | None = None,
    ) -> None:
        self.plan = plan
        self.deadline = Deadline(tools.clock, plan.grace_s)
        self.stopped = asyncio.Event()
        self._tools = tools
        self._order = order
        self._on_stopped = on_stopped
        self._record_id = record_id
        self._gone = asyncio.Event()
        self._began_at = tools.clock.now()
        self._timeline: Document = {"endedBy": "itself"}

    def set_order(self, order: StopOrder) -> None:
        """Take a place in the order of a whole Pod's end."""
        self._order = order

    def container_gone(self) -> None:
        """Say that the container no longer runs: nothing is left to wait for."""
        self._gone.set()

    def describe(self) -> Document:
        """Return how far it is, as its record will have it."""
        timeline = {k: v for k, v in self._timeline.items() if k != "endedBy"}
        return self._body() | timeline

    async def run(self) -> None:
        """Stop the container, however long the runtime takes. Never raises."""
        plan, tools = self.plan, self._tools
        began_s = tools.clock.monotonic_s()
        began_at = tools.clock.now()
        self._event("Normal", "Killing", plan.message)
        if self._record_id is not None:
            self._timeline["resumedAt"] = format_micro_time(began_at)
        else:
            self._began_at = began_at
            # Before anything is delivered: whoever finds it goes on with what is left.
            self._record_id = await tools.ledger.begin(plan.pod.uid, self._body())
        await self._pre_stop()
        await self._wait_turn()
        await self._stop()
        if self._order is not None:
            self._order.stopped(plan.name)
        self.stopped.set()
        self._on_stopped()
        self._timeline["tookSeconds"] = round(tools.clock.monotonic_s() - began_s, 3)
        await self._record()

    async def _wait_turn(self) -> None:
        """Wait until the containers that are to end earlier have ended."""
        if self._order is None or self._gone.is_set():
            return
        began_s = self._tools.clock.monotonic_s()
        await wait_first(
            self._order.wait_turn(self.plan.name),
            self.deadline.wait_over(),
            self._gone.wait(),
        )
        waited_s = self._tools.clock.monotonic_s() - began_s
        self._timeline["waitSeconds"] = round(waited_s, 3)

    async def _record(self) -> None:
        if self._record_id is not None:
            await self._tools.ledger.end(self._record_id, self._timeline)
        else:
            await self._tools.ledger.note(
                self.plan.pod.uid, self._body() | self._timeline
            )

    def _body(self) -> Document:
        plan = self.plan
        failure: Document = {}
        if plan.failure is not None:
            failure = {"podFailure": asdict(plan.failure)}
        return (
            failure
            | stop_body(
                plan.pod,
                container_id=plan.container_id,
                container=plan.name,
                why=plan.why,
                deadline_at=self.deadline.at,
                restart=plan.restart,
            )
            | {
                "graceSeconds": round(plan.grace_s, 3),
                "beganAt": format_micro_time(self._began_at),
            }
        )

    async def _pre_stop(self) -> None:
        plan, tools = self.plan, self._tools
        container = plan.container
        if (
            not plan.hook
            or container is None
            or hook_of(container, "pre_stop") is None
            or self.deadline.remaining_s <= 0
        ):
            return
        began_s = tools.clock.monotonic_s()
        outcome = "delivered"
        try:
            first = await wait_first(
                tools.hooks.pre_stop(
                    plan.pod,
                    container,
                    plan.container_id,
                    plan.pod_ips,
                    deadline_at=self.deadline.at,
                ),
                self.deadline.wait_over(),
                self._gone.wait(),
            )
            outcome = ("delivered", "cut", "container gone")[first]
        except HookError as error:
            outcome = "failed"
            log.info("pre_stop_failed", container=plan.name, error=error.message)
            if not self._gone.is_set():
                self._event("Warning", "FailedPreStopHook", "PreStopHook failed")
        took_s = tools.clock.monotonic_s() - began_s
        self._timeline |= {"hook": outcome, "hookSeconds": round(took_s, 3)}
        if self._gone.is_set() or self.deadline.remaining_s > _NOTHING_S:
            return
        self._timeline["hookUsedGrace"] = True
        log.warning("pre_stop_used_grace", container=plan.name, took_s=round(took_s, 3))
        self._event(
            "Warning",
            "PreStopHookUsedGracePeriod",
            f"PreStop hook {'was cut off' if outcome == 'cut' else 'ended'} after "
            f"{took_s:.1f}s with nothing left of the grace period; the container gets "
            f"{MIN_STOP_S}s for its stop signal",
        )

    async def _stop(self) -> None:
        tools = self._tools
        began_s = tools.clock.monotonic_s()
        delay_s = 0.0
        while not self._gone.is_set():
            called_s = tools.clock.monotonic_s()
            left_s = math.ceil(self.deadline.remaining_s - 0.001)
            grace_s = max(left_s, MIN_STOP_S) if self.plan.grace_s else 0
            try:
                first = await wait_first(
                    tools.runtime.stop_container(
                        self.plan.container_id, grace_s=grace_s
                    ),
                    self._wait_shorter(grace_s),
                    self._gone.wait(),
                )
            except CRINotFoundError:
                break
            except CRIError as error:
                self._fail(error)
                delay_s = _RETRY.after(delay_s)
                await wait_first(asyncio.sleep(delay_s), self._gone.wait())
                continue
            now_s = tools.clock.monotonic_s()
            self._timeline |= stop_shares(
                now_s - began_s, call_s=now_s - called_s, given_s=grace_s
            )
            if first != 1:
                break

    async def _wait_shorter(self, grace_s: int) -> None:
        """Wait until the deadline has moved so near that the stop must be told."""
        until_s = self._tools.clock.monotonic_s() + grace_s
        while True:
            await self.deadline.wait_moved()
            left_s = max(self.deadline.remaining_s, MIN_STOP_S)
            if self._tools.clock.monotonic_s() + left_s < until_s - 0.05:
                return

    def _fail(self, error: CRIError) -> None:
        log.warning("stop_failed", container=self.plan.name, error=error.message)
        message = f"error killing pod: {error.rpc_text}"
        self._tools.events.event(
            self.plan.pod.document, "Warning", "FailedKillPod", message
        )

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._tools.events.event(
            self.plan.pod.document,
            "Warning" if kind == "Warning" else "Normal",
            reason,
            message,
            field_path=self.plan.pod.field_path(self.plan.name),
        )


def deletion_grace_left_s(pod: Pod, *, now: datetime) -> float:
    """Return what is left of the grace period the API gave a Pod, in seconds.

    ``deletionTimestamp`` says when it is over, to the whole second below; one second
    is added back for that. It never counts as more than the whole period, so that a
    node whose clock is behind does not stretch it.
    """
    grace_s = float(pod.metadata.deletion_grace_period_s or 0)
    if pod.metadata.deletion_timestamp is None:
        return grace_s
    left_s = (pod.metadata.deletion_timestamp - now).total_seconds() + 1
    return min(grace_s, max(left_s, 0.0))
