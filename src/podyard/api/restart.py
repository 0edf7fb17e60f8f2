"""May this container start again? Restart policies, their rules and crash loops.

Source: Kubernetes docs "Pod Lifecycle", KEP-5307 (rules), KEP-5532 (restart all) and
``pkg/kubelet/container`` (v1.36).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import orjson

from podyard.api.core_v1 import Container, Pod, RestartRule
from podyard.api.observed import ContainerState, ContainerStatus
from podyard.lib.backoff import Backoff
from podyard.lib.values import dataclass

#: Rule action that restarts every container of the Pod in place.
RESTART_ALL: Final = "RestartAllContainers"
#: The crash-loop back-off of v1.36 with its gates at their defaults.
CRASH_LOOP: Final = Backoff(base_s=10, cap_s=300)

#: How much an exit may lie in the future before it counts as a clock set back.
_CLOCK_SLACK: Final = timedelta(minutes=1)
_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def container_hash(container: Container) -> str:
    """Return the hash that tells whether a running container is still the spec's.

    FNV-32a, in hex, over the JSON of name and image alone: no other edit ever
    restarts a container.
    """
    text = orjson.dumps({"image": container.image, "name": container.name})
    return f"{fnv32a(text):x}"


def fnv32a(data: bytes) -> int:
    """Return the 32 bit FNV-1a hash."""
    value = _FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def restart_policy(pod: Pod, container: Container) -> str:
    """Return the policy that counts: the container's own before the Pod's."""
    return container.restart_policy or pod.spec.restart_policy


def matching_rule(container: Container, exit_code: int) -> RestartRule | None:
    """Return the first restart rule an exit code meets; none is met by most."""
    for rule in container.restart_policy_rules:
        listed = exit_code in rule.exit_codes
        if (rule.operator == "In" and listed) or (
            rule.operator == "NotIn" and not listed
        ):
            return rule
    return None


def restarts_after(pod: Pod, container: Container, exit_code: int) -> bool:
    """Return whether an exit with this code is followed by another start."""
    if matching_rule(container, exit_code) is not None:
        return True
    match restart_policy(pod, container):
        case "Never":
            return False
        case "OnFailure":
            return exit_code != 0
        case _:
            return True


def should_restart(
    pod: Pod, container: Container, newest: ContainerStatus | None
) -> bool:
    """Return whether the container is to be started, given its newest instance."""
    if pod.deleting:
        return False
    if newest is None:
        return True
    match newest.state:
        case ContainerState.RUNNING:
            return False
        case ContainerState.CREATED | ContainerState.UNKNOWN:
            return True
        case _:
            return restarts_after(pod, container, newest.exit_code)


def wants_restart_all(pod: Pod) -> bool:
    """Return whether any container has a rule that restarts the whole Pod."""
    return any(
        rule.action == RESTART_ALL
        for container in pod.all_containers()
        for rule in container.restart_policy_rules
    )


def crash_loop_key(container: Container) -> str:
    """Return what the back-off counts by: another image or resources start anew."""
    resources = [
        sorted(container.resources.requests.items()),
        sorted(container.resources.limits.items()),
    ]
    return orjson.dumps([container.name, container.image, resources]).decode()


@dataclass(frozen=True, slots=True)
class CrashLoop:
    """What is remembered of a container's restarts.

    Attributes:
        delay_s: how long after an exit the next start waits.
        decided_at: when a start was last allowed.
    """

    delay_s: float
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it now; remember ``loop``."""

    loop: CrashLoop


@dataclass(frozen=True, slots=True)
class WaitForBackoff:
    """Too soon; wait until ``until_at``, which is ``delay_s`` after the exit."""

    delay_s: float
    until_at: datetime


@dataclass(frozen=True, slots=True)
class LeaveDead:
    """Its policy says that was all."""


RestartDecision: TypeAlias = Restart | WaitForBackoff | LeaveDead


def decide_restart(
    *,
    wanted: bool,
    loop: CrashLoop | None,
    finished_at: datetime | None,
    now: datetime,
    backoff: Backoff = CRASH_LOOP,
) -> RestartDecision:
    """Return whether a container that ended starts again, and when.

    The first start after an exit is immediate, then 10 s, 20 s … after the exit, at
    most five minutes; ten quiet minutes forget it all.

    Args:
        wanted: whether policy and rules allow another start at all.
        loop: what is remembered of it, ``None`` before the first exit.
        finished_at: when it ended; ``None`` where it never ran.
        now: the wall time.
        backoff: base and cap.
    """
    if not wanted:
        return LeaveDead()
    if finished_at is None:
        return Restart(loop or CrashLoop(0, now))
    quiet = timedelta(seconds=2 * backoff.cap_s)
    if loop is None or loop.delay_s <= 0 or finished_at - loop.decided_at > quiet:
        return Restart(CrashLoop(backoff.first(), now))
    until_at = finished_at + timedelta(seconds=loop.delay_s)
    # A clock that was set back must not make anybody wait much longer than the delay.
    if now < until_at <= now + timedelta(seconds=loop.delay_s) + _CLOCK_SLACK:
        return WaitForBackoff(loop.delay_s, until_at)
    return Restart(CrashLoop(backoff.after(loop.delay_s), now))


def newest_first(
    statuses: Sequence[ContainerStatus],
) -> tuple[ContainerStatus, ...]:
    """Return container instances, the youngest first."""
    return tuple(
        sorted(statuses, key=lambda s: (s.created_at, s.attempt), reverse=True)
    )
