"""What a Pod needs done: one look at the world in, actions out.

Source: Kubernetes docs "Pod Lifecycle", "Init Containers", "Sidecar Containers", and
``computePodActions`` of ``pkg/kubelet/kuberuntime`` (v1.36).
"""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

from podyard.api.core_v1 import Container, Pod, Volume
from podyard.api.go_duration import go_duration
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ObservedPod,
    PodSandbox,
    SandboxState,
)
from podyard.api.restart import (
    CRASH_LOOP,
    RESTART_ALL,
    CrashLoop,
    LeaveDead,
    Restart,
    WaitForBackoff,
    container_hash,
    crash_loop_key,
    decide_restart,
    matching_rule,
    restart_policy,
    should_restart,
)
from podyard.api.runtime import NamespaceMode
from podyard.lib.backoff import Backoff
from podyard.lib.values import dataclass
from podyard.node.probes.parts import ContainerVerdict, ProbeVerdicts

CRASH_LOOP_BACK_OFF: Final = "CrashLoopBackOff"


class Group(Enum):
    """Which of a Pod's three lists a container stands in."""

    EPHEMERAL = 0
    INIT = 1
    REGULAR = 2


class KillReason(Enum):
    """Why a running container is stopped while its Pod goes on."""

    CHANGED = "changed"
    LIVENESS = "liveness"
    STARTUP = "startup"
    UNKNOWN_STATE = "unknown"
    POST_START = "post_start"
    STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new instance of this container."""

    container: Container
    group: Group


@dataclass(frozen=True, slots=True)
class DeliverPostStart:
    """It runs already, but its PostStart has not come to an end: deliver it."""

    container: Container
    group: Group
    container_id: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Stop one running container.

    Attributes:
        container_id: the instance.
        container: its spec.
        message: what the ``Killing`` event says.
        reason: why; probe kills have their own grace period.
        restart: whether it is started again whatever its exit code.
    """

    container_id: str
    container: Container
    message: str
    reason: KillReason
    restart: bool


@dataclass(frozen=True, slots=True)
class BackoffWait:
    """This container would start, but not yet."""

    container: Container
    delay_s: float
    until_at: datetime
    message: str


StartAction: TypeAlias = Start | DeliverPostStart


