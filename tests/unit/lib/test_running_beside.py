"""What runs beside a block ends with it and never speaks for it."""

import asyncio

import pytest

from podyard.lib.aio import running


async def test_it_is_cancelled_at_the_end_of_the_block():
    ended = []

    async def beside():
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(asyncio.get_running_loop().time())

    began_s = asyncio.get_running_loop().time()
    async with running(beside()):
        await asyncio.sleep(1)

    assert ended == [pytest.approx(began_s + 1)]


async def test_errors_of_the_block_come_out_as_they_are():
    with pytest.raises(KeyError):
        async with running(asyncio.sleep(100)):
            raise KeyError("x")


async def test_errors_of_what_runs_beside_are_dropped():
    async def fail():
        raise RuntimeError("beside")

    async with running(fail()):
        await asyncio.sleep(1)


async def test_a_cancel_of_the_block_ends_both():
    entered = asyncio.Event()

    async def block():
        async with running(asyncio.sleep(100)):
            entered.set()
            await asyncio.sleep(100)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(block())
        await entered.wait()
        task.cancel()

    assert task.cancelled()
