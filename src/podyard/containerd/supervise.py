"""The private containerd: start it, adopt it, start it again, stop it.

It runs in a session of its own, so that it and every container outlive us; the next
Podyard finds it through its pid file and goes on with it. Its exit is an event (a
pidfd becomes readable), never something polled for.
"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from podyard.containerd.build import (
    ContainerdConfig,
    build_cni,
    build_config,
    parse_version,
)
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.processes import (
    ProcessId,
    find_daemon,
    read_process,
    reap,
    send_signal,
)
from podyard.containerd.proto import podyard_containerd_pb2 as pb
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass

log = structlog.get_logger()

#: CRI answers this once it has recovered its state; an empty request is valid.
_READY_CALL: Final = "/runtime.v1.RuntimeService/Status"
_RESTART: Final = Backoff(base_s=0.1, cap_s=5.0)
#: After living this long, the next death counts as the first again.
_STABLE_AFTER_S: Final = 10.0
_CONNECT_STEP_S: Final = 0.002
_LOG_CHECK_S: Final = 300.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ContainerdStartError(Exception):
    """containerd did not come up; the message ends with its own last words."""


@dataclass(frozen=True, slots=True)
class RuntimeFiles:
    """Where the supervisor keeps its things.

    Attributes:
        directory: config, pid file, log and temporary files.
        drop_in_dir: ``*.toml`` laid over the generated config, sorted by name.
        cgroups: cgroup directories that containerd is put into, made when missing,
            so that whoever ends Podyard's own cgroup does not end the containers.
        max_log_bytes: of containerd's log; one older file of that size is kept.
    """

    directory: Path
    drop_in_dir: Path | None = None
    cgroups: tuple[Path, ...] = ()
    max_log_bytes: int = 10 * 1024 * 1024

    @property
    def config(self) -> Path:
        """The generated ``config.toml``."""
        return self.directory / "config.toml"

    @property
    def pid(self) -> Path:
        """Who runs, since when, with which config."""
        return self.directory / "containerd.pid"

    @property
    def log(self) -> Path:
        """What containerd says."""
        return self.directory / "containerd.log"


@dataclass(frozen=True, slots=True)
class Started:
    """How a start ended.

    Attributes:
        adopted: it ran already.
        took_s: seconds until CRI answered.
    """

    process: ProcessId
    adopted: bool
    took_s: float


class Containerd:
    """One private containerd."""

    def __init__(
        self,
        config: ContainerdConfig,
        files: RuntimeFiles,
        *,
        clock: Clock,
        binary: str = "containerd",
        ready_within_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
        restart: Backoff = _RESTART,
    ) -> None:
        """Describe it; nothing runs yet.

        Args:
            config: its settings.
            files: where the supervisor keeps its things.
            clock: measures spans.
            binary: the program, a name or a path.
            ready_within_s: seconds a start may take; a recovery of many Pods counts.
            environment: added to the minimal one (proxies, say).
            restart: pauses of a crash loop; the first death is answered at once.
        """
        self.config = config
        self.files = files
        self._clock = clock
        self._binary = binary
        self._ready_within_s = ready_within_s
        self._environment = dict(environment or {})
        self._restart = restart
        self._process: ProcessId | None = None
        self._digest = ""

    @property
    def process(self) -> ProcessId | None:
        """The containerd that runs, as far as known."""
        return self._process

    async def start(self) -> Started:
        """Adopt the running containerd, or start one; return once CRI answers.

        One that runs with another config is started anew; its containers stay.

        Raises:
            ContainerdStartError: it ended, or did not answer in time.
        """
        began_s = self._clock.monotonic_s()
        self._digest = await asyncio.to_thread(self._write_files)
        running = await asyncio.to_thread(self._find)
        adopted = False
        if running is not None:
            process, digest = running
            adopted = digest == self._digest and await self._answers_soon(process)
            if not adopted:
                log.info("containerd_replaced", pid=process.pid)
                await _end(process, within_s=10.0)
            else:
                self._process = process
        if not adopted:
            self._process = await asyncio.to_thread(self._spawn)
            try:
                await self._wait_ready(self._process)
            except BaseException:
                await _end(self._process, within_s=5.0)
                raise
        assert self._process is not None
        took_s = self._clock.monotonic_s() - began_s
        log.info(
            "containerd_ready",
            pid=self._process.pid,
            adopted=adopted,
            took_s=round(took_s, 4),
        )
        return Started(self._process, adopted=adopted, took_s=took_s)

    async def watch(
        self, *, restarted: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Start it again whenever it dies, until cancelled.

        Args:
            restarted: called after each new start; it handles its own errors.
        """
        delay_s = 0.0
        while True:
            began_s = self._clock.monotonic_s()
            await self._wait_exit()
            lived_s = self._clock.monotonic_s() - began_s
            delay_s = 0.0 if lived_s > _STABLE_AFTER_S else self._restart.after(delay_s)
            log.warning("containerd_died", lived_s=round(lived_s, 1))
            # The first death is answered at once, a crash loop is slowed down.
            await asyncio.sleep(delay_s if delay_s > self._restart.first() else 0)
            try:
                await self.start()
            except ContainerdStartError as error:
                log.warning("containerd_start_failed", error=str(error))
                continue
            if restarted is not None:
                await restarted()

    async def stop(self, *, within_s: float = 10.0) -> None:
        """End containerd itself; the shims and their containers live on."""
        found = await asyncio.to_thread(self._find)
        for process in {self._process, found[0] if found else None} - {None}:
            assert process is not None
            await _end(process, within_s=within_s)
        self._process = None
        await asyncio.to_thread(self._remove_marks)

    def _remove_marks(self) -> None:
        address = Path(self.config.socket)
        for path in (self.files.pid, address, Path(f"{address}.ttrpc")):
            path.unlink(missing_ok=True)

    # -- files

    def _write_files(self) -> str:
        files = self.files
        for directory in (files.directory, files.directory / "tmp"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        for path in (self.config.root, self.config.state, self.config.runc_root):
            Path(path).mkdir(parents=True, exist_ok=True, mode=0o711)
        for path in (self.config.cni_conf_dir, self.config.registry_dir):
            Path(path).mkdir(parents=True, exist_ok=True)
        Path(self.config.socket).parent.mkdir(parents=True, exist_ok=True)
        version = self._version()
        text = build_config(self.config, version=version, drop_ins=self._drop_ins())
        network = build_cni(self.config)
        _write(files.config, text)
        conflist = Path(self.config.cni_conf_dir) / f"10-{self.config.network}.conflist"
        _write(conflist, network)
        environment = json.dumps(self._environment, sort_keys=True)
        whole = f"{version}\n{environment}\n{text}"
        return hashlib.sha256(whole.encode()).hexdigest()

    def _version(self) -> tuple[int, int]:
        """Return the program's version; asked anew when the program changed."""
        found = shutil.which(self._binary)
        if found is None:
            raise ContainerdStartError(f"{self._binary} is not installed")
        stat = Path(found).stat()
        key = [found, stat.st_size, stat.st_mtime_ns]
        memo = self.files.directory / "containerd.version"
        with suppress(OSError, ValueError):
            known = json.loads(memo.read_text())
            if known["program"] == key:
                return int(known["major"]), int(known["minor"])
        major, minor = read_version(found)
        _write(memo, json.dumps({"program": key, "major": major, "minor": minor}))
        return major, minor

    def _drop_ins(self) -> list[dict[str, object]]:
        directory = self.files.drop_in_dir
        if directory is None or not directory.is_dir():
            return []
        tables = []
        for path in sorted(directory.glob("*.toml")):
            try:
                tables.append(tomllib.loads(path.read_text()))
            except (OSError, ValueError) as error:
                raise ContainerdStartError(f"{path} cannot be used: {error}") from error
        return tables

    # -- the process

    def _find(self) -> tuple[ProcessId, str] | None:
        """Return the containerd of these files, and the digest it was started with."""
        try:
            mark = json.loads(self.files.pid.read_text())
            process = ProcessId(int(mark["pid"]), int(mark["start_ticks"]))
            digest = str(mark["config"])
            boot = str(mark.get("boot", ""))
        except (OSError, ValueError, KeyError, TypeError):
            # Died between the start and the mark, or the file is damaged.
            return self._find_unmarked()
        if boot not in {"", _boot_id()}:
            # Numbers and start times begin anew with each boot, and may meet.
            return self._find_unmarked()
        return (process, digest) if read_process(process.pid) == process else None

    def _find_unmarked(self) -> tuple[ProcessId, str] | None:
        stray = find_daemon(self.files.config)
        return None if stray is None else (stray, "")

    def _spawn(self) -> ProcessId:
        Path(self.config.socket).unlink(missing_ok=True)
        cap_log(self.files.log, self.files.max_log_bytes)
        environment = {
            "PATH": f"{_PATH}:{os.environ.get('PATH', '')}",
            "TMPDIR": str(self.files.directory / "tmp"),
            **self._environment,
        }
        with self.files.log.open("ab") as output:
            try:
                child = subprocess.Popen(
                    [self._binary, "--config", str(self.files.config)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ContainerdStartError(
                    f"{self._binary} cannot be run: {error.strerror}"
                ) from error
        # It is meant to outlive this object, and its exit is collected by pidfd.
        child.returncode = 0
        process = read_process(child.pid)
        if process is None:
            raise ContainerdStartError(
                f"{self._binary} ended at once: {self._last_words()}"
            )
        self._enter_cgroups(process.pid)
        mark = {
            "pid": process.pid,
            "start_ticks": process.start_ticks,
            "config": self._digest,
            "boot": _boot_id(),
        }
        _write(self.files.pid, json.dumps(mark))
        return process

    def _enter_cgroups(self, pid: int) -> None:
        for directory in self.files.cgroups:
            with suppress(OSError):  # a host that refuses is a host we run on anyway
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "cgroup.procs").write_text(str(pid))

    async def _wait_exit(self) -> None:
        process = self._process
        if process is None:
            return
        with _pidfd(process) as fd:
            if fd is None:
                return
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(fd, ended.set)
            try:
                while not ended.is_set():
                    await self._wait_or_tidy(ended)
            finally:
                loop.remove_reader(fd)
            reap(fd)

    async def _wait_or_tidy(self, ended: asyncio.Event) -> None:
        """Wait for the exit; look at the log's size now and then."""
        try:
            async with asyncio.timeout(_LOG_CHECK_S):
                await ended.wait()
        except TimeoutError:
            await asyncio.to_thread(cap_log, self.files.log, self.files.max_log_bytes)

    async def _answers_soon(self, process: ProcessId) -> bool:
        """Tell whether a containerd that runs already is one to go on with."""
        try:
            await self._wait_ready(process)
        except ContainerdStartError:
            return False
        return True

    async def _wait_ready(self, process: ProcessId) -> None:
        try:
            async with asyncio.timeout(self._ready_within_s):
                while not _listens(self.config.socket):
                    await self._check_alive(process)
                    await asyncio.sleep(_CONNECT_STEP_S)
                async with ContainerdClient(self.config.socket) as client:
                    while not await self._cri_answers(client):
                        await self._check_alive(process)
                        await asyncio.sleep(_CONNECT_STEP_S)
        except TimeoutError:
            raise ContainerdStartError(
                f"containerd did not answer within {self._ready_within_s:g} s: "
                f"{self._last_words()}"
            ) from None

    async def _cri_answers(self, client: ContainerdClient) -> bool:
        try:
            await client.call(_READY_CALL, pb.Empty(), pb.Empty)
        except ContainerdError as error:
            if error.code == "UNIMPLEMENTED":
                raise ContainerdStartError(
                    f"containerd runs without its CRI plugin: {self._last_words()}"
                ) from error
            return False
        return True

    async def _check_alive(self, process: ProcessId) -> None:
        if read_process(process.pid) != process:
            words = await asyncio.to_thread(self._last_words)
            raise ContainerdStartError(f"containerd ended while starting: {words}")

    def _last_words(self) -> str:
        """Return the last lines of the log that tell of trouble."""
        try:
            lines = self.files.log.read_text(errors="replace").splitlines()[-40:]
        except OSError:
            return "(no log)"
        grave = [
            line for line in lines if "level=fatal" in line or "level=error" in line
        ]
        return " | ".join((grave or lines)[-3:]) or "(the log is empty)"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def read_version(binary: str = "containerd") -> tuple[int, int]:
    """Return containerd's major and minor version (blocking).

    Raises:
        ContainerdStartError: there is no such program, or it does not tell.
    """
    try:
        done = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return parse_version(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ContainerdStartError(f"{binary} --version failed: {error}") from error


def cap_log(path: Path, max_bytes: int) -> None:
    """Keep a log that another process appends to below a size.

    Its newest ``max_bytes`` move to ``<name>.1``, and the file, which is open for
    appending elsewhere, is cut to nothing. Lines written meanwhile may be lost.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= max_bytes:
                return
            file.seek(size - max_bytes)
            path.with_name(f"{path.name}.1").write_bytes(file.read())
            file.truncate(0)
    except FileNotFoundError:
        return


def _write(path: Path, text: str) -> None:
    """Replace a file, whole or not at all, and only where it differs."""
    with suppress(OSError):
        if path.read_text() == text:
            return
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)


def _listens(address: str) -> bool:
    """Tell whether somebody accepts at a unix socket; does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(address)
        except OSError:
            return False
        return True


@contextmanager
def _pidfd(process: ProcessId) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        yield fd if read_process(process.pid) in {process, None} else None
    finally:
        os.close(fd)


async def _end(process: ProcessId, *, within_s: float) -> None:
    """SIGTERM, then SIGKILL, and wait until it is gone."""
    with _pidfd(process) as fd:
        if fd is None:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(fd, ended.set)
        try:
            send_signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(within_s):
                    await ended.wait()
            except TimeoutError:
                send_signal(process, signal.SIGKILL)
                await ended.wait()
        finally:
            loop.remove_reader(fd)
        reap(fd)
