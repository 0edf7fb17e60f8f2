"""Which credentials fit an image: the keyring, free of I/O.

Sources: https://kubernetes.io/docs/concepts/containers/images/#config-json and
``pkg/credentialprovider`` (v1.36). Where the page and the kubelet disagree on globs
(``*my-registry.io`` and sub-domains), ``documented`` does both, the kubelet's first.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import orjson

from podyard.api.documents import Document
from podyard.api.runtime import ImageAuth
from podyard.lib.values import dataclass

#: ``documented`` follows the page, ``upstream`` the kubelet.
Semantics: TypeAlias = Literal["documented", "upstream"]

DOCKER_CONFIG_JSON: Final = "kubernetes.io/dockerconfigjson"
DOCKER_CFG: Final = "kubernetes.io/dockercfg"
#: Type of a Secret → the key of its data that counts.
SECRET_KEYS: Final = {
    DOCKER_CONFIG_JSON: ".dockerconfigjson",
    DOCKER_CFG: ".dockercfg",
}
_DEFAULT_REGISTRY: Final = "index.docker.io"
#: The key Docker keeps its Hub under.
DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
_BAD_AUTH: Final = (
    "unable to parse auth field, must be formatted as base64(username:password)"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One registry credential and where it comes from. Its repr hides it.

    Attributes:
        auth: what the runtime is given.
        key: the registry key it stands under, as written.
        origin: where it was found, as messages show it.
        secret: namespace, name and uid of its Secret; ``None`` for other sources.
        account: namespace, name and uid of the ServiceAccount it was given for.
        fleeting: its value changes from one time to the next though nothing else
            does, as that of a plugin may.
    """

    auth: ImageAuth = field(repr=False)
    key: str
    origin: str
    secret: tuple[str, str, str] | None = None
    account: tuple[str, str, str] | None = None
    fleeting: bool = False

    def __str__(self) -> str:
        return f'{self.origin}, key "{self.key}"'


