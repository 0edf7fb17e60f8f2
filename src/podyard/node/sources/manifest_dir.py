"""Static Pods: every file of a directory is one, by inotify and a look now and then.

A file that cannot be read or is no Pod is reported and changes nothing: the others
go on, and so does the Pod the file was before it broke.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.lib.clock import Clock
from podyard.lib.inotify import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    FileWatch,
)
from podyard.lib.values import dataclass
from podyard.lib.yaml_json import YamlError, load_all_yaml
from podyard.node.sources.build import ManifestError, build_static_pod
from podyard.node.sources.parts import PodSink
from podyard.node.sync.files import Blocking

log = structlog.get_logger()

NAME: Final = "file"
#: Between looks at the whole directory, seconds.
CHECK_S: Final = 20.0
#: An editor's burst of changes is one change, seconds.
SETTLE_S: Final = 0.05
MAX_FILE_BYTES: Final = 10 * 1024 * 1024
_MASK: Final = (
    IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MODIFY
    | IN_MOVED_FROM
    | IN_MOVED_TO
)

#: Fills in the defaults of a Pod and refuses a bad one.
Prepare = Callable[[Document], Document]


@dataclass(frozen=True, slots=True)
class _File:
    """What a file was when it was last read.

    Attributes:
        stamp: tells whether it changed.
        pods: what it held when it last was good.
        error: why it is not good now, or empty.
    """

    stamp: tuple[int, int, int]
    pods: tuple[Pod, ...]
    error: str = ""


class ManifestDirSource:
    """Follows a directory of manifests.

    Args:
        directory: the directory; it may come later.
        node_name: this node.
        sink: who takes the Pods.
        prepare: defaults and validates a Pod; raises ``ManifestError``.
        report: told of a broken file: its path and what is wrong with it.
        clock: dates Pods.
        blocking: runs file work.
    """

    def __init__(
        self,
        directory: Path,
        node_name: str,
        sink: PodSink,
        *,
        prepare: Prepare,
        report: Callable[[str, str], None],
        clock: Clock,
        blocking: Blocking,
    ) -> None:
        self._directory = directory
        self._node_name = node_name
        self._sink = sink
        self._prepare = prepare
        self._report = report
        self._clock = clock
        self._blocking = blocking
        self._files: dict[str, _File] = {}
        self._told: dict[str, Pod] = {}

    async def run(self) -> None:
        """Follow for ever."""
        with contextlib.ExitStack() as stack:
            watch: FileWatch | None = None
            try:
                watch = stack.enter_context(FileWatch())
            except OSError as error:
                log.warning("manifests_not_watched", error=str(error))
            while True:
                watched = self._watch(watch)
                await self.look()
                self._sink.source_ready(NAME)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        if watch is None or not watched:
                            await asyncio.Event().wait()
                        else:
                            await watch.wait()
                            await asyncio.sleep(SETTLE_S)

    def _watch(self, watch: FileWatch | None) -> bool:
        """Watch the directory; again each time, for it may be a new one."""
        if watch is None:
            return False
        try:
            watch.add(self._directory, _MASK)
        except OSError:
            return False
        return True

    async def look(self) -> None:
        """Read what changed and tell of it."""
        before = self._files
        try:
            self._files = await self._blocking(self._read_all, before)
        except OSError as error:
            log.warning("manifests_unreadable", error=str(error))
            return
        for path, file in self._files.items():
            known = before.get(path)
            if file.error and (known is None or known.error != file.error):
                log.warning("manifest_broken", file=path, error=file.error)
                self._report(path, file.error)
        self._tell(pod for file in self._files.values() for pod in file.pods)

    def _tell(self, pods: Iterable[Pod]) -> None:
        found: dict[str, Pod] = {}
        for pod in pods:
            found.setdefault(pod.uid, pod)
        for uid in self._told.keys() - found.keys():
            self._sink.drop_pod(NAME, self._told[uid])
        for uid, pod in found.items():
            if uid not in self._told:
                self._sink.take_pod(NAME, pod)
        self._told = found

    def _read_all(self, known: dict[str, _File]) -> dict[str, _File]:
        if not self._directory.is_dir():
            return {}
        files: dict[str, _File] = {}
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    files[str(path)] = self._read(path, known.get(str(path)))
        return files

    def _read(self, path: Path, known: _File | None) -> _File:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if known is not None and known.stamp == stamp:
            return known
        pods = known.pods if known else ()
        if stat.st_size > MAX_FILE_BYTES:
            return _File(stamp, pods, f"larger than {MAX_FILE_BYTES} bytes")
        try:
            return _File(stamp, tuple(self._parse(path)))
        except (ManifestError, YamlError, UnicodeDecodeError, OSError) as error:
            return _File(stamp, pods, str(error))
        except Exception as error:  # noqa: BLE001 - no manifest may break the others
            return _File(stamp, pods, f"not understood: {error!r}")

    def _parse(self, path: Path) -> Iterable[Pod]:
        documents = [d for d, _ in load_all_yaml(path.read_bytes())]
        if not documents:
            raise ManifestError("the file is empty")
        for document in documents:
            if not isinstance(document, dict):
                raise ManifestError("not an object")
            items = [document]
            if str(document.get("kind", "")).endswith("List"):
                items = document.get("items") or []
            for item in items:
                pod = build_static_pod(
                    item,
                    path=str(path),
                    node_name=self._node_name,
                    seen_at=self._clock.now(),
                )
                yield Pod.of(self._prepare(pod))
