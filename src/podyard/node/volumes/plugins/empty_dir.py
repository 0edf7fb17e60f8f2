"""``emptyDir``: a directory as old as the Pod, on disk, in memory or huge pages.

Source: https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
"""

from typing import Final

from podyard.api.quantity import QuantityError
from podyard.node.volumes.build import (
    PayloadError,
    hugepage_size,
    memory_volume_bytes,
)
from podyard.node.volumes.mounts import (
    ensure_hugetlbfs,
    ensure_tmpfs,
    is_mount_point,
    set_ownership,
)
from podyard.node.volumes.parts import (
    MountedVolume,
    SetUpError,
    VolumeContext,
    VolumePlugin,
)

_MODE: Final = 0o777


class EmptyDir:
    """Made once; what containers put there stays until the Pod goes."""

    refresh_at_s: float | None = None

    def __init__(self, context: VolumeContext) -> None:
        self._context = context
        self._medium = str(context.volume.spec.get("medium") or "")
        self._size_bytes = 0
        self._page_size = ""

    async def prepare(self) -> bytes:
        """Find out how large it may grow."""
        limit = self._context.volume.spec.get("sizeLimit")
        try:
            if self._medium == "Memory":
                self._size_bytes = memory_volume_bytes(
                    self._context.pod,
                    size_limit=None if limit is None else str(limit),
                    node_memory=self._context.services.node_allocatable().get("memory"),
                )
            elif self._medium:
                self._page_size = hugepage_size(self._context.pod, self._medium)
        except (QuantityError, PayloadError) as error:
            raise SetUpError(str(error)) from error
        return self._medium.encode()

    def set_up(self) -> None:
        """Make the directory, and its mount."""
        path = self._context.path
        if self._medium:
            if is_mount_point(path):
                return
            if self._medium == "Memory":
                ensure_tmpfs(path, size_bytes=self._size_bytes)
            elif self._medium.startswith("HugePages"):
                ensure_hugetlbfs(path, page_size=self._page_size)
            else:
                raise SetUpError(f'unknown storage medium "{self._medium}"')
        else:
            try:
                path.mkdir(mode=_MODE)
            except FileExistsError:
                return
            except FileNotFoundError:
                path.mkdir(mode=_MODE, parents=True)
            path.chmod(_MODE)  # whatever the umask made of it
        set_ownership(path, self._context.fs_group, read_only=False)

    def is_set_up(self) -> bool:
        """Return whether the directory is there."""
        return self._context.path.is_dir()

    def mounted(self) -> MountedVolume:
        """Return the directory."""
        return MountedVolume(
            self._context.volume.name, str(self._context.path), selinux_relabel=True
        )


PART: Final = VolumePlugin(
    name="kubernetes.io/empty-dir",
    claims=lambda volume: volume.source == "emptyDir",
    make=EmptyDir,
)
