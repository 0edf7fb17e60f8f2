"""Stops as the node's journal knows them: deadlines that outlive the agent.

Every stop (a deletion, a failed probe, an eviction, a changed image) is written down
with its deadline before anything of it is delivered, so that a restart neither forgets
it nor grants a second grace period.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final

import structlog

from podyard.api.core_v1 import Pod, format_micro_time, parse_time
from podyard.api.documents import Document
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.store.backend import StoreError
from podyard.store.node_journal import JournalRecord, NodeJournal

log = structlog.get_logger()

KIND: Final = "stop"
#: The result of a stop that nobody saw the end of.
ENDED_ALONE: Final = "ended while the agent was away"


@dataclass(frozen=True, slots=True)
class OpenStop:
    """A stop that had begun when the agent died.

    Attributes:
        record_id: its row, to be closed.
        container_id: which instance.
        container: its name.
        deadline_at: when its grace period is over.
        restart: whether the container was to be started again.
        failure: reason, message and disruption of a whole Pod ended by the node.
    """

    record_id: int
    container_id: str
    container: str
    deadline_at: datetime
    restart: bool
    failure: tuple[str, str, bool] | None = None


class StopLedger:
    """Writes stops down. A journal that cannot be written never holds up a stop.

    Args:
        journal: the node's journal.
        clock: dates the records.
    """

    def __init__(self, journal: NodeJournal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock

    async def load(self) -> dict[str, tuple[OpenStop, ...]]:
        """Return what was open when the agent started, by Pod uid."""
        try:
            records = await self._journal.list(kind=KIND, only_open=True)
        except StoreError as error:
            log.warning("stops_not_read", error=str(error))
            return {}
        found: dict[str, list[OpenStop]] = {}
        for record in records:
            stop = _read(record)
            if stop is not None:
                found.setdefault(record.pod_uid, []).append(stop)
        return {uid: tuple(stops) for uid, stops in found.items()}

    async def begin(self, pod_uid: str, body: Document) -> int | None:
        """Write that a stop is about to begin; ``None`` where that failed."""
        return await self._try(
            lambda: self._journal.open(KIND, pod_uid, body, at=self._clock.now())
        )

    async def end(self, record_id: int, result: Document) -> None:
        """Write how a stop ended."""
        try:
            await self._journal.close(record_id, at=self._clock.now(), result=result)
        except StoreError as error:
            log.warning("stop_not_recorded", error=str(error))

    async def note(self, pod_uid: str, body: Document) -> None:
        """Write a stop that is already over."""
        await self._try(
            lambda: self._journal.note(KIND, pod_uid, body, at=self._clock.now())
        )

    async def abandon(self, stops: Iterable[OpenStop]) -> None:
        """Close what was open of Pods that are no longer here."""
        for stop in stops:
            await self.end(stop.record_id, {"result": ENDED_ALONE})

    async def _try(self, write: Callable[[], Awaitable[int]]) -> int | None:
        try:
            return await write()
        except StoreError as error:
            log.warning("stop_not_recorded", error=str(error))
            return None


def _read(record: JournalRecord) -> OpenStop | None:
    body = record.body
    deadline_at = parse_time(body.get("deadlineAt"))
    if deadline_at is None or not body.get("containerID"):
        return None
    return OpenStop(
        record.id,
        str(body["containerID"]),
        str(body.get("container") or ""),
        deadline_at,
        bool(body.get("restart")),
        _read_failure(body.get("podFailure")),
    )


def _read_failure(body: Document | None) -> tuple[str, str, bool] | None:
    if not body:
        return None
    return (
        str(body.get("reason") or ""),
        str(body.get("message") or ""),
        bool(body.get("disrupted")),
    )


def stop_body(
    pod: Pod,
    *,
    container_id: str,
    container: str,
    why: str,
    deadline_at: datetime,
    restart: bool,
) -> Document:
    """Return what is written down of a stop before it begins."""
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "containerID": container_id,
        "container": container,
        "why": why,
        "deadlineAt": format_micro_time(deadline_at),
        "restart": restart,
    }


def stop_shares(took_s: float, *, call_s: float, given_s: int) -> Document:
    """Return how the time after the hook was used, for the records.

    Args:
        took_s: from the stop signal to the end, seconds.
        call_s: how long the last request to the runtime took, seconds.
        given_s: the seconds it gave between stop signal and SIGKILL; 0 is SIGKILL
            at once.
    """
    kill_s = max(call_s - given_s, 0.0) if call_s >= given_s else 0.0
    return {
        "termSeconds": round(took_s - kill_s, 3),
        "killSeconds": round(kill_s, 3),
        "stopGraceSeconds": given_s,
        "endedBy": "SIGKILL" if call_s >= given_s else "stop signal",
    }
