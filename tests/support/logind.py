"""A system bus of a test's own, and a small logind on it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from dbus_fast import NameFlag
from dbus_fast.aio import MessageBus
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import (
    ServiceInterface,
    dbus_method,
    dbus_property,
    dbus_signal,
)

_CONFIG = """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@asynccontextmanager
async def private_bus(directory: Path) -> AsyncIterator[str]:
    """Run a dbus-daemon, and yield its address."""
    address = f"unix:path={directory}/bus"
    config = directory / "bus.conf"
    config.write_text(_CONFIG.format(address=address))
    daemon = await asyncio.create_subprocess_exec(
        "dbus-daemon",
        "--nofork",
        "--nopidfile",
        "--print-address=1",
        f"--config-file={config}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert daemon.stdout is not None
    try:
        async with asyncio.timeout(30):
            await daemon.stdout.readline()  # it listens
        yield address
    finally:
        with suppress(ProcessLookupError):
            daemon.kill()
        await daemon.wait()


class FakeLogind(ServiceInterface):
    """Gives delay locks and tells of shutdowns, as ``login1.Manager`` does.

    Args:
        delay_s: the longest delay.
        drop_in: read when it is told to, for a longer one.
    """

    def __init__(self, *, delay_s: float = 60, drop_in: Path | None = None) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self.delay_s = delay_s
        self.drop_in = drop_in
        self.inhibited: list[tuple[str, str, str, str]] = []
        self._locks: list[tuple[int, int]] = []

    @dbus_method()
    def Inhibit(  # noqa: N802 - its name
        self,
        what: "s",  # noqa: F821 - types of D-Bus
        who: "s",  # noqa: F821
        why: "s",  # noqa: F821
        mode: "s",  # noqa: F821
    ) -> "h":  # noqa: F821
        self.inhibited.append((what, who, why, mode))
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._locks.append((ours, theirs))
        # The reply goes out before this runs: only the other side has it then.
        asyncio.get_running_loop().call_later(0.2, self._hand_over, theirs)
        return theirs

    def _hand_over(self, theirs: int) -> None:
        os.close(theirs)
        self._locks = [(o, -1 if t == theirs else t) for o, t in self._locks]

    @dbus_property(access=PropertyAccess.READ)
    def InhibitDelayMaxUSec(self) -> "t":  # noqa: F821, N802
        return int(self.delay_s * 1e6)

    @dbus_signal()
    def PrepareForShutdown(self, going: bool) -> "b":  # noqa: F821, N802
        return going

    def reload(self) -> None:
        """Read the drop-in, as SIGHUP has the real one do."""
        if self.drop_in is not None and self.drop_in.exists():
            _, _, seconds = self.drop_in.read_text().partition("InhibitDelayMaxSec=")
            self.delay_s = float(seconds)

    @property
    def locks_held(self) -> int:
        """How many locks nobody has let go of."""
        return sum(not _is_closed(ours) for ours, _ in self._locks)

    async def until_locks(self, number: int) -> None:
        """Wait until so many locks are held."""
        async with asyncio.timeout(60):
            while self.locks_held != number:
                await asyncio.sleep(0.02)

    def close(self) -> None:
        for ours, theirs in self._locks:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        self._locks = []


def _is_closed(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


class FakeSystemd(ServiceInterface):
    """As much of systemd as makes logind read its settings again."""

    def __init__(self, logind: FakeLogind) -> None:
        super().__init__("org.freedesktop.systemd1.Manager")
        self._logind = logind

    @dbus_method()
    def KillUnit(self, unit: "s", whom: "s", number: "i") -> None:  # noqa: F821, N802
        if (unit, number) == ("systemd-logind.service", 1):
            self._logind.reload()


@asynccontextmanager
async def logind_on(address: str, logind: FakeLogind) -> AsyncIterator[FakeLogind]:
    """Have a logind on the bus while the body runs."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    try:
        bus.export("/org/freedesktop/login1", logind)
        bus.export("/org/freedesktop/systemd1", FakeSystemd(logind))
        for name in ("login1", "systemd1"):
            await bus.request_name(f"org.freedesktop.{name}", NameFlag.DO_NOT_QUEUE)
        yield logind
    finally:
        bus.disconnect()
        logind.close()
