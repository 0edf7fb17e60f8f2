"""Two things at once."""

import asyncio

import pytest

from podyard.lib.aio import both


async def after(seconds: float, value: str, log: list[str]) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        log.append(f"{value} cancelled")
        raise
    if value == "fail":
        raise ValueError(value)
    return value


async def test_both_results_are_returned() -> None:
    log: list[str] = []
    began_s = asyncio.get_running_loop().time()

    assert await both(after(2, "a", log), after(3, "b", log)) == ("a", "b")
    assert asyncio.get_running_loop().time() - began_s == 3


async def test_a_failure_cancels_the_other_and_is_raised_as_it_is() -> None:
    log: list[str] = []

    with pytest.raises(ValueError, match="fail"):
        await both(after(9, "a", log), after(1, "fail", log))

    assert log == ["a cancelled"]


async def test_a_cancel_reaches_both() -> None:
    log: list[str] = []

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await both(after(9, "a", log), after(9, "b", log))

    assert log == ["a cancelled", "b cancelled"]
