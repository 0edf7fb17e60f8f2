"""Mounts of volumes: shared data directory, tmpfs, subPaths, and their removal.

Everything here blocks and is called in a thread.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from podyard.api.runtime import MountPropagation
from podyard.lib.linux import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REC,
    MS_SHARED,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    UMOUNT_NOFOLLOW,
    mount,
    mount_of,
    openat2,
    read_mounts,
    remove_tree,
    unmount,
)
from podyard.node.volumes.parts import SetUpError

#: A symlink in a volume may lead anywhere inside it and nowhere else.
_INSIDE_VOLUME: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
_STEP: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_SUBPATH_PARENT_MODE: Final = 0o750

_noswap_works = True


def ensure_shared(directory: Path) -> bool:
    """Make mounts made below a directory visible to containers that ask for it.

    Where the mount it lies on is shared already there is nothing to do; elsewhere
    the directory is bind-mounted onto itself and that mount is made shared.

    Returns:
        Whether the directory is a mount of its own because of this (now or before).

    Raises:
        OSError: the kernel refused.
    """
    path = directory.resolve()
    found = mount_of(path)
    if found.mount_point != str(path):
        if found.shared:
            return False
        mount(path, path, flags=MS_BIND | MS_REC)
    elif found.shared:
        return True
    mount("", path, flags=MS_SHARED | MS_REC)
    return True


def release_shared(directory: Path) -> None:
    """Undo :func:`ensure_shared`; a directory that is no mount is left alone.

    Raises:
        OSError: something is still mounted below.
    """
    path = str(directory.resolve())
    while mount_of(path).mount_point == path:
        unmount(path)


def is_mount_point(path: Path) -> bool:
    """Return whether another filesystem is mounted at a directory."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def ensure_tmpfs(path: Path, *, size_bytes: int = 0, secret: bool = False) -> None:
    """Have a tmpfs at a directory, which is made if need be.

    Args:
        path: where.
        size_bytes: how large it may grow; 0 leaves the kernel's default.
        secret: it holds secrets: no devices, no setuid.

    Raises:
        OSError: the kernel refused.
    """
    global _noswap_works  # noqa: PLW0603 - what this kernel can do, found out once
    path.mkdir(mode=0o777, parents=True, exist_ok=True)
    if is_mount_point(path):
        return
    options = [f"size={size_bytes}"] if size_bytes else []
    flags = MS_NOSUID | MS_NODEV if secret else 0
    if _noswap_works:
        try:
            mount("tmpfs", path, "tmpfs", flags, ",".join([*options, "noswap"]))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _noswap_works = False
        else:
            return
    mount("tmpfs", path, "tmpfs", flags, ",".join(options))


def ensure_hugetlbfs(path: Path, *, page_size: str) -> None:
    """Have a hugetlbfs at a directory, which is made if need be.

    Raises:
        OSError: the kernel refused.
    """
    path.mkdir(mode=0o777, parents=True, exist_ok=True)
    if not is_mount_point(path):
        size = page_size.removesuffix("i")
        mount("nodev", path, "hugetlbfs", data=f"pagesize={size}")


def prepare_sub_path(root: str, sub_path: str, target: Path) -> None:
    """Bind a path inside a volume to a stable place, safe against symlink races.

    The path is resolved once, by the kernel, without leaving the volume; what is
    bound is the file that was found, whatever its name points to later. A missing
    directory is made with the volume's mode.

    Args:
        root: the volume's directory.
        sub_path: a relative path without ``..``.
        target: where to bind it; what an earlier container had there is replaced.

    Raises:
        OSError: the path leads out of the volume, or another fault.
    """
    volume = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = [part for part in sub_path.split("/") if part not in {"", "."}]
        found = _open_or_make(volume, parts)
    finally:
        os.close(volume)
    try:
        _make_target(target, is_directory=stat.S_ISDIR(os.fstat(found).st_mode))
        mount(f"/proc/self/fd/{found}", target, flags=MS_BIND | MS_REC)
    finally:
        os.close(found)


def _open_or_make(volume: int, parts: list[str]) -> int:
    try:
        return openat2(volume, "/".join(parts) or ".", os.O_PATH, _INSIDE_VOLUME)
    except FileNotFoundError:
        pass
    mode = stat.S_IMODE(os.fstat(volume).st_mode)
    current, rest = _open_deepest(volume, parts)
    try:
        for part in rest:
            with suppress(FileExistsError):
                os.mkdir(part, mode, dir_fd=current)
            below = openat2(current, part, os.O_RDONLY | os.O_DIRECTORY, _STEP)
            os.close(current)
            current = below
            os.fchmod(current, mode)
    except BaseException:
        os.close(current)
        raise
    return current


