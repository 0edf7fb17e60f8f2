"""Import images into containerd without a registry.

Blobs go into the content store over containerd's own API, layers are unpacked at
once, and then the name is made; CRI hears of the name and knows the image. A lease
keeps containerd's collector away until all of it hangs together.
"""

import asyncio
import ctypes
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from podyard.containerd.archives import (
    DOCKER_LIST,
    MAX_JSON_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    ArchiveFile,
    Blob,
    Descriptor,
    ImageArchive,
    ImageArchiveError,
    Json,
    architecture,
    digest_of,
    entries,
)
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.own_images import ImageSpec, build_archive
from podyard.containerd.proto import podyard_containerd_pb2 as pb
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass

log = structlog.get_logger()

#: Tells CRI and the kubelet that the image is never garbage-collected.
PINNED: Final = {"io.cri-containerd.pinned": "pinned"}

_CONTENT: Final = "/containerd.services.content.v1.Content/"
_IMAGES: Final = "/containerd.services.images.v1.Images/"
_LEASES: Final = "/containerd.services.leases.v1.Leases/"
_SNAPSHOTS: Final = "/containerd.services.snapshots.v1.Snapshots/"
_DIFF: Final = "/containerd.services.diff.v1.Diff/"
_CHUNK_BYTES: Final = 1024 * 1024


