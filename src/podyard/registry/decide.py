"""Whom a registry may send credentials to, when to ask again, what fits; free of I/O.

Sources: the OCI distribution specification, the token protocol of the Docker
registry (https://distribution.github.io/distribution/spec/auth/token/), RFC 9110 for
challenges, ``Retry-After`` and redirects.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Final, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from podyard.api.runtime import ImageAuth
from podyard.lib.values import dataclass
from podyard.registry.manifests import (
    Content,
    ImageIndex,
    Platform,
    normalize_platform,
    runnable_platforms,
)
from podyard.registry.words import (
    Challenge,
    Origin,
    cut,
    parse_origin,
    parse_retry_after,
    show_url,
)

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
    most_s: float = MAX_WAIT_S,
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
        most_s: seconds it may wait in all.
        now: the wall time, for a date in that header.
    """
    asked_s = parse_retry_after(retry_after, now=now)
    if status == 429:
        wait_s = asked_s
        if wait_s is None:
            wait_s = _BUSY_FIRST_WAIT_S * 2 ** min(attempt - 1, _BUSY_ATTEMPTS)
        if attempt < _BUSY_ATTEMPTS and waited_s + wait_s <= most_s:
            return TryAgain(wait_s)
        return GiveUp(asked_s)
    if status in _ONCE_MORE and attempt == 1:
        wait_s = 0.2 if asked_s is None else asked_s
        if waited_s + wait_s <= most_s:
            return TryAgain(wait_s)
    return GiveUp(asked_s)


# -- platforms -------------------------------------------------------------------


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
