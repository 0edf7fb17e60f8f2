"""Texts and targets of hooks. Pure.

Source: ``pkg/kubelet/lifecycle/handlers.go`` and ``kuberuntime_container.go`` (v1.36).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.api.go_text import quote

#: So much of each stream of one delivery is kept, bytes.
MAX_STREAM_BYTES: Final = 64 * 1024
#: A longer line is split, as runtimes do, bytes.
MAX_LINE_BYTES: Final = 16 * 1024


def build_failure(pod: Pod, container: Container, handler: Handler, error: str) -> str:
    """Return the message of a failed hook, as the waiting state shows it."""
    where = f'for Container "{container.name}" in Pod "{pod.full_name}" failed'
    if handler.exec_command is not None:
        command = " ".join(handler.exec_command)
        return f"Exec lifecycle hook ([{command}]) {where} - error: {error}"
    if handler.http_get is not None:
        path = handler.http_get.path
        return f"HTTP lifecycle hook ({path}) {where} - error: {error}"
    if handler.sleep_s is not None:
        return f"Sleep lifecycle hook ({handler.sleep_s}) {where} - error: {error}"
    return f"TCP lifecycle hook {where} - error: {error}"


def build_exec_failure(
    command: tuple[str, ...], exit_code: int, stdout: bytes, stderr: bytes
) -> str:
    """Return what an exec hook that ended badly says of itself."""
    said = stderr.decode(errors="replace")
    output = (stdout + stderr).decode(errors="replace")
    return (
        f"command '{' '.join(command)}' exited with {exit_code}: {said}, "
        f"message: {quote(output)}"
    )


def handler_name(handler: Handler | None) -> str:
    """Return which of its fields a handler uses; empty for none."""
    if handler is None:
        return ""
    if handler.exec_command is not None:
        return "exec"
    if handler.http_get is not None:
        return "httpGet"
    if handler.sleep_s is not None:
        return "sleep"
    return "tcpSocket"


def build_delivery_id(hook: str, container_id: str) -> str:
    """Return what names a delivery: the same for each of its attempts."""
    return f"{hook.lower()}-{container_id.rpartition('/')[2]}"


def build_log_records(
    heading: str, stdout: bytes, stderr: bytes, *, at: datetime
) -> bytes:
    """Return a delivery's output as records of CRI's log format.

    Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md

    Args:
        heading: a line of our own that says whose output follows.
        stdout: as the hook wrote it; cut at ``MAX_STREAM_BYTES``.
        stderr: likewise.
        at: when the hook ended; the streams have no times of their own.
    """
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
    records = list(_records(stamp, b"stdout", heading.encode()))
    for stream, content in ((b"stdout", stdout), (b"stderr", stderr)):
        records.extend(_records(stamp, stream, content[:MAX_STREAM_BYTES]))
        left_out = len(content) - MAX_STREAM_BYTES
        if left_out > 0:
            note = f"--- {left_out} more bytes were left out"
            records.extend(_records(stamp, stream, note.encode()))
    return b"".join(records)


def _records(stamp: bytes, stream: bytes, content: bytes) -> Iterator[bytes]:
    for line in content.removesuffix(b"\n").split(b"\n") if content else ():
        while len(line) > MAX_LINE_BYTES:
            yield b"%b %b P %b\n" % (stamp, stream, line[:MAX_LINE_BYTES])
            line = line[MAX_LINE_BYTES:]  # noqa: PLW2901 - what is left of it
        yield b"%b %b F %b\n" % (stamp, stream, line)
