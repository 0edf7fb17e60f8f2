"""Cron schedules."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.cron import CronError, Schedule, parse_schedule


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("*/15 * * * *", "minutes", {0, 15, 30, 45}),
        ("5 * * * *", "minutes", {5}),
        ("10-12 * * * *", "minutes", {10, 11, 12}),
        ("50/4 * * * *", "minutes", {50, 54, 58}),
        ("0 1,3 * * *", "hours", {1, 3}),
        ("0 0 1 JAN-mar *", "months", {1, 2, 3}),
        ("0 0 * * mon", "weekdays", {1}),
        ("@weekly", "weekdays", {0}),
        ("@hourly", "minutes", {0}),
    ],
)
def test_a_schedule_names_its_times(text: Any, field: Any, values: Any) -> None:
    assert getattr(parse_schedule(text), field) == values


def test_a_schedule_tells_whether_days_were_named() -> None:
    schedule = parse_schedule("0 0 ? * 1-5")

    assert schedule.any_day
    assert not schedule.any_weekday
    assert parse_schedule("@every 1h30m").every_s == 5400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        (
            "x * * * *",
            'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax',
        ),
        ("@never", "unrecognized descriptor: @never"),
        (
            "@every soon",
            'failed to parse duration @every soon: time: invalid duration "soon"',
        ),
    ],
)
def test_a_bad_schedule_is_explained(text: Any, message: Any) -> None:
    with pytest.raises(CronError) as caught:
        parse_schedule(text)

    assert str(caught.value) == message


@given(st.text(alphabet="*/-,?0159@mon ", max_size=20))
def test_any_text_is_a_schedule_or_an_error(text: Any) -> None:
    try:
        schedule = parse_schedule(text)
    except CronError:
        return
    assert isinstance(schedule, Schedule)
    assert max(schedule.minutes | {0}) < 60
