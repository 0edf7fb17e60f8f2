"""Writes a volume's files so that a reader sees the old set or the new, never a mix.

All files of a content are in one dated directory; ``..data`` is a symlink to it that
is swapped by a rename, and every visible name is a symlink through ``..data``.

Nothing here follows a symlink or leaves the volume's directory, whatever a container
may have put there: every step is relative to a descriptor of the directory.

Source: the layout of https://kubernetes.io/docs/concepts/storage/volumes/#configmap
and ``pkg/volume/util/atomic_writer`` (v1.36).
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from podyard.lib.linux import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
    remove_tree,
)
from podyard.node.volumes.build import FileProjection, check_path

DATA_LINK: Final = "..data"
_NEW_DATA_LINK: Final = "..data_tmp"
_DATED: Final = re.compile(r"\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+")
_INSIDE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DIRECTORY_MODE: Final = 0o755
_MAX_DEPTH: Final = 128
#: What fsGroup adds: reading for its group; setgid on directories.
_GROUP_FILE_BITS: Final = 0o440
_GROUP_DIRECTORY_BITS: Final = 0o2550


def write_payload(
    directory: Path,
    payload: Mapping[str, FileProjection],
    *,
    stamp: str,
    fs_group: int | None = None,
) -> bool:
    """Make a volume show exactly these files.

    Args:
        directory: the volume's own directory; it exists.
        payload: files by relative path.
        stamp: the time now as ``2006_01_02_15_04_05.123456789``, for the dated name.
        fs_group: the group everything belongs to, if any.

    Returns:
        Whether anything changed.

    Raises:
        PayloadError: a path leads out of the volume.
        OSError: the filesystem refused.
    """
    for path in payload:
        check_path(path)
    with _opened(directory) as root:
        return _Writer(root, payload, fs_group).write(stamp)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    root = os.open(directory, flags)
    try:
        yield root
    finally:
        os.close(root)


class _Writer:
    def __init__(
        self, root: int, payload: Mapping[str, FileProjection], fs_group: int | None
    ) -> None:
        self._root = root
        self._payload = payload
        self._fs_group = fs_group

    def write(self, stamp: str) -> bool:
        self._own_directory(self._root)
        current = self._current()
        if current and self._matches(current):
            self._show()
            self._sweep(current)
            return False
        dated = f"..{stamp}"
        remove_tree(self._root, dated)
        os.mkdir(dated, _DIRECTORY_MODE, dir_fd=self._root)
        try:
            self._fill(dated)
            remove_tree(self._root, _NEW_DATA_LINK)
            os.symlink(dated, _NEW_DATA_LINK, dir_fd=self._root)
            self._unblock(DATA_LINK)
            os.rename(
                _NEW_DATA_LINK,
                DATA_LINK,
                src_dir_fd=self._root,
                dst_dir_fd=self._root,
            )
        except BaseException:
            remove_tree(self._root, dated)
            raise
        self._show()
        self._sweep(dated)
        return True

    def _current(self) -> str:
        """Return the dated directory shown now; empty where there is none of ours."""
        try:
            target = os.readlink(DATA_LINK, dir_fd=self._root)
        except OSError:
            return ""
        return target if _DATED.fullmatch(target) else ""

    def _matches(self, dated: str) -> bool:
        try:
            top = openat2(self._root, dated, os.O_RDONLY | os.O_DIRECTORY, _INSIDE)
        except OSError:
            return False
        try:
            found = dict(_walk(top, ""))
            return set(found) == set(self._payload) and all(
                self._same(top, path, found[path]) for path in self._payload
            )
        except OSError:
            return False
        finally:
            os.close(top)

    def _same(self, top: int, path: str, info: os.stat_result) -> bool:
        wanted = self._payload[path]
        if (
            stat.S_IMODE(info.st_mode) != self._file_mode(wanted)
            or info.st_size != len(wanted.data)
            or info.st_uid != (wanted.uid or 0)
            or (self._fs_group is not None and info.st_gid != self._fs_group)
        ):
            return False
        fd = openat2(top, path, os.O_RDONLY | os.O_NONBLOCK, _INSIDE)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            return file.read(len(wanted.data) + 1) == wanted.data

    def _file_mode(self, file: FileProjection) -> int:
        return file.mode | (0 if self._fs_group is None else _GROUP_FILE_BITS)

    def _fill(self, dated: str) -> None:
        top = openat2(self._root, dated, os.O_RDONLY | os.O_DIRECTORY, _INSIDE)
        try:
            os.fchmod(top, _DIRECTORY_MODE)
            self._own_directory(top)
            made: set[str] = set()
            for path in sorted(self._payload):
                self._make_parents(top, path, made)
                self._write_file(top, path, self._payload[path])
        finally:
            os.close(top)

    def _make_parents(self, top: int, path: str, made: set[str]) -> None:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            if parent in made:
                continue
            os.mkdir(parent, _DIRECTORY_MODE, dir_fd=top)
            fd = openat2(top, parent, os.O_RDONLY | os.O_DIRECTORY, _INSIDE)
            try:
                os.fchmod(fd, _DIRECTORY_MODE)
                self._own_directory(fd)
            finally:
                os.close(fd)
            made.add(parent)

    def _write_file(self, top: int, path: str, file: FileProjection) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = openat2(top, path, flags, _INSIDE, mode=0o600)
        try:
            view = memoryview(file.data)
            while view:
                view = view[os.write(fd, view) :]
            if self._fs_group is not None or file.uid is not None:
                gid = -1 if self._fs_group is None else self._fs_group
                os.fchown(fd, -1 if file.uid is None else file.uid, gid)
            os.fchmod(fd, self._file_mode(file))
        finally:
            os.close(fd)

    def _own_directory(self, fd: int) -> None:
        if self._fs_group is None:
            return
        info = os.fstat(fd)
        mode = stat.S_IMODE(info.st_mode)
        if info.st_gid != self._fs_group:
            os.fchown(fd, -1, self._fs_group)
        if mode | _GROUP_DIRECTORY_BITS != mode or info.st_gid != self._fs_group:
            os.fchmod(fd, mode | _GROUP_DIRECTORY_BITS)

    def _show(self) -> None:
        """Have a symlink through ``..data`` for each top-level name."""
        for name in {path.split("/")[0] for path in self._payload}:
            target = f"{DATA_LINK}/{name}"
            try:
                if os.readlink(name, dir_fd=self._root) == target:
                    continue
            except OSError:
                pass
            remove_tree(self._root, name)
            os.symlink(target, name, dir_fd=self._root)

    def _unblock(self, name: str) -> None:
        """Remove a directory where a symlink belongs; a rename cannot replace it."""
        with suppress(FileNotFoundError):
            info = os.stat(name, dir_fd=self._root, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                remove_tree(self._root, name)

    def _sweep(self, dated: str) -> None:
        """Remove every name that does not belong to the content shown."""
        keep = {path.split("/")[0] for path in self._payload} | {DATA_LINK, dated}
        with os.scandir(self._root) as entries:
            stale = [entry.name for entry in entries if entry.name not in keep]
        for name in stale:
            remove_tree(self._root, name)


def _walk(directory: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a directory with what the kernel says of each.

    Raises:
        OSError: there is something in it that we did not write.
    """
    for name in os.listdir(directory):
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        path = f"{prefix}{name}"
        if stat.S_ISREG(info.st_mode):
            yield path, info
        elif stat.S_ISDIR(info.st_mode) and path.count("/") < _MAX_DEPTH:
            fd = openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY, _INSIDE)
            try:
                yield from _walk(fd, f"{path}/")
            finally:
                os.close(fd)
        else:
            raise OSError(0, "not ours", path)
