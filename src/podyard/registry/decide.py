"""Whom a registry may send credentials to, and what its answers mean; free of I/O.

Sources: the OCI distribution specification, the token protocol of the Docker
registry (https://distribution.github.io/distribution/spec/auth/token/), RFC 9110 for
challenges, ``Retry-After`` and redirects.
"""

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit, urlunsplit

import orjson

from podyard.api.documents import Document
from podyard.api.runtime import ImageAuth

# -- origins ---------------------------------------------------------------------

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what "the same server" means."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = _DEFAULT_PORTS.get(self.scheme) == self.port
        return f"{self.scheme}://{host}" + ("" if standard else f":{self.port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be behind it."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_origin(url: str) -> Origin:
    """Return the origin of an absolute ``http`` or ``https`` URL.

    Raises:
        ValueError: it is no such URL, or carries a user name.
    """
    parts = _split_url(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL carries a user name")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL has no valid port") from error
    assert parts.hostname is not None
    host = parts.hostname.lower().rstrip(".")
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])


def _split_url(url: str) -> SplitResult:
    if "\\" in url or any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("the URL holds characters no URL has")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("this is no absolute http or https URL")
    return parts


def show_url(url: str) -> str:
    """Return a URL for messages: without user name, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a malformed URL)"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return cut(urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", "")))


# -- challenges ------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: More than a token: realm=https://host/path without quotes is seen in the wild.
_UNQUOTED: Final = re.compile(r"[^\s,\"]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a registry wants to be asked.

    Attributes:
        scheme: ``basic`` or ``bearer``, in lower case.
        parameters: ``realm``, ``service``, ``scope``, ``error``; names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def realm(self) -> str:
        """The realm; for ``bearer`` the URL tokens come from."""
        return self.parameters.get("realm", "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of all ``WWW-Authenticate`` headers.

    Several may stand in one header. What follows no grammar ends that header: half
    a challenge is never guessed at.
    """
    return tuple(item for header in headers for item in _parse_header(header))


def _parse_header(header: str) -> Iterable[Challenge]:
    at = 0
    while True:
        at = _skip(header, at)
        scheme = _TOKEN.match(header, at)
        if scheme is None:
            return
        at = scheme.end()
        parameters: dict[str, str] = {}
        while True:
            read = _parameter(header, _skip(header, at))
            if read is None:
                break
            name, value, at = read
            parameters.setdefault(name, value)
        yield Challenge(scheme[0].lower(), parameters)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t,":
        at += 1
    return at


def _parameter(text: str, at: int) -> tuple[str, str, int] | None:
    name = _TOKEN.match(text, at)
    if name is None:
        return None
    end = name.end()
    while text[end : end + 1] in {" ", "\t"}:
        end += 1
    if text[end : end + 1] != "=":
        return None  # a new scheme begins here
    end += 1
    while text[end : end + 1] in {" ", "\t"}:
        end += 1
    quoted = _QUOTED.match(text, end)
    if quoted is not None:
        return name[0].lower(), re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    plain = _UNQUOTED.match(text, end)
    return (name[0].lower(), plain[0], plain.end()) if plain else None


# -- realms ----------------------------------------------------------------------

#: Second labels under which a country's registry sells names (``co.uk``).
_SOLD_LABELS: Final = frozenset(
    {"ac", "co", "com", "edu", "gob", "gov", "gouv", "govt", "ltd", "mil", "ne", "net"}
    | {"nhs", "nom", "or", "org", "plc", "sch", "id", "info", "web", "go", "gv", "lg"}
)
#: Domains whose sub-domains belong to strangers.
_SHARED_DOMAINS: Final = frozenset(
    {"azurecr.io", "azurewebsites.net", "cloudapp.net", "cloudfront.net"}
    | {"amazonaws.com", "appspot.com", "blogspot.com", "duckdns.org", "dyndns.org"}
    | {"fly.dev", "github.dev", "github.io", "gitlab.io", "herokuapp.com"}
    | {"netlify.app", "ngrok.app", "ngrok.io", "nip.io", "pages.dev", "run.app"}
    | {"sslip.io", "trycloudflare.com", "vercel.app", "web.app", "workers.dev"}
    | {"cluster.local", "svc.cluster.local"}
)


@dataclass(frozen=True, slots=True)
class MaySend:
    """The realm may be given the registry's credentials."""


@dataclass(frozen=True, slots=True)
class MustNotSend:
    """The realm must not; ``message`` names it and says why."""

    message: str


RealmVerdict: TypeAlias = MaySend | MustNotSend


