"""What the API is told about a Pod: phase, conditions, container statuses.

Source: Kubernetes docs "Pod Lifecycle", ``pkg/kubelet/kubelet_pods.go`` and
``pkg/kubelet/status/generate.go`` (v1.36), KEP-753, KEP-3085, KEP-5067, KEP-5532.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import Container, Pod, format_time
from podyard.api.documents import Document
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ObservedPod,
    SandboxState,
)
from podyard.api.resources import qos_class
from podyard.api.restart import restarts_after, should_restart, wants_restart_all
from podyard.lib.values import dataclass
from podyard.node.probes.parts import ProbeVerdicts
from podyard.node.status.conditions.decide import ConditionFacts, decide_conditions

PENDING: Final = "Pending"
RUNNING: Final = "Running"
SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
TERMINAL: Final = frozenset({SUCCEEDED, FAILED})

#: All termination messages of a Pod together, bytes.
MAX_MESSAGES_BYTES: Final = 12 * 1024
_LOST_NOW: Final = "The container could not be located when the pod was terminated"
_LOST_BEFORE: Final = (
    "The container could not be located when the pod was deleted.  "
    "The container used to be Running"
)
#: The reason of a Pod that ended because its sandbox can never be made.
SANDBOX_FAILED: Final = "FailedCreatePodSandBox"
_STATUS_UNKNOWN: Final = "ContainerStatusUnknown"
_INIT_RECORD_GONE: Final = (
    "Unable to get init container status from container runtime and pod has been "
    "initialized, treat it as exited normally"
)
RESTARTING_ALL: Final = "RestartingAllContainers"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container is not running: the reason and message of ``waiting``."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a whole Pod was ended by the node: status reason, message and conditions.

    Attributes:
        disrupted: whether the shared condition ``DisruptionTarget`` is set, as for
            evictions, preemption and shutdown.
    """

    reason: str
    message: str
    disrupted: bool = False


@dataclass(frozen=True, slots=True)
class NodeView:
    """What of the node appears in a Pod's status.

    Attributes:
        host_ips: the node's addresses, its primary family first.
        runtime_name: the scheme of container ids (``containerd``).
        recursive_read_only: whether the runtime can do it, as mounts report it.
    """

    host_ips: tuple[str, ...]
    runtime_name: str
    recursive_read_only: bool = False


@dataclass(frozen=True, slots=True)
class PodFacts:
    """All a Pod's status is made of.

    Attributes:
        pod: the Pod; ``previous`` counts for status, not ``pod.status``.
        observed: what the runtime shows.
        previous: the status last told, by this agent or the one before.
        verdicts: what the probes say.
        waiting: why containers could not be started, by name.
        held: ids of running containers whose PostStart has not returned.
        promised: names of containers ended in order to be started again.
        sandbox_ready: whether the sandbox is good, with its addresses.
        ended: nothing runs any more and nothing will.
        failure: the node ended the Pod, and why.
        resetting: a restart rule is starting the whole Pod anew.
        parked: ids of containers that the node has stopped because it goes away for
            a while: those that have not ended well are to start again.
        progress: how far the pulls of containers are, by name.
    """

    pod: Pod
    observed: ObservedPod
    previous: Document = field(default_factory=dict)
    verdicts: ProbeVerdicts = field(default_factory=ProbeVerdicts)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    promised: frozenset[str] = frozenset()
    sandbox_ready: bool = False
    ended: bool = False
    failure: PodFailure | None = None
    resetting: bool = False
    parked: frozenset[str] = frozenset()
    progress: Mapping[str, str] = field(default_factory=dict)


