"""TCP on a bare socket: connect, ask once, leave. For those who ask very often.

A connection of asyncio has a transport, a protocol and buffers around it that cost
several times what the connection itself does. Here one question costs a socket, one
registration with the loop, and nothing that outlives it.

Sockets are closed without ``SO_LINGER``: on Linux it does not shorten ``TIME_WAIT``,
and a close that lingers stops the whole loop until the other side answers.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})
_CONNECTED: Final = frozenset({0, errno.EISCONN})

#: Takes what has come, ``b""`` at the end; returns whether that was all.
Feed = Callable[[bytes], bool]


def family_of(host: str) -> socket.AddressFamily | None:
    """Return the family of a numeric address, ``None`` for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None


async def connect_and_leave(
    family: socket.AddressFamily, address: tuple[str, int]
) -> None:
    """Open a connection and close it. The caller bounds the time.

    Raises:
        OSError: nothing answers there.
    """
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await _connect(connection, address)


async def ask(
    family: socket.AddressFamily, address: tuple[str, int], request: bytes, feed: Feed
) -> None:
    """Send ``request`` and hand what comes back to ``feed`` until it has enough.

    The caller bounds the time; cancelling closes the connection.

    Raises:
        OSError: nothing answers there, or the connection broke.
    """
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await _connect(connection, address)
        if connection.send(request) < len(request):
            # Far larger than a socket's buffer: what is left of it would follow
            # while nobody reads.
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        await _read(connection, feed)


async def _connect(connection: socket.socket, address: tuple[str, int]) -> None:
    number = connection.connect_ex(address)
    if number == errno.EINPROGRESS:
        # On one machine the answer is there already, and the loop need not wait.
        number = connection.connect_ex(address)
    if number in _UNDER_WAY:
        await asyncio.get_running_loop().sock_connect(connection, address)
    elif number not in _CONNECTED:
        raise OSError(number, os.strerror(number))


async def _read(connection: socket.socket, feed: Feed) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    number = connection.fileno()

    def take() -> None:
        if done.done():
            return
        try:
            data = connection.recv(_CHUNK_BYTES)
            if feed(data) or not data:
                done.set_result(None)
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            done.set_exception(error)

    loop.add_reader(number, take)
    try:
        await done
    finally:
        loop.remove_reader(number)
