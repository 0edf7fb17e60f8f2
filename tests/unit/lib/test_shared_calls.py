"""Equal calls in flight are made once."""

import asyncio

import pytest

from podyard.lib.aio import SharedCalls


async def test_everyone_gets_the_one_answer():
    made = []

    async def call():
        made.append(1)
        await asyncio.sleep(1)
        return "answer"

    shared = SharedCalls[str]()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(shared.share("k", call)) for _ in range(3)]

    assert [task.result() for task in tasks] == ["answer"] * 3
    assert made == [1]
    assert len(shared) == 0


async def test_everyone_gets_the_one_error_and_the_next_call_is_a_new_one():
    async def fail():
        await asyncio.sleep(1)
        raise ValueError("no")

    shared = SharedCalls[str]()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(shared.share("k", fail))

    assert all(isinstance(error, ValueError) for error in caught.value.exceptions)

    async def call():
        return "later"

    assert await shared.share("k", call) == "later"


async def test_a_cancelled_waiter_harms_no_other_and_the_last_ends_the_call():
    ended = []

    async def call():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # the ending is waited for
            ended.append(1)
            raise
        return ""

    shared = SharedCalls[str]()
    async with asyncio.TaskGroup() as group:
        first, last = (group.create_task(shared.share("k", call)) for _ in range(2))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(1)
        assert ended == []
        last.cancel()

    assert ended == [1]
    assert len(shared) == 0


async def test_different_keys_are_different_calls():
    async def answer(text):
        await asyncio.sleep(1)
        return text

    shared = SharedCalls[str]()
    async with asyncio.TaskGroup() as group:
        one = group.create_task(shared.share(1, lambda: answer("one")))
        two = group.create_task(shared.share(2, lambda: answer("two")))

    assert (one.result(), two.result()) == ("one", "two")
