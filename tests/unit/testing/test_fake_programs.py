"""The fake runtime understands the little shell that tests speak."""

import pytest

from podyard.testing.fake_programs import Program, parse_program


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["true"], Program(), id="true"),
        pytest.param(["/bin/false"], Program(exit_code=1), id="false"),
        pytest.param(["sleep", "3"], Program(runs_s=3.0), id="sleep"),
        pytest.param(["sleep", "inf"], Program(runs_s=None), id="for-ever"),
        pytest.param([], Program(runs_s=None), id="the-images-own"),
        pytest.param(["nginx", "-g"], Program(runs_s=None), id="unknown"),
        pytest.param(
            ["sh", "-c", "echo a b; exit 4"],
            Program(exit_code=4, stdout=("a b",)),
            id="script",
        ),
        pytest.param(
            ["/bin/sh", "-c", "sleep 1; sleep 2 && false"],
            Program(runs_s=3.0, exit_code=1),
            id="one-after-the-other",
        ),
        pytest.param(
            ["sh", "-c", "trap 'exit 7' TERM; sleep 9 & wait"],
            Program(runs_s=9.0, on_term=7),
            id="trap",
        ),
        pytest.param(
            ["sh", "-c", "trap '' TERM; sleep inf"], Program(runs_s=None), id="ignores"
        ),
        pytest.param(
            ["sh", "-c", "echo bye > /dev/termination-log; exit 1"],
            Program(exit_code=1, writes=(("/dev/termination-log", "bye\n"),)),
            id="writes",
        ),
    ],
)
def test_command_is_understood(command, expected):
    assert parse_program(command) == expected