def judge_realm(
    realm: str,
    registry: Origin,
    *,
    allowed: Sequence[str] = (),
    insecure: bool = False,
) -> RealmVerdict:
    """Say whether a token realm may be given credentials meant for a registry.

    It may when its host is the registry's own host, or stands in the same domain,
    over TLS. Plain HTTP is for registries on loopback and those configured as
    insecure. A host in ``allowed`` may always.

    Args:
        realm: the URL the registry named.
        registry: the server that named it.
        allowed: realm hosts a person allowed, ``host`` or ``host:port``; or origins,
            ``http://host:port``, which allow plain HTTP too.
        insecure: the registry is configured to be spoken to without TLS.
    """
    shown = show_url(realm)
    try:
        origin = parse_origin(realm)
    except ValueError as error:
        return MustNotSend(
            f'the registry {registry} names the token realm "{shown}", which gets no '
            f"credentials: {error}"
        )
    if _is_allowed(origin, allowed):
        return MaySend()
    if not same_owner(origin.host, registry.host):
        return MustNotSend(
            f'the registry {registry} names the token realm "{shown}", which is '
            "neither its own host nor of its domain, so it gets no credentials; allow "
            f'it with token-realms: ["{_host_port(origin)}"] of that registry'
        )
    if origin.scheme == "https" or may_send_plain(origin, insecure=insecure):
        return MaySend()
    return MustNotSend(
        f'the registry {registry} names the token realm "{shown}" without TLS, so it '
        "gets no credentials"
    )


def may_send_plain(origin: Origin, *, insecure: bool) -> bool:
    """Say whether credentials may go to a server without TLS."""
    return origin.is_loopback or insecure


def same_owner(host: str, registry_host: str) -> bool:
    """Say whether two hosts have, as far as names tell, the same owner.

    A host owns itself and what is below it. Hosts of one parent domain belong
    together, unless that domain is one under which names are sold or lent.
    """
    if host == registry_host:
        return True
    if _is_address(host) or _is_address(registry_host):
        return False
    if _is_below(host, registry_host):
        return _is_owned_domain(registry_host)
    parent = registry_host.partition(".")[2]
    return _is_owned_domain(parent) and (host == parent or _is_below(host, parent))


def _is_below(host: str, domain: str) -> bool:
    return host.endswith(f".{domain}")


def _is_owned_domain(domain: str) -> bool:
    labels = domain.split(".")
    if len(labels) < 2 or not all(labels) or domain in _SHARED_DOMAINS:
        return False
    return not (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SOLD_LABELS)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_port(origin: Origin) -> str:
    return str(origin).partition("://")[2]


def _is_allowed(origin: Origin, allowed: Sequence[str]) -> bool:
    if str(origin) in allowed:
        return True
    names = {origin.host, _host_port(origin), f"{_host_port(origin)}:{origin.port}"}
    return origin.scheme == "https" and not names.isdisjoint(allowed)


# -- how to ask ------------------------------------------------------------------

#: Docker's user name for "the password is an identity token".
_TOKEN_USER: Final = "<token>"  # noqa: S105 - a name, not a secret


@dataclass(frozen=True, slots=True)
class AskAnonymously:
    """Send no credentials, and there is no token to be had either."""


@dataclass(frozen=True, slots=True)
class UseBasic:
    """Send user and password to the registry itself."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UseToken:
    """Send a bearer token that was handed to us ready-made."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Get a token first.

    Attributes:
        url: what to GET, or where to POST ``form`` where there is one.
        username: for basic authentication of the GET; empty for an anonymous token.
        form: the body of an OAuth2 request with an identity token.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def with_credentials(self) -> bool:
        """Whether the request carries a secret."""
        return bool(self.username or self.form)


@dataclass(frozen=True, slots=True)
class CannotAsk:
    """The credentials cannot be used here; ``message`` says why.

    Attributes:
        foreign_realm: the realm is not to be trusted with them.
    """

    message: str
    foreign_realm: bool = False


AuthPlan: TypeAlias = AskAnonymously | UseBasic | UseToken | FetchToken | CannotAsk


@dataclass(frozen=True, slots=True)
class RegistryTrust:
    """What a person said about a registry.

    Attributes:
        insecure: plain HTTP and unverified certificates are accepted.
        token_realms: realm hosts that may have its credentials.
    """

    insecure: bool = False
    token_realms: tuple[str, ...] = ()


