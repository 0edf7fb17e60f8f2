"""From single probe results to verdicts."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.core_v1 import Container, Probe
from podyard.node.probes.build import build_command
from podyard.node.probes.decide import Streak, decide_first_delay, decide_verdict

START = datetime(2026, 5, 1, tzinfo=UTC)


def probe(**fields):
    return Probe.of({"exec": {"command": ["true"]}, **fields})


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        pytest.param([], None, id="nothing-yet"),
        pytest.param([True], None, id="one-success-of-two"),
        pytest.param([True, True], True, id="two-successes"),
        pytest.param([False, False], None, id="two-failures-of-three"),
        pytest.param([False, False, False], False, id="three-failures"),
        pytest.param([False, False, True, False], None, id="success-starts-anew"),
        pytest.param([True, True, False], None, id="one-failure-after-success"),
    ],
)
def test_thresholds_count_equal_results_in_a_row(results, expected):
    streak = Streak()
    for healthy in results:
        streak = streak.then(healthy=healthy)

    verdict = decide_verdict(streak, probe(successThreshold=2, failureThreshold=3))

    assert verdict is expected


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_needs_as_many_equal_results_as_its_threshold(results, good, bad):
    streak = Streak()
    for healthy in results:
        streak = streak.then(healthy=healthy)

    verdict = decide_verdict(streak, probe(successThreshold=good, failureThreshold=bad))

    last = results[-1]
    tail = results[-(good if last else bad) :]
    enough = len(tail) == (good if last else bad) and set(tail) == {last}
    assert verdict is (last if enough else None)


@pytest.mark.parametrize(
    ("ran_s", "jitter", "expected"),
    [
        pytest.param(0, 0.0, 5.0, id="new-waits-the-initial-delay"),
        pytest.param(2, 0.5, 3.0, id="within-the-delay-no-jitter"),
        pytest.param(60, 0.0, 0.0, id="old-and-new-agent-at-once"),
        pytest.param(60, 0.5, 5.0, id="adopted-spread-over-a-period"),
        pytest.param(-30, 0.0, 5.0, id="clock-went-back"),
    ],
)
def test_first_attempt_waits(ran_s, jitter, expected):
    delay = decide_first_delay(
        probe(initialDelaySeconds=5),
        started_at=START,
        now=START + timedelta(seconds=ran_s),
        jitter=jitter,
    )

    assert delay == expected


def test_exec_commands_see_static_variables_only():
    container = Container.of(
        {
            "name": "c",
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)2"},
                {
                    "name": "POD",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                },
            ],
        }
    )

    command = build_command(("echo", "$(B)", "[$(POD)]", "$(FROM)", "$$(A)"), container)

    assert command == ("echo", "12", "[]", "$(FROM)", "$(A)")
