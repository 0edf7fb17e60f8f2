"""Ends Pods in order before the machine goes down.

Source: kubernetes ``pkg/kubelet/nodeshutdown`` (v1.36);
https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, Protocol

import structlog

from podyard.api.core_v1 import Pod
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.logind import LogindError
from podyard.node.shutdown.decide import (
    ShutdownGroup,
    ShutdownPeriod,
    decide_shutdown,
)
from podyard.node.status.decide import PodFailure
from podyard.node.sync.build import stop_grace_s
from podyard.node.sync.pod import PodEnding

log = structlog.get_logger()

#: What is said of a Pod that ends for it.
REASON: Final = "Terminated"
MESSAGE: Final = "Pod was terminated in response to imminent node shutdown."
#: Who holds the lock, as ``systemd-inhibit --list`` shows it.
WHO: Final = "podyard"
WHY: Final = "Podyard stops its Pods before the machine goes down"
#: How often it is asked whether Pods are over, seconds.
POLL_S: Final = 0.1
#: What a group gets beyond its grace for SIGKILL and taking down, seconds.
CLEAN_UP_S: Final = 2.0
#: What the API gets at the end, to hear how the Pods ended, seconds.
TELL_S: Final = 2.0
_CONNECT: Final = Backoff(base_s=1, cap_s=60)


class MachineSession(Protocol):
    """A connection to what takes the machine down (``lib/logind.py``)."""

    async def raise_delay(self, to_s: float) -> float:
        """Have so long a delay allowed; return what is, seconds."""

    async def hold(self, who: str, why: str) -> None:
        """Put off a shutdown until ``release``."""

    def release(self) -> None:
        """Put nothing off any longer."""

    async def next_change(self) -> bool:
        """Wait until the machine is about to go down (true), or is not after all."""


class Machine(Protocol):
    """What takes the machine down. All calls raise ``LogindError``."""

    def connect(self) -> AbstractAsyncContextManager[MachineSession]:
        """Connect for as long as a block lasts."""


class EndablePods(Protocol):
    """The Pods of this node."""

    def active_pods(self) -> Sequence[Pod]:
        """Return the Pods that run, or are about to."""

    def end_pod(self, uid: str, ending: PodEnding) -> bool:
        """End a Pod for a reason of the node's; return whether it is here."""

    def is_over(self, uid: str) -> bool:
        """Say whether nothing of a Pod runs any more."""

    async def wait_told(self, uid: str) -> None:
        """Wait until the API knows of a Pod what is known here."""


class NodeEvents(Protocol):
    """Events on the Node; never waits, never fails."""

    def node_event(
        self, event_type: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Tell users something about the node."""


class ShutdownManager:
    """Ends all Pods when the machine is about to go down.

    Args:
        machine: tells of it, and waits.
        periods: how long Pods get, by priority; not empty.
        events: tells users about the node.
        clock: measures.
    """

    def __init__(
        self,
        machine: Machine,
        periods: Sequence[ShutdownPeriod],
        *,
        events: NodeEvents,
        clock: Clock,
    ) -> None:
        self._machine = machine
        self._periods = tuple(periods)
        self._events = events
        self._clock = clock
        self._going = False
        self._told = False
        self._on_change: Callable[[], None] = lambda: None

    @property
    def is_going(self) -> bool:
        """Whether the machine is about to go down."""
        return self._going

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call somebody when that changes."""
        self._on_change = tell

    async def run(self, pods: EndablePods) -> None:
        """Follow the machine for ever; where it cannot be followed, say so once."""
        delay_s = 0.0
        while True:
            try:
                async with self._machine.connect() as session:
                    await self._prepare(session)
                    delay_s = 0.0
                    await self._follow(session, pods)
            except LogindError as error:
                if not self._told:
                    log.info("machine_shutdown_not_followed", why=str(error))
                self._told = True
            delay_s = _CONNECT.after(delay_s)
            await asyncio.sleep(delay_s)

    async def _prepare(self, session: MachineSession) -> None:
        wanted_s = sum(period.grace_s for period in self._periods)
        allowed_s = await session.raise_delay(wanted_s)
        if allowed_s < wanted_s:
            log.warning(
                "machine_shutdown_too_soon",
                inhibit_delay_max_s=allowed_s,
                wanted_s=wanted_s,
            )
        await session.hold(WHO, WHY)
        self._told = False
        log.info("machine_shutdown_followed", delay_s=allowed_s)

    async def _follow(self, session: MachineSession, pods: EndablePods) -> None:
        while True:
            going = await session.next_change()
            what = "event" if going else "cancellation"
            text = f"Shutdown manager detected shutdown {what}"
            self._events.node_event("Normal", "Shutdown", text)
            log.warning("machine_shutdown", going=going)
            self._going = going
            self._on_change()
            if not going:
                await session.hold(WHO, WHY)
                continue
            try:
                await self._end_all(pods)
            finally:
                session.release()

    async def _end_all(self, pods: EndablePods) -> None:
        active = {pod.uid: pod for pod in pods.active_pods()}
        ranked = [(pod.uid, pod.spec.priority or 0) for pod in active.values()]
        for group in decide_shutdown(ranked, self._periods):
            await self._end_group(pods, [active[uid] for uid in group.uids], group)
        try:
            async with asyncio.timeout(TELL_S):
                for uid in active:
                    await pods.wait_told(uid)
        except TimeoutError:
            log.warning("shutdown_not_told")

    async def _end_group(
        self, pods: EndablePods, members: Sequence[Pod], group: ShutdownGroup
    ) -> None:
        grace_s = group.grace_s or 0.0
        failure = PodFailure(REASON, MESSAGE, disrupted=True)
        for pod in members:
            own_s = min(grace_s, stop_grace_s(pod, None))
            pods.end_pod(pod.uid, PodEnding("shutdown", grace_s=own_s, failure=failure))
        until_s = self._clock.monotonic_s() + grace_s + CLEAN_UP_S
        while not all(pods.is_over(uid) for uid in group.uids):
            if self._clock.monotonic_s() >= until_s:
                log.warning("shutdown_group_too_slow", pods=len(members))
                return
            await asyncio.sleep(POLL_S)
