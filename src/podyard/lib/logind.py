"""systemd-logind over D-Bus: hears that the machine goes down, and puts it off a while.

Source: org.freedesktop.login1(5) and https://systemd.io/INHIBITOR_LOCKS. The D-Bus
library is imported by the first connection: most who start never make one.
"""

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podyard.lib.aio import running

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_SYSTEM_SOCKET: Final = Path("/run/dbus/system_bus_socket")
#: systemd makes it where it is the first process.
_BOOTED: Final = Path("/run/systemd/system")
#: Where the system bus is unless the environment names another.
SYSTEM_BUS: Final = f"unix:path={_SYSTEM_SOCKET}"
#: Where settings of logind are that a reboot forgets.
DROP_INS: Final = Path("/run/systemd/logind.conf.d")

_NAME: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_SIGNAL: Final = "PrepareForShutdown"
_MATCH: Final = (
    f"type='signal',interface='{_MANAGER}',member='{_SIGNAL}',path='{_PATH}'"
)
_CALL_S: Final = 10.0
_RELOAD_S: Final = 5.0
_POLL_S: Final = 0.1


class LogindError(Exception):
    """There is no bus, no logind on it, or it refused; the message says which."""


class LogindSession:
    """One connection. Made by :meth:`Logind.connect`."""

    def __init__(self, bus: "MessageBus", drop_in: Path) -> None:
        self._bus = bus
        self._drop_in = drop_in
        self._lock_fd: int | None = None
        self._changes: asyncio.Queue[bool | None] = asyncio.Queue()

    async def delay_s(self) -> float:
        """Return the longest that a shutdown can be put off, seconds.

        Raises:
            LogindError: see there.
        """
        reply = await self._call(
            "org.freedesktop.DBus.Properties",
            "Get",
            "ss",
            [_MANAGER, "InhibitDelayMaxUSec"],
        )
        return float(reply.body[0].value) / 1e6

    async def raise_delay(self, to_s: float) -> float:
        """Have logind allow so long a delay, until the next boot.

        Returns:
            What it allows now, seconds; less where it cannot be told.

        Raises:
            LogindError: see there.
        """
        allowed_s = await self.delay_s()
        if allowed_s >= to_s:
            return allowed_s
        try:
            await asyncio.to_thread(_write, self._drop_in, to_s)
            await self._call(
                "org.freedesktop.systemd1.Manager",
                "KillUnit",
                "ssi",
                ["systemd-logind.service", "all", int(signal.SIGHUP)],
                name="org.freedesktop.systemd1",
                path="/org/freedesktop/systemd1",
            )
        except (OSError, LogindError):
            return allowed_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELOAD_S):
                while allowed_s < to_s:
                    await asyncio.sleep(_POLL_S)
                    allowed_s = await self.delay_s()
        return allowed_s

    async def hold(self, who: str, why: str) -> None:
        """Put off a shutdown from now on, until ``release`` or the longest delay.

        Raises:
            LogindError: see there.
        """
        self.release()
        reply = await self._call(
            _MANAGER, "Inhibit", "ssss", ["shutdown", who, why, "delay"]
        )
        if not reply.unix_fds:
            raise LogindError("logind has given no lock")
        self._lock_fd = reply.unix_fds[0]

    def release(self) -> None:
        """Put nothing off any longer."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def next_change(self) -> bool:
        """Wait until the machine is about to go down (true), or is not after all.

        Raises:
            LogindError: the connection is lost.
        """
        change = await self._changes.get()
        if change is None:
            raise LogindError("the connection to the system bus is lost")
        return change

    async def listen(self) -> None:
        """Ask for the signal.

        Raises:
            LogindError: see there.
        """
        self._bus.add_message_handler(self._take)
        await self._call(
            "org.freedesktop.DBus",
            "AddMatch",
            "s",
            [_MATCH],
            name="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
        )

    async def watch(self) -> None:
        """Tell those who wait when the connection is lost."""
        with contextlib.suppress(Exception):  # however it was lost
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        self._changes.put_nowait(None)

    def _take(self, message: "Message") -> None:
        if (message.interface, message.member) == (_MANAGER, _SIGNAL):
            self._changes.put_nowait(bool(message.body[0]))

    async def _call(
        self,
        interface: str,
        member: str,
        signature: str,
        body: list[Any],
        *,
        name: str = _NAME,
        path: str = _PATH,
    ) -> "Message":
        from dbus_fast import Message, MessageType  # noqa: PLC0415 - see the module

        message = Message(
            destination=name,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        try:
            async with asyncio.timeout(_CALL_S):
                reply = await self._bus.call(message)
        except TimeoutError as error:
            raise LogindError(f"{member}: no answer in {_CALL_S:g} s") from error
        except (OSError, EOFError) as error:
            raise LogindError(f"{member}: {error}") from error
        if reply.message_type is MessageType.ERROR:
            words = str(reply.body[0]) if reply.body else ""
            raise LogindError(f"{member}: {reply.error_name}: {words}")
        return reply


class Logind:
    """Where logind is.

    Args:
        bus_address: of the system bus.
        drop_in: the file that raises the longest delay.
    """

    def __init__(self, bus_address: str, drop_in: Path) -> None:
        self._address = bus_address
        self._drop_in = drop_in

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[LogindSession, None]:
        """Connect for as long as the block lasts; a lock ends with it.

        Raises:
            LogindError: see there.
        """
        # A fifth of a second of imports, which the loop need not stand still for.
        aio = await asyncio.to_thread(importlib.import_module, "dbus_fast.aio")
        errors = importlib.import_module("dbus_fast.errors")
        try:
            bus: MessageBus = aio.MessageBus(
                bus_address=self._address, negotiate_unix_fd=True
            )
        except (OSError, errors.InvalidAddressError) as error:
            raise LogindError(f"{self._address}: {error}") from error
        try:
            async with asyncio.timeout(_CALL_S):
                await bus.connect()
        except (OSError, EOFError, TimeoutError, errors.AuthError) as error:
            bus.disconnect()
            raise LogindError(f"{self._address}: {error}") from error
        session = LogindSession(bus, self._drop_in)
        try:
            async with running(session.watch()):
                await session.listen()
                yield session
        finally:
            session.release()
            bus.disconnect()


def has_logind() -> bool:
    """Tell whether this machine has a logind that can be asked (blocking)."""
    return _BOOTED.is_dir() and _SYSTEM_SOCKET.is_socket()


def forget_delay(drop_in: Path) -> None:
    """Remove what ``raise_delay`` has written (blocking); logind hears it later."""
    drop_in.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others have files there, or it never was
        drop_in.parent.rmdir()


def _write(drop_in: Path, to_s: float) -> None:
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Login]\nInhibitDelayMaxSec={to_s:.0f}\n")
