"""How a watch goes on, as a table."""

import pytest

from podyard.api.errors import ApiError, expired
from podyard.client.decide import Relist, Resume, Wait, WatchDecision, decide_watch

TOO_LARGE = ApiError(
    504,
    "Timeout",
    "Too large resource version: 9, current: 3",
    {"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1},
)


@pytest.mark.parametrize(
    ("last_rev", "error", "decision"),
    [
        pytest.param("", None, Relist(), id="nothing-yet"),
        pytest.param("7", None, Resume("7"), id="clean-end"),
        pytest.param("7", expired("too old"), Relist(), id="history-gone"),
        pytest.param("9", TOO_LARGE, Wait(""), id="server-lost-history"),
        pytest.param("7", ConnectionError(), Wait("7"), id="connection-broke"),
        pytest.param("", ConnectionError(), Wait(""), id="never-connected"),
        pytest.param("7", ApiError(503, "", "x"), Wait("7"), id="unavailable"),
        pytest.param("7", ApiError(504, "Timeout", "x"), Wait("7"), id="timeout"),
        pytest.param("7", ApiError(401, "Unauthorized", "x"), Wait("7"), id="refused"),
        pytest.param("", ApiError(403, "Forbidden", "x"), Wait(""), id="forbidden"),
    ],
)
def test_a_watch_goes_on_where_it_can(
    last_rev: str, error: Exception | None, decision: WatchDecision
) -> None:
    assert decide_watch(last_rev, error) == decision
