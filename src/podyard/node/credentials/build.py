"""Why credentials fit an image or do not, and texts without them. Pure."""

import base64
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from podyard.api.runtime import ImageAuth
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import (
    Credential,
    Keyring,
    Semantics,
    is_default_registry,
    normalize_key,
    urls_match,
)

#: Shorter secrets would hide half of every text.
_MIN_SECRET: Final = 3
HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a credential's key fits an image, and why, or how nearly."""

    verdict: Literal["match", "near", "no"]
    why: str


def explain_match(key: str, repository: str, *, semantics: Semantics) -> Match:
    """Say whether a credential's key fits an image, and why, or how nearly.

    Args:
        key: the registry key, as written.
        repository: the canonical repository, ``docker.io/library/nginx``.
        semantics: whose rule decides about globs.
    """
    normal = normalize_key(key)
    if normal is None:
        return Match("no", "the key is no address")
    if urls_match(normal, repository):
        return Match("match", "host, port and path fit")
    ring = Keyring([Credential(ImageAuth(), key, "")])
    if ring.look_up(repository):
        return Match("match", "it stands for Docker Hub")
    if ring.look_up_documented(repository):
        if semantics == "documented":
            return Match("match", "its * spans dots, as the documentation has it")
        return Match("near", "its * would have to span dots (semantics: upstream)")
    host, _, path = normal.partition("/")
    wanted_host, _, wanted_path = repository.partition("/")
    name, _, port = host.partition(":")
    wanted_name, _, wanted_port = wanted_host.partition(":")
    if urls_match(host, wanted_host):
        return Match(
            "near",
            f'the path "/{path}" is no beginning of "/{wanted_path}"',
        )
    if urls_match(name, wanted_name):
        return Match(
            "near",
            f"the port differs: the key has {port or 'none'}, the image "
            f"{wanted_port or 'none'}",
        )
    if is_default_registry(repository) and name.endswith("docker.io"):
        return Match("near", f'"{name}" is not a key for Docker Hub; docker.io is')
    if name.split(".")[-2:] == wanted_name.split(".")[-2:] and "." in name:
        return Match("near", f'"{name}" is another host than "{wanted_name}"')
    return Match("no", "another registry")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A credential that was looked at for an image, without the credential.

    Attributes:
        origin: where it was found.
        key: the registry key it stands under, as written.
        match: whether it fits, and why or how nearly.
        order: when it is tried, from 1; ``None`` where it does not fit.
    """

    origin: str
    key: str
    match: Match
    order: int | None = None


def build_candidates(
    credentials: Iterable[Credential],
    chosen: Sequence[Credential],
    repository: str,
    *,
    semantics: Semantics,
) -> tuple[tuple[Candidate, ...], int]:
    """Return what fits in the order of trying, then what nearly does.

    Args:
        credentials: everything that was found.
        chosen: what is tried, in order.
        repository: the image's canonical repository.
        semantics: whose rule decides about globs.

    Returns:
        The candidates, and how many credentials have nothing to do with the image.
    """
    order = {id(credential): number for number, credential in enumerate(chosen, 1)}
    everything = [
        Candidate(
            credential.origin,
            credential.key,
            explain_match(credential.key, repository, semantics=semantics),
            order.get(id(credential)),
        )
        for credential in credentials
    ]
    fitting = [item for item in everything if item.order is not None]
    fitting.sort(key=lambda item: item.order or 0)
    near = [
        item for item in everything if item.order is None and item.match.verdict != "no"
    ]
    return (*fitting, *near), len(everything) - len(fitting) - len(near)


def redact(text: str, auth: ImageAuth | None) -> str:
    """Return a text without the secret parts of a credential."""
    if auth is None:
        return text
    pair = f"{auth.username}:{auth.password}" if auth.password else ""
    encoded = base64.b64encode(pair.encode()).decode() if pair else ""
    for secret in (
        encoded,
        auth.auth,
        auth.password,
        auth.identity_token,
        auth.registry_token,
    ):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, HIDDEN)
    return text
