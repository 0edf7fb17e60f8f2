"""Kubernetes' Python clients, as programs use them: create, watch, exec, delete.

Each runs in a process of its own: they leave connections to the garbage collector.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.manifests import SLEEP, container, pod

PROGRAMS = Path(__file__).resolve().parents[1] / "support/programs"


@pytest.mark.parametrize("client", ["official", "kr8s", "lightkube"])
def test_a_client_creates_watches_execs_reads_logs_patches_and_deletes(
    instance, client
):
    name = f"by-{client}"
    manifest = pod(name, container(f"echo here; {SLEEP}"))

    done = subprocess.run(
        [
            sys.executable,
            str(PROGRAMS / f"{client}_client.py"),
            str(instance.kubeconfig),
            name,
            json.dumps(manifest),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("phases")[-1] == "Running"
    assert seen.pop("log").strip() == "here"
    assert seen == {"said": "said\n", "found": [name], "after": 404}
