"""Taking an upgraded connection out of aiohttp's hands and joining it with another."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from podyard.lib.relay import Relay, RelaySide

#: Connects a protocol factory to the other end; returns its transport.
Dial = Callable[[Callable[[], RelaySide]], Awaitable[asyncio.WriteTransport]]


class Hijacked(web.Response):
    """Stands for an answer that went out on the raw connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


def _has_switched(answer: bytes) -> bool:
    return answer.startswith((b"HTTP/1.1 101", b"HTTP/1.0 101"))


async def relay_upgrade(request: web.Request, dial: Dial, head: bytes) -> Hijacked:
    """Send ``head`` to another server and join its connection with the client's.

    The other end's answer, upgrade or not, goes to the client as it is.

    Args:
        request: the client's upgrade request, its body unread.
        dial: connects to the other end.
        head: the request as the other end is to see it.

    Raises:
        OSError: the other end cannot be reached (nothing has been sent yet).
    """
    client = request.transport
    if client is None:
        raise ConnectionResetError("the client has gone")
    relay = Relay()
    # Where the other end did not upgrade, nothing more of the client reaches it.
    relay.right.check = _has_switched
    other = await dial(lambda: relay.right)
    # aiohttp stops reading at an upgrade; what came behind it waits in the parser.
    early: bytes = getattr(request.protocol, "_message_tail", b"") or b""
    handler = request.protocol
    # Nothing more comes for it; force_close() would end the connection itself.
    handler.close()
    client.set_protocol(relay.left)
    relay.left.connection_made(client)
    client.resume_reading()
    other.write(head + early)
    try:
        await relay.wait_ended()
    finally:
        if relay.left.transport is None:
            # The loop told the relay, not aiohttp, that the client has gone.
            asyncio.get_running_loop().call_soon(handler.connection_lost, None)
        else:
            client.set_protocol(handler)
        relay.abort()
    return Hijacked()