def decide_pod_status(facts: PodFacts, node: NodeView, *, now: datetime) -> Document:
    """Return the whole status of a Pod as its agent sees it.

    Conditions of others are kept; a terminal phase is final, and is told only when
    no container can be running.
    """
    pod = facts.pod
    inits = _list_statuses(facts, node, pod.spec.init_containers, is_init=True)
    regular = _list_statuses(facts, node, pod.spec.containers, is_init=False)
    ephemeral = _list_statuses(
        facts, node, pod.spec.ephemeral_containers, is_init=False
    )
    initialized = _initialized(facts)
    if facts.ended:
        inits = _close_inits(inits)
        if initialized or pod.is_static:
            regular = [_close(s) if _ever_began(s) else s for s in regular]
    phase = _settle_phase(facts, inits, regular, initialized=initialized)
    if facts.parked and phase in TERMINAL:
        # Nothing of it comes back, so nothing waits to: its sidecars are over, too.
        return decide_pod_status(replace(facts, parked=frozenset()), node, now=now)
    status: Document = {"phase": phase}
    if pod.metadata.generation:
        status["observedGeneration"] = max(
            pod.metadata.generation, int(facts.previous.get("observedGeneration") or 0)
        )
    status |= _reason_and_message(facts, phase)
    status["conditions"] = decide_conditions(
        ConditionFacts(
            pod=pod,
            phase=phase,
            init_statuses=tuple(inits),
            statuses=tuple(regular),
            previous=tuple(facts.previous.get("conditions") or ()),
            has_initialized=initialized,
            sandbox_ready=facts.sandbox_ready,
            resetting=facts.resetting,
            wants_restart_all=wants_restart_all(pod),
            failure_message=facts.failure.message
            if facts.failure and facts.failure.disrupted and phase in TERMINAL
            else None,
        ),
        now=now,
    )
    status |= _addresses(facts, node)
    status["startTime"] = facts.previous.get("startTime") or format_time(now)
    by_name = sorted(regular, key=_name)
    _cap_messages(inits, by_name, ephemeral)
    if inits:
        status["initContainerStatuses"] = inits
    status["containerStatuses"] = by_name
    if ephemeral:
        status["ephemeralContainerStatuses"] = sorted(ephemeral, key=_name)
    status["qosClass"] = facts.previous.get("qosClass") or qos_class(pod.document)
    return status


def _name(status: Document) -> str:
    return str(status["name"])


def _reason_and_message(facts: PodFacts, phase: str) -> Document:
    if facts.failure is not None:
        return {"reason": facts.failure.reason, "message": facts.failure.message}
    if facts.previous.get("phase") == phase:
        return {
            key: facts.previous[key]
            for key in ("reason", "message")
            if facts.previous.get(key)
        }
    return {}


def _addresses(facts: PodFacts, node: NodeView) -> Document:
    status: Document = {}
    if node.host_ips:
        status["hostIP"] = node.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in node.host_ips]
    ips = pod_ips(facts.pod, facts.observed, node.host_ips)
    if not ips or (facts.pod.spec.host_network and facts.previous.get("podIPs")):
        ips = tuple(entry["ip"] for entry in facts.previous.get("podIPs") or ())
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    return status


def pod_ips(
    pod: Pod, observed: ObservedPod, host_ips: tuple[str, ...]
) -> tuple[str, ...]:
    """Return a Pod's addresses: the node's own on the host network.

    At most one of each family, that of the node's first address before the other.
    """
    if pod.spec.host_network:
        return _one_a_family(host_ips, host_ips) if observed.sandboxes else ()
    newest = observed.sandboxes[0] if observed.sandboxes else None
    if newest is None or newest.state is not SandboxState.READY:
        return ()
    return _one_a_family(newest.ips, host_ips)


def _one_a_family(ips: Sequence[str], host_ips: tuple[str, ...]) -> tuple[str, ...]:
    six_first = bool(host_ips) and ":" in host_ips[0]
    four = next((ip for ip in ips if ":" not in ip), None)
    six = next((ip for ip in ips if ":" in ip), None)
    ordered = (six, four) if six_first else (four, six)
    return tuple(ip for ip in ordered if ip is not None)


# --- containers --------------------------------------------------------------------


def _list_statuses(
    facts: PodFacts,
    node: NodeView,
    containers: tuple[Container, ...],
    *,
    is_init: bool,
) -> list[Document]:
    key = "initContainerStatuses" if is_init else "containerStatuses"
    if containers and containers == facts.pod.spec.ephemeral_containers:
        key = "ephemeralContainerStatuses"
    old = {s["name"]: s for s in facts.previous.get(key) or ()}
    return [
        _container_status(facts, node, c, old.get(c.name), is_init=is_init)
        for c in containers
    ]


