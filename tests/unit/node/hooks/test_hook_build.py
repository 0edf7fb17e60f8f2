"""How a hook's output is written down, and how a delivery is named."""

from datetime import UTC, datetime

import pytest

from podyard.api.core_v1 import Handler, HTTPGetAction
from podyard.node.endpoints.build import parse_log_line
from podyard.node.hooks.build import (
    MAX_LINE_BYTES,
    MAX_STREAM_BYTES,
    build_delivery_id,
    build_log_records,
    handler_name,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
STAMP = b"2026-01-02T03:04:05.000678000Z"


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        pytest.param(b"", b"", [(b"stdout", b"head\n")], id="nothing-said"),
        pytest.param(
            b"a\nb\n",
            b"",
            [(b"stdout", b"head\n"), (b"stdout", b"a\n"), (b"stdout", b"b\n")],
            id="lines",
        ),
        pytest.param(
            b"a",
            b"\xff\n\nx",
            [
                (b"stdout", b"head\n"),
                (b"stdout", b"a\n"),
                (b"stderr", b"\xff\n"),
                (b"stderr", b"\n"),
                (b"stderr", b"x\n"),
            ],
            id="both-streams-any-bytes",
        ),
    ],
)
def test_output_becomes_records_of_the_cri_log_format(stdout, stderr, expected):
    raw = build_log_records("head", stdout, stderr, at=AT)

    lines = [parse_log_line(line + b"\n") for line in raw.split(b"\n")[:-1]]
    assert [(line.stream, line.content) for line in lines] == expected
    assert {line.at for line in lines} == {STAMP}


def test_a_long_line_is_split_and_joins_to_what_it_was():
    text = b"x" * (2 * MAX_LINE_BYTES + 5)

    raw = build_log_records("head", text, b"", at=AT)

    lines = [parse_log_line(line + b"\n") for line in raw.split(b"\n")[1:-1]]
    assert [line.partial for line in lines] == [True, True, False]
    assert b"".join(line.content for line in lines) == text + b"\n"


def test_what_is_too_much_is_left_out_and_said_so():
    raw = build_log_records("head", b"z" * (MAX_STREAM_BYTES + 7), b"e\n", at=AT)

    assert raw.count(b"z") == MAX_STREAM_BYTES
    assert b"stdout F --- 7 more bytes were left out\n" in raw
    assert raw.endswith(b"stderr F e\n")


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        pytest.param(None, "", id="none"),
        pytest.param(Handler(exec_command=("a",)), "exec", id="exec"),
        pytest.param(
            Handler(http_get=HTTPGetAction(port=1, path="/")), "httpGet", id="http"
        ),
        pytest.param(Handler(sleep_s=0), "sleep", id="sleep"),
    ],
)
def test_a_handler_is_named_as_in_the_api(handler, name):
    assert handler_name(handler) == name


def test_a_delivery_has_one_name_for_all_attempts():
    assert build_delivery_id("PreStop", "containerd://abc") == "prestop-abc"
    assert build_delivery_id("PreStop", "abc") == "prestop-abc"