@dataclass(frozen=True, slots=True)
class PodActions:
    """All that is to be done for a Pod now.

    Attributes:
        kill_pod: stop every container and the sandbox.
        create_sandbox: and then make a new one.
        sandbox_id: the sandbox there is, good or bad; empty where there is none.
        attempt: the number of the sandbox to create.
        start: what to start, in order; a plain init container's failure ends the rest.
        kill: single containers to stop.
        reset: instances to kill without grace and to remove, in this order, because a
            restart rule starts the whole Pod anew in its sandbox.
        waiting: containers in crash-loop back-off.
        loops: what to remember of crash loops, where it changes.
        look_again_in_s: when time alone changes the answer; ``None`` for never.
    """

    kill_pod: bool = False
    create_sandbox: bool = False
    sandbox_id: str = ""
    attempt: int = 0
    start: tuple[StartAction, ...] = ()
    kill: tuple[Kill, ...] = ()
    reset: tuple[str, ...] = ()
    waiting: tuple[BackoffWait, ...] = ()
    loops: Mapping[str, CrashLoop] = field(default_factory=dict)
    look_again_in_s: float | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do at all."""
        return not (
            self.kill_pod
            or self.create_sandbox
            or self.start
            or self.kill
            or self.reset
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """What the agent knows beside the runtime; all of it may be lost.

    Attributes:
        loops: crash loops by ``crash_loop_key``.
        held: ids of running containers whose PostStart has not come to an end.
        promised: names of containers that were killed in order to be restarted.
        backoff: base and cap of crash loops.
    """

    loops: Mapping[str, CrashLoop] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    promised: frozenset[str] = frozenset()
    backoff: Backoff = CRASH_LOOP


@dataclass(slots=True)
class _Plan:
    """The answer while it is being worked out."""

    start: list[StartAction] = field(default_factory=list)
    kill: list[Kill] = field(default_factory=list)
    kill_pod: bool = False


def decide_pod_actions(
    pod: Pod,
    observed: ObservedPod,
    verdicts: ProbeVerdicts,
    *,
    now: datetime,
    memory: Memory,
) -> PodActions:
    """Return what brings the Pod from what is observed to what its spec says.

    Only for Pods that are to run: a Pod that is being ended has no use for this.
    """
    needs_new, attempt, sandbox_id = needs_new_sandbox(pod, observed)
    if needs_new:
        plan = _for_new_sandbox(pod, observed, attempt)
        actions = PodActions(
            kill_pod=True,
            create_sandbox=bool(plan.start),
            sandbox_id=sandbox_id,
            attempt=attempt,
        )
        return _with_backoff(actions, plan, pod, observed, now, memory)
    base = PodActions(sandbox_id=sandbox_id, attempt=attempt)
    trigger = find_restart_all(pod, observed, sandbox_id)
    if trigger is not None:
        return _restart_all(base, pod, observed, trigger, now, memory)
    plan = _for_good_sandbox(pod, observed, verdicts, sandbox_id, memory)
    return _with_backoff(base, plan, pod, observed, now, memory)


def newest_sandbox(observed: ObservedPod) -> PodSandbox | None:
    """Return the sandbox that counts, or ``None``."""
    return observed.sandboxes[0] if observed.sandboxes else None


def needs_new_sandbox(pod: Pod, observed: ObservedPod) -> tuple[bool, int, str]:
    """Return whether the Pod needs a new sandbox, its attempt, and the old one's id.

    A Pod needs one when it has none, when two are ready at once, or when the newest
    is not ready, is on the wrong network, or lost its address.
    """
    newest = newest_sandbox(observed)
    if newest is None:
        return True, 0, ""
    ready = sum(s.state is SandboxState.READY for s in observed.sandboxes)
    on_host = newest.network is NamespaceMode.NODE
    if (
        ready > 1
        or newest.state is not SandboxState.READY
        or on_host != pod.spec.host_network
        or (not pod.spec.host_network and not newest.ips)
    ):
        return True, newest.attempt + 1, newest.id
    return False, newest.attempt, newest.id


def _for_new_sandbox(pod: Pod, observed: ObservedPod, attempt: int) -> _Plan:
    """Begin from the beginning, unless there is nothing left to begin."""
    restarts = any(
        restart_policy(pod, c) != "Never" or c.restart_policy_rules
        for c in pod.spec.containers
    )
    if not restarts and attempt and _has_had_its_try(pod, observed):
        return _Plan()
    remaining = [c for c in pod.spec.containers if not _is_over(pod, c, observed)]
    if not remaining and any(observed.newest(c.name) for c in pod.spec.containers):
        return _Plan()
    if pod.spec.init_containers:
        return _Plan(start=[Start(pod.spec.init_containers[0], Group.INIT)])
    return _Plan(start=[Start(c, Group.REGULAR) for c in remaining])


def _has_had_its_try(pod: Pod, observed: ObservedPod) -> bool:
    """Return whether a Pod that is never restarted got beyond its init containers."""
    if any(observed.newest(c.name) for c in pod.spec.containers):
        return True
    newest = [observed.newest(c.name) for c in pod.spec.init_containers]
    return any(s is not None and init_failed(s) for s in newest)


def _is_over(pod: Pod, container: Container, observed: ObservedPod) -> bool:
    newest = observed.newest(container.name)
    if newest is None or newest.state is not ContainerState.EXITED:
        return False
    # What ended for good stays so in a new sandbox too.
    return not should_restart(pod, container, newest)


def _for_good_sandbox(
    pod: Pod,
    observed: ObservedPod,
    verdicts: ProbeVerdicts,
    sandbox_id: str,
    memory: Memory,
) -> _Plan:
    plan = _Plan()
    strays = _kill_strays(pod, observed, sandbox_id, plan)
    for container in pod.spec.ephemeral_containers:
        if observed.newest(container.name) is None:
            plan.start.append(Start(container, Group.EPHEMERAL))
    initialized = _plan_init(pod, observed, verdicts, sandbox_id, memory, plan)
    if plan.kill_pod or not initialized:
        return plan
    kept = 0
    begun = False
    for container in pod.spec.containers:
        status = observed.newest(container.name)
        if status is not None and status.id in strays:
            begun = True
        elif status is not None and status.state is ContainerState.RUNNING:
            killed = _plan_running(
                pod, container, status, verdicts.of(status.id), Group.REGULAR, plan
            )
            kept += not killed
            if not killed and status.id in memory.held:
                plan.start.append(DeliverPostStart(container, Group.REGULAR, status.id))
            begun = begun or bool(killed and killed.restart)
        elif container.name in memory.promised or should_restart(
            pod, container, status
        ):
            if status is not None and status.state is ContainerState.UNKNOWN:
                plan.kill.append(_unknown(container, status.id, what="Container"))
            plan.start.append(Start(container, Group.REGULAR))
    if not kept and not begun and not _has_start(plan, Group.REGULAR):
        # Nothing is left to run, and sidecars must not keep the Pod alive.
        return _Plan(kill_pod=True)
    return plan


def _kill_strays(
    pod: Pod, observed: ObservedPod, sandbox_id: str, plan: _Plan
) -> frozenset[str]:
    """Kill what lives in another sandbox than this one, or beside a newer instance."""
    strays: set[str] = set()
    for status in observed.containers:
        if status.state not in (ContainerState.RUNNING, ContainerState.UNKNOWN):
            continue
        newest = observed.newest(status.name)
        if status.sandbox_id == sandbox_id and newest is status:
            continue
        container = pod.find_container(status.name) or Container(status.name)
        message = f"Stopping container {status.name}"
        strays.add(status.id)
        plan.kill.append(
            Kill(status.id, container, message, KillReason.STRAY, restart=False)
        )
    return frozenset(strays)


def _has_start(plan: _Plan, group: Group) -> bool:
    return any(action.group is group for action in plan.start)


def _unknown(container: Container, container_id: str, *, what: str) -> Kill:
    message = f'{what} is in "unknown" state, try killing it before restart'
    return Kill(
        container_id, container, message, KillReason.UNKNOWN_STATE, restart=True
    )


def _plan_running(
    pod: Pod,
    container: Container,
    status: ContainerStatus,
    verdict: ContainerVerdict,
    group: Group,
    plan: _Plan,
) -> Kill | None:
    """Kill a running container that changed or failed a probe; ``None`` keeps it."""
    what = "Container" if group is Group.REGULAR else "Init container"
    restart = restart_policy(pod, container) != "Never"
    if status.spec_hash and status.spec_hash != container_hash(container):
        message = f"{what} {container.name} definition changed"
        reason = KillReason.CHANGED
        restart = True
    elif verdict.liveness_failed:
        message = f"{what} {container.name} failed liveness probe"
        reason = KillReason.LIVENESS
    elif verdict.startup_failed:
        message = f"{what} {container.name} failed startup probe"
        reason = KillReason.STARTUP
    else:
        return None
    if restart and group is Group.REGULAR:
        message += ", will be restarted"
    kill = Kill(status.id, container, message, reason, restart)
    plan.kill.append(kill)
    return kill


# --- init containers -------------------------------------------------------------


def has_initialized(pod: Pod, observed: ObservedPod) -> bool:
    """Return whether initialization is behind the Pod, whatever records are left."""
    names = {c.name for c in pod.spec.containers}
    return any(
        c.name in names and c.state in (ContainerState.CREATED, ContainerState.RUNNING)
        for c in observed.containers
    )


def _plan_init(
    pod: Pod,
    observed: ObservedPod,
    verdicts: ProbeVerdicts,
    sandbox_id: str,
    memory: Memory,
    plan: _Plan,
) -> bool:
    """Plan init containers and sidecars; return whether regular ones may run.

    Walks from the last to the first, because the records of those that are done may
    be gone. Records of an older sandbox do not count: its init work is lost with it.
    """
    inits = pod.spec.init_containers
    if not inits:
        return True
    initialized = _was_initialized(pod, observed, sandbox_id)
    before_done = initialized
    starts: list[StartAction] = []
    for index in range(len(inits) - 1, -1, -1):
        container = inits[index]
        status = _in_sandbox(observed, container.name, sandbox_id)
        if status is None:
            if before_done and container.is_sidecar:
                starts.append(Start(container, Group.INIT))
            continue
        if before_done and not container.is_sidecar:
            continue
        step = _init_step(pod, container, status, verdicts, memory, plan)
        if step is _Step.KILL_POD:
            plan.kill_pod = True
            plan.start.clear()
            plan.kill.clear()
            return False
        if step is _Step.START:
            starts.append(Start(container, Group.INIT))
        elif step is _Step.HOOK:
            starts.append(DeliverPostStart(container, Group.INIT, status.id))
        elif step is _Step.DONE and not before_done:
            if index == len(inits) - 1:
                initialized = True
            else:
                starts.append(Start(inits[index + 1], Group.INIT))
        before_done = True
    if not before_done:
        starts.append(Start(inits[0], Group.INIT))
    plan.start.extend(reversed(starts))
    return initialized


def _was_initialized(pod: Pod, observed: ObservedPod, sandbox_id: str) -> bool:
    if has_initialized(pod, observed):
        return True
    # Regular containers that already ran in this very sandbox can only have done so
    # after initialization, even if all of them have ended since.
    names = {c.name for c in pod.spec.containers}
    return any(
        c.name in names and c.sandbox_id == sandbox_id for c in observed.containers
    )


def _in_sandbox(
    observed: ObservedPod, name: str, sandbox_id: str
) -> ContainerStatus | None:
    return next(
        (
            c
            for c in observed.containers
            if c.name == name and c.sandbox_id == sandbox_id
        ),
        None,
    )


class _Step(Enum):
    """What one init container's state means."""

    WAIT = 0
    DONE = 1
    START = 2
    HOOK = 3
    KILL_POD = 4


