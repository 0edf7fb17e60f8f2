"""Removes images when their filesystem grows full, and images unused for too long.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images
and ``pkg/kubelet/images`` (v1.36).
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final, Literal, Protocol

import structlog

from podyard.api.observed import Image
from podyard.cri.services import CRIError, ImageService, RuntimeService
from podyard.lib.clock import Clock
from podyard.node.images.access.records import ImageAccess
from podyard.node.images.decide import (
    DiskUsage,
    GcSettings,
    ImageUse,
    bytes_to_free,
    decide_image_gc,
    too_old,
    used_ids,
)

log = structlog.get_logger()

#: How often images are looked at, seconds.
PERIOD_S: Final = 300.0


class NodeEvents(Protocol):
    """Events on the Node; never waits, never fails."""

    def node_event(
        self, event_type: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Tell users something about the node."""


def read_disk_usage(mount_point: str) -> DiskUsage:
    """Return how full a filesystem is. Blocks.

    Raises:
        OSError: it cannot be asked.
    """
    info = os.statvfs(mount_point)
    return DiskUsage(info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize)


class ImageGc:
    """Removes images.

    Args:
        images: the runtime's images.
        runtime: says what containers there are.
        events: hears of failures.
        clock: tells ages.
        settings: thresholds and ages.
        disk_usage: how full a filesystem is, by its mount point.
        access: forgets who may use images that are gone.
    """

    def __init__(
        self,
        images: ImageService,
        runtime: RuntimeService,
        events: NodeEvents,
        clock: Clock,
        *,
        settings: GcSettings | None = None,
        disk_usage: Callable[[str], DiskUsage] = read_disk_usage,
        access: ImageAccess | None = None,
    ) -> None:
        self._access = access
        self._images = images
        self._runtime = runtime
        self._events = events
        self._clock = clock
        self._settings = settings or GcSettings()
        self._disk_usage = disk_usage
        self._uses: dict[str, ImageUse] = {}
        self._born_s = clock.monotonic_s()
        self._failed_before = False

    async def run(self) -> None:
        """Look every five minutes, for ever."""
        while True:
            await self.collect()
            await asyncio.sleep(PERIOD_S)

    async def collect(self) -> int:
        """Remove what may go, as far as thresholds and ages ask for it.

        Returns:
            How many bytes the removed images had; shared layers count each time.
        """
        try:
            freed = await self._collect()
            await self._forget_gone()
        except (CRIError, OSError) as error:
            log.warning("image_gc_failed", error=str(error))
            if self._failed_before:
                self._events.node_event("Warning", "ImageGCFailed", str(error))
            self._failed_before = True
            return 0
        self._failed_before = False
        return freed

    async def delete_unused(self) -> int:
        """Remove every image no container has; used under disk pressure.

        Raises:
            CRIError: the runtime cannot be asked.
        """
        images, in_use = await self._look()
        now_s = self._clock.monotonic_s()
        candidates = decide_image_gc(
            images, self._uses, in_use, settings=self._settings, now_s=now_s
        )
        return await self._remove(candidates, None)

    async def _forget_gone(self) -> None:
        """Forget who may use images that are gone, whoever removed them."""
        if self._access is None:
            return
        before = self._clock.now()
        images = await self._images.list_images()
        await self._access.prune({image.id for image in images}, before=before)

    async def _collect(self) -> int:
        images, in_use = await self._look()
        now_s, settings = self._clock.monotonic_s(), self._settings
        candidates = decide_image_gc(
            images, self._uses, in_use, settings=settings, now_s=now_s
        )
        freed = 0
        if settings.max_age_s and now_s - self._born_s > settings.max_age_s:
            aged = tuple(
                image
                for image in candidates
                if too_old(self._uses[image.id], settings=settings, now_s=now_s)
            )
            freed += await self._remove(aged, None)
            candidates = tuple(image for image in candidates if image not in aged)
        wanted = await self._bytes_to_free()
        if wanted <= 0:
            return freed
        log.info("image_gc_begins", wanted_bytes=wanted)
        found = await self._remove(candidates, wanted)
        if found < wanted:
            self._events.node_event(
                "Warning",
                "FreeDiskSpaceFailed",
                "Failed to garbage collect required amount of images. Attempted to "
                f"free {wanted} bytes, but only found {found} bytes eligible to free.",
            )
        return freed + found

    async def _look(self) -> tuple[tuple[Image, ...], frozenset[str]]:
        """List images, and note which are in use now."""
        images = await self._images.list_images()
        containers = await self._runtime.list_containers()
        names = [name for c in containers for name in (c.image, c.image_id) if name]
        in_use = used_ids(images, names)
        now_s = self._clock.monotonic_s()
        uses: dict[str, ImageUse] = {}
        for image in images:
            known = self._uses.get(image.id, ImageUse(now_s))
            if image.id in in_use:
                known = ImageUse(known.first_seen_s, now_s)
            uses[image.id] = known
        self._uses = uses
        return images, in_use

    async def _bytes_to_free(self) -> int:
        wanted = 0
        for filesystem in await self._images.image_fs_info():
            usage = await asyncio.to_thread(self._disk_usage, filesystem.mountpoint)
            if usage.capacity_bytes <= 0:
                self._events.node_event(
                    "Warning",
                    "InvalidDiskCapacity",
                    "invalid capacity 0 on image filesystem",
                )
                continue
            wanted = max(wanted, bytes_to_free(usage, self._settings))
        return wanted

    async def _remove(self, images: tuple[Image, ...], wanted: int | None) -> int:
        freed = 0
        for image in images:
            if wanted is not None and freed >= wanted:
                break
            try:
                await self._images.remove_image(image.id)
            except CRIError as error:
                log.warning("image_not_removed", image=image.id, error=str(error))
                continue
            log.info("image_removed", image=image.id, size_bytes=image.size_bytes)
            self._uses.pop(image.id, None)
            freed += image.size_bytes
        return freed
