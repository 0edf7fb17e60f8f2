"""The queue of keys to look at."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

import pytest

from podyard.api.errors import conflict
from podyard.controllers.queue import WorkQueue

Handle = Callable[[str], Awaitable[float | None]]


async def _work(
    queue: WorkQueue[str], handle: Handle, *, for_s: float, workers: int = 1
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await queue.work(handle, workers=workers)


async def test_a_key_added_often_is_handled_once() -> None:
    seen: list[str] = []
    queue: WorkQueue[str] = WorkQueue("q")

    async def handle(key: str) -> None:
        seen.append(key)

    for key in ("a", "b", "a"):
        queue.add(key)
    await _work(queue, handle, for_s=1)

    assert seen == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_it_is_handled_is_handled_again_and_never_twice_at_once() -> (
    None
):
    busy = 0
    most = 0
    runs = 0
    queue: WorkQueue[str] = WorkQueue("q")

    async def handle(key: str) -> None:
        nonlocal busy, most, runs
        busy += 1
        runs += 1
        most = max(most, busy)
        if runs == 1:
            queue.add(key)
        await asyncio.sleep(0.1)
        busy -= 1

    queue.add("a")
    await _work(queue, handle, for_s=1, workers=3)

    assert (runs, most) == (2, 1)


@pytest.mark.parametrize(
    "error",
    [conflict("", "pods", "p"), ZeroDivisionError()],
    ids=["the-server-refuses", "a-bug"],
)
async def test_a_failed_key_comes_back_later_and_later(error: Exception) -> None:
    at: list[float] = []
    queue: WorkQueue[str] = WorkQueue("q")
    loop = asyncio.get_running_loop()

    async def handle(key: str) -> None:
        at.append(loop.time())
        if len(at) < 4:
            raise error

    queue.add("a")
    await _work(queue, handle, for_s=10)

    waits = [round(later - earlier, 3) for earlier, later in itertools.pairwise(at)]
    assert waits == [0.05, 0.1, 0.2]


async def test_a_key_is_looked_at_again_when_the_handler_says_so() -> None:
    at: list[float] = []
    queue: WorkQueue[str] = WorkQueue("q")
    loop = asyncio.get_running_loop()

    async def handle(key: str) -> float | None:
        at.append(loop.time())
        return 5.0 if len(at) == 1 else None

    queue.add("a")
    await _work(queue, handle, for_s=60)

    assert at[1] - at[0] == pytest.approx(5.0)
    assert len(at) == 2


async def test_the_earliest_time_counts() -> None:
    at: list[float] = []
    queue: WorkQueue[str] = WorkQueue("q")
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def handle(key: str) -> None:
        at.append(loop.time() - start)

    queue.add_after("a", 9.0)
    queue.add_after("a", 3.0)
    queue.add_after("a", 6.0)
    await _work(queue, handle, for_s=60)

    assert at == [pytest.approx(3.0)]


async def test_a_key_that_was_under_way_is_first_after_a_restart() -> None:
    seen: list[str] = []
    queue: WorkQueue[str] = WorkQueue("q")

    async def hang(key: str) -> None:
        await asyncio.sleep(100)

    async def handle(key: str) -> None:
        seen.append(key)

    queue.add("a")
    await _work(queue, hang, for_s=1)
    await _work(queue, handle, for_s=1)

    assert seen == ["a"]
