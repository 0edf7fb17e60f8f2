"""Conditions of a Pod: which are true, and why the others are not.

Source: Kubernetes docs "Pod Lifecycle" (Pod conditions, readiness gates) and
``pkg/kubelet/status/generate.go`` (v1.36).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import Pod, format_time
from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: The conditions an agent writes; all others belong to somebody else.
OWNED: Final = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
)
_DISRUPTION: Final = "DisruptionTarget"


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """What conditions are made of.

    Attributes:
        pod: the Pod.
        phase: the phase decided.
        init_statuses: of init containers and sidecars, in spec order.
        statuses: of regular containers.
        previous: the conditions last told, everybody's.
        has_initialized: a regular container has been started at some time.
        sandbox_ready: the sandbox is good and has its addresses.
        resetting: a restart rule is starting the whole Pod anew.
        wants_restart_all: some container has such a rule.
        failure_message: why the node ended the Pod, where that is a disruption and
            the Pod is over; ``None`` otherwise.
    """

    pod: Pod
    phase: str
    init_statuses: tuple[Document, ...] = ()
    statuses: tuple[Document, ...] = ()
    previous: tuple[Document, ...] = ()
    has_initialized: bool = True
    sandbox_ready: bool = False
    resetting: bool = False
    wants_restart_all: bool = False
    failure_message: str | None = None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One condition before it has its times."""

    status: bool
    reason: str = ""
    message: str = ""


def decide_conditions(facts: ConditionFacts, *, now: datetime) -> list[Document]:
    """Return every condition of the Pod, foreign ones first and untouched."""
    old = {c["type"]: c for c in facts.previous}
    ready_containers = _containers_ready(facts)
    verdicts: dict[str, _Verdict] = {}
    if facts.failure_message is not None:
        verdicts[_DISRUPTION] = _Verdict(
            status=True,
            reason="TerminationByKubelet",
            message=facts.failure_message,
        )
    verdicts |= {
        "PodReadyToStartContainers": _Verdict(facts.sandbox_ready),
        "Initialized": _initialized(facts),
        "Ready": _ready(facts, ready_containers, old),
        "ContainersReady": ready_containers,
        "PodScheduled": _Verdict(status=True),
    }
    if facts.wants_restart_all:
        verdicts["AllContainersRestarting"] = _restarting(facts)
    foreign = [c for c in facts.previous if c["type"] not in verdicts]
    generation = facts.pod.metadata.generation
    return foreign + [
        _with_times(kind, verdict, old.get(kind), generation, now)
        for kind, verdict in verdicts.items()
    ]


def _with_times(
    kind: str, verdict: _Verdict, old: Document | None, generation: int, now: datetime
) -> Document:
    status = "True" if verdict.status else "False"
    condition: Document = {"type": kind, "status": status, "lastProbeTime": None}
    flipped = old is None or old.get("status") != status
    since = None if flipped or old is None else old.get("lastTransitionTime")
    condition["lastTransitionTime"] = since or format_time(now)
    if verdict.reason:
        condition["reason"] = verdict.reason
    if verdict.message:
        condition["message"] = verdict.message
    if generation:
        condition["observedGeneration"] = generation
    return condition


def _restarting(facts: ConditionFacts) -> _Verdict:
    if facts.resetting:
        return _Verdict(
            status=True,
            reason="RestartAllContainersStarted",
            message="container exited with restart policy rule",
        )
    return _ended_verdict(facts.phase) or _Verdict(status=False)


def _ended_verdict(phase: str) -> _Verdict | None:
    if phase == "Succeeded":
        return _Verdict(status=False, reason="PodCompleted")
    if phase == "Failed":
        return _Verdict(status=False, reason="PodFailed")
    return None


def _sidecar_names(pod: Pod) -> frozenset[str]:
    return frozenset(c.name for c in pod.spec.init_containers if c.is_sidecar)


def _initialized(facts: ConditionFacts) -> _Verdict:
    sidecars = _sidecar_names(facts.pod)
    known = {s["name"]: s for s in facts.init_statuses}
    unknown: list[str] = []
    incomplete: list[str] = []
    for container in facts.pod.spec.init_containers:
        status = known.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif container.name in sidecars:
            if not status.get("started"):
                incomplete.append(container.name)
        elif not status.get("ready"):
            incomplete.append(container.name)
    if facts.phase == "Succeeded" and not unknown:
        return _Verdict(status=True, reason="PodCompleted")
    if facts.phase == "Failed" and unknown:
        return _Verdict(status=False, reason="PodFailed")
    if not unknown and not incomplete:
        return _Verdict(status=True)
    if facts.pod.spec.init_containers and facts.has_initialized:
        return _Verdict(status=True)
    return _Verdict(
        status=False,
        reason="ContainersNotInitialized",
        message=_listing("incomplete", unknown, incomplete),
    )


def _listing(word: str, unknown: list[str], bad: list[str]) -> str:
    parts: list[str] = []
    if unknown:
        parts.append(f"containers with unknown status: [{' '.join(unknown)}]")
    if bad:
        parts.append(f"containers with {word} status: [{' '.join(bad)}]")
    return ", ".join(parts)


def _containers_ready(facts: ConditionFacts) -> _Verdict:
    sidecars = _sidecar_names(facts.pod)
    known = {s["name"]: s for s in (*facts.init_statuses, *facts.statuses)}
    unknown: list[str] = []
    unready: list[str] = []
    watched = [c.name for c in facts.pod.spec.init_containers if c.name in sidecars]
    watched += [c.name for c in facts.pod.spec.containers]
    for name in watched:
        status = known.get(name)
        if status is None:
            unknown.append(name)
        elif not status.get("ready"):
            unready.append(name)
    if not facts.statuses:
        return _Verdict(status=False, reason="UnknownContainerStatuses")
    ended = _ended_verdict(facts.phase)
    if ended is not None and not unknown:
        return ended
    if not unknown and not unready:
        return _Verdict(status=True)
    return _Verdict(
        status=False,
        reason="ContainersNotReady",
        message=_listing("unready", unknown, unready),
    )


def _ready(
    facts: ConditionFacts, containers: _Verdict, old: dict[str, Document]
) -> _Verdict:
    if not containers.status:
        return containers
    problems = _gate_problems(facts.pod.spec.readiness_gates, old)
    if problems:
        return _Verdict(
            status=False, reason="ReadinessGatesNotReady", message=", ".join(problems)
        )
    return _Verdict(status=True)


def _gate_problems(gates: Sequence[str], old: dict[str, Document]) -> Iterable[str]:
    problems: list[str] = []
    for gate in gates:
        condition = old.get(gate)
        if condition is None:
            problems.append(
                f'corresponding condition of pod readiness gate "{gate}" '
                "does not exist."
            )
        elif condition.get("status") != "True":
            problems.append(
                f'the status of pod readiness gate "{gate}" is not "True", '
                f"but {condition.get('status')}"
            )
    return problems
