"""Locks and signals of a logind on a real bus."""

import asyncio
import shutil

import pytest

from podyard.lib.logind import Logind, LogindError, forget_delay
from support.logind import FakeLogind, logind_on, private_bus

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon"),
]


@pytest.fixture
async def bus(tmp_path):
    async with private_bus(tmp_path) as address:
        yield address


@pytest.fixture
def drop_in(tmp_path):
    return tmp_path / "logind.conf.d" / "99-test.conf"


async def test_a_lock_is_held_from_asking_to_release(bus, drop_in):
    async with (
        logind_on(bus, FakeLogind()) as logind,
        Logind(bus, drop_in).connect() as session,
    ):
        assert await session.delay_s() == 60

        await session.hold("podyard", "because")
        await logind.until_locks(1)
        session.release()
        await logind.until_locks(0)

    assert logind.inhibited == [("shutdown", "podyard", "because", "delay")]


async def test_a_shutdown_and_its_cancellation_are_heard_in_order(bus, drop_in):
    async with (
        logind_on(bus, FakeLogind()) as logind,
        Logind(bus, drop_in).connect() as session,
        asyncio.timeout(30),
    ):
        logind.PrepareForShutdown(True)
        logind.PrepareForShutdown(False)

        assert await session.next_change()
        assert not await session.next_change()


async def test_a_longer_delay_is_written_and_logind_made_to_read_it(bus, drop_in):
    async with (
        logind_on(bus, FakeLogind(delay_s=5, drop_in=drop_in)),
        Logind(bus, drop_in).connect() as session,
    ):
        assert await session.raise_delay(3) == 5
        assert not drop_in.exists()

        assert await session.raise_delay(30) == 30

    assert drop_in.read_text() == "[Login]\nInhibitDelayMaxSec=30\n"
    forget_delay(drop_in)
    forget_delay(drop_in)
    assert not drop_in.parent.exists()


async def test_a_lock_ends_with_its_connection(bus, drop_in):
    async with logind_on(bus, FakeLogind()) as logind:
        async with Logind(bus, drop_in).connect() as session:
            await session.hold("podyard", "because")
            await logind.until_locks(1)
        await logind.until_locks(0)


async def test_where_there_is_no_bus_it_says_so(tmp_path, drop_in):
    missing = Logind(f"unix:path={tmp_path}/none", drop_in)

    with pytest.raises(LogindError, match=f"{tmp_path}/none"):
        async with missing.connect():
            pass


async def test_where_there_is_no_logind_it_says_so(bus, drop_in):
    async with Logind(bus, drop_in).connect() as session:
        with pytest.raises(LogindError, match=r"org\.freedesktop\.login1"):
            await session.hold("podyard", "because")


async def test_a_lost_connection_is_told_to_who_waits(tmp_path, drop_in):
    async with private_bus(tmp_path) as bus, asyncio.timeout(30):
        logind = FakeLogind()
        async with logind_on(bus, logind), Logind(bus, drop_in).connect() as session:
            session._bus.disconnect()

            with pytest.raises(LogindError, match="lost"):
                await session.next_change()
