"""The other end of the control socket, without an event loop."""

import http.client
import socket
import struct
from pathlib import Path
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.cli.parts import CommandError


class NotRunningError(CommandError):
    """Nobody answers at the control socket."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'instance "{name}" is not running (start it with: podyard up -d)', code=3
        )


class NotAnsweringError(CommandError):
    """Somebody listens, but does not answer in time."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


#: struct ucred of unix(7): pid, uid, gid.
_UCRED: Final = struct.Struct("iII")


def control_path(name: str) -> Path:
    """Return where an instance's control socket is."""
    return Path("/run/podyard") / name / "control.sock"


def ask(
    name: str,
    method: str,
    path: str,
    body: Document | None = None,
    *,
    timeout_s: float = 10.0,
) -> Document:
    """Ask a running instance.

    Raises:
        NotRunningError: nobody answers.
        CommandError: it answered with an error, or not in time.
    """
    connection = _UnixConnection(control_path(name), timeout_s)
    try:
        connection.request(method, path, orjson.dumps(body or {}))
        answer = connection.getresponse()
        content = answer.read()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(name) from error
    except PermissionError as error:
        raise CommandError(
            f'may not talk to instance "{name}": run as root (sudo podyard …)'
        ) from error
    except (TimeoutError, OSError, http.client.HTTPException) as error:
        raise NotAnsweringError(
            f'instance "{name}" does not answer: {error}'
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise CommandError(f"{method} {path}: {answer.status} {content[:200]!r}")
    document: Document = orjson.loads(content)
    return document


def listening_pid(name: str) -> int:
    """Return the process behind the control socket, as the kernel knows it.

    Raises:
        NotRunningError: nobody listens.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(control_path(name)))
        except OSError as error:
            raise NotRunningError(name) from error
        credentials = probe.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
        )
    return int(_UCRED.unpack(credentials)[0])
