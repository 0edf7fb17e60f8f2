"""Image names: what they mean, and what is wrong with those that mean nothing.

Source: distribution/reference (grammar and normalization), the kubelet's
``ParseImageName`` and https://kubernetes.io/docs/concepts/containers/images/
"""

import re
from functools import lru_cache
from typing import Final

from podyard.api.go_text import quote
from podyard.lib.values import dataclass

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LEGACY_DOMAIN: Final = "index.docker.io"
_OFFICIAL: Final = "library/"
_MAX_PATH_LENGTH: Final = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HEX = re.compile(r"[a-f0-9]+")
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class ImageRefError(ValueError):
    """The text names no image; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed image name.

    Attributes:
        domain: the registry host with its port, ``docker.io`` where none was given.
        path: the repository in that registry, ``library/nginx``.
        tag: the tag as written; empty where there was none.
        digest: ``sha256:…``; empty where there was none.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The canonical repository name, which credentials are matched against."""
        return f"{self.domain}/{self.path}"

    @property
    def effective_tag(self) -> str:
        """The tag, or ``latest`` where neither tag nor digest was given."""
        return self.tag or ("" if self.digest else DEFAULT_TAG)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


@lru_cache(maxsize=1024)
def parse_image_ref(image: str) -> ImageRef:
    """Parse and normalize a familiar image name.

    Raises:
        ImageRefError: it does not follow the grammar.
    """
    if _IDENTIFIER.fullmatch(image):
        raise ImageRefError(
            f"invalid repository name ({image}), cannot specify 64-byte "
            "hexadecimal strings"
        )
    domain, rest = _split_domain(image)
    remote = rest.partition(":")[0]
    if remote.lower() != remote:
        raise ImageRefError(
            f"invalid reference format: repository name ({remote}) must be lowercase"
        )
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise ImageRefError("invalid reference format")
    if len(match["path"]) > _MAX_PATH_LENGTH:
        raise ImageRefError("repository name must not be more than 255 characters")
    digest = match["digest"] or ""
    if digest:
        _check_digest(digest)
    return ImageRef(match["domain"], match["path"], match["tag"] or "", digest)


def parse_image_name(image: str) -> ImageRef:
    """Parse an image name as the kubelet does, naming the image in the error.

    Raises:
        ImageRefError: ``couldn't parse image name "…": …``.
    """
    try:
        return parse_image_ref(image)
    except ImageRefError as error:
        raise ImageRefError(
            f"couldn't parse image name {quote(image)}: {error}"
        ) from error


def repository_name(image: str) -> str:
    """Return the canonical repository, ``docker.io/library/nginx``.

    Raises:
        ImageRefError: the name follows no grammar.
    """
    return parse_image_name(image).repository


def apply_default_tag(image: str) -> str:
    """Return the name as the runtime gets it: as typed, ``:latest`` where it needs one.

    Short names stay short; the runtime expands them.

    Raises:
        ImageRefError: the name follows no grammar.
    """
    ref = parse_image_name(image)
    if not ref.digest and not image.endswith(f":{ref.effective_tag}"):
        return f"{image}:{ref.effective_tag}"
    return image


def default_pull_policy(image: str) -> str:
    """Return the pull policy of a container that names none.

    Source: https://kubernetes.io/docs/concepts/containers/images/#imagepullpolicy-defaulting
    """
    try:
        tag = parse_image_ref(image).effective_tag
    except ImageRefError:
        return "IfNotPresent"
    return "Always" if tag == DEFAULT_TAG else "IfNotPresent"


def _split_domain(image: str) -> tuple[str, str]:
    first, slash, rest = image.partition("/")
    is_domain = slash and (
        first == "localhost" or "." in first or ":" in first or first.lower() != first
    )
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, image)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    length = _HEX_LENGTHS.get(algorithm)
    if length is None:
        raise ImageRefError("unsupported digest algorithm")
    if len(value) != length:
        raise ImageRefError("invalid checksum digest length")
    if not _HEX.fullmatch(value):
        raise ImageRefError("invalid checksum digest format")
