"""Pulls at the runtime: in turn, each credential in turn, equal ones made once."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import field

import structlog

from podyard.api.go_duration import go_duration
from podyard.api.observed import Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.cri.services import CRIError, ImageService
from podyard.lib.aio import SharedCalls, running
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.credentials.build import redact
from podyard.node.credentials.decide import Credential
from podyard.node.images.parts import ProgressSource, PullProgress

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How images are pulled (KubeletConfiguration's names).

    Attributes:
        serialize_image_pulls: one pull at a time on this node.
        max_parallel_image_pulls: so many at a time where they are not serial;
            ``None`` is any number.
        registry_pull_qps: pulls begun a second, over time; 0 is any number. More
            wait for their turn.
        registry_burst: so many may begin at once.
        progress_timeout_s: a pull that gets no byte for so long ends (containerd's
            ``image_pull_progress_timeout``, which 1.6 does not have); 0 is never.
    """

    serialize_image_pulls: bool = True
    max_parallel_image_pulls: int | None = None
    registry_pull_qps: float = 5.0
    registry_burst: int = 10
    progress_timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class PullOrder:
    """A pull.

    Attributes:
        image: as the runtime gets it.
        credentials: those to try, in order; none means anonymously.
        sandbox: for whom.
        handler: the runtime handler of that sandbox.
    """

    image: str
    credentials: tuple[Credential, ...]
    sandbox: SandboxConfig | None
    handler: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try with one credential; ``error`` is empty where it worked."""

    credential: Credential | None
    error: str = ""

    def to_record(self) -> tuple[str, str, str]:
        """Return what a record says: origin and key of the credential, the error."""
        whose = self.credential
        return (
            whose.origin if whose else "",
            whose.key if whose else "",
            self.error,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pull went; ``image`` is ``None`` where every attempt failed."""

    image: Image | None
    ref: str
    attempts: tuple[Attempt, ...]
    took_s: float


class _PullQueue:
    """Whose turn it is: so many at once, so many a second."""

    def __init__(self, settings: ImageSettings, clock: Clock) -> None:
        width = 1 if settings.serialize_image_pulls else None
        if width is None:
            width = settings.max_parallel_image_pulls
        self._slots = asyncio.Semaphore(width) if width else None
        self._qps = settings.registry_pull_qps
        self._burst = max(settings.registry_burst, 1)
        self._clock = clock
        self._next_free_s = -math.inf

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait for one's turn, and hold it."""
        if self._slots is None:
            await self._pace()
            yield
            return
        async with self._slots:
            await self._pace()
            yield

    async def _pace(self) -> None:
        if self._qps <= 0:
            return
        # A token bucket as one number: the time its last token is used up.
        now_s = self._clock.monotonic_s()
        full_s = now_s - self._burst / self._qps
        self._next_free_s = max(self._next_free_s, full_s) + 1 / self._qps
        wait_s = self._next_free_s - now_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class PullStalledError(CRIError):
    """The registry has sent nothing for too long."""

    def __init__(self, timeout_s: float) -> None:
        text = (
            f"no byte has come from the registry for {go_duration(timeout_s)} "
            "(imagePullProgressTimeout)"
        )
        super().__init__("PullImage", "UNKNOWN", text)


@dataclass(slots=True)
class _Flight:
    """A pull that is going on or waits for its turn, and who hears how far it is."""

    hearers: list[Callable[[PullProgress], None]] = field(default_factory=list)
    seen: PullProgress = field(default_factory=PullProgress)

    def tell(self, seen: PullProgress) -> None:
        """Tell everybody who waits."""
        self.seen = seen
        for hear in tuple(self.hearers):
            hear(seen)


