"""What a controller is, and what it is given."""

from collections.abc import Callable
from typing import Protocol

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.client.event_correlation import EventSubject
from podyard.client.services import ApiClient
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass


class Recorder(Protocol):
    """Takes Events."""

    def record(
        self, subject: EventSubject, event_type: str, reason: str, message: str
    ) -> None:
        """Take an Event; never blocks, never fails."""


class Caches(Protocol):
    """Local copies of the kinds a controller watches."""

    def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object as last heard of; never change it."""

    def items(self, kind: Kind) -> tuple[Document, ...]:
        """Return all objects of a kind as last heard of; never change them."""


@dataclass(frozen=True, slots=True)
class ControllerContext:
    """What controllers are made with.

    Attributes:
        client: the API.
        caches: the watched kinds.
        recorder: makes the recorder of a source of Events.
        clock: tells the time.
        ca_pem: the authority that signed the API server's certificate.
    """

    client: ApiClient
    caches: Caches
    recorder: Callable[[str], Recorder]
    clock: Clock
    ca_pem: str


class Running(Protocol):
    """A controller at work."""

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a change of a watched kind; ``None`` is "not there".

        Called from the start, also before ``run``; it must not block.
        """

    async def run(self) -> None:
        """Work for ever; called when every cache is complete."""


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller.

    Attributes:
        name: its name.
        watches: the kinds it hears of.
        make: builds it.
    """

    name: str
    watches: tuple[Kind, ...]
    make: Callable[[ControllerContext], Running]
