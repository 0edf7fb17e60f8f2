"""Manifests, indexes and platforms: what an image is made of, and for.

Sources: the OCI image specification, and containerd's rules for platforms.
"""

import hashlib
import re
from typing import Final

from podyard.api.documents import Document
from podyard.lib.values import dataclass
from podyard.registry.words import cut, json_object

# -- digests and manifests -------------------------------------------------------

#: A manifest may be so large; the specification asks registries to take 4 MiB.
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
_INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"

_HASHES: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX: Final = re.compile(r"[a-f0-9]+")


def is_digest(text: str) -> bool:
    """Say whether a text is a digest of a known algorithm."""
    algorithm, colon, value = text.partition(":")
    length = _HASHES.get(algorithm)
    return bool(colon) and length == len(value) and bool(_HEX.fullmatch(value))


def digest_like(data: bytes, digest: str) -> str:
    """Return the digest of data by the algorithm another digest has.

    Raises:
        ValueError: that is no digest.
    """
    if not is_digest(digest):
        raise ValueError(f'"{cut(digest)}" is no digest')
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image was built for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        parts = (self.os, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Content:
    """A descriptor: something by digest.

    Attributes:
        platform: of a manifest in an index, where it says so.
        is_image: ``False`` for attestations and the like.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    is_image: bool = True


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The manifest of one image."""

    media_type: str
    config: Content
    layers: tuple[Content, ...]

    @property
    def size(self) -> int:
        """Bytes to download: config and layers."""
        return self.config.size + sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """Manifests of one name for several platforms."""

    media_type: str
    manifests: tuple[Content, ...]


class ManifestError(ValueError):
    """The document is no manifest, or pretends to be two things at once."""


def parse_manifest(data: bytes, content_type: str) -> ImageManifest | ImageIndex:
    """Read a manifest or an index.

    A document that could be read as both, or whose body and header disagree, is
    refused (CVE-2021-41190): two programs must not see two images in it.

    Args:
        data: the document.
        content_type: the ``Content-Type`` it came with.

    Raises:
        ManifestError: the message says what is wrong with it.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        document = json_object(data)
    except ValueError as error:
        raise ManifestError(f"the manifest is not usable: {error}") from error
    if media_type.startswith(_SCHEMA_1) or document.get("schemaVersion") == 1:
        raise ManifestError(
            "the manifest has the withdrawn schema 1; push the image again with a "
            "current tool"
        )
    inner = document.get("mediaType")
    if inner is not None and not isinstance(inner, str):
        raise ManifestError("the manifest's mediaType is not a string")
    if media_type in MANIFEST_TYPES and inner and inner != media_type:
        raise ManifestError(
            f'the manifest was sent as "{media_type}" but calls itself "{cut(inner)}"'
        )
    kind = media_type if media_type in MANIFEST_TYPES else inner or ""
    indexes = "manifests" in document
    describes = "config" in document or "layers" in document
    if indexes and (describes or "fsLayers" in document):
        raise ManifestError("the document is a manifest and an index at once")
    if kind and (kind in _INDEX_TYPES) != indexes and kind in MANIFEST_TYPES:
        raise ManifestError(f'the document is not what it was sent as ("{kind}")')
    if indexes:
        items = tuple(_content(item) for item in _list(document, "manifests"))
        return ImageIndex(kind or OCI_INDEX, items)
    if not describes:
        raise ManifestError(
            f'the registry sent something else than an image ("{cut(kind)}")'
        )
    return ImageManifest(
        kind or OCI_MANIFEST,
        _content(document.get("config")),
        tuple(_content(item) for item in _list(document, "layers")),
    )


def _list(document: Document, key: str) -> list[object]:
    items = document.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ManifestError(f"the manifest's {key} is not a list")
    return items


def _content(item: object) -> Content:
    if not isinstance(item, dict):
        raise ManifestError("a descriptor of the manifest is not an object")
    digest, size = item.get("digest"), item.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ManifestError(f'"{cut(str(digest))}" in the manifest is no digest')
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ManifestError(f"the size of {digest} in the manifest is no size")
    notes = item.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    return Content(
        str(item.get("mediaType") or ""),
        digest,
        size,
        _platform(item.get("platform")),
        is_image="vnd.docker.reference.type" not in notes,
    )


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict) or not value.get("architecture"):
        return None
    return normalize_platform(
        Platform(
            str(value.get("os") or "linux"),
            str(value["architecture"]),
            str(value.get("variant") or ""),
        )
    )


# -- platforms -------------------------------------------------------------------

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "loongarch64": "loong64",
}


def platform_of_machine(machine: str) -> Platform:
    """Return the platform of a Linux machine.

    Args:
        machine: what ``uname -m`` says.
    """
    arm = re.fullmatch(r"armv([5-8]).*", machine)
    if arm:
        return normalize_platform(Platform("linux", "arm", f"v{arm[1]}"))
    return normalize_platform(Platform("linux", machine))


def normalize_platform(platform: Platform) -> Platform:
    """Return a platform as containerd compares it.

    ``v8`` of arm64 and ``v1`` of amd64 are what those are without saying so; arm
    without variant is v7.
    """
    os = platform.os.lower()
    os = "darwin" if os == "macos" else os
    name = platform.architecture.lower()
    architecture = _ARCHITECTURES.get(name, name)
    variant = platform.variant.lower()
    match architecture, variant:
        case "arm64", "8" | "v8" | "v8.0":
            variant = ""
        case "arm64", "9" | "9.0" | "v9.0":
            variant = "v9"
        case "amd64", "v1":
            variant = ""
        case "arm", _:
            default = "v6" if name == "armel" else "v7"
            variant = f"v{variant.lstrip('v')}" if variant else default
        case _:
            pass
    return Platform(os, architecture, variant)


def runnable_platforms(node: Platform) -> tuple[Platform, ...]:
    """Return what a node runs, best first, by containerd's rule."""
    node = normalize_platform(node)
    os, architecture = node.os, node.architecture
    found = [node]
    match architecture:
        case "amd64":
            level = _level(node.variant, default=1)
            below = range(level - 1, 0, -1)
            found += [Platform(os, "amd64", f"v{number}") for number in below]
            found.append(Platform(os, "386"))
        case "arm":
            level = _level(node.variant, default=7)
            found += [Platform(os, "arm", f"v{n}") for n in range(level - 1, 4, -1)]
        case "arm64":
            found += [Platform(os, "arm64", v) for v in _arm64_below(node.variant)]
            found += [Platform(os, "arm", f"v{number}") for number in (8, 7, 6, 5)]
        case _:
            pass
    normal = (normalize_platform(platform) for platform in found)
    return tuple(dict.fromkeys(normal))


def _level(variant: str, *, default: int) -> int:
    match = re.fullmatch(r"v(\d{1,2})", variant)
    return int(match[1]) if match else default


def _arm64_below(variant: str) -> list[str]:
    match = re.fullmatch(r"v([89])(?:\.(\d{1,2}))?", variant or "v8")
    if match is None:
        return []
    minor = int(match[2] or 0)
    if match[1] == "8":
        return [f"v8.{number}" for number in range(minor - 1, -1, -1)]
    nines = [f"v9.{number}" for number in range(minor - 1, -1, -1)]
    # Armv9.x has everything of Armv8.(x+5).
    return nines + [f"v8.{number}" for number in range(minor + 5, -1, -1)]
