"""Two looks at a whole node → what happened in between."""

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    PodSandbox,
    SandboxState,
)
from podyard.api.runtime import Label
from podyard.lib.values import dataclass


class PodLifecycleEventType(Enum):
    """What happened to a container or sandbox."""

    STARTED = "ContainerStarted"
    DIED = "ContainerDied"
    REMOVED = "ContainerRemoved"
    CHANGED = "ContainerChanged"


@dataclass(frozen=True, slots=True)
class PodLifecycleEvent:
    """Look again at this Pod: something happened to one of its containers."""

    uid: str
    type: PodLifecycleEventType
    id: str


@dataclass(frozen=True, slots=True)
class Look:
    """Everything the runtime listed at one time.

    Attributes:
        at_s: when, monotonic seconds.
    """

    sandboxes: tuple[PodSandbox, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    at_s: float = 0.0
    _states: Mapping[str, tuple[str, "_Life"]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(
        cls,
        sandboxes: tuple[PodSandbox, ...],
        containers: tuple[ContainerStatus, ...],
        *,
        at_s: float,
    ) -> "Look":
        """Return a look, indexed."""
        states: dict[str, tuple[str, _Life]] = {}
        for sandbox in sandboxes:
            ready = sandbox.state is SandboxState.READY
            uid = sandbox.labels.get(Label.POD_UID, sandbox.uid)
            states[sandbox.id] = (uid, _Life.RUNNING if ready else _Life.ENDED)
        for container in containers:
            states[container.id] = (container.pod_uid, _LIVES[container.state])
        return cls(sandboxes, containers, at_s, states)

    @property
    def uids(self) -> frozenset[str]:
        """The Pods that have anything in the runtime."""
        return frozenset(uid for uid, _ in self._states.values() if uid)

    def uid_of(self, container_id: str) -> str:
        """Return the Pod of a container or sandbox, or an empty string."""
        uid, _ = self._states.get(container_id, ("", _Life.UNKNOWN))
        return uid

    def life_of(self, container_id: str) -> "_Life | None":
        """Return a container's or sandbox's state, ``None`` where it is absent."""
        known = self._states.get(container_id)
        return known[1] if known else None

    def ids(self) -> frozenset[str]:
        """Return the ids of all containers and sandboxes."""
        return frozenset(self._states)


class _Life(Enum):
    RUNNING = "running"
    ENDED = "exited"
    UNKNOWN = "unknown"
    CREATED = "created"


_LIVES = {
    ContainerState.CREATED: _Life.CREATED,
    ContainerState.RUNNING: _Life.RUNNING,
    ContainerState.EXITED: _Life.ENDED,
    ContainerState.UNKNOWN: _Life.UNKNOWN,
}
_TYPES = {
    _Life.RUNNING: PodLifecycleEventType.STARTED,
    _Life.ENDED: PodLifecycleEventType.DIED,
    _Life.UNKNOWN: PodLifecycleEventType.CHANGED,
}


def diff_looks(before: Look, after: Look) -> tuple[PodLifecycleEvent, ...]:
    """Return what happened between two looks, by Pod and id."""
    events: list[PodLifecycleEvent] = []
    for container_id in before.ids() | after.ids():
        was, now = before.life_of(container_id), after.life_of(container_id)
        if was is now:
            continue
        if now is None:
            uid = before.uid_of(container_id)
            if was is not _Life.ENDED:
                # It died unseen, and then it was removed.
                events.append(
                    PodLifecycleEvent(uid, PodLifecycleEventType.DIED, container_id)
                )
            kind = PodLifecycleEventType.REMOVED
            events.append(PodLifecycleEvent(uid, kind, container_id))
        elif now in _TYPES:
            uid = after.uid_of(container_id)
            events.append(PodLifecycleEvent(uid, _TYPES[now], container_id))
    return tuple(sorted(events, key=lambda e: (e.uid, e.id, e.type.value)))