def _container_status(
    facts: PodFacts,
    node: NodeView,
    container: Container,
    old: Document | None,
    *,
    is_init: bool,
) -> Document:
    instances = facts.observed.all_of(container.name)[:2]
    if not instances:
        status = _status_without_record(facts, container, old, is_init=is_init)
    else:
        status = _status_of(instances[0], facts, node, container, old)
        if len(instances) > 1:
            last = _ended_state(instances[1], node)
            if last is not None:
                status["lastState"] = last
        elif old is not None and old.get("lastState"):
            status["lastState"] = _keep_last_state(old, status)
    if is_init and _stale_init(facts, instances):
        _move_to_last(status)
        status["state"] = {"waiting": {"reason": "PodInitializing"}}
        status["ready"] = False
        status["started"] = False
    _show_waiting(facts, container, instances, status, is_init=is_init)
    if instances and _comes_back(facts, container, instances[0], status):
        _move_to_last(status)
        status["state"] = _default_waiting(facts)
    if facts.resetting and "running" not in status["state"]:
        _move_to_last(status)
        status["state"] = {"waiting": {"reason": RESTARTING_ALL}}
        status["ready"] = False
        status["started"] = False
    mounts = _volume_mounts(container, node)
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _comes_back(
    facts: PodFacts, container: Container, newest: ContainerStatus, status: Document
) -> bool:
    """Return whether a container was only interrupted by its node, and starts again.

    One that ended with 0 on the node's signal has done its work, where its policy
    sees it so.
    """
    ended = status["state"].get("terminated")
    if newest.id not in facts.parked or ended is None:
        return False
    if container in facts.pod.spec.ephemeral_containers:
        return False
    return newest.exit_code != 0 or restarts_after(facts.pod, container, 0)


def _stale_init(facts: PodFacts, instances: Sequence[ContainerStatus]) -> bool:
    """Return whether an init container's newest record is of an older sandbox.

    The new sandbox will run it again, so what it did in the old one is history.
    """
    if not instances or not facts.observed.sandboxes or facts.ended:
        return False
    newest = facts.observed.sandboxes[0]
    if newest.state is not SandboxState.READY or _initialized(facts):
        return False
    return (
        instances[0].state is ContainerState.EXITED
        and instances[0].sandbox_id != newest.id
        and any(s.id == instances[0].sandbox_id for s in facts.observed.sandboxes[1:])
    )


def _keep_last_state(old: Document, status: Document) -> Document:
    last: Document = old["lastState"]
    ended = last.get("terminated") or {}
    current = status["state"].get("terminated") or {}
    if ended.get("containerID") and ended["containerID"] == current.get("containerID"):
        return {}
    return last


def _default_waiting(facts: PodFacts, name: str = "") -> Document:
    if facts.failure is not None and facts.failure.reason == SANDBOX_FAILED:
        # It never began: "creating" would tell people to wait.
        return {"waiting": {"reason": SANDBOX_FAILED}}
    inits = facts.pod.spec.init_containers
    reason = "PodInitializing" if inits else "ContainerCreating"
    message = facts.progress.get(name)
    if message:
        return {"waiting": {"reason": reason, "message": message}}
    return {"waiting": {"reason": reason}}


def _status_without_record(
    facts: PodFacts, container: Container, old: Document | None, *, is_init: bool
) -> Document:
    """Return the status of a container the runtime knows nothing of."""
    status: Document = {
        "name": container.name,
        "state": _default_waiting(facts, container.name),
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.image,
        "imageID": "",
        "started": False,
    }
    if old is None:
        if is_init and _initialized(facts) and not container.is_sidecar:
            status["state"] = {
                "terminated": {
                    "reason": "Completed",
                    "message": _INIT_RECORD_GONE,
                    "exitCode": 0,
                    "startedAt": None,
                    "finishedAt": None,
                }
            }
            status["ready"] = True
        return status
    if "terminated" in (old.get("state") or {}):
        kept: Document = {**old, "ready": bool(is_init and old.get("ready"))}
        kept["started"] = False
        return kept
    if facts.previous.get("reason") == SANDBOX_FAILED and "waiting" in old["state"]:
        status["state"] = old["state"]
    status["restartCount"] = old.get("restartCount", 0)
    status["lastState"] = old.get("lastState") or {}
    if "running" in (old.get("state") or {}) and not status["lastState"]:
        status["lastState"] = {"terminated": _lost(_LOST_BEFORE)}
        if not facts.pod.deleting:
            status["restartCount"] += 1
    if is_init and _initialized(facts) and not container.is_sidecar:
        status["state"] = {
            "terminated": {
                "reason": "Completed",
                "message": _INIT_RECORD_GONE,
                "exitCode": 0,
                "startedAt": None,
                "finishedAt": None,
            }
        }
        status["ready"] = True
    return status


