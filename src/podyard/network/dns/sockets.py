"""Where DNS listens; knows nothing of messages, which cost memory to understand."""

import asyncio
import socket
from contextlib import suppress
from typing import Final

from podyard.lib.values import dataclass

#: The port that resolvers know.
PORT: Final = 53


@dataclass(frozen=True, slots=True)
class DnsSockets:
    """Where DNS listens: one port, UDP and TCP."""

    udp: socket.socket
    tcp: socket.socket
    ip: str
    port: int

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def open_dns_sockets(ip: str) -> DnsSockets:
    """Listen on port 53 of an address, or where that is taken on any free one.

    Raises:
        OSError: no port can be had.
    """
    try:
        return _open(ip, PORT)
    except OSError:
        pass
    for _ in range(20):
        with suppress(OSError):
            return _open(ip, 0)
    return _open(ip, 0)


def _open(ip: str, port: int) -> DnsSockets:
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((ip, port))
        chosen = int(tcp.getsockname()[1])
        udp.bind((ip, chosen))
        tcp.listen()
        for opened in (tcp, udp):
            opened.settimeout(0)
    except BaseException:
        tcp.close()
        udp.close()
        raise
    return DnsSockets(udp, tcp, ip, chosen)


async def wait_first_question(sockets: DnsSockets) -> None:
    """Wait until somebody asks something; it stays in the socket."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    try:
        for opened in (sockets.udp, sockets.tcp):
            loop.add_reader(opened, asked.set)
        await asked.wait()
    finally:
        for opened in (sockets.udp, sockets.tcp):
            loop.remove_reader(opened)
