"""A small SPDY/3.1 client, for the streaming servers of CRI runtimes.

They take WebSocket up to v4 only, which cannot carry the end of stdin; over SPDY a
stream is closed with FIN. Only what exec and attach need: we open all streams, in
the order error, stdin, stdout, stderr, resize, and never read header blocks.

Source: SPDY draft 3.1 (frame layouts); ``k8s.io/apimachinery/pkg/util/httpstream``
for the stream headers. Runtimes keep no flow control, so neither do we.
"""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Final, Self
from urllib.parse import urlsplit

_SYN_STREAM: Final = 1
_RST_STREAM: Final = 3
_PING: Final = 6
_GOAWAY: Final = 7
_FLAG_FIN: Final = 0x01
_CONTROL: Final = 0x80
_VERSION: Final = 3
_MAX_DATA_BYTES: Final = 32 * 1024
_HEADER_BYTES: Final = 8
_MAX_RESPONSE_BYTES: Final = 64 * 1024


class SpdyError(Exception):
    """The other end did not upgrade, or broke the protocol."""


class SpdyStream:
    """One stream of a connection: bytes both ways."""

    def __init__(self, connection: "SpdyConnection", number: int) -> None:
        self._connection = connection
        self._number = number
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
        self._ended = False

    async def send(self, data: bytes) -> None:
        """Send bytes, in frames, as fast as the other end takes them."""
        for offset in range(0, len(data), _MAX_DATA_BYTES):
            part = data[offset : offset + _MAX_DATA_BYTES]
            await self._connection.send_data(self._number, part)

    async def close_sending(self) -> None:
        """Say that no more comes: the end of stdin."""
        await self._connection.send_data(self._number, b"", fin=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over what the other end sends, until it ends the stream."""
        while (chunk := await self._incoming.get()) is not None:
            yield chunk

    async def feed(self, data: bytes) -> None:
        """Hand received bytes to the reader (for the connection's own use)."""
        if data and not self._ended:
            await self._incoming.put(data)

    async def feed_end(self) -> None:
        """Tell the reader that the stream has ended."""
        if not self._ended:
            self._ended = True
            await self._incoming.put(None)


class SpdyConnection:
    """A connection that was upgraded to SPDY/3.1."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._compress = zlib.compressobj()
        self._streams: dict[int, SpdyStream] = {}
        self._next_stream = 1

    @classmethod
    async def dial(cls, url: str, *, protocol: str, within_s: float) -> Self:
        """Connect and upgrade.

        Args:
            url: the runtime's one-time streaming URL.
            protocol: the stream protocol, ``v4.channel.k8s.io``.
            within_s: seconds for both.

        Raises:
            SpdyError: it cannot be reached, or answers anything but 101.
        """
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or 80
                )
                writer.write(
                    f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                    f"X-Stream-Protocol-Version: {protocol}\r\n"
                    "Content-Length: 0\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise SpdyError(f"the runtime's streaming server: {error}") from error
        status = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(status) < 2 or status[1] != b"101":
            body = await reader.read(_MAX_RESPONSE_BYTES)
            writer.close()
            text = body.decode(errors="replace").strip()[:500]
            raise SpdyError(f"the runtime refused to stream: {text or status!r}")
        return cls(reader, writer)

    async def open_stream(self, kind: str) -> SpdyStream:
        """Open a stream; ``kind`` is its ``streamtype``."""
        number = self._next_stream
        self._next_stream += 2
        stream = SpdyStream(self, number)
        self._streams[number] = stream
        block = _header_block({"streamtype": kind})
        headers = self._compress.compress(block)
        headers += self._compress.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack(">IIBB", number, 0, 0, 0) + headers
        self._writer.write(_control_frame(_SYN_STREAM, 0, payload))
        await self._writer.drain()
        return stream

    async def send_data(self, number: int, data: bytes, *, fin: bool = False) -> None:
        """Send one DATA frame."""
        flags = _FLAG_FIN if fin else 0
        length = len(data).to_bytes(3, "big")
        self._writer.write(struct.pack(">IB", number, flags) + length + data)
        await self._writer.drain()

    async def run(self) -> None:
        """Read frames until the connection ends; then end every stream."""
        try:
            while await self._read_frame():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in self._streams.values():
                await stream.feed_end()

    def close(self) -> None:
        """Drop the connection."""
        self._writer.close()

    async def _read_frame(self) -> bool:
        header = await self._reader.readexactly(_HEADER_BYTES)
        flags = header[4]
        length = int.from_bytes(header[5:8], "big")
        payload = await self._reader.readexactly(length)
        if not header[0] & _CONTROL:
            stream = self._streams.get(int.from_bytes(header[:4], "big"))
            if stream is not None:
                await stream.feed(payload)
                if flags & _FLAG_FIN:
                    await stream.feed_end()
            return True
        match int.from_bytes(header[2:4], "big"):
            case 3 if length >= 4:  # RST_STREAM
                number = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
                if number in self._streams:
                    await self._streams[number].feed_end()
            case 6 if length >= 4 and payload[3] & 1 == 0:  # PING of the other end
                self._writer.write(_control_frame(_PING, 0, payload))
                await self._writer.drain()
            case 7:  # GOAWAY
                return False
            case _:  # SYN_REPLY, SETTINGS, HEADERS, WINDOW_UPDATE: of no use here
                pass
        return True


def _control_frame(kind: int, flags: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHB", _CONTROL, _VERSION, kind, flags)
    return head + len(payload).to_bytes(3, "big") + payload


def _header_block(headers: dict[str, str]) -> bytes:
    block = struct.pack(">I", len(headers))
    for name, value in headers.items():
        for text in (name.encode(), value.encode()):
            block += struct.pack(">I", len(text)) + text
    return block