def _lost(message: str) -> Document:
    return {
        "exitCode": 137,
        "reason": _STATUS_UNKNOWN,
        "message": message,
        "startedAt": None,
        "finishedAt": None,
    }


def _status_of(
    seen: ContainerStatus,
    facts: PodFacts,
    node: NodeView,
    container: Container,
    old: Document | None,
) -> Document:
    status: Document = {
        "name": container.name,
        "state": _state_of(seen, facts, node, old),
        "lastState": {},
        "ready": False,
        "restartCount": seen.restart_count,
        "image": seen.image or container.image,
        "imageID": seen.image_id,
        "containerID": container_id(seen, node),
        "started": False,
    }
    if seen.state is ContainerState.UNKNOWN and "terminated" in status["state"]:
        status["restartCount"] = (old or {}).get("restartCount", 0) + 1
    is_init = any(c.name == container.name for c in facts.pod.spec.init_containers)
    if seen.state is ContainerState.RUNNING and seen.id not in facts.held:
        started, ready = _started_and_ready(seen, facts, container, old, node)
        if is_init and not container.is_sidecar:
            started, ready = True, False
        status["started"], status["ready"] = started, ready
    elif is_init and not container.is_sidecar and _did_its_work(seen):
        status["ready"] = True
    if seen.user is not None:
        linux: Document = {"uid": seen.user.uid, "gid": seen.user.gid}
        if seen.user.supplemental_groups:
            linux["supplementalGroups"] = list(seen.user.supplemental_groups)
        status["user"] = {"linux": linux}
    resources = container.document.get("resources")
    if resources and seen.state is ContainerState.RUNNING:
        status["resources"] = resources
    if container.resources.requests and seen.state is ContainerState.RUNNING:
        status["allocatedResources"] = dict(container.resources.requests)
    return status


def _did_its_work(seen: ContainerStatus) -> bool:
    return seen.state is ContainerState.EXITED and seen.exit_code == 0


def container_id(seen: ContainerStatus, node: NodeView) -> str:
    """Return the id as the API shows it: ``containerd://…``."""
    return f"{node.runtime_name}://{seen.id}"


def started_ids(status: Document) -> frozenset[str]:
    """Return the ids of containers that run and have started, by a Pod's status."""
    return frozenset(
        str(shown.get("containerID") or "").partition("://")[2]
        for key in ("initContainerStatuses", "containerStatuses")
        for shown in status.get(key) or ()
        if shown.get("started") and "running" in (shown.get("state") or {})
    )


def _started_and_ready(
    seen: ContainerStatus,
    facts: PodFacts,
    container: Container,
    old: Document | None,
    node: NodeView,
) -> tuple[bool, bool]:
    """Return ``started`` and ``ready`` of a running container.

    Until the probes have spoken about this very instance, what the API last heard of
    it stays true: a restart of the agent must not flip it.
    """
    verdict = facts.verdicts.of(seen.id)
    same = old is not None and old.get("containerID") == container_id(seen, node)
    before = old if same and old is not None else {}
    # An instance that has started once does not un-start.
    started = (
        container.startup_probe is None
        or bool(verdict.started)
        or bool(before.get("started"))
    )
    if not started:
        return False, False
    if container.readiness_probe is None:
        return True, True
    if verdict.ready is None:
        return True, bool(before.get("ready"))
    return True, verdict.ready


def _state_of(
    seen: ContainerStatus, facts: PodFacts, node: NodeView, old: Document | None
) -> Document:
    match seen.state:
        case ContainerState.RUNNING if seen.id in facts.held:
            # The hook has not returned, so the container has not reached Running.
            return _default_waiting(facts)
        case ContainerState.RUNNING:
            at = seen.started_at or seen.created_at
            return {"running": {"startedAt": format_time(at)}}
        case ContainerState.EXITED:
            return _ended_state(seen, node) or {"waiting": {}}
        case ContainerState.UNKNOWN if "running" in ((old or {}).get("state") or {}):
            return {"terminated": _lost(_LOST_NOW)}
        case _:
            return {"waiting": {}}


def _ended_state(seen: ContainerStatus, node: NodeView) -> Document | None:
    if seen.state is not ContainerState.EXITED:
        return None
    ended: Document = {"exitCode": seen.exit_code}
    if seen.reason:
        ended["reason"] = seen.reason
    if seen.message:
        ended["message"] = seen.message
    ended["startedAt"] = format_time(seen.started_at) if seen.started_at else None
    ended["finishedAt"] = format_time(seen.finished_at) if seen.finished_at else None
    ended["containerID"] = container_id(seen, node)
    return {"terminated": ended}


