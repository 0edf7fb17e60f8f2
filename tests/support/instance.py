"""A whole Podyard, driven as a user does: by its command line."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from podyard.app.instances import Instance, InstanceTable
from podyard.app.teardown import wait_for_exit

_SRC = Path(__file__).resolve().parents[2] / "src"


@dataclass(frozen=True)
class RunningPodyard:
    """One instance that was started with ``podyard up -d``."""

    name: str
    data_dir: Path

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    def cli(
        self, command: str, *arguments: str, check: bool = True, timeout_s: float = 90
    ) -> "subprocess.CompletedProcess[str]":
        """Run a podyard command on this instance."""
        return podyard(
            command,
            "--name",
            self.name,
            "--data-dir",
            str(self.data_dir),
            *arguments,
            check=check,
            timeout_s=timeout_s,
        )

    def up(self, *arguments: str) -> None:
        """Start it and wait until the node is Ready."""
        self.cli(
            "up",
            "--detach",
            "--wait",
            "60s",
            "--port",
            "0",
            "--node-port",
            "0",
            *arguments,
        )

    @contextmanager
    def in_foreground(self) -> "Iterator[subprocess.Popen[bytes]]":
        """Start it as a child of ours, and wait for its end."""
        arguments = ("--name", self.name, "--data-dir", str(self.data_dir))
        with (self.data_dir / "podyard.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "podyard", "up", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(_SRC)},
            )
            try:
                yield process
            finally:
                process.wait(timeout=60)

    def status(self) -> dict:
        """Return ``podyard status -o json``."""
        return orjson.loads(self.cli("status", "-o", "json").stdout)

    @property
    def pid(self) -> int:
        return int(self.status()["pid"])

    @property
    def row(self) -> Instance:
        """What it owns on this machine."""
        row = InstanceTable().get(self.name)
        assert row is not None
        return row

    def kill(self) -> None:
        """End Podyard itself as a crash does, and wait until it is gone."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_for_exit(pid, within_s=10)


def podyard(
    *arguments: str,
    check: bool = True,
    timeout_s: float = 90,
    cwd: Path | None = None,
    through: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run the program of this environment, itself run ``through`` another if asked."""
    done = subprocess.run(
        [*through, sys.executable, "-m", "podyard", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        env={
            **os.environ,
            "PYTHONPATH": str(_SRC),
            **(environment or {}),
        },
        cwd=cwd,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"podyard {' '.join(arguments)}: exit {done.returncode}\n"
            f"{done.stdout}\n{done.stderr}"
        )
    return done


@contextmanager
def running_podyard(
    name: str, data_dir: Path, *arguments: str
) -> Iterator[RunningPodyard]:
    """Start an instance, and take it down with its data at the end."""
    instance = RunningPodyard(name, data_dir)
    try:
        instance.up(*arguments)
        yield instance
    finally:
        instance.cli("down", "--grace", "1s", "--purge", check=False)