def _open_deepest(volume: int, parts: list[str]) -> tuple[int, list[str]]:
    """Open the longest part of a path that exists; return it and the rest."""
    flags = os.O_PATH | os.O_DIRECTORY
    for count in range(len(parts) - 1, 0, -1):
        with suppress(FileNotFoundError):
            found = openat2(volume, "/".join(parts[:count]), flags, _INSIDE_VOLUME)
            return found, parts[count:]
    return openat2(volume, ".", flags, _INSIDE_VOLUME), parts


def _make_target(target: Path, *, is_directory: bool) -> None:
    target.parent.mkdir(mode=_SUBPATH_PARENT_MODE, parents=True, exist_ok=True)
    try:
        while True:
            unmount(target, MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT}:
            raise
    with suppress(FileNotFoundError):
        if target.is_dir() and not is_directory:
            target.rmdir()
        elif not target.is_dir() and is_directory:
            target.unlink()
    if is_directory:
        target.mkdir(mode=_SUBPATH_PARENT_MODE, exist_ok=True)
    else:
        target.touch(mode=0o640)


def is_bound_at(target: Path) -> bool:
    """Return whether something is mounted at just this place."""
    place = str(target)
    return any(found.mount_point == place for found in read_mounts(target))


def make_below(root: Path, parts: tuple[str, ...], *, mode: int) -> None:
    """Make a directory below another, following no symlink on the way.

    Args:
        root: made if need be, for its owner alone.
        parts: the names from there; the directories above the last are for all to
            pass.
        mode: permission bits of the last, where it is new.

    Raises:
        OSError: something is in the way.
    """
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    current = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts, 1):
            is_new = True
            try:
                os.mkdir(part, 0o711, dir_fd=current)
            except FileExistsError:
                is_new = False
            below = openat2(current, part, os.O_RDONLY | os.O_DIRECTORY, _STEP)
            os.close(current)
            current = below
            if is_new and number == len(parts):
                os.fchmod(current, mode)
    finally:
        os.close(current)


def check_propagation(volume: str, path: str, propagation: MountPropagation) -> None:
    """Check that a mount can propagate as asked.

    Raises:
        SetUpError: the mount it lies on does not; the message says what to do.
    """
    if propagation is MountPropagation.PRIVATE:
        return
    found = mount_of(Path(path).resolve())
    both_ways = propagation is MountPropagation.BIDIRECTIONAL
    if found.shared or (found.receives and not both_ways):
        return
    name = "Bidirectional" if both_ways else "HostToContainer"
    raise SetUpError(
        f'volume "{volume}" asks for mountPropagation {name}, but {path} is on the '
        f"mount {found.mount_point}, which is not shared "
        f"(mount --make-rshared {found.mount_point} on the node makes it so)"
    )


def set_ownership(
    path: Path, fs_group: int | None, *, read_only: bool, on_mismatch: bool = False
) -> None:
    """Give a volume's files to the Pod's group.

    Args:
        path: the volume's directory.
        fs_group: the group; ``None`` changes nothing.
        read_only: whether the group may only read.
        on_mismatch: leave everything where the directory itself fits already
            (fsGroupChangePolicy OnRootMismatch).

    Raises:
        OSError: the kernel refused.
    """
    if fs_group is None:
        return
    bits = 0o440 if read_only else 0o660
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if on_mismatch and _fits(top, fs_group, bits):
            return
        for _, directories, files, fd in os.fwalk(".", dir_fd=top):
            for name in (*files, *directories):
                _own(name, fd, fs_group, bits)
        _own(".", top, fs_group, bits)
    finally:
        os.close(top)


def _fits(top: int, fs_group: int, bits: int) -> bool:
    info = os.fstat(top)
    wanted = bits | 0o2110
    return info.st_gid == fs_group and info.st_mode & wanted == wanted


def _own(name: str, directory: int, fs_group: int, bits: int) -> None:
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    os.chown(name, -1, fs_group, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return
    extra = bits | (0o2110 if stat.S_ISDIR(info.st_mode) else 0)
    fd = openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, _STEP)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(info.st_mode) | extra)  # noqa: PTH101
    finally:
        os.close(fd)


def take_down(pod_dir: Path, names: Iterable[str]) -> None:
    """Unmount everything below some directories of a Pod, then remove them.

    Never deletes across a mount: what could not be unmounted stays, with an error.

    Raises:
        OSError: something could not be unmounted or removed.
    """
    try:
        directory = os.open(pod_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for name in names:
            for found in reversed(read_mounts(pod_dir / name)):
                _unmount(found.mount_point)
            remove_tree(directory, name)
    finally:
        os.close(directory)


def _unmount(point: str) -> None:
    try:
        unmount(point)
    except OSError as error:
        if error.errno == errno.EBUSY:
            unmount(point, MNT_DETACH | UMOUNT_NOFOLLOW)
        elif error.errno not in {errno.EINVAL, errno.ENOENT}:
            raise
