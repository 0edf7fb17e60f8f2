"""Records of pulls on disk: crash-safe files, mode 0600, read once and kept in memory.

An intent is written before a pull and removed after its record: whatever is killed in
between leaves word that the image was pulled by us, so that nobody takes it for one
that an administrator put there.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from podyard.api.image_ref import ImageRefError, parse_image_ref
from podyard.api.observed import Image
from podyard.lib.aio import finish
from podyard.lib.clock import Clock
from podyard.node.credentials.decide import Credential
from podyard.node.images.access.build import (
    RecordError,
    build_intent,
    build_record,
    parse_intent,
    parse_record,
)
from podyard.node.images.access.decide import (
    MayUse,
    MustPull,
    PulledRecord,
    VerificationSettings,
    decide_access,
    needs_verification,
    opens_for_all,
    record_pull,
)

log = structlog.get_logger()

_PREFIX: Final = "sha256-"
_WRITE_S: Final = 30.0


class ImageAccess:
    """Knows which Pods may use which present images.

    Args:
        directory: where the records are, ``image_manager`` of the data directory.
        clock: dates records.
        settings: which images are verified.

    Call :meth:`load` before anything else.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        settings: VerificationSettings | None = None,
    ) -> None:
        self._pulling = directory / "pulling"
        self._pulled = directory / "pulled"
        self._clock = clock
        self._settings = settings or VerificationSettings()
        self._intents: dict[str, int] = {}
        #: Pulls whose record could not be written.
        self._unrecorded: set[str] = set()
        self._records: dict[str, PulledRecord] = {}
        #: Something could not be read: whose image it was about is not known.
        self._unsure = False
        self._lock = asyncio.Lock()

    # -- start

    async def load(self, images: Sequence[Image]) -> None:
        """Read what is on disk, and make records of pulls that a crash cut off.

        Args:
            images: all images on the node.

        Raises:
            OSError: the directory cannot be made.
        """
        intents, records = await asyncio.to_thread(self._load)
        self._records = {record.image_ref: record for record in records}
        names = {name: image for image in images for name in _names(image)}
        for intent in intents:
            image = names.get(_canonical(intent))
            if image is None:
                # Its pull may end yet in the runtime.
                self._intents[intent] = 0
                continue
            if image.id not in self._records:
                await self._keep(PulledRecord(image.id, self._clock.now()))
            await asyncio.to_thread(self._remove, self._pulling, intent)
            log.info("cut_off_pull_recorded", image=intent, image_ref=image.id)

    def _load(self) -> tuple[list[str], list[PulledRecord]]:
        for directory in (self._pulling.parent, self._pulling, self._pulled):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        intents: list[str] = []
        records: list[PulledRecord] = []
        for path, raw in self._files(self._pulling):
            try:
                intents.append(parse_intent(raw))
            except RecordError as error:
                self._doubt(path, error)
        for path, raw in self._files(self._pulled):
            try:
                records.append(parse_record(raw))
            except RecordError as error:
                self._doubt(path, error)
        return intents, records

    def _files(self, directory: Path) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(directory.iterdir()):
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)
            elif path.name.startswith(_PREFIX):
                try:
                    yield path, path.read_bytes()
                except OSError as error:
                    self._doubt(path, error)

    def _doubt(self, path: Path, error: Exception) -> None:
        self._unsure = True
        log.error("pull_record_unreadable", file=str(path), error=str(error))

    # -- questions

    def needs_verification(self, image: str, name: str, image_ref: str) -> bool:
        """Say whether a Pod's right to a present image has to be looked at.

        Args:
            image: as the Pod has it.
            name: with its default tag.
            image_ref: the runtime's id of it.
        """
        known = self._unsure or image_ref in self._records or name in self._intents
        return needs_verification(image, self._settings, known=known)

    def opens_for_all(self, image_ref: str, repository: str) -> bool:
        """Say whether every Pod may use it, whatever its credentials."""
        return opens_for_all(self._records.get(image_ref), repository)

    async def may_use(
        self, image_ref: str, repository: str, credentials: Sequence[Credential]
    ) -> bool:
        """Say whether a Pod with these credentials may use it without a pull."""
        record = self._records.get(image_ref)
        match decide_access(record, repository, credentials, now=self._clock.now()):
            case MustPull():
                return False
            case MayUse(changed):
                if changed is not None:
                    with suppress(OSError):
                        await self._keep(changed)
                return True

    # -- pulls

    @asynccontextmanager
    async def pulling(self, name: str) -> AsyncGenerator[None, None]:
        """Hold the intent of a pull; its record is written inside.

        Raises:
            OSError: the intent cannot be written, so that nothing may be pulled.
        """
        held = self._intents.get(name, 0)
        self._intents[name] = held + 1
        try:
            if held == 0:
                raw = build_intent(name)
                await finish(
                    asyncio.to_thread(self._write, self._pulling, name, raw),
                    within_s=_WRITE_S,
                )
            yield
        finally:
            await finish(self._let_go(name), within_s=_WRITE_S)

    async def _let_go(self, name: str) -> None:
        left = self._intents.get(name, 1) - 1
        if left > 0:
            self._intents[name] = left
            return
        if name in self._unrecorded:
            # The intent stays, and says in place of the record: perhaps pulled.
            self._unrecorded.discard(name)
            self._intents[name] = 0
            return
        self._intents.pop(name, None)
        with suppress(OSError):
            await asyncio.to_thread(self._remove, self._pulling, name)

    async def pulled(
        self,
        name: str,
        image_ref: str,
        repository: str,
        credential: Credential | None,
    ) -> None:
        """Write down whom the registry gave an image; inside :meth:`pulling`.

        Where that cannot be written, the intent stays and stands for it.
        """
        async with self._lock:
            before = self._records.get(image_ref)
            record = record_pull(
                before, image_ref, repository, credential, now=self._clock.now()
            )
            if before is not None and before.access == record.access:
                # Only its time is newer, which the next start need not know.
                self._records[image_ref] = record
                return
            try:
                await self._write_record(record)
            except OSError as error:
                self._unrecorded.add(name)
                log.warning("pull_not_recorded", image=name, error=error.strerror)

    async def _keep(self, record: PulledRecord) -> None:
        async with self._lock:
            await self._write_record(record)

    async def _write_record(self, record: PulledRecord) -> None:
        raw = build_record(record)
        await finish(
            asyncio.to_thread(self._write, self._pulled, record.image_ref, raw),
            within_s=_WRITE_S,
        )
        self._records[record.image_ref] = record

    async def prune(self, image_refs: Collection[str], *, before: datetime) -> None:
        """Forget images that are gone.

        Args:
            image_refs: the images there are.
            before: when they were listed; what was pulled since then stays.
        """
        kept = frozenset(image_refs)
        async with self._lock:
            gone = [
                ref
                for ref, record in self._records.items()
                if ref not in kept and record.updated_at < before
            ]
            for ref in gone:
                with suppress(OSError):
                    await asyncio.to_thread(self._remove, self._pulled, ref)
                    del self._records[ref]

    # -- files; these block

    def _write(self, directory: Path, key: str, raw: bytes) -> None:
        path = directory / _file_name(key)
        scratch = path.with_suffix(".tmp")
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        _sync(directory)

    def _remove(self, directory: Path, key: str) -> None:
        # Not synced: a file that comes back after a power cut says less than is true.
        (directory / _file_name(key)).unlink(missing_ok=True)


def _file_name(key: str) -> str:
    return _PREFIX + hashlib.sha256(key.encode()).hexdigest()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _names(image: Image) -> Iterable[str]:
    return (*image.repo_tags, *image.repo_digests)


def _canonical(name: str) -> str:
    """Return a name as the runtime lists it: a digest makes a tag meaningless."""
    try:
        ref = parse_image_ref(name)
    except ImageRefError:
        return name
    tag = "" if ref.digest else ref.effective_tag
    suffix = f"@{ref.digest}" if ref.digest else f":{tag}"
    return f"{ref.repository}{suffix}"