def _init_step(
    pod: Pod,
    container: Container,
    status: ContainerStatus,
    verdicts: ProbeVerdicts,
    memory: Memory,
    plan: _Plan,
) -> _Step:
    match status.state:
        case ContainerState.CREATED:
            return _Step.START
        case ContainerState.RUNNING if container.is_sidecar:
            return _running_sidecar(pod, container, status, verdicts, memory, plan)
        case ContainerState.RUNNING:
            return _Step.WAIT
        case ContainerState.EXITED:
            return _exited_init(pod, container, status, memory)
        case _:
            if not container.is_sidecar and restart_policy(pod, container) == "Never":
                return _Step.KILL_POD
            plan.kill.append(_unknown(container, status.id, what="Init container"))
            return _Step.START


def _running_sidecar(
    pod: Pod,
    container: Container,
    status: ContainerStatus,
    verdicts: ProbeVerdicts,
    memory: Memory,
    plan: _Plan,
) -> _Step:
    verdict = verdicts.of(status.id)
    if _plan_running(pod, container, status, verdict, Group.INIT, plan):
        # It is started again once it has ended; the ones after it go on meanwhile.
        return _Step.WAIT
    if status.id in memory.held:
        return _Step.HOOK
    if container.startup_probe is not None and not verdict.started:
        return _Step.WAIT
    return _Step.DONE


