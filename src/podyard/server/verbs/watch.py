"""WATCH: changes as they happen, one JSON line each."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Final, Literal

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, expired, internal
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.server.call import Call, Form, Stream
from podyard.server.context import ServerContext
from podyard.server.registry import Registry, prefix_of, store_failure, too_large_rev
from podyard.server.resource import Resource
from podyard.server.table import build_row, build_table, partial_metadata
from podyard.server.verbs.answers import include_of
from podyard.server.verbs.list import find_rows
from podyard.server.verbs.options import ListOptions, parse_list_options
from podyard.store.backend import (
    Change,
    CompactedError,
    FutureRevisionError,
    StoreClosedError,
    StoreError,
    Subscription,
    WatchOverflowError,
)

EventType = Literal["ADDED", "MODIFIED", "DELETED"]

#: How often an idle watch tells its revision, seconds.
BOOKMARK_EVERY_S: Final = 60.0
#: How long a watch lasts when the client does not say: between these, seconds.
SHORTEST_S: Final = 1800
LONGEST_S: Final = 3600
#: How many encoded events are kept for the other watchers of the same change.
_KEPT_EVENTS: Final = 256
_INITIAL_END: Final = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the events of one watch look; equal shapes share encoded events."""

    resource: Resource
    form: Form
    include: str

    @property
    def key(self) -> tuple[object, ...]:
        """What tells shapes apart."""
        return (self.resource.kind, self.form, self.include)


