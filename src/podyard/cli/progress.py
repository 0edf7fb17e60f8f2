"""Progress on stderr: one line a step, with a tick and the seconds it took."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from podyard.lib.clock import SystemClock


class Progress:
    """Prints steps. Colour only on a terminal, and never with ``NO_COLOR``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._colour = self._tty and not os.environ.get("NO_COLOR")
        self._clock = SystemClock()

    def done(self, text: str, took_s: float) -> None:
        """Print a finished step; ``took_s`` in seconds."""
        self._line("✓", "32", f"{text} ({took_s:.2f} s)")

    def note(self, text: str) -> None:
        """Print a line that is no step."""
        print(text, file=self._stream, flush=True)

    def failed(self, text: str) -> None:
        """Print a step that failed."""
        self._line("✗", "31", text)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Time a step; print it when done, or as failed when it raises."""
        begin_s = self._clock.monotonic_s()
        try:
            yield
        except BaseException:
            self.failed(text)
            raise
        self.done(text, self._clock.monotonic_s() - begin_s)

    def _line(self, mark: str, colour: str, text: str) -> None:
        if self._colour:
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        elif not self._tty:
            mark = {"✓": "ok:", "✗": "failed:"}[mark]
        print(f"{mark} {text}", file=self._stream, flush=True)
