"""Directories of volumes that are no longer wanted are removed with their data.

A volume of the built-in provisioner carries a finalizer until its node has done so;
one that is to be retained goes and leaves its data.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import PERSISTENT_VOLUME
from podyard.api.storage import DATA_FINALIZER, VOLUME_PROTECTION
from podyard.client.services import ApiClient, ApiUnreachableError
from podyard.lib.linux import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
    remove_tree,
)
from podyard.node.volumes.manager import Events

log = structlog.get_logger()

#: How long until a removal that failed is tried again, seconds.
RETRY_S: Final = 15.0
_SAFE: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS


class Volumes(Protocol):
    """The volumes of this node."""

    def items(self) -> Iterable[Document]:
        """Return them as last heard of; never change them."""


class VolumeReclaimer:
    """Removes the data of volumes of this node that are being deleted.

    Args:
        client: the API, as the node.
        events: hears of removals that failed.
        volumes_dir: where this node keeps volumes.
        volumes: makes the volumes' informer; called once, with who to tell.
    """

    def __init__(
        self,
        client: ApiClient,
        events: Events,
        volumes_dir: Path,
        volumes: Callable[[Callable[..., None]], Volumes],
    ) -> None:
        self._client = client
        self._events = events
        self._root = volumes_dir
        self._changed = asyncio.Event()
        self._volumes = volumes(lambda _old, _new: self._changed.set())

    async def run(self) -> None:
        """Remove what is to be removed, for ever."""
        while True:
            self._changed.clear()
            done = [await self._look(volume) for volume in self._volumes.items()]
            with suppress(TimeoutError):
                async with asyncio.timeout(None if all(done) else RETRY_S):
                    await self._changed.wait()

    async def _look(self, volume: Document) -> bool:
        """Remove one volume's data; say whether nothing is left to do."""
        metadata = volume["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if (
            not metadata.get("deletionTimestamp")
            or DATA_FINALIZER not in finalizers
            or VOLUME_PROTECTION in finalizers
        ):
            return True
        spec = volume["spec"]
        path = str((spec.get("local") or {}).get("path") or "")
        try:
            if spec.get("persistentVolumeReclaimPolicy") == "Delete":
                await asyncio.to_thread(remove_data, self._root, Path(path))
                log.info("volume_removed", volume=metadata["name"], path=path)
            finalizers.remove(DATA_FINALIZER)
            await self._client.patch(
                PERSISTENT_VOLUME,
                metadata["name"],
                {
                    "metadata": {
                        "finalizers": finalizers or None,
                        "resourceVersion": metadata["resourceVersion"],
                    }
                },
            )
        except OSError as error:
            text = f"the data could not be removed: {error.strerror}"
            self._events.event(volume, "Warning", "VolumeFailedDelete", text)
            return False
        except ApiError as error:
            return error.code == 404
        except ApiUnreachableError:
            return False
        return True


def remove_data(root: Path, path: Path) -> None:
    """Remove a volume's directory, which must lie below the node's own.

    Raises:
        OSError: it could not be removed; what lies elsewhere is left alone.
    """
    if not path.is_relative_to(root) or path == root:
        return
    *above, name = path.relative_to(root).parts
    if ".." in (*above, name):
        return
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        parent = openat2(top, "/".join(above) or ".", flags, _SAFE)
    except FileNotFoundError:
        return
    finally:
        os.close(top)
    try:
        remove_tree(parent, name)
    finally:
        os.close(parent)
    if above:
        with suppress(OSError):  # other volumes of the Namespace are still there
            root.joinpath(*above).rmdir()
