"""Looks whether the node's credential files have changed, while a Pod waits."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

from podyard.node.credentials.parts import NodeFiles

#: How often is looked while a Pod waits, seconds.
PERIOD_S: Final = 1.0

#: What tells one state of the files from another.
_State: TypeAlias = tuple[tuple[str, int, int, int], ...]


class NodeFileWatch:
    """Tells Pods whose pull failed when another pull may go better.

    Looking is cheap, and nothing is looked at while no Pod waits; so the files may be
    anywhere, and need not be there yet.

    Args:
        files: where credentials of the node are looked for.
        waiting: returns the Pods that wait, by uid.
    """

    def __init__(
        self,
        files: NodeFiles,
        waiting: Callable[[], Iterable[str]],
    ) -> None:
        self._files = (*files.config_json, *files.dockercfg)
        self._waiting = waiting

    async def run(self, changed: Callable[[str], None]) -> None:
        """Look for ever; ``changed`` is told of each Pod that may try again."""
        before: _State | None = None
        while True:
            await asyncio.sleep(PERIOD_S)
            uids = tuple(self._waiting())
            if not uids:
                before = None
                continue
            now = await asyncio.to_thread(_look, self._files)
            if before is not None and now != before:
                for uid in uids:
                    changed(uid)
            before = now


def _look(files: Iterable[Path]) -> _State:
    seen: list[tuple[str, int, int, int]] = []
    for path in files:
        try:
            info = path.stat()
        except OSError:
            continue
        seen.append((str(path), info.st_ino, info.st_size, info.st_mtime_ns))
    return tuple(seen)
