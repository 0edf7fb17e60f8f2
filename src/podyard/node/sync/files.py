"""A Pod's own files on the node: its directory, its logs, what it leaves behind.

Every method blocks and is short; callers run them in a thread through ``Blocking``.
"""

import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from podyard.api.core_v1 import Pod

_T = TypeVar("_T")

#: The last bytes of a termination message that are read.
MAX_MESSAGE_BYTES: Final = 4096
#: The last lines of a log that stand in for a termination message.
MAX_LOG_LINES: Final = 80
_LOG_NUMBER: Final = re.compile(r"^(\d+)\.log(?:\.|$)")
_POD_LOG_DIR: Final = re.compile(r"^(?P<namespace>[^_]+)_(?P<name>[^_]+)_(?P<uid>.+)$")


class Blocking(Protocol):
    """Runs a blocking function where it does not block the loop."""

    def __call__(self, function: Callable[..., _T], /, *args: object) -> Awaitable[_T]:
        """Return the function's result once it is there."""


class PodFiles:
    """Where Pods keep what is theirs.

    Args:
        pods_dir: holds a directory for each Pod uid.
        logs_dir: holds a directory of logs for each Pod.
        links_dir: holds the links to container logs, by Pod and container name.
    """

    def __init__(self, pods_dir: Path, logs_dir: Path, links_dir: Path) -> None:
        self.pods_dir = pods_dir
        self.logs_dir = logs_dir
        self.links_dir = links_dir

    # --- directories ---------------------------------------------------------------

    def pod_dir(self, uid: str) -> Path:
        """Return a Pod's directory."""
        return self.pods_dir / uid

    def pod_logs(self, namespace: str, name: str, uid: str) -> Path:
        """Return the directory of a Pod's logs."""
        return self.logs_dir / f"{namespace}_{name}_{uid}"

    def log_file(
        self, namespace: str, name: str, uid: str, container: str, attempt: int
    ) -> Path:
        """Return the log file of one container instance."""
        return self.pod_logs(namespace, name, uid) / container / f"{attempt}.log"

    def make_pod_dirs(self, pod: Pod) -> None:
        """Make the directories a Pod needs before its sandbox."""
        self.pod_dir(pod.uid).mkdir(mode=0o750, parents=True, exist_ok=True)
        logs = self.pod_logs(pod.namespace, pod.name, pod.uid)
        logs.mkdir(mode=0o755, parents=True, exist_ok=True)

    def known_uids(self) -> frozenset[str]:
        """Return the Pods that have a directory."""
        if not self.pods_dir.is_dir():
            return frozenset()
        return frozenset(e.name for e in os.scandir(self.pods_dir) if e.is_dir())

    def logged_uids(self) -> frozenset[str]:
        """Return the Pods that have logs."""
        if not self.logs_dir.is_dir():
            return frozenset()
        found = (_POD_LOG_DIR.match(entry.name) for entry in self.logs_dir.iterdir())
        return frozenset(match["uid"] for match in found if match)

    def remove_pod(self, uid: str) -> None:
        """Remove a Pod's directory; what is still mounted in it stays.

        Raises:
            OSError: something in it cannot be removed (a mount, most likely).
        """
        root = self.pod_dir(uid)
        if not root.is_dir():
            return
        # Volumes are taken down by their own room; files below one that is still
        # mounted belong to somebody, so nothing is removed across a mount.
        for parent, directories, _ in os.walk(root):
            for name in directories:
                path = os.path.join(parent, name)  # noqa: PTH118 - hot, plain text
                if os.path.ismount(path):
                    raise OSError(16, "still mounted", path)
        shutil.rmtree(root)

    def remove_logs(self, uid: str) -> None:
        """Remove a Pod's logs and the links to them."""
        if self.logs_dir.is_dir():
            for entry in list(self.logs_dir.iterdir()):
                match = _POD_LOG_DIR.match(entry.name)
                if match and match["uid"] == uid:
                    shutil.rmtree(entry, ignore_errors=True)
        self.remove_dead_links()

    def remove_dead_links(self) -> None:
        """Remove links whose log is gone."""
        if not self.links_dir.is_dir():
            return
        for entry in list(self.links_dir.iterdir()):
            if entry.is_symlink() and not entry.exists():
                entry.unlink(missing_ok=True)

    # --- a container's files -------------------------------------------------------

    def prepare_container(self, pod: Pod, container: str, attempt: int) -> Path:
        """Make a container's log directory and an empty termination message.

        Returns:
            The termination message's file on the node.
        """
        logs = self.pod_logs(pod.namespace, pod.name, pod.uid) / container
        logs.mkdir(mode=0o755, parents=True, exist_ok=True)
        message = self.termination_file(pod.uid, container, attempt)
        message.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        message.unlink(missing_ok=True)
        handle = os.open(message, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            # The umask must not keep a container that is not root from writing.
            os.fchmod(handle, 0o666)
        finally:
            os.close(handle)
        return message

    def termination_file(self, uid: str, container: str, attempt: int) -> Path:
        """Return the node's side of one instance's termination message."""
        return self.pod_dir(uid) / "containers" / container / f"{attempt:08x}"

    def write_hosts(self, uid: str, content: str) -> Path:
        """Write the managed hosts file in place and return its path.

        In place, because running containers have this very file mounted.
        """
        path = self.pod_dir(uid) / "etc-hosts"
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            path.chmod(0o644)
        return path

    def link_log(self, link_name: str, log: Path) -> None:
        """Link a container's log under its well-known name, if it is there."""
        if not log.exists():
            return
        self.links_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        link = self.links_dir / link_name
        with contextlib.suppress(FileExistsError):
            link.symlink_to(log)

    def next_attempt(self, pod: Pod, container: str) -> int:
        """Return the restart count that the logs on disk suggest: highest + 1, or 0."""
        logs = self.pod_logs(pod.namespace, pod.name, pod.uid) / container
        if not logs.is_dir():
            return 0
        found = (_LOG_NUMBER.match(entry.name) for entry in logs.iterdir())
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def remove_container(self, uid: str, container: str, attempt: int) -> None:
        """Remove what a removed instance left: its termination message."""
        self.termination_file(uid, container, attempt).unlink(missing_ok=True)

    def remove_log(
        self, namespace: str, name: str, uid: str, container: str, attempt: int
    ) -> None:
        """Remove the log of one instance and its rotated parts."""
        log = self.log_file(namespace, name, uid, container, attempt)
        for path in (log, *log.parent.glob(f"{attempt}.log.*")):
            path.unlink(missing_ok=True)

    # --- termination messages --------------------------------------------------------

    def read_termination(
        self, uid: str, container: str, attempt: int, *, log: Path | None
    ) -> str:
        """Return what an ended container left to say.

        Args:
            uid: the Pod.
            container: the container's name.
            attempt: its restart count.
            log: where its log stands in for an empty message, else ``None``.
        """
        path = self.termination_file(uid, container, attempt)
        try:
            text = _tail(path, MAX_MESSAGE_BYTES)
        except FileNotFoundError:
            text = ""
        except OSError as error:
            return f"Error on reading termination log {path}: {error.strerror}"
        if text or log is None:
            return text
        try:
            return _log_tail(log)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"Error on reading termination message from logs: {error.strerror}"


def _tail(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - limit, 0))
        return file.read(limit).decode("utf-8", "replace")


def _log_tail(path: Path) -> str:
    """Return the last lines of a CRI log, without what CRI wrote around them."""
    lines: deque[bytes] = deque(maxlen=MAX_LOG_LINES)
    # A line is at most 16 KiB in CRI's format, of which the last 4 KiB may count.
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - MAX_LOG_LINES * 1024, 0))
        for line in file.read().splitlines(keepends=True):
            parts = line.split(b" ", 3)
            if len(parts) == 4 and parts[1] in {b"stdout", b"stderr"}:
                partial = parts[2].split(b":")[0] == b"P"
                lines.append(parts[3].rstrip(b"\n") if partial else parts[3])
    return b"".join(lines)[-MAX_MESSAGE_BYTES:].decode("utf-8", "replace")
