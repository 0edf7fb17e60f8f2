"""Programs that run on, and programs that think a person types."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Running:
    """A program and what it has said so far, on both its outputs."""

    process: "subprocess.Popen[bytes]"
    output: int
    said: bytes = b""
    ended: bool = field(default=False, init=False)

    def until(self, text: str, *, within_s: float = 60) -> str:
        """Wait until it has said something; return all it said."""
        until_s = time.monotonic() + within_s
        while text.encode() not in self.said:
            left_s = until_s - time.monotonic()
            if self.ended or left_s <= 0:
                said = self.said.decode(errors="replace")
                raise AssertionError(f"did not say {text!r}, but:\n{said}")
            self._read(left_s)
        return self.said.decode(errors="replace")

    def wait(self, *, within_s: float = 60) -> int:
        """Wait until it ends; return its exit code."""
        until_s = time.monotonic() + within_s
        while not self.ended:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                said = self.said.decode(errors="replace")
                raise AssertionError(f"it does not end; it said:\n{said}")
            self._read(left_s)
        return self.process.wait(timeout=10)

    def type(self, text: str) -> None:
        """Type, on a program that has a terminal."""
        os.write(self.output, text.encode())

    def _read(self, within_s: float) -> None:
        if not select.select([self.output], [], [], within_s)[0]:
            return
        try:
            chunk = os.read(self.output, 65536)
        except OSError:  # how a terminal says that nobody is left on it
            chunk = b""
        self.said += chunk
        self.ended = not chunk


@contextmanager
def running(
    arguments: Sequence[str], environment: Mapping[str, str], *, tty: bool = False
) -> Iterator[Running]:
    """Run a program while the body runs, on a terminal of 101 columns by 37 or not."""
    output, theirs = pty.openpty() if tty else os.pipe()
    if tty:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 101, 0, 0))
    process = subprocess.Popen(
        arguments,
        stdin=theirs if tty else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Running(process, output)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)
        os.close(output)