class CredentialParseError(ValueError):
    """A credential document is malformed; the message holds nothing of it."""


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A credential file or Secret.

    Attributes:
        entries: registry key and credential, in the order written.
        helpers: names of credential helpers it refers to; run for the node's own
            files, never for Secrets.
        helper_of: registry and the helper that has its credentials (``credHelpers``).
        store: the helper that has all others (``credsStore``), or empty.
    """

    entries: tuple[tuple[str, ImageAuth], ...]
    helpers: tuple[str, ...] = ()
    helper_of: tuple[tuple[str, str], ...] = ()
    store: str = ""


def parse_config_json(raw: bytes) -> ParsedConfig:
    """Read a ``config.json``.

    Raises:
        CredentialParseError: it, or one of its entries, is malformed.
    """
    document = _parse_object(raw)
    auths = document.get("auths")
    if auths is None:
        auths = {}
    helpers = document.get("credHelpers") or {}
    if not isinstance(helpers, dict):
        raise CredentialParseError("credHelpers is not a JSON object")
    helper_of = tuple((str(key), str(name)) for key, name in helpers.items())
    store = str(document.get("credsStore") or "")
    named = {name for _, name in helper_of} | ({store} if store else set())
    return ParsedConfig(_parse_entries(auths), tuple(sorted(named)), helper_of, store)


def parse_dockercfg(raw: bytes) -> ParsedConfig:
    """Read a legacy ``.dockercfg``.

    Raises:
        CredentialParseError: it, or one of its entries, is malformed.
    """
    return ParsedConfig(_parse_entries(_parse_object(raw)))


def parse_secret(secret: Document) -> ParsedConfig | None:
    """Read an image pull Secret; ``None`` where its type or data is another's.

    Raises:
        CredentialParseError: its content is malformed.
    """
    kind = str(secret.get("type") or "")
    encoded = (secret.get("data") or {}).get(SECRET_KEYS.get(kind, ""))
    if not encoded:
        return None
    try:
        raw = base64.b64decode(encoded)
    except binascii.Error as error:
        raise CredentialParseError("the data is not base64") from error
    return (
        parse_config_json(raw) if kind == DOCKER_CONFIG_JSON else parse_dockercfg(raw)
    )


def _parse_object(raw: bytes) -> Document:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CredentialParseError("it is not valid JSON") from error
    if not isinstance(document, dict):
        raise CredentialParseError("it is not a JSON object")
    return document


def _parse_entries(auths: object) -> tuple[tuple[str, ImageAuth], ...]:
    if not isinstance(auths, dict):
        raise CredentialParseError("auths is not a JSON object")
    return tuple((str(key), _parse_entry(entry)) for key, entry in auths.items())


def _parse_entry(entry: object) -> ImageAuth:
    if not isinstance(entry, dict):
        raise CredentialParseError("an entry is not a JSON object")
    texts: dict[str, str] = {}
    for name in (
        "username",
        "password",
        "email",
        "auth",
        "identitytoken",
        "registrytoken",
    ):
        value = entry.get(name)
        if value is not None and not isinstance(value, str):
            raise CredentialParseError(f"the field {name} of an entry is not a string")
        texts[name] = value or ""
    if texts["identitytoken"]:
        return ImageAuth(identity_token=texts["identitytoken"])
    if texts["registrytoken"]:
        return ImageAuth(registry_token=texts["registrytoken"])
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = decode_auth(texts["auth"])
    return ImageAuth(username=username, password=password)


def decode_auth(auth: str) -> tuple[str, str]:
    """Return user and password of an ``auth`` field; passwords may hold colons.

    Raises:
        CredentialParseError: it is not ``base64(username:password)``.
    """
    text = auth.strip()
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)
        if text.endswith("==="):
            raise CredentialParseError(_BAD_AUTH)
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise CredentialParseError(_BAD_AUTH) from error
    username, colon, password = decoded.partition(":")
    if not colon:
        raise CredentialParseError(_BAD_AUTH)
    return username, password


def auth_hash(auth: ImageAuth) -> str:
    """Return a digest two equal credentials share; empty fields do not count."""
    fields = {
        "username": auth.username,
        "password": auth.password,
        "auth": auth.auth,
        "serveraddress": auth.server_address,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
    }
    present = {name: value for name, value in fields.items() if value}
    return hashlib.sha256(orjson.dumps(present)).hexdigest()


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: str
    path: str

    @property
    def labels(self) -> list[str]:
        return self.host.split(".")


def normalize_key(key: str) -> str | None:
    """Return a registry key as the index holds it; ``None`` where it is no URL."""
    url = key if key.startswith(("http://", "https://")) else f"https://{key}"
    address = _split(url)
    if address is None:
        return None
    path = address.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    port = f":{address.port}" if address.port else ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}{port}{'' if path == '/' else path}"


@lru_cache(maxsize=1024)
def _split(url: str) -> _Address | None:
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return None
    if "\\" in netloc or any(char.isspace() for char in netloc):
        return None
    match = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*))(?::(.*))?", netloc, re.DOTALL)
    if match is None:
        return None
    port = match[3] or ""
    if port and not (port.isascii() and port.isdigit()):
        return None
    return _Address(match[1] or match[2] or "", port, unquote(parts.path))


def match_glob(pattern: str, name: str) -> bool:
    r"""Match as Go's ``filepath.Match``: ``*``, ``?``, ``[a-z]``, ``[^a]``, ``\c``.

    Case counts; a malformed pattern matches nothing.
    """
    compiled = _compile_glob(pattern)
    return compiled is not None and compiled.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compile_glob(pattern: str) -> re.Pattern[str] | None:
    regex: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            regex.append("[^/]*")
        elif char == "?":
            regex.append("[^/]")
        elif char == "\\":
            if at >= len(pattern):
                return None
            regex.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            read = _compile_class(pattern, at)
            if read is None:
                return None
            text, at = read
            regex.append(text)
        else:
            regex.append(re.escape(char))
    return re.compile("".join(regex), re.DOTALL)


def _compile_class(pattern: str, at: int) -> tuple[str, int] | None:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        low = _class_char(pattern, at)
        if low is None:
            return None
        char, at = low
        high = char
        if pattern[at : at + 1] == "-":
            end = _class_char(pattern, at + 1)
            if end is None:
                return None
            high, at = end
        if char <= high:
            ranges.append(f"{re.escape(char)}-{re.escape(high)}")
        else:
            ranges.append("")
    if at >= len(pattern):
        return None
    inside = "".join(ranges)
    if not inside:  # only empty ranges such as z-a: nothing is in it
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int] | None:
    if at >= len(pattern) or pattern[at] in "-]":
        return None
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            return None
    return pattern[at], at + 1


def urls_match(glob: str, target: str) -> bool:
    """Say whether a key fits an image as the kubelet sees it.

    Ports must be equal, the path a prefix, and each label of the host must match;
    so a glob never spans a dot.
    """
    pair = _comparable(glob, target)
    if pair is None:
        return False
    pattern, address = pair
    if len(pattern.labels) != len(address.labels):
        return False
    return all(map(match_glob, pattern.labels, address.labels))


def urls_match_as_documented(glob: str, target: str) -> bool:
    """Say whether a key fits an image as the page has it: ``*`` spans dots too."""
    pair = _comparable(glob, target)
    return pair is not None and match_glob(pair[0].host, pair[1].host)


def _comparable(glob: str, target: str) -> tuple[_Address, _Address] | None:
    pattern, address = _split(f"https://{glob}"), _split(f"https://{target}")
    if pattern is None or address is None or pattern.port != address.port:
        return None
    return (pattern, address) if address.path.startswith(pattern.path) else None


def is_default_registry(image: str) -> bool:
    """Say whether an image is Docker Hub's."""
    first, slash, _ = image.partition("/")
    if not first:
        return False
    if not slash or first in {"docker.io", _DEFAULT_REGISTRY}:
        return True
    return not ("." in first or ":" in first)


