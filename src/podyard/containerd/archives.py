"""Image archives: docker-save and OCI-layout tars, read without unpacking them.

Formats: the OCI image layout, and Docker's older ``manifest.json`` archive.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, Self, TypeAlias

from podyard.lib.values import dataclass

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"

_CHUNK_BYTES: Final = 1024 * 1024
MAX_JSON_BYTES: Final = 8 * 1024 * 1024

Json: TypeAlias = dict[str, Any]


class ImageArchiveError(Exception):
    """The archive is no image, or is damaged; the message says where."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Content by digest; ``open`` gives a fresh reader of exactly ``size`` bytes."""

    digest: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What an image name points to."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """Names, what they point to, and the blobs that came along."""

    targets: Mapping[str, Descriptor]
    blobs: Mapping[str, Blob]


def digest_of(data: bytes) -> str:
    """Return the sha256 digest as image documents write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def to_json(document: Mapping[str, object]) -> bytes:
    """Return JSON that is the same for the same document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def memory_blob(data: bytes) -> Blob:
    """Return a blob held in memory."""
    return Blob(digest_of(data), len(data), lambda: io.BytesIO(data))


def architecture() -> str:
    """Return Go's name of this machine's architecture."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(
        machine, machine
    )


def entries(document: Any, key: str) -> list[Json]:
    """Return the objects of a list field; none where it is absent or odd."""
    items = document.get(key) if isinstance(document, dict) else None
    return [item for item in items or [] if isinstance(item, dict)]


