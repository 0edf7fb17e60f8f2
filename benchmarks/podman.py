"""podman beside us, with a store of its own, away from that of the machine."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.figures import p50
from benchmarks.floor import IMAGE
from benchmarks.instance import pod
from podyard.app.runtimes import demo_image
from podyard.containerd.own_images import build_archive, write_archive

#: What is worth telling of a failure.
_SHOWN = 120


def is_installed() -> bool:
    """Say whether there is a podman."""
    return shutil.which("podman") is not None


def command(scratch: Path) -> tuple[str, ...]:
    """Return how to call podman with everything it keeps below ``scratch``.

    Without systemd it has neither its cgroup manager nor its journal.
    """
    return (
        *("podman", "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        *("--root", str(scratch / "podman"), "--runroot", str(scratch / "podman-run")),
    )


def time_kube_play(rounds: int) -> str:
    """Time ``podman kube play`` of the benchmark's Pod, p50; or say why not."""
    image = demo_image()
    if not is_installed() or image is None:
        return "not installed"
    scratch = Path(tempfile.mkdtemp(prefix="podyard-bench-podman-"))
    # Its bridge and its firewall rules go with a network namespace of the run's own,
    # what it writes of its networks with the directory.
    space, settings = scratch.name, scratch / "containers.conf"
    settings.write_text(f'[network]\nnetwork_config_dir = "{scratch / "networks"}"\n')
    podman = (
        *("nsenter", f"--net=/run/netns/{space}", "env", f"CONTAINERS_CONF={settings}"),
        *command(scratch),
    )
    try:
        _run("ip", "netns", "add", space)
        write_archive(build_archive(image), scratch / "image.tar")
        (scratch / "pod.yaml").write_text(yaml.safe_dump(pod("bench-podman")))
        for step in (
            ("load", "--input", str(scratch / "image.tar")),
            ("image", "exists", IMAGE),
        ):
            fault = _run(*podman, *step)
            if fault:
                return f"cannot be measured here: {fault}"
        took_s = []
        for _ in range(rounds + 1):
            begin_s = time.perf_counter()
            fault = _run(*podman, "kube", "play", str(scratch / "pod.yaml"))
            took_s.append(time.perf_counter() - begin_s)
            _run(*podman, "kube", "down", str(scratch / "pod.yaml"))
            if fault:
                return f"cannot be measured here: {fault}"
        # The first one makes the network and the pause image.
        return f"{p50(took_s[1:]) * 1000:.1f} ms"
    finally:
        _run(*podman, "pod", "rm", "--all", "--force")
        _run("ip", "netns", "delete", space)
        shutil.rmtree(scratch, ignore_errors=True)


def _run(*args: str) -> str:
    """Run a command; return what it says of its failure."""
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    first = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
    return first.partition(": ")[2][:_SHOWN] or first[:_SHOWN]