class Puller:
    """Pulls images.

    Args:
        images: the runtime.
        clock: times pulls.
        settings: how many at a time.
        progress: tells how far pulls are; ``None`` where nobody does.
    """

    def __init__(
        self,
        images: ImageService,
        clock: Clock,
        settings: ImageSettings,
        progress: ProgressSource | None = None,
    ) -> None:
        self._images = images
        self._clock = clock
        self._queue = _PullQueue(settings, clock)
        self._in_flight: SharedCalls[Outcome] = SharedCalls()
        self._flights: dict[object, _Flight] = {}
        self._progress = progress
        self._patience_s = settings.progress_timeout_s or math.inf
        self._under_way = 0

    def __len__(self) -> int:
        """How many different pulls are going on or wait for their turn."""
        return len(self._in_flight)

    @property
    def under_way(self) -> int:
        """How many different pulls have got their turn."""
        return self._under_way

    async def pull(
        self, order: PullOrder, hear: Callable[[PullProgress], None]
    ) -> Outcome:
        """Pull, or wait for an equal pull that is going on already.

        A pull ends with the last one that waits for it.

        Args:
            order: the pull.
            hear: told now and then how far it is, from its own beginning on.
        """
        auths = tuple(credential.auth for credential in order.credentials)
        key = (order.image, order.handler, auths)
        flight = self._flights.setdefault(key, _Flight())
        flight.hearers.append(hear)
        if flight.seen.total_bytes:
            hear(flight.seen)
        try:
            return await self._in_flight.share(
                key, lambda: self._pull_in_turn(order, flight)
            )
        finally:
            flight.hearers.remove(hear)
            if not flight.hearers and self._flights.get(key) is flight:
                del self._flights[key]

    async def _pull_in_turn(self, order: PullOrder, flight: _Flight) -> Outcome:
        async with self._queue.turn():
            self._under_way += 1
            try:
                return await self._try_each(order, flight)
            finally:
                self._under_way -= 1

    async def _try_each(self, order: PullOrder, flight: _Flight) -> Outcome:
        """Try each credential until one is taken."""
        began_s = self._clock.monotonic_s()
        attempts: list[Attempt] = []
        for credential in order.credentials or (None,):
            auth: ImageAuth | None = credential.auth if credential else None
            try:
                ref = await self._pull_watched(order, auth, flight)
            except CRIError as error:
                attempts.append(Attempt(credential, redact(error_text(error), auth)))
                if isinstance(error, PullStalledError):
                    break  # no other credential makes a registry answer
                continue
            attempts.append(Attempt(credential))
            pulled = await self._inspect(ref)
            took_s = self._clock.monotonic_s() - began_s
            return Outcome(pulled, ref, tuple(attempts), took_s)
        took_s = self._clock.monotonic_s() - began_s
        return Outcome(None, "", tuple(attempts), took_s)

    async def _pull_watched(
        self, order: PullOrder, auth: ImageAuth | None, flight: _Flight
    ) -> str:
        """Pull once; follow how far it is, and end it when nothing comes any more.

        Raises:
            CRIError: the runtime's own error.
            PullStalledError: nothing has come for too long.
        """
        pull = self._images.pull_image(
            order.image, auth=auth, sandbox=order.sandbox, handler=order.handler
        )
        if self._progress is None:
            return await pull
        loop, patience_s = asyncio.get_running_loop(), self._patience_s

        def tell(seen: PullProgress) -> None:
            if seen == flight.seen:
                return
            all_here = 0 < seen.total_bytes <= seen.done_bytes
            # What is all here is being unpacked, which takes as long as it takes.
            limit.reschedule(None if all_here else loop.time() + patience_s)
            flight.tell(seen)

        limit = asyncio.timeout(None if math.isinf(patience_s) else patience_s)
        try:
            async with limit, running(self._progress.watch(tell)):
                return await pull
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise PullStalledError(patience_s) from error

    async def _inspect(self, ref: str) -> Image:
        """Return what was pulled; its size is worth no failure."""
        try:
            found = await self._images.image_status(ref)
        except CRIError as error:
            log.warning("pulled_image_not_inspected", image_ref=ref, error=str(error))
            found = None
        return found or Image(id=ref)


def error_text(error: CRIError) -> str:
    """Return a runtime's error as the kubelet shows it."""
    return error.message if error.code == "UNKNOWN" else error.rpc_text
