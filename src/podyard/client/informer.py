"""A local copy of some objects that follows the API server, and tells of changes.

List, then watch from there; a broken watch resumes where it stopped; history that is
gone means listing again and telling the difference. Nothing is polled. A change is
told at least once and always against what was told before, so listeners may take
every call as "look again".
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final, TypeAlias, assert_never

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import Kind
from podyard.client.decide import Relist, Resume, Wait, decide_watch
from podyard.client.services import ApiClient, ApiUnreachableError, WatchEvent
from podyard.lib.backoff import Backoff

log = structlog.get_logger()

#: Told of an object's old and new state: ``None`` is "not there".
OnChange: TypeAlias = Callable[[Document | None, Document | None], None]

#: How long to wait before trying again, seconds; half to one and a half times this.
RETRY: Final = Backoff(base_s=0.1, cap_s=5.0)
#: A watch that lasted so long, in seconds, was a healthy one even without an event.
HEALTHY_AFTER_S: Final = 1.0
#: The server is asked to end each watch after something between these seconds.
WATCH_S: Final = (300, 600)
PAGE: Final = 500


class Informer:
    """Objects of one kind, kept up to date by ``run``.

    Args:
        client: the API.
        kind: which kind.
        namespace: only this namespace, empty for all.
        label_selector: only objects with these labels.
        field_selector: only objects with these fields.
        on_change: called with the old and the new state, in order, never for the same
            resourceVersion twice in a row. It must not block. If it raises, ``run``
            raises, and its next start tells that change again.
        chance: spreads retries and the ends of watches.
    """

    def __init__(
        self,
        client: ApiClient,
        kind: Kind,
        *,
        on_change: OnChange,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        chance: random.Random | None = None,
    ) -> None:
        self._client = client
        self._kind = kind
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change
        self._chance = chance or random.Random(0)  # noqa: S311 - spreads load only
        self._objects: dict[tuple[str, str], Document] = {}
        self._last_rev = ""
        self._synced = asyncio.Event()
        self._heard = False
        self._is_away = False
        self._log = log.bind(kind=kind.kind)

    def __repr__(self) -> str:
        state = "synced" if self.is_synced else "not synced"
        return (
            f"<Informer {self._kind.qualified_resource} {state}, "
            f"{len(self._objects)} objects at {self._last_rev or 'no revision'}>"
        )

    @property
    def is_synced(self) -> bool:
        """Whether everything has been listed once."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """The newest resource version heard of, empty before the first list."""
        return self._last_rev

    def get(self, namespace: str, name: str) -> Document | None:
        """Return an object as last heard of; never change it."""
        return self._objects.get((namespace, name))

    def items(self) -> tuple[Document, ...]:
        """Return all objects as last heard of; never change them."""
        return tuple(self._objects.values())

    async def wait_synced(self) -> None:
        """Wait until everything has been listed once."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow the API server for ever.

        Errors of the server and the wire are waited out; what ``on_change`` raises
        is raised.
        """
        self._last_rev = ""
        delay_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            self._heard = False
            error = await self._attempt()
            self._log_reachability(error)
            if self._heard or loop.time() - began_s >= HEALTHY_AFTER_S:
                delay_s = 0.0
                must_wait = False
            else:
                # Whatever it was, doing it again at once would be a busy loop.
                must_wait = True
            match decide_watch(self._last_rev, error):
                case Resume(resource_version):
                    self._last_rev = resource_version
                case Relist():
                    self._last_rev = ""
                case Wait(resource_version):
                    self._last_rev = resource_version
                    must_wait = True
                case unknown:
                    assert_never(unknown)
            if must_wait:
                delay_s = RETRY.after(delay_s)
                await asyncio.sleep(delay_s * self._chance.uniform(0.5, 1.5))

    async def _attempt(self) -> ApiError | ApiUnreachableError | None:
        try:
            if not self._last_rev:
                self._take_list(
                    await self._client.list(
                        self._kind,
                        self._namespace,
                        label_selector=self._label_selector,
                        field_selector=self._field_selector,
                        limit=PAGE,
                    )
                )
            await self._follow()
        except (ApiError, ApiUnreachableError) as error:
            return error
        return None

    async def _follow(self) -> None:
        stream = self._client.watch(
            self._kind,
            self._namespace,
            resource_version=self._last_rev,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_s=self._chance.randint(*WATCH_S),
        )
        async with contextlib.aclosing(stream):
            async for event in stream:
                self._take_event(event)

    def _take_list(self, listed: Document) -> None:
        """Make the copy equal to a list, telling each difference."""
        present: set[tuple[str, str]] = set()
        for document in listed.get("items") or ():
            # Items of a list come without the words that its own kind implies.
            document.setdefault("apiVersion", self._kind.api_version)
            document.setdefault("kind", self._kind.kind)
            present.add(_key(document))
            self._put(document)
        for key in self._objects.keys() - present:
            self._remove(key, None)
        self._last_rev = str((listed.get("metadata") or {}).get("resourceVersion", ""))
        self._reached()
        self._synced.set()

    def _take_event(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._remove(_key(event.object), event.object)
        elif event.type != "BOOKMARK":
            self._put(event.object)
        self._last_rev = event.object["metadata"]["resourceVersion"]
        self._heard = True
        self._reached()

    def _put(self, document: Document) -> None:
        key = _key(document)
        old = self._objects.get(key)
        if old is not None and _uid(old) != _uid(document):
            # Deleted and made anew while nobody looked: two different objects.
            self._remove(key, None)
            old = None
        if old is not None and _rev(old) == _rev(document):
            return
        self._objects[key] = document
        try:
            self._on_change(old, document)
        except BaseException:
            self._restore(key, old)
            raise

    def _remove(self, key: tuple[str, str], last: Document | None) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        try:
            self._on_change(last or old, None)
        except BaseException:
            self._restore(key, old)
            raise

    def _restore(self, key: tuple[str, str], old: Document | None) -> None:
        """Forget a change that could not be told, so that it is told again."""
        if old is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = old

    def _reached(self) -> None:
        if self._is_away:
            self._log.info("api_reachable_again")
        self._is_away = False

    def _log_reachability(self, error: ApiError | ApiUnreachableError | None) -> None:
        """Say once that the server is away, and once that it is back."""
        if not isinstance(error, ApiUnreachableError):
            self._reached()
        elif not self._is_away:
            self._log.warning("api_unreachable", error=str(error))
            self._is_away = True
        if isinstance(error, ApiError) and error.code != 410:
            self._log.warning("watch_refused", code=error.code, error=str(error))


def _key(document: Document) -> tuple[str, str]:
    metadata: dict[str, Any] = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _uid(document: Document) -> object:
    return document["metadata"].get("uid")


def _rev(document: Document) -> object:
    return document["metadata"].get("resourceVersion")
