"""Images that Podyard makes itself: the sandbox, and a busybox for demos and tests.

One layer from static programs of the host, so that no registry is needed; the same
input always gives the same digests.
"""

import hashlib
import io
import stat
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from podyard.containerd.archives import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageArchive,
    Json,
    architecture,
    digest_of,
    memory_blob,
    to_json,
)
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class RootfsFile:
    """An entry of a layer: a file (``data``), a link (``target``) or a directory."""

    mode: int
    data: bytes | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image made here, of one layer.

    Attributes:
        name: a full name with tag.
        files: path without leading slash → entry, parents included.
        config: the ``config`` part of the OCI image config.
    """

    name: str
    files: Mapping[str, RootfsFile]
    config: Mapping[str, object] = field(default_factory=dict)


def sandbox_image(catatonit: Path, *, version: str) -> ImageSpec:
    """Return the sandbox image: one static init that sleeps and reaps (blocking).

    Args:
        catatonit: the program; it must be statically linked.
        version: the tag; the binary's own digest is added, so that a new binary is a
            new image.
    """
    program = catatonit.read_bytes()
    tag = f"{version}-{hashlib.sha256(program).hexdigest()[:12]}"
    return ImageSpec(
        name=f"podyard.local/sandbox:{tag}",
        files={"catatonit": RootfsFile(0o755, program)},
        config={"Entrypoint": ["/catatonit", "-P"], "User": "65535:65535"},
    )


def busybox_image(busybox: Path, applets: Iterable[str], *, name: str) -> ImageSpec:
    """Return a small image of a static busybox and links to its applets (blocking).

    Args:
        busybox: the program; it must be statically linked.
        applets: paths (``bin/sh``) or bare names, which go to ``bin``.
        name: the image's full name.
    """
    files = {
        path: RootfsFile(0o755)
        for path in ("bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "var", "home")
    }
    files |= {
        "root": RootfsFile(0o700),
        "tmp": RootfsFile(0o1777),
        "bin/busybox": RootfsFile(0o755, busybox.read_bytes()),
        "etc/passwd": RootfsFile(
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\n"
            b"nobody:x:65534:65534:nobody:/home:/bin/false\n",
        ),
        "etc/group": RootfsFile(0o644, b"root:x:0:\nnogroup:x:65534:\n"),
    }
    for applet in applets:
        path = applet if "/" in applet else f"bin/{applet}"
        files.setdefault(path, RootfsFile(0o777, target="/bin/busybox"))
    path_variable = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ImageSpec(
        name=name, files=files, config={"Env": [f"PATH={path_variable}"], "Cmd": ["sh"]}
    )


def build_archive(spec: ImageSpec) -> ImageArchive:
    """Return an image as an archive; the same input gives the same digests."""
    layer = _layer(spec.files)
    diff_id = digest_of(layer)
    config = to_json(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": dict(spec.config),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, config),
            "layers": [_descriptor(OCI_LAYER, layer)],
        }
    )
    blobs = {digest_of(data): memory_blob(data) for data in (layer, config, manifest)}
    target = Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest))
    return ImageArchive({spec.name: target}, blobs)


def write_archive(archive: ImageArchive, path: Path) -> None:
    """Write an archive as an OCI layout in a tar file (blocking)."""
    manifests = [
        {
            "mediaType": target.media_type,
            "digest": target.digest,
            "size": target.size,
            "annotations": {"io.containerd.image.name": name},
        }
        for name, target in archive.targets.items()
    ]
    index = to_json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    )
    files = {"index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            tar.addfile(_member(name, len(data)), io.BytesIO(data))
        for digest, blob in archive.blobs.items():
            member = _member("blobs/" + digest.replace(":", "/"), blob.size)
            with blob.open() as source:
                tar.addfile(member, source)


def _layer(files: Mapping[str, RootfsFile]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(files):
            entry = files[path]
            member = tarfile.TarInfo(path)
            member.mode = entry.mode
            if entry.data is not None:
                member.size = len(entry.data)
                tar.addfile(member, io.BytesIO(entry.data))
            elif entry.target is not None:
                member.type = tarfile.SYMTYPE
                member.linkname = entry.target
                tar.addfile(member)
            else:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
    return buffer.getvalue()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _descriptor(media_type: str, data: bytes) -> Json:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def is_static_program(path: Path) -> bool:
    """Tell whether a file is an ELF program without an interpreter (blocking)."""
    try:
        head = path.read_bytes()[:4096]
        mode = path.stat().st_mode
    except OSError:
        return False
    if head[:5] != b"\x7fELF\x02" or not stat.S_ISREG(mode):
        return False
    table = int.from_bytes(head[32:40], "little")
    size = int.from_bytes(head[54:56], "little")
    count = int.from_bytes(head[56:58], "little")
    kinds = (head[table + i * size : table + i * size + 4] for i in range(count))
    return all(int.from_bytes(kind, "little") != 3 for kind in kinds)