def plan_auth(
    challenges: Sequence[Challenge],
    credential: ImageAuth | None,
    *,
    registry: Origin,
    scope: str,
    trust: RegistryTrust,
) -> AuthPlan:
    """Decide how to answer a 401.

    Args:
        challenges: what the registry asked for.
        credential: what there is for it; ``None`` asks anonymously.
        registry: the server that answered 401.
        scope: what the token is to be good for; empty for nothing but a login.
        trust: what a person said about the registry.
    """
    credential = None if credential is None or is_empty(credential) else credential
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.realm:
            return _plan_bearer(
                challenge, credential, registry=registry, scope=scope, trust=trust
            )
    if not any(challenge.scheme == "basic" for challenge in challenges):
        offered = ", ".join(sorted({c.scheme for c in challenges})) or "none"
        return CannotAsk(
            f"the registry {registry} asks for authentication by no known way "
            f"(it offers: {cut(offered)})"
        )
    if credential is None:
        return AskAnonymously()
    username, password = credential.username, credential.password
    if not username:
        return CannotAsk(
            f"the registry {registry} takes user and password only, and there is just "
            "a token"
        )
    if registry.scheme != "https" and not may_send_plain(
        registry, insecure=trust.insecure
    ):
        return CannotAsk(
            f"the registry {registry} wants a password without TLS; it gets none"
        )
    return UseBasic(username, password)


def is_empty(credential: ImageAuth) -> bool:
    """Say whether nothing in a credential could be sent."""
    return not (
        credential.username or credential.identity_token or credential.registry_token
    )


def _plan_bearer(
    challenge: Challenge,
    credential: ImageAuth | None,
    *,
    registry: Origin,
    scope: str,
    trust: RegistryTrust,
) -> AuthPlan:
    if credential is not None and credential.registry_token:
        if registry.scheme != "https" and not may_send_plain(
            registry, insecure=trust.insecure
        ):
            return CannotAsk(
                f"the registry {registry} wants a token without TLS; it gets none"
            )
        return UseToken(credential.registry_token)
    scope = scope or challenge.parameters.get("scope", "")
    service = challenge.parameters.get("service", "")
    if credential is None:
        try:
            parse_origin(challenge.realm)
        except ValueError as error:
            return CannotAsk(
                f"the registry {registry} names the token realm "
                f'"{show_url(challenge.realm)}": {error}',
                foreign_realm=True,
            )
        return FetchToken(_token_url(challenge.realm, service, scope, ""))
    verdict = judge_realm(
        challenge.realm,
        registry,
        allowed=trust.token_realms,
        insecure=trust.insecure,
    )
    if isinstance(verdict, MustNotSend):
        return CannotAsk(verdict.message, foreign_realm=True)
    identity = credential.identity_token
    if credential.username == _TOKEN_USER:
        identity = credential.password
    if identity:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": "podyard",
            "refresh_token": identity,
        }
        return FetchToken(
            challenge.realm, form=form | ({"scope": scope} if scope else {})
        )
    return FetchToken(
        _token_url(challenge.realm, service, scope, credential.username),
        credential.username,
        credential.password,
    )


def _token_url(realm: str, service: str, scope: str, account: str) -> str:
    wanted = {"service": service, "scope": scope, "account": account}
    query = urlencode({key: value for key, value in wanted.items() if value})
    parts = urlsplit(realm)
    whole = "&".join(part for part in (parts.query, query) if part)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, whole, ""))


