"""What the CNI plugins keep of Pods' addresses, and how that of nobody goes away.

host-local keeps one file an address, named by it, with the sandbox's id in it; the CNI
library keeps each plugin's result for all runtimes of the machine in one directory.
Both are written before containerd records the sandbox, so a death in between leaves
what nobody will ever ask to be removed, and the address is lost to all other Pods.
"""

import fcntl
import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from podyard.app.instances import Instance

#: Where the CNI library keeps results.
RESULTS: Final = Path("/var/lib/cni/results")
_LOOPBACK: Final = "cni-loopback"
#: host-local's own files beside those of addresses.
_LOCK: Final = "lock"
_LAST: Final = "last_reserved_ip"


def find_addresses(row: Instance) -> dict[Path, str]:
    """Return the files of addresses in use, with the id of who has them (blocking)."""
    found: dict[Path, str] = {}
    with suppress(FileNotFoundError):
        for file in (row.cni_state_dir / row.network).iterdir():
            if file.name == _LOCK or file.name.startswith(_LAST):
                continue
            with suppress(OSError):  # given back meanwhile
                owner = file.read_text(errors="replace").split()[:1]
                found[file] = owner[0] if owner else ""
    return found


def find_results(
    row: Instance, ids: AbstractSet[str] = frozenset(), *, results: Path = RESULTS
) -> dict[Path, str]:
    """Return the results of our network, and those of loopback beside them (blocking).

    Args:
        row: the instance.
        ids: sandboxes that are ours, besides those that the results tell of.
        results: where results are.
    """
    entries: list[tuple[Path, str, str, bool]] = []
    with suppress(FileNotFoundError):
        for file in results.iterdir():
            with suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(file.read_text())
                here = _is_below(kept.get("result") or {}, row.run_dir)
                entries.append(
                    (file, str(kept["networkName"]), str(kept["containerId"]), here)
                )
    ours = {owner for _, network, owner, _ in entries if network == row.network} | ids
    return {
        file: owner
        for file, network, owner, here in entries
        if network == row.network or (network == _LOOPBACK and (here or owner in ours))
    }


def _is_below(result: dict[str, object], directory: Path) -> bool:
    """Tell whether a result is about a network namespace of a directory."""
    interfaces = result.get("interfaces")
    return isinstance(interfaces, list) and any(
        str(one.get("sandbox", "")).startswith(f"{directory}/") for one in interfaces
    )


def find_owners(row: Instance) -> frozenset[str]:
    """Return the ids that have an address or a result (blocking)."""
    return frozenset({*find_addresses(row).values(), *find_results(row).values()})


def give_back(row: Instance, ids: AbstractSet[str]) -> int:
    """Free the addresses of sandboxes that are no more; forget results (blocking).

    Returns:
        How many addresses are free again.
    """
    freed = 0
    with _locked(row.cni_state_dir / row.network):
        for file, owner in find_addresses(row).items():
            if owner in ids:
                file.unlink(missing_ok=True)
                freed += 1
    for file, owner in find_results(row).items():
        if owner in ids:
            file.unlink(missing_ok=True)
    return freed


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep host-local out, as it keeps others of its kind out."""
    try:
        lock = (directory / _LOCK).open("a")
    except FileNotFoundError:
        yield  # it has never run
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