def _exited_init(
    pod: Pod, container: Container, status: ContainerStatus, memory: Memory
) -> _Step:
    if container.is_sidecar:
        return _Step.START
    if not init_failed(status):
        return _Step.DONE
    if container.name in memory.promised or restarts_failed_init(
        pod, container, status
    ):
        return _Step.START
    return _Step.KILL_POD


def init_failed(status: ContainerStatus) -> bool:
    """Return whether an ended plain init container did not do its work."""
    return status.exit_code != 0 or status.reason == "OOMKilled"


def restarts_failed_init(
    pod: Pod, container: Container, status: ContainerStatus
) -> bool:
    """Return whether a failed plain init container is tried again."""
    if matching_rule(container, status.exit_code) is not None:
        return True
    return restart_policy(pod, container) != "Never"


# --- restart all containers in place ----------------------------------------------


def find_restart_all(
    pod: Pod, observed: ObservedPod, sandbox_id: str
) -> tuple[Container, ContainerStatus] | None:
    """Return the container whose exit restarts the whole Pod in place, if one did."""
    for container in pod.spec.init_containers + pod.spec.containers:
        newest = _in_sandbox(observed, container.name, sandbox_id)
        if newest is None or newest.state is not ContainerState.EXITED:
            continue
        rule = matching_rule(container, newest.exit_code)
        if rule is not None and rule.action == RESTART_ALL:
            return container, newest
    return None


def _restart_all(
    base: PodActions,
    pod: Pod,
    observed: ObservedPod,
    trigger: tuple[Container, ContainerStatus],
    now: datetime,
    memory: Memory,
) -> PodActions:
    container, status = trigger
    key = crash_loop_key(container)
    decision = decide_restart(
        wanted=True,
        loop=memory.loops.get(key),
        finished_at=status.finished_at,
        now=now,
        backoff=memory.backoff,
    )
    match decision:
        case WaitForBackoff():
            wait = _wait(pod, container, decision)
            return _replace(base, waiting=(wait,), again=_seconds(wait, now))
        case Restart(loop):
            ephemeral = {c.name for c in pod.spec.ephemeral_containers}
            # The one whose exit says so goes last: should the agent die half-way,
            # it still says so.
            ids = [
                c.id
                for c in observed.containers
                if c.id != status.id and c.name not in ephemeral
            ]
            return _replace(base, reset=(*ids, status.id), loops={key: loop})
        case LeaveDead():
            return base


