"""Moments that are waited for together."""

import asyncio

import pytest

from podyard.lib.ticks import Ticks


async def test_a_sleep_takes_its_time_and_at_most_one_step_more():
    loop = asyncio.get_running_loop()
    ticks = Ticks(step_s=0.5)
    begin_s = loop.time()

    await ticks.sleep(1.3)

    assert 1.3 <= loop.time() - begin_s <= 1.8 + 1e-6


async def test_those_who_wait_for_about_the_same_moment_wake_at_once():
    loop = asyncio.get_running_loop()
    ticks = Ticks(step_s=1)
    woken = []

    async def wait(delay_s):
        await ticks.sleep(delay_s)
        woken.append(loop.time())

    # The middle of a step, so that both delays are in the one that follows.
    await asyncio.sleep(1.5 - loop.time() % 1)
    async with asyncio.TaskGroup() as group:
        group.create_task(wait(0.6))
        group.create_task(wait(1.4))

    assert woken[0] == pytest.approx(woken[1])


async def test_who_no_longer_waits_keeps_nobody_from_waking():
    ticks = Ticks(step_s=1)

    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(ticks.sleep(5))
        staying = group.create_task(ticks.sleep(5))
        await asyncio.sleep(1)
        leaving.cancel()

    assert staying.done()
    assert leaving.cancelled()