class ImageImporter:
    """Brings archives into the containerd at a socket."""

    def __init__(
        self,
        socket: str,
        *,
        clock: Clock,
        root: Path | None = None,
        snapshotter: str = "overlayfs",
    ) -> None:
        """Describe where to.

        Args:
            socket: containerd's gRPC address.
            clock: says until when the lease may live.
            root: containerd's root, whose filesystem is synced before an image is
                named, so that a named image survives a power cut; ``None`` skips it.
            snapshotter: containerd's, the one CRI uses.
        """
        self._socket = socket
        self._clock = clock
        self._root = root
        self._snapshotter = snapshotter

    async def ensure(self, spec: ImageSpec, *, labels: Mapping[str, str]) -> bool:
        """Have an image made here; tell whether it had to be imported.

        Raises:
            ContainerdError: containerd refused.
        """
        async with ContainerdClient(self._socket) as client:
            if await _has_image(client, spec.name):
                return False
        archive = await asyncio.to_thread(build_archive, spec)
        await self.import_archive(archive, labels=labels)
        return True

    async def import_file(
        self, path: Path, *, labels: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Import a docker-save or OCI-layout tar; return the image names.

        Raises:
            ImageArchiveError: the file is no image archive, or is damaged.
            ContainerdError: containerd refused.
        """
        file = await asyncio.to_thread(ArchiveFile, path)
        with file:
            archive = await asyncio.to_thread(file.read)
            return await self.import_archive(archive, labels=labels or {})

    async def import_archive(
        self, archive: ImageArchive, *, labels: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Import; return the image names. The images' layers are unpacked.

        Args:
            archive: names and blobs.
            labels: of the images in containerd.
        """
        async with ContainerdClient(self._socket) as client:
            lease = await self._lease(client)
            client.lease = lease
            try:
                job = _Job(client, archive, self._snapshotter)
                for target in archive.targets.values():
                    await job.bring(target)
                if self._root is not None:
                    await asyncio.to_thread(_sync_filesystem, self._root)
                for name, target in archive.targets.items():
                    await _name_image(client, name, target, labels)
            finally:
                client.lease = ""
                await client.call(
                    _LEASES + "Delete", pb.DeleteLeaseRequest(id=lease), pb.Empty
                )
        log.info("images_imported", images=sorted(archive.targets))
        return tuple(archive.targets)

    async def _lease(self, client: ContainerdClient) -> str:
        until = self._clock.now().astimezone(UTC) + timedelta(hours=1)
        request = pb.CreateLeaseRequest(
            id=f"podyard-import-{uuid.uuid4()}",
            labels={"containerd.io/gc.expire": _rfc3339(until)},
        )
        reply = await client.call(_LEASES + "Create", request, pb.CreateLeaseResponse)
        return reply.lease.id


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class _Job:
    """One import: what is where."""

    client: ContainerdClient
    archive: ImageArchive
    snapshotter: str

    async def bring(self, target: Descriptor) -> None:
        """Write a manifest or index and all it names; unpack what fits here."""
        document = await self._read_json(target.digest)
        if document is None:
            raise ImageArchiveError(f"{target.digest} is named but missing")
        if target.media_type in {OCI_INDEX, DOCKER_LIST} or "manifests" in document:
            await self._bring_index(target, document)
        else:
            await self._bring_manifest(target, document)

    async def _bring_index(self, target: Descriptor, document: Json) -> None:
        labels = {}
        for number, item in enumerate(entries(document, "manifests")):
            labels[f"containerd.io/gc.ref.content.m.{number}"] = str(item["digest"])
            if item["digest"] in self.archive.blobs:
                await self.bring(
                    Descriptor(
                        str(item.get("mediaType", OCI_MANIFEST)),
                        str(item["digest"]),
                        int(item.get("size", 0)),
                    )
                )
        await self._write(target.digest, labels)

    async def _bring_manifest(self, target: Descriptor, document: Json) -> None:
        config = document.get("config") or {}
        layers = entries(document, "layers")
        digests = [str(layer["digest"]) for layer in layers]
        body = await self._read_json(str(config.get("digest", ""))) or {}
        diff_ids = [str(i) for i in (body.get("rootfs") or {}).get("diff_ids") or []]
        chains = chain_ids(diff_ids)
        for digest, diff_id in zip(digests, diff_ids, strict=False):
            await self._write(digest, {"containerd.io/uncompressed": diff_id})
        config_labels = {}
        if chains and len(chains) == len(layers) and _fits(body):
            await self._unpack(layers, chains)
            reference = f"containerd.io/gc.ref.snapshot.{self.snapshotter}"
            config_labels[reference] = chains[-1]
        await self._write(str(config.get("digest", "")), config_labels)
        labels = {"containerd.io/gc.ref.content.config": str(config.get("digest", ""))}
        for number, digest in enumerate(digests):
            labels[f"containerd.io/gc.ref.content.l.{number}"] = digest
        await self._write(target.digest, labels)

    async def _read_json(self, digest: str) -> Json | None:
        blob = self.archive.blobs.get(digest)
        if blob is None:
            return None
        with blob.open() as source:
            data = source.read(MAX_JSON_BYTES)
        if digest_of(data) != digest:
            raise ImageArchiveError(f"{digest}: the content does not match the digest")
        try:
            document = json.loads(data)
        except ValueError as error:
            raise ImageArchiveError(f"{digest} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ImageArchiveError(f"{digest} is not a JSON object")
        return document

    async def _write(self, digest: str, labels: Mapping[str, str]) -> None:
        blob = self.archive.blobs.get(digest)
        if blob is None:
            if await _has_content(self.client, digest):
                return
            raise ImageArchiveError(f"{digest} is named but missing")
        try:
            await self.client.converse(
                _CONTENT + "Write", _pieces(blob, labels), pb.WriteContentResponse
            )
        except ContainerdError as error:
            if error.code == "ALREADY_EXISTS":
                await _label_content(self.client, digest, labels)
            elif error.code in {"FAILED_PRECONDITION", "OUT_OF_RANGE"}:
                raise ImageArchiveError(
                    f"{digest}: the content does not match the digest"
                ) from error
            else:
                raise

    async def _unpack(self, layers: list[Json], chains: list[str]) -> None:
        parent = ""
        for layer, chain in zip(layers, chains, strict=True):
            if not await self._has_snapshot(chain):
                await self._apply(layer, parent, chain)
            parent = chain

    async def _has_snapshot(self, chain: str) -> bool:
        request = pb.StatSnapshotRequest(snapshotter=self.snapshotter, key=chain)
        return await _exists(
            self.client.call(_SNAPSHOTS + "Stat", request, pb.StatSnapshotResponse)
        )

    async def _apply(self, layer: Json, parent: str, chain: str) -> None:
        key = f"podyard-import-{uuid.uuid4()} {chain}"
        prepare = pb.PrepareSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent
        )
        prepared = await self.client.call(
            _SNAPSHOTS + "Prepare", prepare, pb.PrepareSnapshotResponse
        )
        try:
            apply = pb.ApplyRequest(
                diff=pb.Descriptor(
                    media_type=str(layer.get("mediaType", "")),
                    digest=str(layer["digest"]),
                    size=int(layer.get("size", 0)),
                ),
                mounts=prepared.mounts,
            )
            await self.client.call(
                _DIFF + "Apply", apply, pb.ApplyResponse, timeout_s=3600
            )
            commit = pb.CommitSnapshotRequest(
                snapshotter=self.snapshotter, name=chain, key=key
            )
            await self.client.call(_SNAPSHOTS + "Commit", commit, pb.Empty)
        except ContainerdError as error:
            remove = pb.RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key)
            await self.client.call(_SNAPSHOTS + "Remove", remove, pb.Empty)
            if error.code != "ALREADY_EXISTS":
                raise


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the OCI chain ids: what each layer and all below it are known by."""
    chains: list[str] = []
    for diff_id in diff_ids:
        above = f"{chains[-1]} {diff_id}".encode() if chains else None
        chains.append(digest_of(above) if above is not None else diff_id)
    return chains


def _fits(config: Json) -> bool:
    own = {"os": "linux", "architecture": architecture()}
    return all(str(config.get(key, value)) == value for key, value in own.items())


async def _pieces(blob: Blob, labels: Mapping[str, str]) -> AsyncIterator[Message]:
    offset = 0
    with blob.open() as source:
        while True:
            data = await asyncio.to_thread(source.read, _CHUNK_BYTES)
            done = offset + len(data) >= blob.size
            yield pb.WriteContentRequest(
                action=pb.WriteAction.COMMIT if done else pb.WriteAction.WRITE,
                ref=f"podyard-import-{blob.digest}",
                total=blob.size,
                expected=blob.digest,
                offset=offset,
                data=data,
                labels=labels if done else None,
            )
            offset += len(data)
            if done or not data:
                return


async def _exists(call: Awaitable[object]) -> bool:
    try:
        await call
    except ContainerdError as error:
        if error.code == "NOT_FOUND":
            return False
        raise
    return True


async def _has_image(client: ContainerdClient, name: str) -> bool:
    request = pb.GetImageRequest(name=name)
    return await _exists(client.call(_IMAGES + "Get", request, pb.GetImageResponse))


async def _has_content(client: ContainerdClient, digest: str) -> bool:
    request = pb.ContentInfoRequest(digest=digest)
    return await _exists(
        client.call(_CONTENT + "Info", request, pb.ContentInfoResponse)
    )


async def _label_content(
    client: ContainerdClient, digest: str, labels: Mapping[str, str]
) -> None:
    if not labels:
        return
    request = pb.UpdateContentRequest(
        info=pb.ContentInfo(digest=digest, labels=labels),
        update_mask=FieldMask(paths=[f"labels.{key}" for key in labels]),
    )
    await client.call(_CONTENT + "Update", request, pb.UpdateContentResponse)


async def _name_image(
    client: ContainerdClient, name: str, target: Descriptor, labels: Mapping[str, str]
) -> None:
    image = pb.Image(
        name=name,
        labels=labels,
        target=pb.Descriptor(
            media_type=target.media_type, digest=target.digest, size=target.size
        ),
    )
    try:
        await client.call(
            _IMAGES + "Create",
            pb.CreateImageRequest(image=image),
            pb.CreateImageResponse,
        )
    except ContainerdError as error:
        if error.code != "ALREADY_EXISTS":
            raise
        await client.call(
            _IMAGES + "Update",
            pb.UpdateImageRequest(image=image),
            pb.UpdateImageResponse,
        )


def _sync_filesystem(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
