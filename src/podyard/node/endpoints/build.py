"""What a request to the node asks for, and what a log line means. Pure.

Sources: ``pkg/kubelet/server/server.go`` (paths and query names),
``pkg/apis/core/validation`` (PodLogOptions), CRI's log format
(https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from podyard.lib.values import dataclass
from podyard.node.endpoints.parts import EndpointError


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted.

    Attributes:
        tail_lines: only the last N lines; ``None`` for all.
        since: only lines at or after this time.
        limit_bytes: stop after so many bytes; ``None`` for no limit.
        stream: ``All``, ``Stdout`` or ``Stderr``.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None
    stream: str = "All"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What an exec or attach joins."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of a CRI log.

    Attributes:
        at: the time as written, RFC 3339 with nanoseconds.
        stream: ``stdout`` or ``stderr``.
        partial: whether the line goes on in the next record.
        content: the bytes, with their newline unless partial.
    """

    at: bytes
    stream: bytes
    partial: bool
    content: bytes


def parse_log_line(raw: bytes) -> LogLine | None:
    """Return the record in one line of a log file, or ``None`` where it is torn."""
    parts = raw.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in {b"stdout", b"stderr"}:
        return None
    tags = parts[2].rstrip(b"\n").split(b":")
    content = parts[3] if len(parts) == 4 else b"\n"
    if b"P" in tags:
        return LogLine(parts[0], parts[1], partial=True, content=content.rstrip(b"\n"))
    return LogLine(parts[0], parts[1], partial=False, content=content)


def parse_log_time(text: bytes) -> datetime | None:
    """Return a record's time (nanoseconds are cut), or ``None`` where it is none."""
    try:
        return datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return _cut_nanoseconds(text)


def _cut_nanoseconds(text: bytes) -> datetime | None:
    head, dot, tail = text.partition(b".")
    digits = tail.rstrip(b"Z").split(b"+")[0].split(b"-")[0]
    zone = tail[len(digits) :]
    whole = head + (dot + digits[:6].ljust(6, b"0") if dot else b"") + zone
    try:
        return datetime.fromisoformat(whole.decode("ascii"))
    except ValueError:
        return None


def parse_log_options(query: Mapping[str, str], *, now: datetime) -> LogOptions:
    """Read the query of a log request.

    Raises:
        EndpointError: 422 for a value out of range, 400 for one that is no number.
    """
    since_s = _number(query, "sinceSeconds", low=1)
    since_time = query.get("sinceTime")
    if since_s is not None and since_time:
        raise EndpointError(
            422, "at most one of sinceTime or sinceSeconds may be specified"
        )
    since = None
    if since_s is not None:
        since = now - timedelta(seconds=since_s)
    elif since_time:
        since = parse_log_time(since_time.replace(" ", "+").encode())
        if since is None or since.tzinfo is None:
            raise EndpointError(400, f'sinceTime: "{since_time}" is no RFC 3339 time')
    stream = query.get("stream") or "All"
    if stream not in {"All", "Stdout", "Stderr"}:
        raise EndpointError(
            422, f'stream: Unsupported value: "{stream}": All, Stdout or Stderr'
        )
    return LogOptions(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=_number(query, "tailLines", low=0),
        since=since,
        limit_bytes=_number(query, "limitBytes", low=1),
        stream=stream,
    )


def parse_stream_options(
    query: Mapping[str, str], commands: Sequence[str]
) -> StreamOptions:
    """Read the query of an exec or attach; both spellings of the names are known.

    Raises:
        EndpointError: 400 where nothing is to be streamed.
    """
    options = StreamOptions(
        stdin=_flag(query, "input") or _flag(query, "stdin"),
        stdout=_flag(query, "output") or _flag(query, "stdout"),
        # A terminal has one output.
        stderr=(_flag(query, "error") or _flag(query, "stderr"))
        and not _flag(query, "tty"),
        tty=_flag(query, "tty"),
        command=tuple(commands),
    )
    if not (options.stdin or options.stdout or options.stderr):
        raise EndpointError(400, "you must specify at least 1 of stdin, stdout, stderr")
    return options


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in {"1", "true", "t"}


def _number(query: Mapping[str, str], name: str, *, low: int) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError as error:
        raise EndpointError(400, f'{name}: "{text}" is not a whole number') from error
    if number < low or number > 2**63 - 1:
        raise EndpointError(
            422,
            f"{name}: Invalid value: {number}: must be greater than or equal to {low}",
        )
    return number


class LogFormatter:
    """Turns records into what the reader is sent, and counts the bytes allowed."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._within_line: dict[bytes, bool] = {}
        self._wanted: Callable[[bytes], bool] = {
            "Stdout": lambda stream: stream == b"stdout",
            "Stderr": lambda stream: stream == b"stderr",
        }.get(options.stream, lambda _stream: True)

    @property
    def full(self) -> bool:
        """Whether the byte limit is reached."""
        return self._left is not None and self._left <= 0

    def feed(self, raw: bytes) -> bytes:
        """Return what one raw line adds to the output; empty for nothing."""
        line = parse_log_line(raw)
        if line is None or not self._wanted(line.stream):
            return b""
        since = self._options.since
        if since is not None:
            at = parse_log_time(line.at)
            if at is not None and at < since:
                return b""
        text = line.content
        # The rest of a split line carries no second time stamp.
        if self._options.timestamps and not self._within_line.get(line.stream):
            text = line.at + b" " + text
        self._within_line[line.stream] = line.partial
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        return text
