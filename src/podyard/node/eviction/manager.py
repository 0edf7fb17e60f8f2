"""Keeps the node alive: looks what is left, and ends Pods where it is too little.

One small look every ten seconds. Under disk pressure unused containers and images go
first. At most one Pod is ended at a time, and its end is awaited before the next look.

Source: kubernetes ``pkg/kubelet/eviction/eviction_manager.go`` (v1.36).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.resources import EPHEMERAL_STORAGE
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.eviction.decide import (
    INODES,
    REASON,
    RESOURCES,
    Eviction,
    PressureState,
    Threshold,
    decide_evictions,
    decide_limit_eviction,
    decide_pressure,
    has_storage_limits,
    is_crossed,
)
from podyard.node.eviction.signals import Signals
from podyard.node.status.decide import PodFailure
from podyard.node.sync.parts import Events
from podyard.node.sync.pod import PodEnding

log = structlog.get_logger()

#: Between two looks, seconds.
LOOK_S: Final = 10.0
#: The end of an evicted Pod is awaited for so long, and asked for so often, seconds.
CLEAN_UP_S: Final = 30.0
CLEAN_UP_POLL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """When Pods go, and how fast.

    Attributes:
        thresholds: what has to be left.
        max_grace_s: the most a Pod gets for a soft threshold.
        transition_s: how long a pressure condition stays true after it was last so.
    """

    thresholds: tuple[Threshold, ...] = ()
    max_grace_s: float = 0.0
    transition_s: float = 300.0


class EvictablePods(Protocol):
    """The Pods of this node."""

    def active_pods(self) -> Sequence[Pod]:
        """Return the Pods that run, or are about to."""

    def end_pod(self, uid: str, ending: PodEnding) -> bool:
        """End a Pod for a reason of the node's; return whether it is here."""

    def is_over(self, uid: str) -> bool:
        """Say whether nothing of a Pod runs any more."""


class NodeEvents(Protocol):
    """Events on the Node; never waits, never fails."""

    def node_event(
        self, event_type: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Tell users something about the node."""


class EvictionManager:
    """Ends Pods where the node is short of something.

    Args:
        signals: tells what is left.
        settings: when Pods go.
        events: tells users about Pods.
        node_events: tells users about the node.
        free_disk: removes dead containers and unused images.
        clock: the time.
    """

    def __init__(
        self,
        signals: Signals,
        settings: EvictionSettings,
        *,
        events: Events,
        node_events: NodeEvents,
        free_disk: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._signals = signals
        self._settings = settings
        self._events = events
        self._node_events = node_events
        self._free_disk = free_disk
        self._clock = clock
        self._state = PressureState()
        self._evicted: set[str] = set()
        self._on_change: Callable[[], None] = lambda: None

    def pressures(self) -> frozenset[str]:
        """Return the node's pressure conditions that are true."""
        return self._state.conditions

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call somebody when a pressure condition comes or goes."""
        self._on_change = tell

    async def run(self, pods: EvictablePods) -> None:
        """Look for ever."""
        while True:
            evicted = await self.look(pods)
            if evicted:
                await self._await_end(pods, evicted)
            else:
                await asyncio.sleep(LOOK_S)

    async def look(self, pods: EvictablePods) -> tuple[str, ...]:
        """Look once, and act.

        Returns:
            The uids of the Pods that are being ended for it.
        """
        seen = await self._signals.observe()
        before = self._state.conditions
        self._state = decide_pressure(
            self._settings.thresholds,
            seen,
            self._state,
            now_s=self._clock.monotonic_s(),
            transition_s=self._settings.transition_s,
        )
        if self._state.conditions != before:
            log.info("pressure_changed", conditions=sorted(self._state.conditions))
            self._on_change()
        active = [p for p in pods.active_pods() if p.uid not in self._evicted]
        self._evicted &= {pod.uid for pod in pods.active_pods()}
        above = await self._enforce_limits(pods, active)
        if above or not self._state.met:
            return above
        return await self._reclaim(pods, active)

    async def _enforce_limits(
        self, pods: EvictablePods, active: Sequence[Pod]
    ) -> tuple[str, ...]:
        """End every Pod that is above a limit of its own."""
        limited = [pod for pod in active if has_storage_limits(pod)]
        if not limited:
            return ()
        uses = await self._signals.measure(limited)
        ended: list[str] = []
        for pod in limited:
            eviction = decide_limit_eviction(pod, uses[pod.uid])
            if eviction is not None and self._evict(pods, pod, eviction):
                ended.append(pod.uid)
        return tuple(ended)

    async def _reclaim(
        self, pods: EvictablePods, active: Sequence[Pod]
    ) -> tuple[str, ...]:
        threshold = self._state.met[0]
        resource = RESOURCES[threshold.signal]
        log.warning("eviction_threshold_met", signal=threshold.signal)
        text = f"Attempting to reclaim {resource}"
        self._node_events.node_event("Warning", "EvictionThresholdMet", text)
        if resource in {EPHEMERAL_STORAGE, INODES}:
            await self._free_disk()
            seen = await self._signals.observe()
            if not any(
                is_crossed(item, seen, reclaimed=True)
                for item in self._settings.thresholds
            ):
                log.info("pressure_relieved", signal=threshold.signal)
                return ()
        uses = await self._signals.measure(active)
        seen = await self._signals.observe()
        by_uid = {pod.uid: pod for pod in active}
        for eviction in decide_evictions(
            uses,
            self._state.met,
            active,
            seen=seen,
            max_grace_s=self._settings.max_grace_s,
        ):
            if self._evict(pods, by_uid[eviction.uid], eviction):
                return (eviction.uid,)
        log.warning("nobody_to_evict", signal=threshold.signal)
        return ()

    def _evict(self, pods: EvictablePods, pod: Pod, eviction: Eviction) -> bool:
        failure = PodFailure(REASON, eviction.message, disrupted=eviction.disrupted)
        ending = PodEnding("evicted", grace_s=eviction.grace_s, failure=failure)
        if not pods.end_pod(pod.uid, ending):
            return False
        self._evicted.add(pod.uid)
        self._events.event(pod.document, "Warning", REASON, eviction.message)
        log.warning("pod_evicted", pod=pod.full_name, why=eviction.message)
        return True

    async def _await_end(self, pods: EvictablePods, uids: Sequence[str]) -> None:
        until_s = self._clock.monotonic_s() + CLEAN_UP_S
        while self._clock.monotonic_s() < until_s:
            await asyncio.sleep(CLEAN_UP_POLL_S)
            if all(pods.is_over(uid) for uid in uids):
                return
