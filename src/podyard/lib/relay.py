"""Two byte streams joined: what one side sends, the other gets, with back-pressure.

Used after an HTTP upgrade, when both connections carry something else than HTTP.
"""

import asyncio
from collections.abc import Callable
from typing import cast


class RelaySide(asyncio.Protocol):
    """One of the two ends; made by :class:`Relay`."""

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self.transport: asyncio.Transport | None = None
        self.peer: RelaySide | None = None
        #: Called with the first bytes from here; ``False`` keeps the other side mute.
        self.check: Callable[[bytes], bool] | None = None
        self._mute = False
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._mute:
            return
        if self.check is not None:
            check, self.check = self.check, None
            if self.peer is not None and not check(data):
                self.peer.mute()
        other = self.peer.transport if self.peer else None
        if other is not None and not other.is_closing():
            other.write(data)

    def mute(self) -> None:
        """Drop whatever comes from here from now on."""
        self._mute = True

    def eof_received(self) -> bool:
        """Pass a half close on where the other side can; keep our own half open.

        Once both sides have said so there is nothing left to relay.
        """
        self._ended = True
        other = self.peer.transport if self.peer else None
        if self.peer is None or other is None or other.is_closing():
            return False
        if self.peer.has_ended or not other.can_write_eof():
            return False
        other.write_eof()
        return True

    @property
    def has_ended(self) -> bool:
        """Whether this side has sent all it will."""
        return self._ended

    def pause_writing(self) -> None:
        """Stop reading from the other side while this one is full."""
        if self.peer and self.peer.transport and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        if self.peer and self.peer.transport and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """End the other side too, after what it was still to be sent."""
        self.transport = None
        self._relay.lost(self)


class Relay:
    """Joins two connections until either ends."""

    def __init__(self) -> None:
        self.left = RelaySide(self)
        self.right = RelaySide(self)
        self.left.peer = self.right
        self.right.peer = self.left
        self._ended = asyncio.Event()
        self._open = 2

    def lost(self, side: RelaySide) -> None:
        """One side has ended: let the other flush, then end it."""
        self._open -= 1
        peer = side.peer
        if peer is not None and peer.transport is not None:
            peer.transport.close()
        if self._open <= 0 or peer is None or peer.transport is None:
            self._ended.set()

    async def wait_ended(self) -> None:
        """Wait until both sides have ended."""
        await self._ended.wait()

    def abort(self) -> None:
        """End both sides at once (TLS is not shut down politely)."""
        for side in (self.left, self.right):
            if side.transport is not None:
                side.transport.abort()
