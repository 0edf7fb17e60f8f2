"""What our own log shows, and what it never shows."""

import subprocess
import sys

CRASH = """
import sys
from pathlib import Path
import structlog
from podyard.app.logs import set_up_logging

set_up_logging("info", Path(sys.argv[1]) if sys.argv[1] else None)

def crash(password):
    raise RuntimeError("broken")

try:
    crash("".join(["correct", " ", "horse"]))
except RuntimeError:
    structlog.get_logger().exception("podyard_crashed")
"""


def _crash(file: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, file], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_a_crash_on_the_terminal_shows_where_and_no_variable():
    told = _crash("")

    assert "RuntimeError: broken" in told
    assert "in crash" in told
    assert "correct horse" not in told


def test_a_crash_in_the_file_shows_where_and_no_variable(tmp_path):
    file = tmp_path / "podyard.log"

    assert _crash(str(file)) == ""

    told = file.read_text()
    assert "RuntimeError: broken" in told
    assert "in crash" in told
    assert "correct horse" not in told
