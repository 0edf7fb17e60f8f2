"""Processes as /proc tells them: who is our containerd, which shims are its own."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from podyard.lib.values import dataclass

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same number.

    Attributes:
        pid: the number.
        start_ticks: start time in clock ticks since boot (field 22 of ``stat``).
    """

    pid: int
    start_ticks: int


def read_process(pid: int) -> ProcessId | None:
    """Return the live process of that number; ``None`` when gone or a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, spaces included.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    return ProcessId(pid, int(fields[19]))


def command_line(pid: int) -> tuple[str, ...]:
    """Return the arguments of a process; empty when it is gone."""
    try:
        text = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in text.split(b"\0")[:-1])


def all_pids() -> Iterator[int]:
    """Iterate over the processes of this machine."""
    for name in os.listdir(_PROC):  # noqa: PTH208 - no Path objects for a thousand names
        if name.isdigit():
            yield int(name)


def find_daemon(config_file: Path) -> ProcessId | None:
    """Return the containerd that runs with that config file."""
    wanted = str(config_file)
    for pid in all_pids():
        words = command_line(pid)
        if len(words) > 1 and wanted in words and Path(words[0]).name == "containerd":
            return read_process(pid)
    return None


def find_shims(socket: str) -> tuple[ProcessId, ...]:
    """Return the shims that were started by the containerd at ``socket``."""
    found = []
    for pid in all_pids():
        words = command_line(pid)
        if not words or not Path(words[0]).name.startswith("containerd-shim"):
            continue
        if socket in words:
            process = read_process(pid)
            if process is not None:
                found.append(process)
    return tuple(found)


def send_signal(process: ProcessId, number: signal.Signals) -> bool:
    """Signal exactly this process; tell whether it was there."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if read_process(process.pid) != process:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def kill_all(processes: tuple[ProcessId, ...], *, within_s: float) -> bool:
    """SIGKILL the processes and wait until they are gone (blocking).

    Returns:
        Whether all of them ended in time.
    """
    watched = []
    for process in processes:
        with suppress(OSError):
            fd = os.pidfd_open(process.pid)
            watched.append(fd)
            if read_process(process.pid) == process:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    ended = True
    for fd in watched:
        ended = has_ended(fd, within_s=within_s) and ended
        reap(fd)
        os.close(fd)
    return ended


def has_ended(pidfd: int, *, within_s: float) -> bool:
    """Wait until a process has ended, or time is up (blocking)."""
    # Not select(2): a busy daemon has descriptors beyond the 1,024 it can name.
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def reap(pidfd: int) -> int | None:
    """Collect a child's exit, where it is one of ours.

    Returns:
        The wait status code, or ``None`` for somebody else's child or a live one.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if result is None else result.si_status