def pull_scope(repository: str) -> str:
    """Return the token scope for pulling a repository of that registry."""
    return f"repository:{repository}:pull"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; its repr hides it.

    Attributes:
        lives_s: seconds it may be used for, from when it was asked for.
    """

    value: str = field(repr=False)
    lives_s: float = 60.0


def parse_token(body: bytes) -> Token:
    """Read a token server's answer.

    Raises:
        ValueError: there is no token in it.
    """
    document = _object(body)
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("there is no token in the answer")
    lives = document.get("expires_in")
    if isinstance(lives, bool) or not isinstance(lives, int | float) or lives <= 0:
        lives = 60
    return Token(value, float(lives))


# -- redirects -------------------------------------------------------------------

#: How many redirects one request may take.
MAX_REDIRECTS: Final = 10
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FollowRedirect:
    """Go to ``url``, with the credentials only where the origin is the same."""

    url: str
    keep_credentials: bool


@dataclass(frozen=True, slots=True)
class RefuseRedirect:
    """Go no further; ``message`` says why."""

    message: str


def decide_redirect(
    url: str, location: str, *, insecure: bool = False
) -> FollowRedirect | RefuseRedirect:
    """Decide about a redirect; credentials never cross host, port or scheme.

    Args:
        url: what was asked.
        location: the ``Location`` header.
        insecure: leaving TLS is accepted.
    """
    if not location:
        return RefuseRedirect(f"{show_url(url)} redirects to nowhere")
    try:
        target = urljoin(url, location)
        before, after = parse_origin(url), parse_origin(target)
    except ValueError as error:
        return RefuseRedirect(
            f'{show_url(url)} redirects to "{show_url(location)}": {error}'
        )
    if before.scheme == "https" and after.scheme != "https" and not insecure:
        return RefuseRedirect(
            f'{show_url(url)} redirects to "{show_url(target)}", which is without TLS'
        )
    return FollowRedirect(target, keep_credentials=before == after)


# -- retries ---------------------------------------------------------------------

#: The longest span a registry may make us wait inside one request, seconds.
MAX_WAIT_S: Final = 60.0
_BUSY_ATTEMPTS: Final = 5
_BUSY_FIRST_WAIT_S: Final = 1.0
_ONCE_MORE: Final = frozenset({408, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Ask again after ``in_s`` seconds."""

    in_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Take the answer as it is.

    Attributes:
        retry_in_s: when the registry would like to be asked again, seconds; ``None``
            where it did not say.
    """

    retry_in_s: float | None = None


def decide_retry(
    status: int,
    *,
    attempt: int,
    retry_after: str = "",
    waited_s: float = 0.0,
    now: datetime,
) -> TryAgain | GiveUp:
    """Decide whether a failed request is made again.

    429 waits as long as the registry says, as far as that is bearable, or a second,
    doubling. A server's own failure is met with one more try.

    Args:
        status: the answer's status.
        attempt: how many requests were made, this one included.
        retry_after: the ``Retry-After`` header.
        waited_s: seconds this request has waited so far.
        now: the wall time, for a date in that header.
    """
    asked_s = parse_retry_after(retry_after, now=now)
    if status == 429:
        wait_s = asked_s
        if wait_s is None:
            wait_s = _BUSY_FIRST_WAIT_S * 2 ** min(attempt - 1, _BUSY_ATTEMPTS)
        if attempt < _BUSY_ATTEMPTS and waited_s + wait_s <= MAX_WAIT_S:
            return TryAgain(wait_s)
        return GiveUp(asked_s)
    if status in _ONCE_MORE and attempt == 1:
        wait_s = 0.2 if asked_s is None else asked_s
        if waited_s + wait_s <= MAX_WAIT_S:
            return TryAgain(wait_s)
    return GiveUp(asked_s)


def parse_retry_after(text: str, *, now: datetime) -> float | None:
    """Return seconds from a ``Retry-After`` header; ``None`` where it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, (at - now).total_seconds())


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
        document = _object(data)
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


def _object(data: bytes) -> Document:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


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


@dataclass(frozen=True, slots=True)
class NoPlatform:
    """None of the images fits; ``message`` lists what the node is and what there is.

    Attributes:
        offered: the platforms on offer.
    """

    message: str
    offered: tuple[Platform, ...]


def choose_platform(index: ImageIndex, node: Platform) -> Content | NoPlatform:
    """Choose from an index the manifest that a node runs best.

    Those that say nothing about their platform come last.
    """
    images = [item for item in index.manifests if item.is_image]
    for wanted in runnable_platforms(node):
        for item in images:
            if item.platform == wanted:
                return item
    for item in images:
        if item.platform is None:
            return item
    offered = tuple(dict.fromkeys(item.platform for item in images if item.platform))
    listed = ", ".join(str(platform) for platform in offered) or "none"
    return NoPlatform(
        f"no image of the index fits this node ({normalize_platform(node)}); on "
        f"offer: {cut(listed, 512)}",
        offered,
    )


# -- the registry's own words ----------------------------------------------------

_MAX_WORDS: Final = 256


def cut(text: str, limit: int = _MAX_WORDS) -> str:
    """Return a stranger's text fit for one line: printable, and not too long."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def registry_words(body: bytes, content_type: str) -> str:
    """Return what a registry says about an error, from the body it sent; or nothing."""
    if looks_like_html(body, content_type):
        return ""
    try:
        document = _object(body)
    except ValueError:
        text = body[: _MAX_WORDS * 2].decode(errors="replace")
        return cut(text) if content_type.startswith("text/plain") else ""
    errors = document.get("errors")
    told = [
        ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    if not any(told):
        keys = ("error_description", "details", "message", "error")
        told = [str(document[key]) for key in keys if document.get(key)][:1]
    return cut("; ".join(text for text in told if text))


def looks_like_html(body: bytes, content_type: str) -> bool:
    """Say whether an answer is a web page, as captive portals send it."""
    if content_type.partition(";")[0].strip().lower() == "text/html":
        return True
    head = body[:256].lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html"))
