"""Files of configMap, secret, downwardAPI and projected volumes, as data.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/ and
``pkg/volume`` (v1.36).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final, TypeAlias

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.downward import DownwardError, metadata_field, resource_field
from podyard.api.quantity import parse_quantity
from podyard.api.resources import MEMORY, container_limits, pod_limits
from podyard.lib.values import dataclass

DEFAULT_MODE: Final = 0o644
#: A token file is its reader's alone where the Pod says who that is.
TOKEN_MODE: Final = 0o600
MAX_PATH: Final = 4096
MAX_NAME: Final = 253
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")


class PayloadError(Exception):
    """The files cannot be had; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class FileProjection:
    """One file. Its repr hides the content.

    Attributes:
        data: the content.
        mode: permission bits.
        uid: its owner; ``None`` is root.
    """

    data: bytes = field(repr=False)
    mode: int = DEFAULT_MODE
    uid: int | None = None


#: Files by path relative to the volume.
Payload: TypeAlias = dict[str, FileProjection]


def fingerprint(payload: Mapping[str, FileProjection], *, salt: str = "") -> bytes:
    """Return a digest that differs when a file, mode or owner does."""
    digest = hashlib.sha256(salt.encode())
    for path in sorted(payload):
        file = payload[path]
        head = f"{path}\0{file.mode}\0{file.uid}\0{len(file.data)}\0"
        digest.update(head.encode())
        digest.update(file.data)
    return digest.digest()


def check_path(path: str) -> None:
    """Check a file's path inside a volume.

    Raises:
        PayloadError: it could lead out of the volume, or is no file name.
    """
    if not path:
        raise PayloadError("invalid path: must not be empty")
    if path.startswith("/"):
        raise PayloadError(f"invalid path: must be relative path: {path}")
    if len(path) > MAX_PATH:
        raise PayloadError(
            f"invalid path: must be less than or equal to {MAX_PATH} characters"
        )
    parts = path.split("/")
    if ".." in parts:
        raise PayloadError(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise PayloadError(f"invalid path: must not start with '..': {path}")
    if "\0" in path or any(part in {"", "."} for part in parts):
        raise PayloadError(f"invalid path: {path!r}")
    if any(len(part.encode()) > 255 for part in parts):
        raise PayloadError("invalid path: filenames must be at most 255 bytes long")


def check_key(key: str) -> None:
    """Check a key of a ConfigMap or Secret that becomes a file name.

    Raises:
        PayloadError: the API would not have taken it.
    """
    if not _KEY.fullmatch(key) or len(key) > MAX_NAME or key == ".":
        raise PayloadError(f"invalid key {key!r}: must be a valid file name")
    check_path(key)


def config_map_files(
    document: Document | None,
    *,
    name: str,
    items: Iterable[Document] | None,
    default_mode: int | None,
    optional: bool,
) -> Payload:
    """Return the files of a ConfigMap.

    Args:
        document: the ConfigMap, or ``None`` where it does not exist.
        name: its name.
        items: which keys go where; ``None`` or empty takes every key.
        default_mode: mode of files that name none.
        optional: whether the ConfigMap and its keys may be missing.

    Raises:
        PayloadError: it, or a key, is missing.
    """
    if document is None:
        if optional:
            return {}
        raise PayloadError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (document.get("data") or {}).items()}
    for key, value in (document.get("binaryData") or {}).items():
        data[key] = _decode(value)
    missing = "configmap references non-existent config key: {}"
    return _project(data, items, default_mode, optional=optional, missing=missing)


def secret_files(
    document: Document | None,
    *,
    name: str,
    items: Iterable[Document] | None,
    default_mode: int | None,
    optional: bool,
) -> Payload:
    """Return the files of a Secret; arguments as for :func:`config_map_files`.

    Raises:
        PayloadError: it, or a key, is missing.
    """
    if document is None:
        if optional:
            return {}
        raise PayloadError(f'secret "{name}" not found')
    data = {key: _decode(v) for key, v in (document.get("data") or {}).items()}
    missing = "references non-existent secret key: {}"
    return _project(data, items, default_mode, optional=optional, missing=missing)


def _decode(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "")
    except binascii.Error as error:
        raise PayloadError("a value is not base64") from error


