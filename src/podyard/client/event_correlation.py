"""Which Events to write: repetitions counted, look-alikes combined, floods held back.

Three steps as client-go's recorder has them (tools/record/events_cache.go, v0.36):

1. From the tenth on, Events within ten minutes that differ only in their message
   become one, whose message says that it stands for several.
2. An Event equal to one before, message and all, raises that one's count.
3. Each source and object has a bucket of 25 Events that refills one in five minutes;
   with an empty bucket nothing is written.

No I/O and no clock here: time is an argument.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import Final, Generic, TypeAlias, TypeVar

from podyard.lib.values import dataclass

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

#: From this different message on, within so many seconds, they are combined.
MAX_SIMILAR: Final = 10
SIMILAR_WITHIN_S: Final = 600.0
#: The flood gate of one source and object.
BURST: Final = 25.0
REFILL_PER_S: Final = 1.0 / 300.0
#: How many objects and Events are remembered.
REMEMBERED: Final = 4096
COMBINED_PREFIX: Final = "(combined from similar events): "


@dataclass(frozen=True, slots=True)
class EventSubject:
    """What an Event is about: the fields of ``involvedObject``."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""
    field_path: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An Event as it was recorded.

    Attributes:
        subject: what it is about.
        type: ``Normal`` or ``Warning``.
        reason: a CamelCase word.
        message: a sentence.
    """

    subject: EventSubject
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateEvent:
    """Write a new Event object.

    Attributes:
        key: names it for ``EventCorrelator.written``.
        event: what to write; its message may be a combined one.
    """

    key: Hashable
    event: NewEvent


@dataclass(frozen=True, slots=True)
class CountEvent:
    """Raise the count of an Event object that was written before.

    Attributes:
        key: names it for ``EventCorrelator.written``.
        event: what to write if that object is gone.
        count: its new count.
        name: its object's name.
    """

    key: Hashable
    event: NewEvent
    count: int
    name: str


@dataclass(frozen=True, slots=True)
class DropEvent:
    """Write nothing: this object has had too many Events."""


EventDecision: TypeAlias = CreateEvent | CountEvent | DropEvent


@dataclass(frozen=True, slots=True)
class _Similar:
    messages: frozenset[str]
    last_s: float


@dataclass(frozen=True, slots=True)
class _Written:
    count: int
    name: str


@dataclass(frozen=True, slots=True)
class _Bucket:
    tokens: float
    at_s: float


class _Recent(Generic[_K, _V]):
    """A mapping that forgets what was used longest ago."""

    def __init__(self) -> None:
        self._values: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: _K, value: _V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > REMEMBERED:
            self._values.popitem(last=False)


class EventCorrelator:
    """The memory of one recorder (so of one source)."""

    def __init__(self) -> None:
        self._similar: _Recent[Hashable, _Similar] = _Recent()
        self._written: _Recent[Hashable, _Written] = _Recent()
        self._buckets: _Recent[Hashable, _Bucket] = _Recent()

    def decide(self, event: NewEvent, *, now_s: float) -> EventDecision:
        """Decide what to write for ``event``; monotonic seconds say when it was."""
        key, event = self._combine(event, now_s)
        if not self._take_token(event.subject, now_s):
            return DropEvent()
        written = self._written.get(key)
        if written is None:
            return CreateEvent(key, event)
        return CountEvent(key, event, written.count + 1, written.name)

    def written(self, key: Hashable, *, name: str, count: int) -> None:
        """Take note that the Event of a decision stands in the API."""
        self._written.put(key, _Written(count, name))

    def _combine(self, event: NewEvent, now_s: float) -> tuple[Hashable, NewEvent]:
        subject = replace(event.subject, field_path="", resource_version="")
        alike = (subject, event.type, event.reason)
        known = self._similar.get(alike)
        if known is None or now_s - known.last_s > SIMILAR_WITHIN_S:
            known = _Similar(frozenset(), now_s)
        messages = known.messages | {event.message}
        if len(messages) < MAX_SIMILAR:
            self._similar.put(alike, _Similar(messages, now_s))
            exact = replace(event.subject, resource_version="")
            return (exact, event.type, event.reason, event.message), event
        # The set needs to grow no further: it is over the line already.
        self._similar.put(alike, _Similar(known.messages, now_s))
        message = COMBINED_PREFIX + event.message
        return alike, replace(event, message=message)

    def _take_token(self, subject: EventSubject, now_s: float) -> bool:
        key = replace(subject, field_path="", resource_version="")
        bucket = self._buckets.get(key) or _Bucket(BURST, now_s)
        refill = max(now_s - bucket.at_s, 0.0) * REFILL_PER_S
        tokens = min(bucket.tokens + refill, BURST)
        taken = tokens >= 1.0
        self._buckets.put(key, _Bucket(tokens - 1.0 if taken else tokens, now_s))
        return taken
