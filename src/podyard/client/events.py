"""Kubernetes Events: recorded at once, correlated, written in the background.

``record`` never blocks and never fails. One task writes; while the API is away it
tries again, and gives an Event up after a while with a line in the log.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Hashable
from datetime import datetime
from typing import Final, assert_never

import structlog

from podyard.api.documents import Document
from podyard.api.errors import NAMESPACE_TERMINATING, ApiError
from podyard.api.scheme import EVENT
from podyard.client.event_correlation import (
    CountEvent,
    CreateEvent,
    DropEvent,
    EventCorrelator,
    EventSubject,
    NewEvent,
)
from podyard.client.services import ApiClient, ApiUnreachableError, PatchType
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass

log = structlog.get_logger()

#: So many Events wait for being written; a newer one makes the oldest go.
QUEUE_EVENTS: Final = 1000
#: An Event that could not be written for so many seconds is given up.
GIVE_UP_AFTER_S: Final = 120.0
RETRY: Final = Backoff(base_s=0.2, cap_s=10.0)


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: NewEvent
    at: datetime
    at_s: float


def subject_of(document: Document, *, field_path: str = "") -> EventSubject:
    """Return the subject for Events about a whole document, or a field of it."""
    metadata = document.get("metadata") or {}
    return EventSubject(
        api_version=document.get("apiVersion", ""),
        kind=document.get("kind", ""),
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        field_path=field_path,
        resource_version=metadata.get("resourceVersion", ""),
    )


class EventRecorder:
    """Writes Events of one source.

    Args:
        client: the API.
        component: who speaks: ``kubelet``, ``default-scheduler``.
        host: the node it speaks from, or empty.
        clock: dates the Events.
    """

    def __init__(
        self, client: ApiClient, *, component: str, host: str, clock: Clock
    ) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._correlator = EventCorrelator()
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_name_ns = 0

    def record(
        self, subject: EventSubject, event_type: str, reason: str, message: str
    ) -> None:
        """Take an Event; it is written soon.

        Args:
            subject: what it is about.
            event_type: ``Normal`` or ``Warning``.
            reason: a CamelCase word that Kubernetes knows.
            message: a sentence, without secrets.
        """
        if len(self._waiting) >= QUEUE_EVENTS:
            lost = self._waiting.popleft().event
            log.warning("event_lost", why="too many wait", reason=lost.reason)
        event = NewEvent(subject, event_type, reason, message)
        self._waiting.append(
            _Waiting(event, self._clock.now(), self._clock.monotonic_s())
        )
        self._idle.clear()
        self._more.set()

    async def run(self) -> None:
        """Write what is recorded, for ever."""
        while True:
            await self._more.wait()
            while self._waiting:
                # It leaves the queue only when it is done, so that a cancel loses
                # nothing that a later run could write.
                first = self._waiting[0]
                await self._write(first)
                if self._waiting and self._waiting[0] is first:
                    self._waiting.popleft()
            self._more.clear()
            self._idle.set()

    async def flush(self, *, within_s: float) -> bool:
        """Wait until everything recorded is written, while ``run`` runs.

        Returns:
            Whether it was within ``within_s`` seconds.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return self._idle.is_set()

    async def _write(self, waiting: _Waiting) -> None:
        decision = self._correlator.decide(waiting.event, now_s=waiting.at_s)
        name = self._name(waiting.event.subject, waiting.at)
        delay_s = 0.0
        while True:
            try:
                await self._carry_out(decision, waiting.at, name)
                return
            except ApiError as error:
                if error.code < 500 and error.code != 429:
                    self._give_up(waiting, error)
                    return
                failure: Exception = error
            except ApiUnreachableError as error:
                failure = error
            age_s = self._clock.monotonic_s() - waiting.at_s
            if age_s >= GIVE_UP_AFTER_S:
                self._give_up(waiting, failure)
                return
            delay_s = RETRY.after(delay_s)
            await asyncio.sleep(delay_s)

    async def _carry_out(
        self, decision: CreateEvent | CountEvent | DropEvent, at: datetime, name: str
    ) -> None:
        match decision:
            case DropEvent():
                pass
            case CreateEvent(key, event):
                await self._create(key, event, at, name)
            case CountEvent(key, event, count, written_name):
                if await self._count(event, count, written_name, at):
                    self._correlator.written(key, name=written_name, count=count)
                else:
                    await self._create(key, event, at, name)
            case unknown:
                assert_never(unknown)

    async def _create(
        self, key: Hashable, event: NewEvent, at: datetime, name: str
    ) -> None:
        try:
            await self._client.create(EVENT, self._build(event, at, name))
        except ApiError as error:
            # An attempt whose answer was lost had reached the server after all.
            if error.reason != "AlreadyExists":
                raise
        self._correlator.written(key, name=name, count=1)

    async def _count(
        self, event: NewEvent, count: int, name: str, at: datetime
    ) -> bool:
        """Raise an Event's count; say whether it is still there."""
        patch = {
            "count": count,
            "lastTimestamp": _to_text(at),
            "message": event.message,
        }
        try:
            await self._client.patch(
                EVENT,
                name,
                patch,
                _namespace(event.subject),
                patch_type=PatchType.STRATEGIC,
            )
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    def _build(self, event: NewEvent, at: datetime, name: str) -> Document:
        subject = event.subject
        involved = {
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
            "apiVersion": subject.api_version,
            "resourceVersion": subject.resource_version,
            "fieldPath": subject.field_path,
        }
        source = {"component": self._component, "host": self._host}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": _namespace(subject)},
            "involvedObject": _present(involved),
            "reason": event.reason,
            "message": event.message,
            "source": _present(source),
            "firstTimestamp": _to_text(at),
            "lastTimestamp": _to_text(at),
            "count": 1,
            "type": event.type,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _name(self, subject: EventSubject, at: datetime) -> str:
        """Name it as client-go does: the object and a time, in hex, never twice."""
        wall_ns = int(at.timestamp() * 1_000_000) * 1000
        self._last_name_ns = max(wall_ns, self._last_name_ns + 1)
        return f"{subject.name}.{self._last_name_ns:x}"

    def _give_up(self, waiting: _Waiting, error: Exception) -> None:
        subject = waiting.event.subject
        # What is told of a namespace that goes would go with it.
        note = log.debug if _is_without_place(error) else log.warning
        note(
            "event_lost",
            why=str(error),
            reason=waiting.event.reason,
            about=f"{subject.kind} {subject.namespace}/{subject.name}",
        )


def _is_without_place(error: Exception) -> bool:
    """Say whether the namespace of an Event is being deleted, or gone already."""
    if not isinstance(error, ApiError):
        return False
    details = error.details or {}
    if error.code == 404:
        return details.get("kind") == "namespaces"
    causes = details.get("causes") or ()
    return any(cause.get("reason") == NAMESPACE_TERMINATING for cause in causes)


def _namespace(subject: EventSubject) -> str:
    return subject.namespace or "default"


def _present(fields: dict[str, str]) -> dict[str, str]:
    return {field: text for field, text in fields.items() if text}


def _to_text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
