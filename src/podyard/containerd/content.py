"""Look into containerd's content store: what is in it, and save images from it."""

import asyncio
import hashlib
import json
import tarfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import field
from datetime import UTC, datetime
from typing import IO, Final

from podyard.containerd.archives import (
    DOCKER_LIST,
    MAX_JSON_BYTES,
    OCI_INDEX,
    Descriptor,
    Json,
    entries,
    to_json,
)
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.proto import podyard_containerd_pb2 as pb
from podyard.lib.values import dataclass

_CONTENT: Final = "/containerd.services.content.v1.Content/"
_IMAGES: Final = "/containerd.services.images.v1.Images/"
_BLOCK_BYTES: Final = 512


class ContentError(Exception):
    """The store lacks something an image is made of, or it is damaged."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name in containerd and what it points to."""

    name: str
    target: Descriptor
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ingest:
    """A blob that is on its way.

    Attributes:
        ref: what containerd calls it, ``layer-sha256:…``.
        offset: bytes that are here.
        total: bytes it will have; 0 while that is not known.
    """

    ref: str
    offset: int
    total: int
    started_at: datetime


class ContentStore:
    """What containerd has, over an open client."""

    def __init__(self, client: ContainerdClient) -> None:
        """Ask over ``client``, which the caller closes."""
        self._client = client

    async def images(self) -> tuple[NamedImage, ...]:
        """Return all names.

        Raises:
            ContainerdError: the call failed.
        """
        reply = await self._client.call(
            _IMAGES + "List", pb.ListImagesRequest(), pb.ListImagesResponse
        )
        return tuple(_named(image) for image in reply.images)

    async def image(self, name: str) -> NamedImage | None:
        """Return what a full name points to, or ``None``.

        Raises:
            ContainerdError: the call failed.
        """
        request = pb.GetImageRequest(name=name)
        try:
            reply = await self._client.call(
                _IMAGES + "Get", request, pb.GetImageResponse
            )
        except ContainerdError as error:
            if error.code == "NOT_FOUND":
                return None
            raise
        return _named(reply.image)

    async def untag(self, name: str) -> None:
        """Take one name away; content that nothing names is collected later.

        Raises:
            ContainerdError: the call failed.
        """
        request = pb.DeleteImageRequest(name=name, sync=True)
        try:
            await self._client.call(_IMAGES + "Delete", request, pb.Empty)
        except ContainerdError as error:
            if error.code != "NOT_FOUND":
                raise

    async def ingests(self) -> tuple[Ingest, ...]:
        """Return what is being written now.

        Raises:
            ContainerdError: the call failed.
        """
        reply = await self._client.call(
            _CONTENT + "ListStatuses",
            pb.ListStatusesRequest(),
            pb.ListStatusesResponse,
            timeout_s=10,
        )
        return tuple(
            Ingest(
                item.ref,
                item.offset,
                item.total,
                item.started_at.ToDatetime(tzinfo=UTC),
            )
            for item in reply.statuses
        )

    async def has(self, digest: str) -> bool:
        """Tell whether a blob is here.

        Raises:
            ContainerdError: the call failed.
        """
        request = pb.ContentInfoRequest(digest=digest)
        try:
            await self._client.call(_CONTENT + "Info", request, pb.ContentInfoResponse)
        except ContainerdError as error:
            if error.code == "NOT_FOUND":
                return False
            raise
        return True

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob in pieces.

        Raises:
            ContentError: it is not here.
        """
        request = pb.ReadContentRequest(digest=digest)
        stream = self._client.stream(_CONTENT + "Read", request, pb.ReadContentResponse)
        async with aclosing(stream) as pieces:
            try:
                async for piece in pieces:
                    yield piece.data
            except ContainerdError as error:
                if error.code == "NOT_FOUND":
                    raise ContentError(f"{digest} is not in the store") from error
                raise

    async def read_json(self, digest: str) -> Json:
        """Return a small blob that is a JSON object.

        Raises:
            ContentError: it is missing, too large, or no JSON object.
        """
        data = b""
        async for piece in self.read(digest):
            data += piece
            if len(data) > MAX_JSON_BYTES:
                raise ContentError(f"{digest} is larger than a manifest may be")
        try:
            document = json.loads(data)
        except ValueError as error:
            raise ContentError(f"{digest} is not JSON") from error
        if not isinstance(document, dict):
            raise ContentError(f"{digest} is not a JSON object")
        return document

    async def manifests(self, target: Descriptor) -> tuple[Json, ...]:
        """Return the entries of an index, or one entry for a plain manifest."""
        document = await self.read_json(target.digest)
        if _is_index(target.media_type, document):
            return tuple(entries(document, "manifests"))
        return (
            {
                "mediaType": target.media_type,
                "digest": target.digest,
                "size": target.size,
            },
        )


def _named(image: pb.Image) -> NamedImage:
    target = image.target
    return NamedImage(
        image.name,
        Descriptor(target.media_type, target.digest, target.size),
        dict(image.labels),
    )


def _is_index(media_type: str, document: Json) -> bool:
    return media_type in {OCI_INDEX, DOCKER_LIST} or "manifests" in document


async def save_images(
    store: ContentStore, images: Iterable[NamedImage], out: IO[bytes]
) -> int:
    """Write images as an OCI layout in a tar, which ``docker load`` takes too.

    Of an index, the images that are here are written; the index stays as it is, so
    that the image keeps its digest.

    Args:
        store: where they are.
        images: which ones.
        out: where to; it need not be seekable.

    Returns:
        How many bytes of blobs were written.

    Raises:
        ContentError: an image is not whole.
    """
    named = tuple(images)
    sizes: dict[str, int] = {}
    saved: list[Json] = []
    for image in named:
        saved += await _collect(store, image, sizes)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_index_entry(image) for image in named],
    }
    await _write_file(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    for digest, size in sizes.items():
        await _write_blob(store, out, digest, size)
    await _write_file(out, "index.json", to_json(index))
    await _write_file(out, "manifest.json", json.dumps(saved).encode())
    await asyncio.to_thread(out.write, bytes(2 * _BLOCK_BYTES))
    await asyncio.to_thread(out.flush)
    return sum(sizes.values())


async def _collect(
    store: ContentStore, image: NamedImage, sizes: dict[str, int]
) -> list[Json]:
    """Note every blob of an image; return its parts of ``manifest.json``."""
    target = image.target
    document = await store.read_json(target.digest)
    sizes[target.digest] = target.size
    if not _is_index(target.media_type, document):
        return [_note_manifest(image.name, document, sizes)]
    found = []
    for item in entries(document, "manifests"):
        digest = str(item.get("digest"))
        if not await store.has(digest):
            continue
        manifest = await store.read_json(digest)
        parts = [manifest.get("config") or {}, *entries(manifest, "layers")]
        whole = [await store.has(str(part.get("digest"))) for part in parts]
        if not all(whole):
            continue
        sizes[digest] = int(item.get("size", 0))
        found.append(_note_manifest(image.name, manifest, sizes))
    if not found:
        raise ContentError(f"{image.name}: none of its platforms is here whole")
    # docker load takes one image a name.
    return found[:1]


def _note_manifest(name: str, manifest: Json, sizes: dict[str, int]) -> Json:
    config, layers = manifest.get("config") or {}, entries(manifest, "layers")
    for part in (config, *layers):
        sizes[str(part["digest"])] = int(part["size"])
    return {
        "Config": _path(str(config["digest"])),
        "RepoTags": [name] if "@" not in name else [],
        "Layers": [_path(str(layer["digest"])) for layer in layers],
    }


def _index_entry(image: NamedImage) -> Json:
    target = image.target
    tag = image.name.rpartition(":")[2] if "@" not in image.name else ""
    notes = {"io.containerd.image.name": image.name}
    if tag:
        notes["org.opencontainers.image.ref.name"] = tag
    return {
        "mediaType": target.media_type,
        "digest": target.digest,
        "size": target.size,
        "annotations": notes,
    }


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)


async def _write_file(out: IO[bytes], name: str, data: bytes) -> None:
    whole = _header(name, len(data)) + data + _padding(len(data))
    await asyncio.to_thread(out.write, whole)


async def _write_blob(
    store: ContentStore, out: IO[bytes], digest: str, size: int
) -> None:
    algorithm = digest.partition(":")[0]
    hashed, written = hashlib.new(algorithm), 0
    await asyncio.to_thread(out.write, _header(_path(digest), size))
    async for piece in store.read(digest):
        hashed.update(piece)
        written += len(piece)
        await asyncio.to_thread(out.write, piece)
    if written != size or f"{algorithm}:{hashed.hexdigest()}" != digest:
        raise ContentError(f"{digest} is damaged in the store")
    await asyncio.to_thread(out.write, _padding(size))
