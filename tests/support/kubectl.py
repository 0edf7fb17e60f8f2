"""Every kubectl this machine has: Debian's own, unpacked by set-up, and others."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Newer ones than this are not promised anything.
NEWEST = (1, 33)


@dataclass(frozen=True)
class Kubectl:
    """One kubectl binary."""

    path: str
    version: tuple[int, int]

    @property
    def id(self) -> str:
        return f"kubectl-{self.version[0]}.{self.version[1]}"

    def run(
        self,
        kubeconfig: Path,
        *arguments: str,
        input: str | bytes | None = None,  # noqa: A002 - subprocess' own word
        check: bool = True,
        timeout_s: float = 60,
        environment: dict[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run it; on failure the error shows what it said."""
        content = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            [self.path, *arguments],
            input=content,
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            env=self.environment(kubeconfig) | (environment or {}),
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            text = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"{self.id} {' '.join(arguments)}: {text}")
        return done

    def environment(self, kubeconfig: Path) -> dict[str, str]:
        """Return the variables it is run with; it keeps to itself what it caches."""
        return {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(kubeconfig.parent / f"cache-{self.id}"),
            "HOME": str(kubeconfig.parent),
        }

    def text(self, kubeconfig: Path, *arguments: str, **options) -> str:
        """Run it and return its standard output."""
        return self.run(kubeconfig, *arguments, **options).stdout.decode()


@lru_cache
def find_kubectls() -> tuple[Kubectl, ...]:
    """Return every kubectl up to 1.33, oldest first, one a version."""
    candidates = [
        ROOT / ".venv/tools/kubectl",
        *Path("/usr/lib/google-cloud-sdk/bin").glob("kubectl.1.*"),
        *Path("/usr/local/bin").glob("kubectl*"),
    ]
    on_path = shutil.which("kubectl")
    if on_path:
        candidates.append(Path(on_path))
    found: dict[tuple[int, int], Kubectl] = {}
    for path in candidates:
        if not os.access(path, os.X_OK):
            continue
        said = subprocess.run(
            [str(path), "version", "--client", "-o", "json"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        match = re.search(r'"gitVersion": "v(\d+)\.(\d+)\.[^"]*"', said)
        if match is None or "dispatcher" in match[0]:
            continue
        version = int(match[1]), int(match[2])
        if version <= NEWEST:
            found.setdefault(version, Kubectl(str(path), version))
    return tuple(found[version] for version in sorted(found))
