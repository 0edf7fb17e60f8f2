"""PodWorkers: one task per Pod UID; the newest update wins.

A worker sleeps until something wakes it: a newer object, an order to end, an event
of the runtime, a probe, a timer of its own. A crash of one is logged and tried again;
it never reaches the others.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.cri.services import CRIError
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.node.sync.pod import PodEnding, Stage

log = structlog.get_logger()

#: After a step that failed: the runtime is away, or we have a bug.
RETRY: Final = Backoff(base_s=1, cap_s=10)
#: The shortest pause between two steps that nothing asked for, seconds.
SHORTEST_S: Final = 0.01


class PodLife(Protocol):
    """One Pod's life, as a worker drives it (``sync/pod.py``)."""

    pod: Pod
    stage: Stage

    def update(self, pod: Pod) -> bool:
        """Take a newer object; return whether to look at it."""

    def end(self, ending: PodEnding) -> None:
        """End the Pod."""

    def remove(self) -> None:
        """Say that the Pod's object is gone."""

    def park(self, grace_s: float) -> None:
        """Stop the Pod without ending it."""

    def retry_now(self) -> None:
        """Forget retry delays."""

    async def step(self) -> float | None:
        """Do what is to be done; return when to look again, seconds."""

    def describe(self) -> Document:
        """Return what is known of it."""


#: Makes the life of a Pod, given where to run and how to be woken.
MakeLife = Callable[[Pod, asyncio.TaskGroup, Callable[[float], None]], PodLife]


class PodWorker:
    """The task of one Pod.

    Args:
        pod: its object.
        make: makes its life.
        clock: measures.
        chance: returns a number from 0 to 1, to spread retries.
    """

    def __init__(
        self, pod: Pod, make: MakeLife, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self.pod = pod
        self._make = make
        self._clock = clock
        self._chance = chance
        self._woken = asyncio.Event()
        self._life: PodLife | None = None
        self._orders: list[Callable[[PodLife], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()
        self._log = log.bind(pod=pod.full_name)

    @property
    def stage(self) -> Stage:
        """How far the Pod's life here is."""
        return self._life.stage if self._life else Stage.SYNC

    @property
    def life(self) -> PodLife | None:
        """The life, once the worker has begun."""
        return self._life

    @property
    def is_parked(self) -> bool:
        """Whether the Pod was stopped because the node goes away."""
        return self.stage is Stage.PARKED

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to do for the Pod."""
        return self.stage in (Stage.PURGED, Stage.PARKED)

    def update(self, pod: Pod) -> None:
        """Take a newer object."""
        self.pod = pod
        if self._life is None or self._life.update(pod):
            self._woken.set()

    def order(self, what: Callable[[PodLife], None], *, lasting: bool = False) -> None:
        """Have ``what`` done to the life before its next step.

        A lasting order is given again to a life that begins anew after a crash.
        """
        if lasting or self._life is None:
            self._orders.append(what)
        if self._life is not None:
            what(self._life)
        self._woken.set()

    def wake(self, in_s: float = 0) -> None:
        """Have a step after so many seconds; a later step is not put off by it."""
        if in_s <= 0:
            self._woken.set()
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + in_s
        if self._timer is not None and not self._timer.cancelled():
            if loop.time() < self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at_s, self._woken.set)

    async def run(self) -> None:
        """Live until the Pod is gone. Raises nothing but its cancellation."""
        delay_s = 0.0
        try:
            while not self.is_gone:
                try:
                    async with asyncio.TaskGroup() as group:
                        await self._live(group)
                except* Exception as crash:  # noqa: BLE001 - one Pod's bug stays there
                    self._log.exception("pod_crashed", exc_info=crash)
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # An inner group may have swallowed it (cpython#116720).
                    raise asyncio.CancelledError
                if not self.is_gone:
                    delay_s = RETRY.after(delay_s)
                    await asyncio.sleep(delay_s)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.gone.set()

    async def _live(self, group: asyncio.TaskGroup) -> None:
        life = self._make(self.pod, group, self.wake)
        # A life that begins anew after a crash knows its ending again.
        if self._life is not None:
            life.stage = self._life.stage
        self._life = life
        for order in self._orders:
            order(life)
        delay_s = 0.0
        while not self.is_gone:
            self._woken.clear()
            if self._timer is not None:
                self._timer.cancel()
            try:
                again_s = await life.step()
                delay_s = 0.0
            except CRIError as error:
                delay_s = RETRY.after(delay_s)
                again_s = delay_s * (1 + self._chance() / 2)
                self._log.warning("step_failed", call=error.call, error=error.message)
            if not self.is_gone:
                await self._sleep(again_s)

    async def _sleep(self, again_s: float | None) -> None:
        if again_s is not None:
            # A span too short for the clock must not become a busy loop.
            again_s = max(again_s, SHORTEST_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(again_s):
                await self._woken.wait()


class PodWorkers:
    """All workers of a node.

    Args:
        group: where workers run.
        make: makes a Pod's life.
        clock: measures.
        chance: returns a number from 0 to 1, to spread retries.
        on_gone: called with the Pod when nothing is left of it.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        make: MakeLife,
        clock: Clock,
        chance: Callable[[], float],
        on_gone: Callable[[Pod], None] = lambda _: None,
    ) -> None:
        self._group = group
        self._make = make
        self._clock = clock
        self._chance = chance
        self._on_gone = on_gone
        self._workers: dict[str, PodWorker] = {}

    def __contains__(self, uid: object) -> bool:
        return uid in self._workers

    def __iter__(self) -> Iterator[PodWorker]:
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, uid: str) -> PodWorker | None:
        """Return the worker of a Pod, or ``None``."""
        return self._workers.get(uid)

    def update(self, pod: Pod) -> None:
        """Take a new or newer object."""
        worker = self._workers.get(pod.uid)
        if worker is None:
            worker = PodWorker(pod, self._make, self._clock, self._chance)
            self._workers[pod.uid] = worker
            self._group.create_task(self._run(worker), name=f"pod-{pod.uid}")
            return
        worker.update(pod)

    def end(self, uid: str, ending: PodEnding) -> bool:
        """End a Pod; return whether it is here."""
        worker = self._workers.get(uid)
        if worker is None:
            return False
        worker.order(lambda life: life.end(ending), lasting=True)
        return True

    def remove(self, uid: str) -> bool:
        """Take a Pod away whose object is gone; return whether it is here."""
        worker = self._workers.get(uid)
        if worker is None:
            return False
        worker.order(lambda life: life.remove(), lasting=True)
        return True

    def wake(self, uid: str) -> bool:
        """Have a Pod looked at; return whether it is here."""
        worker = self._workers.get(uid)
        if worker is None:
            return False
        worker.wake()
        return True

    def retry_now(self, uid: str) -> None:
        """Have a Pod look at once, without waiting for any retry delay."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.order(lambda life: life.retry_now())

    async def park(self, uids: tuple[str, ...], grace_s: float) -> None:
        """Stop these Pods without ending them, and wait until that is done."""
        parked = [w for uid in uids if (w := self._workers.get(uid)) is not None]
        for worker in parked:
            worker.order(lambda life: life.park(grace_s), lasting=True)
        for worker in parked:
            await worker.gone.wait()

    async def _run(self, worker: PodWorker) -> None:
        await worker.run()
        if not worker.is_parked:
            del self._workers[worker.pod.uid]
            self._on_gone(worker.pod)
