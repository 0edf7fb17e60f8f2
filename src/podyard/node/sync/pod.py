"""One Pod's life on this node, step by step: looks, decides, sets things going.

A step is short. What takes long (pulls, PostStart hooks, stops) runs beside it, so
that deletion, status and probes are never held up:

* the *chain* starts things, one after the other in spec order, as the spec wants it;
* *stops* end containers, each with its own absolute deadline.

Whatever changes wakes the worker, and the next step looks again. Nothing here has to
survive: a new agent finds the same way from what the runtime, the API and the
journal say.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Final

import structlog

from podyard.api.core_v1 import Pod, parse_time
from podyard.api.documents import Document
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ObservedPod,
    SandboxState,
)
from podyard.api.restart import crash_loop_key, newest_first
from podyard.lib.values import dataclass
from podyard.node.status.build import build_ended
from podyard.node.status.conditions.decide import OWNED
from podyard.node.status.decide import (
    SANDBOX_FAILED,
    TERMINAL,
    PodFacts,
    PodFailure,
    Waiting,
    decide_pod_status,
    started_ids,
)
from podyard.node.sync.act import PodActionError
from podyard.node.sync.build import hook_of, stop_grace_s
from podyard.node.sync.chain import RETRY_S, StartChain
from podyard.node.sync.decide import (
    CRASH_LOOP_BACK_OFF,
    Group,
    PodActions,
    StartAction,
    active_deadline_in_s,
    decide_pod_actions,
    needs_new_sandbox,
)
from podyard.node.sync.ledger import OpenStop
from podyard.node.sync.stops import PodStops, is_alive
from podyard.node.sync.terminate import deletion_grace_left_s
from podyard.node.sync.tools import PodNotes, PodTools
from podyard.node.volumes.parts import VolumeError

log = structlog.get_logger()

#: A Pod that rests is looked at after so many seconds, times 1 to 1.5.
RESYNC_S: Final = 60.0
DEADLINE_MESSAGE: Final = (
    "Pod was active on the node longer than the specified deadline"
)
#: How long the API may take to hear how a parked Pod has ended, seconds.
TELL_S: Final = 5.0
#: What is left to a Pod whose object is gone already, seconds.
REMOVED_GRACE_S: Final = 1.0


class Stage(Enum):
    """Where a Pod is in its life here; it never goes back to being run."""

    SYNC = 0
    TERMINATING = 1
    TERMINATED = 2
    FINISHED = 3
    PURGED = 4
    PARKING = 5
    PARKED = 6


@dataclass(frozen=True, slots=True)
class PodEnding:
    """Somebody wants the Pod ended.

    Attributes:
        why: a word for the records: ``deleted``, ``evicted``, ``shutdown`` …
        grace_s: a grace period in place of the Pod's own.
        failure: what its status says of it; ``None`` leaves that to its containers.
        hooks: whether PreStop is delivered.
    """

    why: str
    grace_s: float | None = None
    failure: PodFailure | None = None
    hooks: bool = True


class PodSync:
    """One Pod.

    Args:
        pod: its newest object.
        tools: what every Pod uses.
        group: where long work runs.
        wake: asks for a step, after so many seconds.
        open_stops: stops that had begun before the agent restarted.
    """

    def __init__(
        self,
        pod: Pod,
        tools: PodTools,
        group: asyncio.TaskGroup,
        wake: Callable[[float], None],
        open_stops: tuple[OpenStop, ...] = (),
    ) -> None:
        self.pod = pod
        self.stage = Stage.SYNC
        self._removed = False
        self._tools = tools
        self._group = group
        self._notes = PodNotes(wake)
        self._stops = PodStops(tools.stops, group, self._notes.changed)
        self._open_stops = open_stops
        self._adopted = False
        #: What ended for good before this agent, and the runtime knows no more.
        self._ended_before: tuple[ContainerStatus, ...] = ()
        self._parked: frozenset[str] = frozenset()
        self._has_hooks = any(
            hook_of(container, which)
            for container in pod.all_containers()
            for which in ("post_start", "pre_stop")
        )
        self._hooks_unsure = self._has_hooks
        self._ending: PodEnding | None = None
        self._failure: PodFailure | None = None
        self._chain: StartChain | None = None
        self._chain_task: asyncio.Task[None] | None = None
        self._refreshing = False
        self._refresh_at_s = tools.clock.monotonic_s()
        self._stopped_sandboxes: set[str] = set()
        self._seen: ObservedPod | None = None
        self._told_waits: dict[str, datetime] = {}
        self._skipped = False
        self._log = log.bind(pod=pod.full_name)

    # --- orders from outside ---

    def update(self, pod: Pod) -> bool:
        """Take a newer object; a changed spec is acted on at once.

        Returns:
            Whether there is anything in it that this agent did not write itself.
        """
        news = _has_news(self.pod, pod)
        changed = pod.metadata.generation != self.pod.metadata.generation
        self.pod = pod
        if news:
            # Volumes that tell of the Pod's labels and annotations follow them.
            self._refresh_at_s = self._tools.clock.monotonic_s()
        if changed:
            self._notes.retry_at_s.clear()
        current = self._chain.current if self._chain else None
        if changed and current is not None:
            wanted = pod.find_container(current.name)
            if wanted is None or wanted.image != current.image:
                self._cancel_chain()
        if pod.deleting:
            self._stops.shorten(deletion_grace_left_s(pod, now=self._tools.clock.now()))
        return news

    def end(self, ending: PodEnding) -> None:
        """End the Pod. The first reason stays; the shortest grace period counts."""
        if self._ending is None:
            self._ending = ending
            self._failure = ending.failure
        if ending.grace_s is not None:
            self._stops.shorten(ending.grace_s)
        self._notes.wake(0)

    def remove(self) -> None:
        """Say that nobody wants the Pod any more: its object is gone."""
        self._removed = True
        self.end(PodEnding("removed", grace_s=REMOVED_GRACE_S))

    def park(self, grace_s: float) -> None:
        """Stop the Pod without ending it: the node goes away and will be back.

        Its object is left as it is; nothing of it stays in the runtime, so that the
        node makes it anew when it comes back.
        """
        if self.stage in (Stage.SYNC, Stage.TERMINATING, Stage.TERMINATED):
            self.stage = Stage.PARKING
        elif self.stage is Stage.FINISHED:
            self.stage = Stage.PARKED
        whole_s = self._whole_grace_s()
        self._stops.shorten(min(grace_s, whole_s))
        self._notes.wake(0)

    def retry_now(self) -> None:
        """Forget retry delays: something the Pod waits for has changed."""
        self._notes.retry_at_s.clear()
        self._refresh_at_s = self._tools.clock.monotonic_s()

    def describe(self) -> Document:
        """Return what is known of the Pod here, for records."""
        return {
            "uid": self.pod.uid,
            "namespace": self.pod.namespace,
            "name": self.pod.name,
            "stage": self.stage.name,
            "ending": self._ending.why if self._ending else None,
            "stopping": self._stops.describe(),
            "syncs": self._notes.story.to_document(),
        }

    # --- one step ---

    async def step(self) -> float | None:
        """Do what is to be done now.

        Returns:
            After how many seconds to look again if nothing happens; ``None`` for
            never.

        Raises:
            CRIError: the runtime could not be asked.
        """
        while True:
            before = self.stage
            again_s: float | None = None
            match self.stage:
                case Stage.SYNC:
                    again_s = await self._sync()
                case Stage.TERMINATING:
                    again_s = await self._terminate()
                case Stage.TERMINATED:
                    again_s = await self._clean_up()
                case Stage.FINISHED:
                    await self._rest()
                case Stage.PARKING:
                    again_s = await self._park()
                case Stage.PURGED | Stage.PARKED:
                    return None
            if self.stage is before:
                return again_s

    async def _sync(self) -> float | None:
        if self._is_to_end():
            self.stage = Stage.TERMINATING
            return None
        began_s = self._tools.clock.monotonic_s()
        observed = await self._observe()
        if self._is_to_end():
            self.stage = Stage.TERMINATING
            return None
        pod = self.pod
        self._tools.probes.add_pod(pod)
        now = self._tools.clock.now()
        actions = decide_pod_actions(
            pod,
            observed,
            self._tools.probes.verdicts(pod.uid),
            now=now,
            memory=replace(self._notes.memory(), backoff=self._tools.crash_loop),
        )
        self._take_waiting(actions)
        status = self._publish(observed)
        if status["phase"] in TERMINAL:
            self.stage = Stage.TERMINATING
            return None
        started_at = parse_time(status.get("startTime"))
        left_s = active_deadline_in_s(pod, started_at, now=now)
        if left_s == 0:
            self._exceed_deadline()
            return None
        self._notes.story.open(now, observed, actions)
        waits = (
            self._carry_out(actions, observed, began_s),
            left_s,
            actions.look_again_in_s,
            self._refresh(observed),
        )
        known = [wait for wait in waits if wait is not None]
        return min([*known, self._tools.spread(RESYNC_S)])

    def _is_to_end(self) -> bool:
        if self._ending is not None or self.pod.deleting:
            return True
        return self._tools.status.previous(self.pod).get("phase") in TERMINAL

    def _exceed_deadline(self) -> None:
        self._tools.tell(self.pod, "DeadlineExceeded", DEADLINE_MESSAGE)
        failure = PodFailure("DeadlineExceeded", DEADLINE_MESSAGE)
        self.end(PodEnding("deadline", failure=failure))
        self.stage = Stage.TERMINATING

    # --- looking ---

    async def _look(self) -> ObservedPod:
        """Observe until nothing was changed by our own hand meanwhile."""
        while True:
            mark = self._notes.mutations
            observed = await self._tools.observer.observe(
                self.pod.uid, name=self.pod.name, namespace=self.pod.namespace
            )
            if mark == self._notes.mutations:
                return observed

    async def _observe(self) -> ObservedPod:
        """Look, and let go of what the world no longer has."""
        observed = await self._look()
        if not self._adopted:
            previous = self._tools.status.previous(self.pod)
            self._ended_before = build_ended(self.pod, observed, previous)
        observed = with_ended(observed, self._ended_before)
        self._seen = observed
        if self._hooks_unsure and self._chain is None:
            await self._adopt_hooks(observed)
        if not self._adopted:
            await self._adopt(observed)
        self._stops.notice(observed)
        if self._chain is not None:
            self._chain.notice(observed)
        self._notes.held &= {c.id for c in observed.containers if is_alive(c)}
        for container in observed.running:
            if container.id not in self._stops:
                self._notes.waiting.pop(container.name, None)
        return observed

    async def _adopt_hooks(self, observed: ObservedPod) -> None:
        """Take over what an earlier agent, or a start cut off, has left of hooks."""
        hooks, uid = self._tools.stops.hooks, self.pod.uid
        # One that is made but does not run may yet run, or be made anew.
        self._hooks_unsure = any(
            c.state is ContainerState.CREATED for c in observed.containers
        )
        alive = {
            c.id for c in observed.containers if c.state is not ContainerState.EXITED
        }
        await hooks.settle(uid, alive)
        owed = await hooks.owed_post_starts(uid)
        self._notes.held |= owed & {c.id for c in observed.running}

    async def _adopt(self, observed: ObservedPod) -> None:
        """Take over what an earlier agent left: begun stops."""
        for stop in self._open_stops:
            await self._resume(stop, observed)
        self._open_stops = ()
        self._adopted = True

    async def _resume(self, stop: OpenStop, observed: ObservedPod) -> None:
        if stop.restart:
            self._notes.promised.add(stop.container)
        if stop.failure is not None:
            self.end(PodEnding("resumed", failure=PodFailure(*stop.failure)))
        if any(c.id == stop.container_id and is_alive(c) for c in observed.containers):
            left_s = (stop.deadline_at - self._tools.clock.now()).total_seconds()
            ips = self._tools.ips_of(self.pod, observed)
            self._stops.resume(self.pod, stop, left_s, ips)
        else:
            await self._tools.stops.ledger.abandon([stop])

    def _publish(self, observed: ObservedPod, *, ended: bool = False) -> Document:
        """Have the API and the probes know what was seen."""
        pod, tools, notes = self.pod, self._tools, self._notes
        held = frozenset(notes.held)
        previous = tools.status.previous(pod)
        tools.probes.look(
            pod,
            observed,
            tools.ips_of(pod, observed),
            held=held,
            terminating=self.stage is not Stage.SYNC,
            started=started_ids(previous),
        )
        needs_new, _, _ = needs_new_sandbox(pod, observed)
        facts = PodFacts(
            pod=pod,
            observed=observed,
            previous=previous,
            verdicts=tools.probes.verdicts(pod.uid),
            waiting=notes.waiting,
            held=held,
            promised=frozenset(notes.promised),
            sandbox_ready=not needs_new,
            ended=ended,
            failure=self._failure,
            resetting=notes.resetting,
            parked=self._parked,
            progress=self._pull_progress(),
        )
        status = decide_pod_status(facts, tools.node_view(), now=tools.clock.now())
        if not self._removed:
            tools.status.set(pod, status)
        return status

    def _pull_progress(self) -> dict[str, str]:
        """Return how far the pull is that goes on, by container name."""
        container = self._chain.current if self._chain else None
        if container is None:
            return {}
        text = self._tools.actor.pull_progress(self.pod, container)
        return {container.name: text} if text else {}

    def _publish_start(self, observed: ObservedPod) -> None:
        """Tell of what the chain has just made, beside what was seen last."""
        if self.stage is not Stage.SYNC:
            return
        seen = self._seen or observed
        boxes = {box.id for box in seen.sandboxes}
        known = {container.id for container in seen.containers}
        new_boxes = tuple(b for b in observed.sandboxes if b.id not in boxes)
        new = [c for c in observed.containers if c.id not in known]
        self._publish(
            replace(
                seen,
                sandboxes=new_boxes + seen.sandboxes,
                containers=newest_first([*new, *seen.containers]),
            )
        )

    def _take_waiting(self, actions: PodActions) -> None:
        """Show crash-loop back-off; each wait is told once."""
        starting = self._chain.pending if self._chain else frozenset()
        for wait in actions.waiting:
            name = wait.container.name
            if name in starting:
                continue  # it waits for the next time: this one has been allowed
            self._notes.waiting[name] = Waiting(CRASH_LOOP_BACK_OFF, wait.message)
            if self._told_waits.get(name) == wait.until_at:
                continue
            self._told_waits[name] = wait.until_at
            self._tools.warn(
                self.pod,
                "BackOff",
                f"Back-off restarting failed container {name} in pod "
                f"{self.pod.full_name}",
                container=name,
            )

    # --- acting ---

    def _carry_out(
        self, actions: PodActions, observed: ObservedPod, began_s: float
    ) -> float | None:
        """Set going what was decided; return when to try again what had to wait."""
        ips = self._tools.ips_of(self.pod, observed)
        current = (
            self._chain.current.name if self._chain and self._chain.current else ""
        )
        for kill in actions.kill:
            if kill.container.name == current:
                continue
            if kill.restart:
                self._notes.promised.add(kill.container.name)
            self._stops.kill(self.pod, kill, ips)
        if self._chain is not None:
            self._skipped = self._skipped or not actions.idle
            self._check_chain(self._chain, actions, began_s)
        elif actions.reset:
            self._notes.resetting = True
            self._ended_before = ()
            self._publish(observed)
            self._begin_chain(actions, (), observed)
        elif actions.kill_pod and not actions.create_sandbox:
            self._stops.stop_all(self.pod, observed, ips, why="finished")
        elif actions.create_sandbox or actions.start:
            return self._begin_starts(actions, observed)
        return None

    def _check_chain(
        self, chain: StartChain, actions: PodActions, began_s: float
    ) -> None:
        """End the chain when the ground it stands on has gone."""
        since_s = chain.sandbox_since_s
        if since_s is None or began_s <= since_s or self._notes.resetting:
            return
        if actions.kill_pod or actions.reset:
            self._log.info("start_given_up", why="sandbox gone")
            self._cancel_chain()

    def _begin_starts(self, actions: PodActions, observed: ObservedPod) -> float | None:
        """Begin the chain, leaving out what failed a moment ago."""
        now_s = self._tools.clock.monotonic_s()
        retry_at_s = self._notes.retry_at_s
        pod_wait_s = retry_at_s.get("", 0) - now_s
        if pod_wait_s > 0:
            return pod_wait_s
        start: list[StartAction] = []
        waits: list[float] = []
        for action in actions.start:
            wait_s = retry_at_s.get(action.container.name, 0) - now_s
            newest = observed.newest(action.container.name)
            if wait_s > 0:
                waits.append(wait_s)
                if action.group is Group.INIT and not action.container.is_sidecar:
                    break
            elif newest is None or newest.id not in self._stops:
                start.append(action)
        if start or (actions.create_sandbox and not waits):
            self._begin_chain(actions, tuple(start), observed)
        return min(waits, default=None)

    def _begin_chain(
        self,
        actions: PodActions,
        start: tuple[StartAction, ...],
        observed: ObservedPod,
    ) -> None:
        chain = StartChain(
            self.pod,
            self._tools,
            self._notes,
            self._stops,
            self._publish_start,
            self._refuse,
        )
        self._chain = chain
        self._skipped = False
        keys = {crash_loop_key(action.container) for action in start}
        self._notes.loops.update(
            {k: v for k, v in actions.loops.items() if actions.reset or k in keys}
        )
        self._refresh_at_s = self._tools.clock.monotonic_s() + self._tools.spread(
            RESYNC_S
        )
        task = self._group.create_task(
            chain.run(actions, start, observed), name=f"start-{self.pod.uid}"
        )
        self._chain_task = task
        task.add_done_callback(lambda ended: self._chain_ended(chain, ended))

    def _chain_ended(self, chain: StartChain, ended: asyncio.Task[None]) -> None:
        if self._chain is chain:
            self._chain = None
            self._chain_task = None
        if ended.cancelled() or not chain.went_well or self._notes.resetting:
            # How far it came is not known: what was seen meanwhile counts no more.
            self._hooks_unsure = self._has_hooks
            self._notes.changed()
        elif self._skipped:
            self._notes.wake(0)
        self._notes.resetting = False

    def _cancel_chain(self) -> None:
        if self._chain_task is not None:
            self._chain_task.cancel()

    def _refuse(self, message: str) -> None:
        failure = PodFailure(SANDBOX_FAILED, message)
        self.end(PodEnding("refused", failure=failure))

    # --- the end ---

    async def _end_chain(self) -> None:
        """Cancel the chain and wait: a CRI call on its way is let finish."""
        if self._chain_task is not None:
            self._chain_task.cancel()
            await asyncio.wait([self._chain_task])

    async def _park(self) -> float | None:
        await self._end_chain()
        observed = await self._observe()
        ips = self._tools.ips_of(self.pod, observed)
        self._parked |= {c.id for c in observed.containers if is_alive(c)}
        stops = self._stops.stop_all(self.pod, observed, ips, why="node stops")
        self._publish(observed)
        if stops:
            return RESYNC_S
        await self._tell_parked()
        await self._remove_from_runtime(await self._look())
        self._tools.probes.remove_pod(self.pod.uid)
        try:
            await self._tools.volumes.unmount_pod(self.pod.uid)
            await self._tools.cgroups.remove(self.pod.uid)
        except (VolumeError, OSError) as error:
            self._log.warning("teardown_failed", error=str(error))
        self.stage = Stage.PARKED
        return None

    async def _tell_parked(self) -> None:
        """Have the API know how all ended, before the records of it are gone."""
        try:
            async with asyncio.timeout(TELL_S):
                await self._tools.status.wait_sent(self.pod.uid)
        except TimeoutError:
            self._log.warning("end_not_told")

    async def _terminate(self) -> float | None:
        """Stop everything; one look at a time, so that the status stays honest."""
        await self._end_chain()
        pod = self.pod
        if not self._stops.has_deadline:
            self._stops.shorten(self._whole_grace_s())
        observed = await self._observe()
        ending = self._ending
        stops = self._stops.stop_all(
            pod,
            observed,
            self._tools.ips_of(pod, observed),
            why=ending.why if ending else "deleted" if pod.deleting else "finished",
            hooks=ending is None or ending.hooks,
            failure=self._failure,
        )
        self._publish(observed)
        self._notes.story.open(self._tools.clock.now(), observed, None)
        if stops:
            return RESYNC_S
        await self._stop_sandboxes(observed)
        self.stage = Stage.TERMINATED
        return None

    async def _stop_sandboxes(self, observed: ObservedPod) -> None:
        for sandbox in observed.sandboxes:
            if sandbox.id not in self._stopped_sandboxes:
                await self._tools.stops.runtime.stop_pod_sandbox(sandbox.id)
                self._stopped_sandboxes.add(sandbox.id)

    def _whole_grace_s(self) -> float:
        if self.pod.deleting:
            return deletion_grace_left_s(self.pod, now=self._tools.clock.now())
        return stop_grace_s(self.pod, None)

    async def _clean_up(self) -> float | None:
        """Everything has stopped: tell so, and take down what the Pod had."""
        observed = await self._observe()
        late = any(
            s.state is SandboxState.READY and s.id not in self._stopped_sandboxes
            for s in observed.sandboxes
        )
        if late or any(is_alive(c) for c in observed.containers):
            # Something came up late, from a call that was thought dead.
            self.stage = Stage.TERMINATING
            return None
        if self._has_hooks:
            await self._tools.stops.hooks.settle(self.pod.uid, frozenset())
        self._publish(observed, ended=True)
        self._tools.probes.remove_pod(self.pod.uid)
        try:
            await self._tools.volumes.unmount_pod(self.pod.uid)
            await self._tools.cgroups.remove(self.pod.uid)
        except (VolumeError, OSError) as error:
            self._log.warning("teardown_failed", error=str(error))
            self._notes.story.tell(f"teardown: {error}")
            return self._tools.spread(RETRY_S)
        self.stage = Stage.FINISHED
        return None

    async def _rest(self) -> None:
        """Have the object deleted if it is to go; once it is gone, leave nothing."""
        if self._removed:
            await self._purge()
            self.stage = Stage.PURGED
        elif self.pod.deleting:
            self._tools.status.finish(self.pod)

    async def _purge(self) -> None:
        tools, uid = self._tools, self.pod.uid
        await self._remove_from_runtime(await self._look())
        tools.status.forget(uid)
        try:
            await tools.blocking(tools.files.remove_pod, uid)
            await tools.blocking(tools.files.remove_logs, uid)
        except OSError as error:
            # The garbage collector comes by again.
            self._log.warning("files_not_removed", error=str(error))

    async def _remove_from_runtime(self, observed: ObservedPod) -> None:
        runtime = self._tools.stops.runtime
        for container in observed.containers:
            await runtime.remove_container(container.id)
        await self._stop_sandboxes(observed)
        for sandbox in observed.sandboxes:
            await runtime.remove_pod_sandbox(sandbox.id)
        self._tools.observer.forget(observed)

    # --- volumes ---

    def _refresh(self, observed: ObservedPod) -> float | None:
        """Refresh live volume content now and then; return when next."""
        if self._chain is not None or self._refreshing or not observed.running:
            return None
        left_s = self._refresh_at_s - self._tools.clock.monotonic_s()
        if left_s > 0:
            return left_s
        self._refreshing = True
        self._group.create_task(self._refresh_volumes(), name="refresh-volumes")
        return None

    async def _refresh_volumes(self) -> None:
        next_s = RESYNC_S
        try:
            await self._tools.actor.mount_volumes(self.pod)
        except PodActionError:
            next_s = RETRY_S
        except Exception:  # noqa: BLE001 - one Pod's crash ends nothing else
            self._log.exception("refresh_crashed")
        finally:
            self._refreshing = False
            self._refresh_at_s = self._tools.clock.monotonic_s() + self._tools.spread(
                next_s
            )


def with_ended(
    observed: ObservedPod, ended: tuple[ContainerStatus, ...]
) -> ObservedPod:
    """Return what was seen, with what ended earlier and is seen no more."""
    missing = [c for c in ended if observed.newest(c.name) is None]
    if not missing:
        return observed
    containers = newest_first([*observed.containers, *missing])
    return replace(observed, containers=containers)


def _has_news(old: Pod, new: Pod) -> bool:
    """Return whether an object differs in more than what this agent writes."""
    before, after = old.document, new.document
    if before.get("spec") != after.get("spec"):
        return True
    return _others_part(before) != _others_part(after)


def _others_part(document: Document) -> Document:
    metadata = document.get("metadata") or {}
    conditions = (document.get("status") or {}).get("conditions") or ()
    return {
        "metadata": {
            key: value
            for key, value in metadata.items()
            if key not in {"resourceVersion", "managedFields"}
        },
        "conditions": [c for c in conditions if c.get("type") not in OWNED],
    }
