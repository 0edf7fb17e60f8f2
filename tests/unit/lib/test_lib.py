"""The ground: time spans, back-off, parts and tasks."""

import asyncio
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.lib.aio import finish, supervise, wait_first
from podyard.lib.backoff import Backoff
from podyard.lib.durations import parse_duration
from podyard.lib.parts import load_parts, part_names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("30s", 30, id="seconds"),
        pytest.param("1m30s", 90, id="two-units"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("1.5h", 5400, id="fraction"),
        pytest.param("10", 10, id="bare-seconds"),
    ],
)
def test_spans_are_read_as_people_type_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10x", "1h foo", "-5s", "1m 30s"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.floats(0.01, 10), st.floats(10, 1000), st.integers(1, 20))
def test_backoff_grows_and_never_passes_its_cap(base, cap, steps):
    backoff = Backoff(base, cap)
    delay = 0.0
    for _ in range(steps):
        longer = backoff.after(delay)
        assert delay <= longer <= cap
        delay = longer


def test_a_module_without_a_part_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "kinds"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "broken.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("kinds")
    module.__path__ = [str(package)]

    with pytest.raises(TypeError, match="must end in PART"):
        load_parts(module, int)


def test_only_the_modules_named_are_imported(tmp_path, monkeypatch):
    package = tmp_path / "several"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("PART = 1\n")
    (package / "broken.py").write_text("raise ImportError\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("several")
    module.__path__ = [str(package)]

    assert part_names(module) == {"one", "broken"}
    assert load_parts(module, int, {"one"}) == (1,)


async def test_finish_ends_the_cleanup_and_then_lets_the_cancel_pass():
    done = []

    async def cleanup():
        await asyncio.sleep(5)
        done.append(True)

    async def work():
        await finish(cleanup(), within_s=30)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await asyncio.sleep(1)
        task.cancel()

    assert task.cancelled()
    assert done == [True]


async def test_finish_gives_up_in_time():
    with pytest.raises(TimeoutError):
        await finish(asyncio.sleep(100), within_s=1)


async def test_supervise_starts_a_crashed_loop_again_and_ends_with_it():
    runs = []
    crashes = []

    async def run():
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 3:
            raise ValueError("crash")

    await supervise(run, restart_after_s=5, on_crash=crashes.append)

    assert [round(later - runs[0]) for later in runs] == [0, 5, 10]
    assert len(crashes) == 2


async def test_wait_first_tells_which_and_cancels_the_others():
    cancelled = []

    async def slow():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert await wait_first(slow(), asyncio.sleep(1)) == 1
    assert cancelled == [True]