def _move_to_last(status: Document) -> None:
    if "terminated" in status["state"]:
        status["lastState"] = status["state"]


def _show_waiting(
    facts: PodFacts,
    container: Container,
    instances: Sequence[ContainerStatus],
    status: Document,
    *,
    is_init: bool,
) -> None:
    """Show why a container that is to start does not."""
    waiting = facts.waiting.get(container.name)
    if waiting is None or facts.ended:
        return
    newest = instances[0] if instances else None
    if newest is not None and newest.state is ContainerState.RUNNING:
        return
    done = newest is not None and _did_its_work(newest)
    if is_init and done and not container.is_sidecar:
        return
    ephemeral = any(
        c.name == container.name for c in facts.pod.spec.ephemeral_containers
    )
    if newest is not None and ephemeral:
        return
    wanted = should_restart(facts.pod, container, newest)
    wanted = wanted or container.name in facts.promised
    if is_init and newest is not None and not facts.pod.deleting:
        wanted = True
    if not wanted:
        return
    _move_to_last(status)
    state: Document = {"reason": waiting.reason}
    if waiting.message:
        state["message"] = waiting.message
    status["state"] = {"waiting": state}
    status["ready"] = False
    status["started"] = False


def _volume_mounts(container: Container, node: NodeView) -> list[Document]:
    mounts: list[Document] = []
    for mount in container.volume_mounts:
        entry: Document = {"name": mount.name, "mountPath": mount.mount_path}
        if mount.read_only:
            entry["readOnly"] = True
            mode = mount.recursive_read_only or "Disabled"
            if mode == "IfPossible":
                mode = "Enabled" if node.recursive_read_only else "Disabled"
            entry["recursiveReadOnly"] = mode
        mounts.append(entry)
    return mounts


def _cap_messages(*lists: list[Document]) -> None:
    """Cut termination messages so that all together stay within their limit."""
    count = sum(len(statuses) for statuses in lists)
    if not count:
        return
    each = MAX_MESSAGES_BYTES // count
    for statuses in lists:
        for status in statuses:
            for key in ("state", "lastState"):
                ended = (status.get(key) or {}).get("terminated")
                if ended and len(str(ended.get("message", "")).encode()) > each:
                    cut = ended["message"].encode()[:each].decode(errors="ignore")
                    status[key] = {"terminated": {**ended, "message": cut}}


def _close(status: Document) -> Document:
    """Return a status whose container is certainly over."""
    if "terminated" in status["state"]:
        return status
    return {
        **status,
        "state": {"terminated": _lost(_LOST_NOW)},
        "ready": False,
        "started": False,
    }


def _ever_began(status: Document) -> bool:
    """Return whether there ever was an instance of the container.

    One that never began did not end either, whatever became of its Pod.
    """
    return bool(status.get("containerID") or status.get("lastState"))


def _close_inits(statuses: list[Document]) -> list[Document]:
    """Close init containers up to the last one that shows any sign of life."""
    last = -1
    for index, status in enumerate(statuses):
        state = status["state"]
        if "waiting" not in state or _ever_began(status):
            last = index
    return [
        _close(status) if index <= last else status
        for index, status in enumerate(statuses)
    ]


# --- phase -------------------------------------------------------------------------


def _initialized(facts: PodFacts) -> bool:
    """Return whether any regular container was ever there, so init is over."""
    if not facts.pod.spec.init_containers:
        return True
    names = {c.name for c in facts.pod.spec.containers}
    newest = facts.observed.sandboxes[0].id if facts.observed.sandboxes else ""
    for seen in facts.observed.containers:
        if seen.name in names and (
            seen.state in (ContainerState.CREATED, ContainerState.RUNNING)
            or not newest
            or seen.sandbox_id == newest
            or facts.ended
        ):
            return True
    if facts.observed.sandboxes:
        return False
    return any(
        "running" in (s.get("state") or {}) or "terminated" in (s.get("state") or {})
        for s in facts.previous.get("containerStatuses") or ()
    )