def _project(
    data: Mapping[str, bytes],
    items: Iterable[Document] | None,
    default_mode: int | None,
    *,
    optional: bool,
    missing: str,
) -> Payload:
    mode = DEFAULT_MODE if default_mode is None else default_mode
    files: Payload = {}
    chosen = list(items or ())
    if not chosen:
        for key, value in data.items():
            check_key(key)
            files[key] = FileProjection(value, mode)
        return files
    for item in chosen:
        key, path = item.get("key", ""), item.get("path", "")
        if key not in data:
            if optional:
                continue
            raise PayloadError(missing.format(key))
        check_path(path)
        files[path] = FileProjection(data[key], _mode(item, mode))
    return files


def _mode(item: Document, default: int) -> int:
    mode = item.get("mode")
    return default if mode is None else int(mode)


def downward_files(
    pod: Pod,
    items: Iterable[Document],
    *,
    default_mode: int | None,
    node_allocatable: Mapping[str, str],
) -> Payload:
    """Return the files of a downwardAPI volume.

    Raises:
        PayloadError: a field cannot be told.
    """
    mode = DEFAULT_MODE if default_mode is None else default_mode
    files: Payload = {}
    for item in items:
        path = item.get("path", "")
        check_path(path)
        try:
            if (selector := item.get("fieldRef")) is not None:
                text = metadata_field(pod, str(selector.get("fieldPath", "")))
            else:
                text = resource_field(
                    pod,
                    None,
                    item.get("resourceFieldRef") or {},
                    node_allocatable=node_allocatable,
                )
        except DownwardError as error:
            raise PayloadError(str(error)) from error
        files[path] = FileProjection(text.encode(), _mode(item, mode))
    return files


def token_file(pod: Pod, token: str, *, default_mode: int | None) -> FileProjection:
    """Return a ServiceAccount token's file, readable for whom the Pod runs as."""
    uid = sole_user(pod)
    mode = DEFAULT_MODE if default_mode is None else default_mode
    if uid is not None or pod.spec.security_context.get("fsGroup") is not None:
        mode = TOKEN_MODE
    return FileProjection(token.encode(), mode, uid)


def sole_user(pod: Pod) -> int | None:
    """Return the one user all containers run as; ``None`` where there is none."""
    pod_wide = pod.spec.security_context.get("runAsUser")
    users = {
        (c.security_context or {}).get("runAsUser", pod_wide)
        for c in pod.all_containers()
    }
    only = users.pop() if len(users) == 1 else None
    return None if only is None else int(only)


def memory_volume_bytes(
    pod: Pod, *, size_limit: str | None, node_memory: str | None
) -> int:
    """Return how large a memory-backed emptyDir may grow; 0 where nothing says.

    The least of the node's allocatable memory, the Pod's memory limit and the
    volume's own limit.

    Raises:
        QuantityError: an amount is no quantity.
    """
    sizes = []
    if node_memory:
        sizes.append(parse_quantity(node_memory).value)
    if _limits_memory(pod):
        sizes.append(pod_limits(pod.document)[MEMORY].value)
    if size_limit is not None:
        sizes.append(parse_quantity(size_limit).value)
    return min((size for size in sizes if size > 0), default=0)


def _limits_memory(pod: Pod) -> bool:
    if pod.spec.resources is not None and MEMORY in pod.spec.resources.limits:
        return True
    listed: tuple[Container, ...] = pod.spec.containers + pod.spec.init_containers
    return bool(listed) and all(
        container_limits(c.document).get(MEMORY) for c in listed
    )


def hugepage_size(pod: Pod, medium: str) -> str:
    """Return the page size of a HugePages medium, as ``2Mi``.

    Raises:
        PayloadError: the Pod does not ask for exactly one size.
    """
    named = medium.removeprefix("HugePages").removeprefix("-")
    asked = {
        name.removeprefix("hugepages-")
        for container in pod.spec.containers + pod.spec.init_containers
        for name in (*container.resources.limits, *container.resources.requests)
        if name.startswith("hugepages-")
    }
    if named:
        if named in asked:
            return named
        raise PayloadError(f"medium {medium}: the Pod asks for no such huge pages")
    if len(asked) != 1:
        raise PayloadError(
            f"medium {medium}: the Pod must ask for huge pages of exactly one size"
        )
    return asked.pop()