class _Slice(io.RawIOBase):
    """A part of a file, read with its own position (``pread``)."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        super().__init__()
        self._fd = os.dup(fd)
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = os.pread(self._fd, min(len(view), self._end - self._at), self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class ArchiveFile:
    """An image archive on disk: a docker-save or OCI-layout tar, gzipped or not.

    Use it as a context manager; the blobs can be read only inside.
    """

    def __init__(self, path: Path) -> None:
        """Open and read the tar's table (blocking).

        Raises:
            ImageArchiveError: this is no tar, or no image is in it.
        """
        self._path = path
        self._file = self._open()
        try:
            self._members = self._table()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self) -> IO[bytes]:
        try:
            file: IO[bytes] = self._path.open("rb")
        except OSError as error:
            raise ImageArchiveError(f"{self._path}: {error.strerror}") from error
        if file.read(2) != b"\x1f\x8b":
            return file
        file.seek(0)
        plain = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - returned
        try:
            with file, gzip.GzipFile(fileobj=file) as unzipped:
                while chunk := unzipped.read(_CHUNK_BYTES):
                    plain.write(chunk)
        except (OSError, EOFError) as error:
            plain.close()
            raise ImageArchiveError(f"{self._path}: bad gzip: {error}") from error
        return plain

    def _table(self) -> dict[str, tuple[int, int]]:
        """Return name → (offset, size) of the regular files; links are resolved."""
        self._file.seek(0)
        table: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    name = os.path.normpath(member.name)
                    if member.isreg():
                        table[name] = (member.offset_data, member.size)
                    elif member.islnk():
                        links[name] = os.path.normpath(member.linkname)
                    elif member.issym():
                        beside = Path(name).parent / member.linkname
                        links[name] = os.path.normpath(beside)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ImageArchiveError(
                f"{self._path}: not a tar archive: {error}"
            ) from error
        for name, target in links.items():
            if target in table:
                table[name] = table[target]
        return table

    def read(self) -> ImageArchive:
        """Return names and blobs.

        Raises:
            ImageArchiveError: there is no image, or its parts do not fit.
        """
        if "index.json" in self._members and "oci-layout" in self._members:
            return self._read_oci()
        if "manifest.json" in self._members:
            return self._read_docker()
        raise ImageArchiveError(
            f"{self._path}: neither an OCI layout (index.json) nor the output of "
            "docker save (manifest.json)"
        )

    def _slice(self, name: str) -> Callable[[], IO[bytes]]:
        start, size = self._members[name]
        fd = self._file.fileno()
        return lambda: io.BufferedReader(_Slice(fd, start, size), _CHUNK_BYTES)

    def _load(self, name: str) -> Any:
        if name not in self._members:
            raise ImageArchiveError(f"{self._path}: {name} is missing")
        if self._members[name][1] > MAX_JSON_BYTES:
            raise ImageArchiveError(f"{self._path}: {name} is too large")
        with self._slice(name)() as source:
            try:
                return json.loads(source.read())
            except ValueError as error:
                raise ImageArchiveError(
                    f"{self._path}: {name} is not JSON: {error}"
                ) from error

    def _read_oci(self) -> ImageArchive:
        blobs = {}
        for name, (_, size) in self._members.items():
            parts = name.split("/")
            if len(parts) == 3 and parts[0] == "blobs":
                digest = f"{parts[1]}:{parts[2]}"
                blobs[digest] = Blob(digest, size, self._slice(name))
        saved = self._docker_names()
        targets: dict[str, Descriptor] = {}
        for item in entries(self._load("index.json"), "manifests"):
            target = Descriptor(
                str(item.get("mediaType", OCI_MANIFEST)),
                str(item.get("digest", "")),
                int(item.get("size", 0)),
            )
            for name in self._names(item, target, blobs, saved):
                targets[name] = target
        if not targets:
            raise ImageArchiveError(f"{self._path}: no image in it has a name")
        return ImageArchive(targets, blobs)

    def _names(
        self,
        item: Json,
        target: Descriptor,
        blobs: Mapping[str, Blob],
        saved: Mapping[str, list[str]],
    ) -> list[str]:
        """Return the names of an index entry: annotated, or as docker save tells."""
        notes = item.get("annotations") or {}
        full = notes.get("io.containerd.image.name")
        if full:
            return [full]
        if target.digest in blobs:
            with blobs[target.digest].open() as source:
                manifest = json.loads(source.read(MAX_JSON_BYTES))
            config = (manifest.get("config") or {}).get("digest", "")
            if saved.get(config):
                return saved[config]
        reference = notes.get("org.opencontainers.image.ref.name", "")
        return [normal_name(reference)] if "/" in reference or ":" in reference else []

    def _docker_names(self) -> dict[str, list[str]]:
        if "manifest.json" not in self._members:
            return {}
        names: dict[str, list[str]] = {}
        for item in self._load("manifest.json"):
            path = str(item.get("Config", ""))
            digest = f"sha256:{path.rpartition('/')[2].removesuffix('.json')}"
            tags = item.get("RepoTags") or []
            names[digest] = [normal_name(tag) for tag in tags]
        return names

    def _read_docker(self) -> ImageArchive:
        targets: dict[str, Descriptor] = {}
        blobs: dict[str, Blob] = {}
        for item in self._load("manifest.json"):
            config = self._blob(str(item.get("Config", "")))
            layers = [self._blob(str(path)) for path in item.get("Layers") or []]
            manifest = to_json(
                {
                    "schemaVersion": 2,
                    "mediaType": DOCKER_MANIFEST,
                    "config": {
                        "mediaType": "application/vnd.docker.container.image.v1+json",
                        "digest": config.digest,
                        "size": config.size,
                    },
                    "layers": [
                        {
                            "mediaType": _docker_layer_type(layer),
                            "digest": layer.digest,
                            "size": layer.size,
                        }
                        for layer in layers
                    ],
                }
            )
            made = memory_blob(manifest)
            blobs |= {blob.digest: blob for blob in (config, *layers, made)}
            target = Descriptor(DOCKER_MANIFEST, made.digest, made.size)
            for tag in item.get("RepoTags") or []:
                targets[normal_name(tag)] = target
        if not targets:
            raise ImageArchiveError(f"{self._path}: no image in it has a name")
        return ImageArchive(targets, blobs)

    def _blob(self, name: str) -> Blob:
        name = os.path.normpath(name)
        if name not in self._members:
            raise ImageArchiveError(f"{self._path}: {name} is missing")
        opener = self._slice(name)
        digest = hashlib.sha256()
        with opener() as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
        return Blob(f"sha256:{digest.hexdigest()}", self._members[name][1], opener)


def normal_name(reference: str) -> str:
    """Return a full image name, as Docker understands short ones."""
    name, at, digest = reference.partition("@")
    first, slash, _ = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return f"{name}{at}{digest}"


def _docker_layer_type(layer: Blob) -> str:
    kind = "application/vnd.docker.image.rootfs.diff.tar"
    with layer.open() as source:
        return f"{kind}.gzip" if source.read(2) == b"\x1f\x8b" else kind