class EventEncoder:
    """Encodes each event once for all watchers that want it in the same shape."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def encode(
        self,
        shape: _Shape,
        event: EventType,
        value: bytes,
        rev: int,
        *,
        share: bool = True,
    ) -> bytes:
        """Return one line of a watch."""
        key = (rev, event, *shape.key)
        line = self._kept.get(key) if share else None
        if line is None:
            line = self._line(shape, event, value, rev)
            if share:
                self._kept[key] = line
                if len(self._kept) > _KEPT_EVENTS:
                    self._kept.popitem(last=False)
        return line

    def _line(self, shape: _Shape, event: str, value: bytes, rev: int) -> bytes:
        resource = shape.resource
        if shape.form is Form.OBJECT:
            body = self._registry.splice(resource, value, rev)
        else:
            document = self._registry.decode(resource, value, rev)
            body = orjson.dumps(_reshape(shape, document, self._clock.now(), rev))
        return b'{"type":"%b","object":%b}\n' % (event.encode(), body)


def _reshape(shape: _Shape, document: Document, now: datetime, rev: int) -> Document:
    if shape.form is Form.METADATA:
        return partial_metadata(document)
    row = build_row(shape.resource, document, now, include=shape.include)
    return build_table(
        [row],
        columns=shape.resource.columns,
        list_metadata={"resourceVersion": str(rev)},
    )


def _bookmark(shape: _Shape, rev: int, *, initial_end: bool = False) -> bytes:
    metadata: Document = {"resourceVersion": str(rev)}
    if initial_end:
        metadata["annotations"] = {_INITIAL_END: "true"}
    kind = shape.resource.kind
    if shape.form is Form.TABLE:
        body = build_table([], columns=None, list_metadata=metadata)
    elif shape.form is Form.METADATA:
        body = partial_metadata({"metadata": metadata})
    else:
        body = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return orjson.dumps({"type": "BOOKMARK", "object": body}) + b"\n"


def _error(error: ApiError) -> bytes:
    return orjson.dumps({"type": "ERROR", "object": error.to_status()}) + b"\n"


class Watches:
    """Every open watch; closing ends them cleanly."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._encoder = EventEncoder(context.registry, context.clock)
        self._open: set[Subscription] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """End every watch after what it has been told."""
        self._stopping = True
        for subscription in tuple(self._open):
            subscription.close()

    async def watch(self, call: Call) -> Stream:
        """Answer with the changes from a revision on.

        Raises:
            ApiError: 400 or 422 for options, 504 the revision has not happened.
        """
        context, info, resource = self._context, call.info, call.resource
        options = parse_list_options(info, resource, is_watch=True)
        shape = _Shape(resource, call.form, include_of(call))
        if options.rev:
            await context.registry.wait_for_rev(options.rev)
        return Stream(self._events(shape, info.namespace, options))

    async def _events(
        self, shape: _Shape, namespace: str, options: ListOptions
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the lines of a watch; a failure is its last line."""
        deadline_s = self._deadline(options)
        try:
            since = options.rev or 0
            if options.initial_events or (
                not options.rev and options.initial_events is None
            ):
                found = await find_rows(
                    self._context, shape.resource, namespace, _whole(options)
                )
                since = found.rev
                for row in found.rows:
                    yield self._encoder.encode(
                        shape, "ADDED", row.value, row.rev, share=False
                    )
                if options.initial_events:
                    yield _bookmark(shape, since, initial_end=True)
            elif not options.rev:
                since = self._context.registry.store.current_rev
            async with self._subscribed(shape.resource, namespace, since) as changes:
                lines = self._follow(shape, changes, options, deadline_s)
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        yield line
        except CompactedError as error:
            yield _error(
                expired(f"too old resource version: {error.rev} ({error.compact_rev})")
            )
        except FutureRevisionError as error:
            yield _error(too_large_rev(error.rev, error.current_rev))
        except (WatchOverflowError, StoreClosedError):
            return  # the client resumes where it stopped
        except ApiError as error:
            yield _error(error)
        except StoreError as error:
            yield _error(store_failure(error))

    def _deadline(self, options: ListOptions) -> float:
        span_s: float = options.timeout_s
        if not span_s:
            share = self._context.random_bytes(1)[0] / 255
            span_s = SHORTEST_S + share * (LONGEST_S - SHORTEST_S)
        return asyncio.get_running_loop().time() + span_s

    @contextlib.asynccontextmanager
    async def _subscribed(
        self, resource: Resource, namespace: str, since: int
    ) -> AsyncIterator[Subscription]:
        prefix = prefix_of(resource.kind, namespace)
        store = self._context.registry.store
        subscription = await store.watch(prefix, since_rev=since)
        self._open.add(subscription)
        try:
            if self._stopping:
                subscription.close()
            yield subscription
        finally:
            self._open.discard(subscription)
            subscription.close()

    async def _follow(
        self,
        shape: _Shape,
        changes: Subscription,
        options: ListOptions,
        deadline_s: float,
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        next_bookmark_s = loop.time() + BOOKMARK_EVERY_S
        told_rev = 0
        while True:
            wake_s = (
                min(deadline_s, next_bookmark_s) if options.bookmarks else deadline_s
            )
            try:
                async with asyncio.timeout_at(wake_s):
                    change = await anext(changes)
            except TimeoutError:
                rev = changes.progress_rev
                if options.bookmarks and rev > told_rev:
                    told_rev = rev
                    yield _bookmark(shape, rev)
                if loop.time() >= deadline_s:
                    return
                next_bookmark_s = loop.time() + BOOKMARK_EVERY_S
                continue
            except StopAsyncIteration:
                return
            line = self._to_line(shape, change, options)
            if line:
                yield line

    def _to_line(self, shape: _Shape, change: Change, options: ListOptions) -> bytes:
        """Return the line a change means to this watch, empty where it means none."""
        if options.selection.is_all:
            event: EventType = "MODIFIED"
            if change.op != "update":
                event = "ADDED" if change.op == "create" else "DELETED"
            return self._encoder.encode(shape, event, change.value, change.rev)
        was = change.previous is not None and self._selected(
            shape, change.previous, -change.rev, options
        )
        is_now = change.op != "delete" and self._selected(
            shape, change.value, change.rev, options
        )
        if is_now:
            event = "MODIFIED" if was else "ADDED"
            return self._encoder.encode(shape, event, change.value, change.rev)
        if not was:
            return b""
        last = change.value if change.op == "delete" else change.previous
        if last is None:
            raise internal("a change without a state")
        return self._encoder.encode(shape, "DELETED", last, change.rev)

    def _selected(
        self, shape: _Shape, value: bytes, rev: int, options: ListOptions
    ) -> bool:
        # The state before a change has no revision of its own here; its negative
        # keeps it apart from the state after it.
        facts = self._context.registry.facts(shape.resource, value, rev)
        return options.selection.matches(facts)


def _whole(options: ListOptions) -> ListOptions:
    """Return the options of the list a watch begins with."""
    return ListOptions(selection=options.selection, rev=options.rev)