def _replace(
    base: PodActions,
    *,
    waiting: tuple[BackoffWait, ...] = (),
    reset: tuple[str, ...] = (),
    loops: Mapping[str, CrashLoop] | None = None,
    again: float | None = None,
) -> PodActions:
    return PodActions(
        sandbox_id=base.sandbox_id,
        attempt=base.attempt,
        waiting=waiting,
        reset=reset,
        loops=loops or {},
        look_again_in_s=again,
    )


# --- crash loops ------------------------------------------------------------------


def _with_backoff(
    actions: PodActions,
    plan: _Plan,
    pod: Pod,
    observed: ObservedPod,
    now: datetime,
    memory: Memory,
) -> PodActions:
    """Hold back the starts whose crash-loop back-off is not over."""
    start: list[StartAction] = []
    waiting: list[BackoffWait] = []
    loops: dict[str, CrashLoop] = {}
    for action in plan.start:
        decision = _backoff_of(action, observed, now, memory)
        match decision:
            case WaitForBackoff():
                waiting.append(_wait(pod, action.container, decision))
                if action.group is Group.INIT and not action.container.is_sidecar:
                    break
            case Restart(loop):
                start.append(action)
                if loop.delay_s:
                    loops[crash_loop_key(action.container)] = loop
            case None | LeaveDead():
                start.append(action)
    kill_pod = actions.kill_pod or plan.kill_pod
    # A sandbox is made even while its first container waits: what is left of the
    # old one must go, and the wait is the container's own.
    return PodActions(
        kill_pod=kill_pod,
        create_sandbox=actions.create_sandbox,
        sandbox_id=actions.sandbox_id,
        attempt=actions.attempt,
        start=tuple(start),
        kill=tuple(plan.kill),
        waiting=tuple(waiting),
        loops=loops,
        look_again_in_s=min((_seconds(w, now) for w in waiting), default=None),
    )


def _backoff_of(
    action: StartAction, observed: ObservedPod, now: datetime, memory: Memory
) -> Restart | WaitForBackoff | LeaveDead | None:
    if isinstance(action, DeliverPostStart) or action.group is Group.EPHEMERAL:
        return None
    newest = observed.newest(action.container.name)
    if newest is None or newest.state is not ContainerState.EXITED:
        return None
    return decide_restart(
        wanted=True,
        loop=memory.loops.get(crash_loop_key(action.container)),
        finished_at=newest.finished_at or newest.created_at,
        now=now,
        backoff=memory.backoff,
    )


def _seconds(wait: BackoffWait, now: datetime) -> float:
    return max((wait.until_at - now).total_seconds(), 0.0)


def _wait(pod: Pod, container: Container, decision: WaitForBackoff) -> BackoffWait:
    message = (
        f"back-off {go_duration(decision.delay_s)} restarting failed "
        f"container={container.name} pod={pod.full_name}"
    )
    return BackoffWait(container, decision.delay_s, decision.until_at, message)


# --- volumes ---------------------------------------------------------------------

#: The ConfigMap every namespace has, so that Pods can trust the API server.
_ROOT_CA: Final = "kube-root-ca.crt"


def has_certain_volumes(pod: Pod) -> bool:
    """Return whether every volume is made of what is surely there.

    Then they are made while the sandbox is, instead of before it: nothing tells the
    difference but the time a start takes.
    """
    return all(_is_certain(volume) for volume in pod.spec.volumes)


def _is_certain(volume: Volume) -> bool:
    if volume.source in {"emptyDir", "downwardAPI"}:
        return True
    if volume.source != "projected":
        return False
    return all(
        "serviceAccountToken" in part
        or "downwardAPI" in part
        or (part.get("configMap") or {}).get("name") == _ROOT_CA
        for part in volume.spec.get("sources") or ()
    )


# --- the active deadline ------------------------------------------------------------


def active_deadline_in_s(
    pod: Pod, started_at: datetime | None, *, now: datetime
) -> float | None:
    """Return how long the Pod may still be active; 0 when it is over.

    ``None`` where it has no ``activeDeadlineSeconds``, or has not started.
    """
    if pod.spec.active_deadline_s is None or started_at is None:
        return None
    active_s = (now - started_at).total_seconds()
    return max(pod.spec.active_deadline_s - active_s, 0.0)
