"""All controllers over one set of shared informers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.client.events import EventRecorder
from podyard.client.informer import Informer
from podyard.client.services import ApiClient
from podyard.controllers.parts import (
    Controller,
    ControllerContext,
    Recorder,
    Running,
)
from podyard.lib.aio import supervise
from podyard.lib.clock import Clock

log = structlog.get_logger()

#: A controller that crashed starts again after so many seconds.
RESTART_AFTER_S: Final = 5.0


class SharedCaches:
    """One informer a kind, heard by every controller that watches it.

    Args:
        client: the API.
        kinds: the kinds to follow.
    """

    def __init__(self, client: ApiClient, kinds: Iterable[Kind]) -> None:
        self._listeners: dict[
            Kind, list[Callable[[Kind, Document | None, Document | None], None]]
        ] = {kind: [] for kind in kinds}
        self._informers = {
            kind: Informer(client, kind, on_change=partial(self._tell, kind))
            for kind in self._listeners
        }

    def listen(
        self,
        kind: Kind,
        listener: Callable[[Kind, Document | None, Document | None], None],
    ) -> None:
        """Tell a listener of every change of a kind from now on."""
        self._listeners[kind].append(listener)

    def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object as last heard of; never change it."""
        return self._informers[kind].get(namespace, name)

    def items(self, kind: Kind) -> tuple[Document, ...]:
        """Return all objects of a kind as last heard of; never change them."""
        return self._informers[kind].items()

    def _tell(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        for listener in self._listeners[kind]:
            listener(kind, old, new)

    async def wait_synced(self) -> None:
        """Wait until every kind has been listed once."""
        for informer in self._informers.values():
            await informer.wait_synced()

    async def run(self) -> None:
        """Follow every kind for ever."""
        async with asyncio.TaskGroup() as group:
            for kind, informer in self._informers.items():
                group.create_task(
                    supervise(
                        informer.run,
                        restart_after_s=RESTART_AFTER_S,
                        on_crash=partial(_log_crash, f"{kind.resource} informer"),
                    ),
                    name=f"informer of {kind.resource}",
                )


class ControllerRunner:
    """Runs controllers until it is cancelled.

    Args:
        client: the API, as whoever the controllers are.
        controllers: which ones.
        clock: tells the time.
        ca_pem: the authority that signed the API server's certificate.
    """

    def __init__(
        self,
        client: ApiClient,
        controllers: Sequence[Controller],
        clock: Clock,
        *,
        ca_pem: str,
    ) -> None:
        kinds = dict.fromkeys(
            kind for controller in controllers for kind in controller.watches
        )
        self._client = client
        self._clock = clock
        self._recorders: dict[str, EventRecorder] = {}
        self.caches = SharedCaches(client, kinds)
        context = ControllerContext(client, self.caches, self._recorder, clock, ca_pem)
        self._running: list[tuple[str, Running]] = []
        for controller in controllers:
            running = controller.make(context)
            self._running.append((controller.name, running))
            for kind in controller.watches:
                self.caches.listen(kind, running.on_change)

    def _recorder(self, component: str) -> Recorder:
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(
                self._client, component=component, host="", clock=self._clock
            )
        return self._recorders[component]

    async def run(self) -> None:
        """Follow the API and let every controller work, for ever."""
        log.info("controllers_start", names=[name for name, _ in self._running])
        async with asyncio.TaskGroup() as group:
            group.create_task(self.caches.run(), name="informers")
            for component, recorder in self._recorders.items():
                self._spawn(group, f"{component} events", recorder.run)
            await self.caches.wait_synced()
            for name, running in self._running:
                self._spawn(group, name, running.run)

    def _spawn(
        self,
        group: asyncio.TaskGroup,
        name: str,
        run: Callable[[], Awaitable[None]],
    ) -> None:
        group.create_task(
            supervise(
                run,
                restart_after_s=RESTART_AFTER_S,
                on_crash=partial(_log_crash, name),
            ),
            name=name,
        )


def _log_crash(name: str, crash: Exception) -> None:
    log.error("controller_crashed", name=name, exc_info=crash)
