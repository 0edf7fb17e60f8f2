"""Linux system calls Python has no name for: mounts, openat2, mount tables.

Every call blocks in the kernel; callers that must not wait run them in a thread.
No process is started.
"""

import ctypes
import errno
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from podyard.lib.values import dataclass

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

RENAME_EXCHANGE: Final = 2

_SYS_OPENAT2: Final = 437
_SYS_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276}.get(platform.machine(), 276)
_AT_FDCWD: Final = -100
#: A lookup that races with a rename is told to try again; so often at most.
_OPENAT2_TRIES: Final = 128
#: Deeper directories are moved up before they are removed, to save descriptors.
_REMOVAL_DEPTH: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _raise(path: str | os.PathLike[str]) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), os.fspath(path))


def _encoded(path: str | os.PathLike[str]) -> bytes:
    """Return a path for the kernel, which would take what stands before a NUL."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fspath(path))
    return encoded


def mount(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    fstype: str = "",
    flags: int = 0,
    data: str = "",
) -> None:
    """Attach a filesystem, or change how one is attached.

    Raises:
        OSError: the kernel refused.
    """
    result = _libc.mount(
        _encoded(source),
        _encoded(target),
        fstype.encode() or None,
        flags,
        data.encode() or None,
    )
    if result:
        _raise(target)


def unmount(target: str | os.PathLike[str], flags: int = UMOUNT_NOFOLLOW) -> None:
    """Unmount, as umount2(2) does.

    Raises:
        OSError: the kernel refused (``EINVAL``: not a mount point).
    """
    if _libc.umount2(_encoded(target), flags):
        _raise(target)


def openat2(
    directory: int, path: str, flags: int, resolve: int, *, mode: int = 0
) -> int:
    """Open a path below a directory under the resolve rules of openat2.

    Args:
        directory: a file descriptor of the directory to start from.
        path: a relative path.
        flags: ``O_*`` flags; ``O_CLOEXEC`` is added.
        resolve: ``RESOLVE_*`` flags.
        mode: permissions of a file that ``O_CREAT`` makes.

    Returns:
        A new file descriptor.

    Raises:
        OSError: the path breaks a rule (``EXDEV``, ``ELOOP``), or another fault;
            ``ENOSYS`` on kernels before 5.6.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_OPENAT2_TRIES):
        result = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(_encoded(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if result >= 0:
            return int(result)
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    _raise(path)
    raise AssertionError  # unreachable; tells the type checker so


def rename_exchange(first: str, second: str) -> None:
    """Swap two names in one step, as renameat2 does.

    Raises:
        OSError: the kernel refused.
    """
    result = _libc.syscall(
        ctypes.c_long(_SYS_RENAMEAT2),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(_encoded(first)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(_encoded(second)),
        ctypes.c_uint(RENAME_EXCHANGE),
    )
    if result:
        _raise(first)


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of the mount table.

    Attributes:
        mount_point: where it is.
        root: which directory of its filesystem it shows.
        shared: whether mounts made in it reach its peers.
        receives: whether mounts made by a peer or master reach it.
        fstype: the filesystem type.
        super_options: the filesystem's own options.
    """

    mount_point: str
    root: str
    shared: bool
    receives: bool
    fstype: str
    super_options: tuple[str, ...]


def read_mounts(under: str | os.PathLike[str] = "/") -> list[MountInfo]:
    """Return the mounts at or below a directory, in the order they were made.

    Args:
        under: an absolute path without symlinks.
    """
    prefix = os.fspath(under).rstrip("/")
    raw = Path("/proc/self/mountinfo").read_bytes()
    if prefix and _escape(prefix) not in raw:
        return []
    return [
        mount_
        for mount_ in _parse_mountinfo(raw)
        if mount_.mount_point == prefix or mount_.mount_point.startswith(f"{prefix}/")
    ]


def mount_of(path: str | os.PathLike[str]) -> MountInfo:
    """Return the mount an absolute path without symlinks lies on."""
    text = os.fspath(path)
    best: MountInfo | None = None
    for mount_ in _parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()):
        point = mount_.mount_point.rstrip("/")
        if (text == point or text.startswith(f"{point}/")) and (
            best is None or len(mount_.mount_point) >= len(best.mount_point)
        ):
            best = mount_
    assert best is not None  # there is always a root mount
    return best


def unmount_below(directory: Path) -> int:
    """Unmount what is mounted below a directory, the newest first.

    The directory itself may be a mount and stays.

    Returns:
        How many mounts went.

    Raises:
        OSError: one of them cannot be unmounted.
    """
    points = [
        found.mount_point
        for found in read_mounts(directory)
        if found.mount_point != str(directory)
    ]
    for point in reversed(points):
        try:
            unmount(point, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise
    return len(points)


def _escape(path: str) -> bytes:
    raw = os.fsencode(path)
    for char in b"\\ \t\n":
        raw = raw.replace(bytes((char,)), f"\\{char:03o}".encode())
    return raw


def _unescape(field: bytes) -> str:
    if b"\\" in field:
        for char in b" \t\n\\":
            field = field.replace(f"\\{char:03o}".encode(), bytes((char,)))
    return os.fsdecode(field)


def _parse_mountinfo(raw: bytes) -> Iterator[MountInfo]:
    for line in raw.splitlines():
        fields = line.split(b" ")
        dash = fields.index(b"-", 6)
        optional = fields[6:dash]
        shared = any(tag.startswith(b"shared:") for tag in optional)
        yield MountInfo(
            mount_point=_unescape(fields[4]),
            root=_unescape(fields[3]),
            shared=shared,
            receives=shared or any(tag.startswith(b"master:") for tag in optional),
            fstype=fields[dash + 1].decode(),
            super_options=tuple(fields[dash + 3].decode().split(",")),
        )


def remove_path(path: Path) -> None:
    """Remove a file or a whole directory, as :func:`remove_tree` does.

    Raises:
        OSError: see there. One that is not there, or whose parent is not, is removed
            already.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)


def remove_tree(directory: int, name: str) -> None:
    """Remove a file or a whole directory below an open directory.

    Follows no symlink and never goes into another mount, so nothing that a
    container put in the way can lead the removal elsewhere; a tree may be of any
    depth. What others remove meanwhile is removed.

    Raises:
        OSError: something could not be removed; ``EXDEV`` or ``EBUSY`` when a mount
            is in the way. What could be removed before is gone.
    """
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(name, dir_fd=directory)
            return
        top = _open_for_removal(directory, name)
        try:
            while _empty(top):
                pass
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=directory)


def _open_for_removal(directory: int, name: str) -> int:
    return openat2(
        directory,
        name,
        os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
        RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    )


def _empty(top: int) -> bool:
    """Empty a directory; return whether deep parts were moved up and still wait."""
    moved = False
    frames = [(top, "", _unlink_files(top))]
    try:
        while frames:
            fd, name, subdirectories = frames[-1]
            if not subdirectories:
                frames.pop()
                if frames:
                    os.close(fd)
                    with suppress(FileNotFoundError):
                        os.rmdir(name, dir_fd=frames[-1][0])
                continue
            child = subdirectories.pop()
            if len(frames) > _REMOVAL_DEPTH:
                lifted = f".removing-{os.urandom(8).hex()}"
                with suppress(FileNotFoundError):
                    os.rename(child, lifted, src_dir_fd=fd, dst_dir_fd=top)
                moved = True
                continue
            try:
                opened = _open_for_removal(fd, child)
            except FileNotFoundError:
                continue
            frames.append((opened, child, []))
            frames[-1][2].extend(_unlink_files(opened))
    finally:
        for fd, _, _ in frames[1:]:
            os.close(fd)
    return moved


def _unlink_files(fd: int) -> list[str]:
    """Remove what is no directory; return the directories' names."""
    with os.scandir(fd) as entries:
        listed = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in listed:
        if not is_directory:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    return [name for name, is_directory in listed if is_directory]
