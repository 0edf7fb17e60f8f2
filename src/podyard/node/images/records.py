"""Records of pulls in the node's journal. A journal that fails holds no pull up."""

from datetime import timedelta
from typing import Final

import structlog

from podyard.api.core_v1 import format_micro_time
from podyard.api.documents import Document
from podyard.api.observed import Image
from podyard.cri.services import CRIError, ImageService
from podyard.lib.clock import Clock
from podyard.node.images.build import explain_pull, repository_digest
from podyard.store.backend import StoreError
from podyard.store.node_journal import NodeJournal

log = structlog.get_logger()

KIND: Final = "pull"


class PullRecords:
    """Writes down what was wanted, tried and answered.

    Args:
        journal: the node's journal; ``None`` writes nothing.
        images: asked which digest is here before a pull.
        clock: dates the records.
    """

    def __init__(
        self, journal: NodeJournal | None, images: ImageService, clock: Clock
    ) -> None:
        self._journal = journal
        self._images = images
        self._clock = clock
        #: What was last noted of a Pod's image, so that retries do not repeat it.
        self._noted: dict[tuple[str, str], Document] = {}

    def forget_pod(self, uid: str) -> None:
        """Drop what is remembered of a Pod."""
        for key in [key for key in self._noted if key[0] == uid]:
            del self._noted[key]

    async def note(self, uid: str, body: Document) -> None:
        """Write down a decision that needed no pull, once until it changes."""
        key = (uid, f"{body.get('fieldPath')} {body.get('image')}")
        if self._journal is None or self._noted.get(key) == body:
            return
        self._noted[key] = body
        try:
            await self._journal.note(KIND, uid, body, at=self._clock.now())
        except StoreError as error:
            log.warning("pull_not_recorded", error=str(error))

    async def open(
        self, uid: str, body: Document, *, image: str, repository: str
    ) -> int | None:
        """Write down that a pull begins; ``None`` where that failed."""
        if self._journal is None:
            return None
        key = (uid, f"{body.get('fieldPath')} {body.get('image')}")
        self._noted.pop(key, None)
        local = await self._local(image)
        policy = str(body.get("policy"))
        body = body | {"why": explain_pull(policy, present=local is not None)}
        if local is not None:
            body = body | {
                "localImageID": local.id,
                "localDigest": repository_digest(local, repository),
            }
        try:
            return await self._journal.open(KIND, uid, body, at=self._clock.now())
        except StoreError as error:
            log.warning("pull_record_not_opened", error=str(error))
            return None

    async def close(
        self, record: int | None, result: Document, *, retry_in_s: float | None = None
    ) -> None:
        """Write down how a pull ended."""
        if self._journal is None or record is None:
            return
        now = self._clock.now()
        if retry_in_s is not None:
            result = result | {
                "retryInSeconds": retry_in_s,
                "nextRetryAt": format_micro_time(now + timedelta(seconds=retry_in_s)),
            }
        try:
            await self._journal.close(record, at=now, result=result)
        except StoreError as error:
            log.warning("pull_record_not_closed", error=str(error))

    async def _local(self, image: str) -> Image | None:
        try:
            return await self._images.image_status(image)
        except CRIError:
            return None
