"""Asyncio, as far as a TaskGroup alone does not reach.

The one module that may call ``asyncio.create_task`` and friends.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")


async def finish(work: Coroutine[object, object, _T], *, within_s: float) -> _T:
    """Run ``work`` to its end even while being cancelled; then let the cancel pass.

    Args:
        work: the cleanup that must not be left half done.
        within_s: seconds after which the work itself is cancelled.

    Raises:
        TimeoutError: the work took longer than ``within_s``.
        asyncio.CancelledError: the caller was cancelled meanwhile (the work is done).
    """
    task = asyncio.get_running_loop().create_task(_bounded(work, within_s))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as order:
            if task.cancelled():
                raise
            cancelled = order
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so asyncio does not complain
        raise cancelled
    return task.result()


async def _bounded(work: Coroutine[object, object, _T], within_s: float) -> _T:
    async with asyncio.timeout(within_s):
        return await work


async def supervise(
    run: Callable[[], Awaitable[object]],
    *,
    restart_after_s: float,
    on_crash: Callable[[Exception], None],
) -> None:
    """Run a loop for ever; when it crashes, tell and start it again.

    A normal return ends the supervision. ``except*`` groups are told whole.
    """
    while True:
        try:
            await run()
        except Exception as crash:  # noqa: BLE001 - the very purpose of this function
            on_crash(crash)
        else:
            return
        await asyncio.sleep(restart_after_s)


@asynccontextmanager
async def running(
    beside: Coroutine[object, object, object],
) -> AsyncGenerator[None, None]:
    """Have something run beside the block; it is cancelled at the block's end.

    Errors of the block come out as they are, those of what runs beside are dropped: it
    must deal with them itself.
    """
    task = asyncio.get_running_loop().create_task(beside)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen, so asyncio does not complain


async def wait_first(*waits: Awaitable[object]) -> int:
    """Wait until one of several awaitables ends; cancel the others.

    Returns:
        The index of the one that ended first.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(index for index, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    tasks[first].result()
    return first


async def both(
    first: Coroutine[object, object, _T], second: Coroutine[object, object, _U]
) -> tuple[_T, _U]:
    """Run two things at once and return what both gave.

    When one fails the other is cancelled, and the failure is raised as it is.
    """
    tasks = (asyncio.ensure_future(first), asyncio.ensure_future(second))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = [task for task in tasks if not task.cancelled() and task.exception()]
    if failed:
        failed[0].result()
    return tasks[0].result(), tasks[1].result()


class SharedCalls(Generic[_T]):
    """Equal calls in flight are made once; the last one to leave ends the call.

    The call runs in a task of its own, so a waiter that is cancelled does not harm
    the others; that task never outlives its last waiter.
    """

    def __init__(self) -> None:
        self._tasks: dict[object, tuple[asyncio.Task[_T], set[object]]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    async def share(
        self, key: object, make: Callable[[], Coroutine[object, object, _T]]
    ) -> _T:
        """Await the call of that key, making it where none is in flight.

        Raises:
            asyncio.CancelledError: the waiter was cancelled; the call goes on for
                others, or was ended when there are none.
            Exception: whatever the call raised, to every waiter.
        """
        entry = self._tasks.get(key)
        if entry is None:
            task = asyncio.get_running_loop().create_task(make())
            entry = (task, set())
            self._tasks[key] = entry
            task.add_done_callback(lambda _: self._forget(key, task))
        task, waiters = entry
        me = object()
        waiters.add(me)
        try:
            return await asyncio.shield(task)
        finally:
            waiters.discard(me)
            if not waiters and not task.done():
                self._forget(key, task)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.exception()  # seen, so asyncio does not complain

    def _forget(self, key: object, task: asyncio.Task[_T]) -> None:
        entry = self._tasks.get(key)
        if entry is not None and entry[0] is task:
            del self._tasks[key]
