"""Rules of file paths inside volumes.

Source: ``pkg/apis/core/validation`` (v1.36), and the path traversal cases of
https://kubernetes.io/docs/concepts/storage/volumes/#using-subpath
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.errors import FieldError, invalid

#: What a hostPath may say it expects.
HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def check_no_backsteps(field: str, path: str) -> Iterator[FieldError]:
    """Refuse a path with an element ``..``."""
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def check_descending(field: str, path: str) -> Iterator[FieldError]:
    """Refuse an absolute path, and one that leads up."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from check_no_backsteps(field, path)


def check_local(field: str, path: str) -> Iterator[FieldError]:
    """Refuse what leads up, and names the kubelet keeps for itself (``..data``)."""
    yield from check_descending(field, path)
    if path.startswith("..") and not path.startswith("../"):
        yield invalid(field, path, "must not start with '..'")
