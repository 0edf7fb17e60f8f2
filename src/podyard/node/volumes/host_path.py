"""``hostPath``: something of the node's own, checked for its type.

Source: https://kubernetes.io/docs/concepts/storage/volumes/#hostpath
"""

import stat
from pathlib import Path
from typing import Final

from podyard.node.volumes.parts import MountedVolume, SetUpError, VolumeContext

_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
#: Type → what must be true of the file's mode, and how messages call it.
_CHECKS: Final = {
    "Directory": (stat.S_ISDIR, "directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
    "File": (lambda mode: not stat.S_ISDIR(mode), "file"),
    "FileOrCreate": (lambda mode: not stat.S_ISDIR(mode), "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


class HostPath:
    """Nothing is mounted and nothing is ever removed."""

    refresh_at_s: float | None = None

    def __init__(self, context: VolumeContext) -> None:
        self._name = context.volume.name
        self._path = str(context.volume.spec.get("path") or "")
        self._type = str(context.volume.spec.get("type") or "")

    async def prepare(self) -> bytes:
        """Check the path itself."""
        if ".." in self._path.split("/"):
            raise SetUpError(f"invalid HostPath `{self._path}`: must not contain '..'")
        if "\0" in self._path:
            raise SetUpError(f"invalid HostPath {self._path!r}: holds a NUL byte")
        return f"{self._type} {self._path}".encode()

    def set_up(self) -> None:
        """Check the type, making what may be made."""
        if not self._type:
            return
        if self._type not in _CHECKS:
            raise SetUpError(f"{self._type} is an invalid volume type")
        path = Path(self._path)
        mode = _mode(path)
        if mode is None and self._type == "DirectoryOrCreate":
            path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            return
        if mode is None and self._type == "FileOrCreate":
            path.touch(mode=_FILE_MODE)
            return
        fits, called = _CHECKS[self._type]
        if mode is None or not fits(mode):
            raise SetUpError(
                f"hostPath type check failed: {self._path} is not a {called}"
            )

    def is_set_up(self) -> bool:
        """Return false: the type is checked until it fits."""
        return False

    def mounted(self) -> MountedVolume:
        """Return the path as the Pod gave it."""
        return MountedVolume(self._name, self._path)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
