"""Running in the foreground, or as a child that outlives the terminal."""

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import orjson
import structlog

from podyard.app.config import Config
from podyard.app.host import HostLook, look_at_host
from podyard.app.logs import set_up_logging
from podyard.app.memory import MemoryKeeper, set_up_allocator
from podyard.app.starting import Report, StartError
from podyard.lib.clock import SystemClock

log = structlog.get_logger()

#: How long a thread that writes to disk may wait for one that computes, seconds. With
#: Python's own 5 ms each of its calls waits so long while the event loop is busy.
THREADS_WAIT_S: Final = 0.0005
#: A start is over so long after the node is Ready, seconds: what ran before a restart
#: has been looked at, and a pause of the loop is not felt.
SETTLED_AFTER_S: Final = 10.0


def log_file_of(config: Config) -> Path:
    """Return where our own log goes; its directory is made.

    Raises:
        StartError: the data directory cannot be made.
    """
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"--data-dir: {config.data_dir}: {error.strerror}") from error
    return config.data_dir / "podyard.log"


def run_foreground(
    config: Config,
    *,
    report: Report,
    ready: Callable[[], None] = lambda: None,
    log_file: Path | None = None,
) -> None:
    """Run until a signal or ``podyard down`` ends it.

    Raises:
        StartError: it could not start, or crashed.
    """
    # First of all: what goes wrong from here on is told without the variables of the
    # frames, which may hold what a Secret holds.
    set_up_logging(config.log_level, log_file)
    try:
        # Heavy imports happen here, once the person has been answered if need be.
        sys.setswitchinterval(THREADS_WAIT_S)
        look = _begin_to_look(config)
        with _no_authorities():
            import aiohttp  # noqa: F401, PLC0415
        with without_grpc_fork_handlers():
            from podyard.app.standalone import Standalone  # noqa: PLC0415

        set_up_allocator()

        def on_ready() -> None:
            ready()
            keeper = MemoryKeeper(asyncio.get_running_loop())
            asyncio.get_running_loop().call_later(SETTLED_AFTER_S, keeper.start)

        standalone = Standalone(config, report=report, ready=on_ready, look=look.result)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(standalone.run())
    except StartError:
        raise
    except Exception as error:
        log.exception("podyard_crashed")
        raise StartError(_describe_crash(error, log_file)) from error


def _describe_crash(error: Exception, log_file: Path | None) -> str:
    """Return the one line a person sees of an error nobody foresaw."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    text = f"it crashed: {type(cause).__name__}: {cause}".rstrip(": ")
    return f"{text}; the log tells where: {log_file}" if log_file else text


def _begin_to_look(config: Config) -> Future[HostLook]:
    """Run the programs that tell of the host while ours is loaded."""
    thread = ThreadPoolExecutor(1, "host-look")
    look = thread.submit(
        look_at_host,
        data_dir=config.data_dir,
        private_runtime=not config.runtime_endpoint,
    )
    thread.shutdown(wait=False)
    return look


@contextmanager
def _no_authorities() -> Iterator[None]:
    """Have OpenSSL find no authorities of the system for as long.

    aiohttp reads them all, twice, when it is imported: 80 ms and 5 MB. It needs them
    for connections that bring no context of their own, of which we have none; and
    one that came to be would be refused, not trusted.
    """
    with _environment(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull):
        yield


@contextmanager
def without_grpc_fork_handlers() -> Iterator[None]:
    """Have gRPC, where it is first imported in the block, leave forks alone.

    Its handlers run in every child that uvloop forks, and crash one in ten before it
    becomes the program it was to be. No child of ours uses gRPC.
    """
    with _environment(GRPC_ENABLE_FORK_SUPPORT="0"):
        yield


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Have variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - optional

        return uvloop.new_event_loop
    return None


def run_detached(config: Config, *, wait_s: float, report: Report) -> None:
    """Start a child that keeps this working directory; wait until its node is Ready.

    Args:
        config: what to run.
        wait_s: seconds to wait.
        report: called for each step the child has finished.

    Raises:
        StartError: the child could not start, or was not ready in time.
    """
    log_file = log_file_of(config)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _be_the_child(config, writing, log_file)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        _follow(pipe.fileno(), wait_s=wait_s, report=report, log_file=log_file)


def _be_the_child(config: Config, pipe: int, log_file: Path) -> NoReturn:
    """Leave the terminal, run, and never return to the caller's code."""
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)

        def tell(**message: object) -> None:
            # The parent may have stopped waiting.
            with contextlib.suppress(OSError):
                os.write(pipe, orjson.dumps(message) + b"\n")

        try:
            run_foreground(
                config,
                report=lambda text, took_s: tell(done=text, took_s=took_s),
                ready=lambda: tell(ready=True),
                log_file=log_file,
            )
            code = 0
        except StartError as error:
            tell(error=str(error), code=error.code)
            code = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _follow(pipe: int, *, wait_s: float, report: Report, log_file: Path) -> None:
    clock = SystemClock()
    until_s = clock.monotonic_s() + wait_s
    buffered = b""
    while True:
        left_s = until_s - clock.monotonic_s()
        if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
            raise StartError(
                f"not Ready within {wait_s:g} s; it goes on starting, see {log_file}"
            )
        chunk = os.read(pipe, 65536)
        if not chunk:
            raise StartError(f"it ended while starting, see {log_file}")
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            message = orjson.loads(line)
            if "error" in message:
                raise StartError(message["error"], code=message["code"])
            if "ready" in message:
                return
            report(message["done"], message["took_s"])