def decide_helper(config: ParsedConfig, repository: str) -> tuple[str, str] | None:
    """Return the helper to ask for a repository, and the key to ask it for.

    As Docker does: a helper of the registry's own comes before the store of all
    others. A store is asked for the key the file has for that registry.
    """
    host = repository.partition("/")[0]
    for key, name in config.helper_of:
        if _names_host(key, host):
            return name, key
    if not config.store:
        return None
    for key, _ in config.entries:
        if _names_host(key, host):
            return config.store, key
    return config.store, DOCKER_HUB_KEY if host == "docker.io" else host


def _names_host(key: str, host: str) -> bool:
    named = (normalize_key(key) or "").partition("/")[0]
    if host == "docker.io":
        return named in {"docker.io", _DEFAULT_REGISTRY}
    return named == host


class Keyring:
    """Credentials of one source, most specific key first."""

    def __init__(self, credentials: Iterable[Credential]) -> None:
        index: dict[str, list[Credential]] = {}
        for credential in credentials:
            key = normalize_key(credential.key)
            if key is not None:
                index.setdefault(key, []).append(credential)
        self._index = {key: index[key] for key in sorted(index, reverse=True)}

    def look_up(self, repository: str) -> tuple[Credential, ...]:
        """Return all that fit, as the kubelet orders them."""
        found = [
            credential
            for key, credentials in self._index.items()
            if urls_match(key, repository)
            for credential in credentials
        ]
        if not found and is_default_registry(repository):
            found = self._index.get(_DEFAULT_REGISTRY, [])
        return tuple(found)

    def look_up_documented(self, repository: str) -> tuple[Credential, ...]:
        """Return those that fit by the page's rule, globs spanning dots."""
        return tuple(
            credential
            for key, credentials in self._index.items()
            if urls_match_as_documented(key, repository)
            for credential in credentials
        )


def decide_credentials(
    repository: str, keyrings: Sequence[Keyring], *, semantics: Semantics
) -> tuple[Credential, ...]:
    """Return the credentials to try for an image, in order.

    Args:
        repository: the canonical repository, ``docker.io/library/nginx``.
        keyrings: the sources, first to be tried first.
        semantics: whose rule decides about globs.
    """
    chosen = [found for ring in keyrings for found in ring.look_up(repository)]
    if semantics == "documented":
        seen = {id(credential) for credential in chosen}
        chosen.extend(
            found
            for ring in keyrings
            for found in ring.look_up_documented(repository)
            if id(found) not in seen
        )
    return tuple(chosen)
