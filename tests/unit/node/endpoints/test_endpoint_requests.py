"""What a request to the node asks for."""

from datetime import UTC, datetime

import pytest

from podyard.node.endpoints.build import (
    LogFormatter,
    LogOptions,
    StreamOptions,
    parse_log_line,
    parse_log_options,
    parse_log_time,
    parse_stream_options,
)
from podyard.node.endpoints.parts import EndpointError

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
LINE = b"2026-05-01T11:59:59.123456789Z stdout F hello\n"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({}, LogOptions(), id="nothing-asked"),
        pytest.param(
            {"follow": "true", "timestamps": "1"},
            LogOptions(follow=True, timestamps=True),
            id="flags",
        ),
        pytest.param({"tailLines": "0"}, LogOptions(tail_lines=0), id="tail-of-none"),
        pytest.param(
            {"sinceSeconds": "60"},
            LogOptions(since=datetime(2026, 5, 1, 11, 59, tzinfo=UTC)),
            id="since-seconds",
        ),
        pytest.param(
            {"sinceTime": "2026-05-01T10:00:00Z"},
            LogOptions(since=datetime(2026, 5, 1, 10, tzinfo=UTC)),
            id="since-time",
        ),
        pytest.param({"limitBytes": "10"}, LogOptions(limit_bytes=10), id="limit"),
    ],
)
def test_log_options_are_read(query, expected):
    assert parse_log_options(query, now=NOW) == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param({"tailLines": "x"}, 400, id="no-number"),
        pytest.param({"tailLines": "-1"}, 422, id="negative-tail"),
        pytest.param({"tailLines": str(2**63)}, 422, id="too-large"),
        pytest.param({"limitBytes": "0"}, 422, id="limit-of-nothing"),
        pytest.param({"sinceSeconds": "0"}, 422, id="since-now"),
        pytest.param({"sinceTime": "yesterday"}, 400, id="no-time"),
        pytest.param(
            {"sinceTime": "2026-05-01T10:00:00Z", "sinceSeconds": "5"},
            422,
            id="both-sinces",
        ),
        pytest.param({"stream": "Stdin"}, 422, id="unknown-stream"),
    ],
)
def test_bad_log_options_are_refused(query, code):
    with pytest.raises(EndpointError) as caught:
        parse_log_options(query, now=NOW)

    assert caught.value.code == code


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"torn line\n", id="torn"),
        pytest.param(b"2026-05-01T11:59:59Z stdmid F x\n", id="unknown-stream"),
    ],
)
def test_torn_log_lines_are_skipped(raw):
    assert parse_log_line(raw) is None


def test_log_times_keep_their_zone_and_lose_nanoseconds():
    at = parse_log_time(b"2026-05-01T11:59:59.123456789+02:00")

    assert at is not None
    assert at.isoformat() == "2026-05-01T11:59:59.123456+02:00"


def test_partial_records_join_into_one_line_with_one_time_stamp():
    formatter = LogFormatter(LogOptions(timestamps=True))

    text = b"".join(
        formatter.feed(raw)
        for raw in (
            b"T1 stdout P hel\n",
            b"T2 stdout F lo\n",
            b"T3 stdout F next\n",
        )
    )

    assert text == b"T1 hello\nT3 next\n"


def test_byte_limit_cuts_in_the_middle_and_then_nothing_follows():
    formatter = LogFormatter(LogOptions(limit_bytes=3))

    assert formatter.feed(LINE) == b"hel"
    assert formatter.full


def test_lines_before_since_are_left_out():
    formatter = LogFormatter(LogOptions(since=NOW))

    assert formatter.feed(LINE) == b""


def test_one_stream_can_be_chosen():
    formatter = LogFormatter(LogOptions(stream="Stderr"))

    assert formatter.feed(LINE) == b""
    assert formatter.feed(LINE.replace(b"stdout", b"stderr")) == b"hello\n"


def test_a_terminal_has_no_stderr_of_its_own():
    options = parse_stream_options(
        {"input": "1", "output": "1", "error": "1", "tty": "1"}, ["sh"]
    )

    assert options == StreamOptions(
        stdin=True, stdout=True, stderr=False, tty=True, command=("sh",)
    )


def test_a_stream_of_nothing_is_refused():
    with pytest.raises(EndpointError, match="at least 1 of stdin, stdout, stderr"):
        parse_stream_options({}, ["true"])