def _settle_phase(
    facts: PodFacts,
    inits: list[Document],
    regular: list[Document],
    *,
    initialized: bool,
) -> str:
    before = str(facts.previous.get("phase") or "")
    if before in TERMINAL:
        return before
    running = bool(facts.observed.running)
    if facts.failure is not None:
        return FAILED if facts.ended or not running else before or PENDING
    phase = decide_phase(
        facts.pod,
        inits,
        regular,
        ended=facts.ended,
        has_initialized=initialized,
        promised=facts.promised,
    )
    if facts.ended and phase not in TERMINAL:
        return FAILED
    if phase in TERMINAL and running:
        # Told only when nothing of the Pod can be running any more.
        return before or PENDING
    return phase


@dataclass(frozen=True, slots=True)
class _Count:
    """How many containers are in which state."""

    pending: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    stopped: int = 0
    succeeded: int = 0
    restartable: int = 0
    pending_sidecars: int = 0


def decide_phase(
    pod: Pod,
    init_statuses: Sequence[Document],
    statuses: Sequence[Document],
    *,
    ended: bool,
    has_initialized: bool,
    promised: frozenset[str] = frozenset(),
) -> str:
    """Return the phase that container statuses add up to.

    Args:
        pod: the Pod.
        init_statuses: of init containers and sidecars.
        statuses: of regular containers.
        ended: nothing of the Pod will run again.
        has_initialized: a regular container has been started at some time.
        promised: containers that will be started again whatever their exit.
    """
    count = _Count()
    shown = {s["name"]: s for s in (*init_statuses, *statuses)}
    for container in pod.spec.init_containers:
        status = shown.get(container.name) or {"state": {"waiting": {}}}
        count = (
            _count_sidecar(count, status)
            if container.is_sidecar
            else _count_init(count, pod, container, status)
        )
    for container in pod.spec.containers:
        status = shown.get(container.name) or {"state": {"waiting": {}}}
        again = container.name in promised
        count = _count_regular(count, pod, container, status, again=again)
    if count.failed:
        return FAILED
    if (
        count.pending
        or (count.pending_sidecars and not has_initialized)
        or count.waiting
    ):
        return PENDING
    if count.running:
        return RUNNING
    if not count.stopped:
        return PENDING
    if not (ended and not pod.is_static) and count.restartable:
        return RUNNING
    return SUCCEEDED if count.stopped == count.succeeded else FAILED


def _ended_code(status: Document, key: str) -> int | None:
    ended = (status.get(key) or {}).get("terminated")
    return None if ended is None else int(ended.get("exitCode", 0))


def _count_init(
    count: _Count, pod: Pod, container: Container, status: Document
) -> _Count:
    state = status["state"]
    code = _ended_code(status, "state")
    oom = ((state.get("terminated") or {}).get("reason")) == "OOMKilled"
    if "waiting" in state:
        code = _ended_code(status, "lastState")
        if code is None:
            return replace(count, pending=count.pending + 1)
    elif code is None:
        return replace(count, pending=count.pending + 1)
    if code == 0 and not oom:
        return count
    if _init_restarts(pod, container, code):
        # It failed and will be tried again: the Pod is still waiting for it.
        return replace(count, pending=count.pending + 1)
    return replace(count, failed=count.failed + 1)


def _init_restarts(pod: Pod, container: Container, code: int) -> bool:
    if restarts_after(pod, container, code):
        return True
    policy = container.restart_policy or pod.spec.restart_policy
    return code == 0 and policy != "Never"


def _count_sidecar(count: _Count, status: Document) -> _Count:
    state = status["state"]
    if "running" in state:
        pending = count.pending_sidecars + (not status.get("started"))
        return replace(count, pending_sidecars=pending, running=count.running + 1)
    if "waiting" in state and _ended_code(status, "lastState") is None:
        return replace(
            count,
            pending_sidecars=count.pending_sidecars + 1,
            waiting=count.waiting + 1,
        )
    return count


def _count_regular(
    count: _Count, pod: Pod, container: Container, status: Document, *, again: bool
) -> _Count:
    state = status["state"]
    if "running" in state:
        return replace(count, running=count.running + 1)
    code = _ended_code(status, "state")
    if code is None:
        code = _ended_code(status, "lastState")
        if code is None:
            return replace(count, waiting=count.waiting + 1)
        # It ended once and waits to be started again.
        return replace(
            count, stopped=count.stopped + 1, restartable=count.restartable + 1
        )
    return replace(
        count,
        stopped=count.stopped + 1,
        succeeded=count.succeeded + (code == 0),
        restartable=count.restartable + (again or restarts_after(pod, container, code)),
    )
