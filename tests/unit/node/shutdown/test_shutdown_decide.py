"""In which order Pods stop when the node goes away."""

import pytest

from podyard.node.shutdown.decide import (
    ShutdownGroup,
    ShutdownPeriod,
    build_periods,
    decide_shutdown,
)

CRITICAL = 2_000_000_000
PODS = [("a", 0), ("b", 100), ("c", CRITICAL), ("d", 0), ("e", -5)]
TWO = build_periods(30, 10, ())
THREE = build_periods(
    0,
    0,
    (ShutdownPeriod(1000, 5), ShutdownPeriod(0, 20), ShutdownPeriod(100, 7)),
)


@pytest.mark.parametrize(
    ("periods", "groups"),
    [
        pytest.param(
            (),
            [
                ShutdownGroup(("e",)),
                ShutdownGroup(("a", "d")),
                ShutdownGroup(("b",)),
                ShutdownGroup(("c",)),
            ],
            id="each-priority-by-itself",
        ),
        pytest.param(
            TWO,
            [ShutdownGroup(("a", "b", "d", "e"), 20), ShutdownGroup(("c",), 10)],
            id="critical-ones-last",
        ),
        pytest.param(
            THREE,
            [
                ShutdownGroup(("a", "d", "e"), 20),
                ShutdownGroup(("b",), 7),
                ShutdownGroup(("c",), 5),
            ],
            id="by-priority",
        ),
    ],
)
def test_the_least_important_stop_first(periods, groups) -> None:
    assert list(decide_shutdown(PODS, periods)) == groups


def test_nobody_is_no_group() -> None:
    assert decide_shutdown([], TWO) == ()


@pytest.mark.parametrize(
    ("whole", "critical", "by_priority", "text"),
    [
        pytest.param(10, 20, (), "not be longer", id="more-than-the-whole"),
        pytest.param(10, 0, (ShutdownPeriod(0, 1),), "excludes", id="both"),
    ],
)
def test_what_makes_no_sense_is_refused(whole, critical, by_priority, text) -> None:
    with pytest.raises(ValueError, match=text):
        build_periods(whole, critical, by_priority)
