"""Ask registries about images, as far as Podyard itself wants to know.

The images themselves are pulled by the container runtime. Here are the challenge,
the token, and HEAD and GET of manifests and small blobs; what decides is in
``decide``. Redirects are followed by hand, and what authorizes a request is kept by
the server it is for, so that credentials stay where they belong.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from types import TracebackType
from typing import Final, Self, TypeAlias, assert_never

import structlog

from podyard.api.image_ref import ImageRef
from podyard.api.runtime import ImageAuth
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.registry.decide import (
    MAX_REDIRECTS,
    REDIRECTS,
    AskAnonymously,
    CannotAsk,
    FetchToken,
    FollowRedirect,
    GiveUp,
    MustNotSend,
    RefuseRedirect,
    RegistryTrust,
    UseBasic,
    UseToken,
    decide_redirect,
    decide_retry,
    judge_realm,
    plan_auth,
    pull_scope,
)
from podyard.registry.errors import (
    BadContentError,
    ForbiddenError,
    ForeignRealmError,
    NotARegistryError,
    NotFoundError,
    RegistryError,
    ServerFailedError,
    TlsError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
)
from podyard.registry.hosts import Endpoint, Registry, endpoints, find_registry
from podyard.registry.manifests import (
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Content,
    ImageIndex,
    ImageManifest,
    ManifestError,
    digest_like,
    is_digest,
    parse_manifest,
)
from podyard.registry.transport import (
    Answer,
    Exchange,
    Request,
    Timeouts,
    Transport,
)
from podyard.registry.words import (
    Origin,
    cut,
    parse_challenges,
    parse_origin,
    parse_token,
    show_url,
)

log = structlog.get_logger()

_MAX_TOKEN_BYTES: Final = 256 * 1024
_SHA256: Final = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What a name stands for now.

    Attributes:
        size: bytes of the manifest itself; 0 where the registry did not say.
        server: who answered.
    """

    digest: str
    media_type: str
    size: int
    server: str


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index whose digest was checked."""

    head: ManifestHead
    data: bytes = field(repr=False)
    content: ImageManifest | ImageIndex


@dataclass(frozen=True, slots=True)
class _Authorization:
    header: str = field(repr=False)
    sent: str
    until_s: float


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of an endpoint."""

    endpoint: Endpoint
    method: str
    path: str
    scope: str
    trust: RegistryTrust
    credential: ImageAuth | None = None
    accept: tuple[str, ...] = ()
    query: str = ""

    @property
    def url(self) -> str:
        return f"{self.endpoint.base}{self.path}{self.query}"

    @property
    def insecure(self) -> bool:
        return self.trust.insecure or self.endpoint.url.startswith("http://")


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer, and whether it came without a detour over another server."""

    answer: Answer
    direct: bool


_Secret: TypeAlias = tuple[str, ...]


class RegistryClient:
    """Asks registries; use it as an async context manager.

    Tokens are kept in memory as long as they are good.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        registries: Sequence[Registry] = (),
        timeouts: Timeouts | None = None,
        proxy_of: Callable[[str], str | None] | None = None,
        on_exchange: Callable[[Exchange], None] | None = None,
        user_agent: str = "podyard",
    ) -> None:
        """Describe it; nothing is connected yet.

        Args:
            clock: measures waits and the life of tokens.
            registries: what a person said about registries.
            timeouts: how long to wait.
            proxy_of: the HTTP proxy for a URL, or ``None``.
            on_exchange: told of every request.
            user_agent: how we call ourselves.
        """
        self._clock = clock
        self._registries = tuple(registries)
        self._transport = Transport(
            clock=clock,
            timeouts=timeouts or Timeouts(),
            proxy_of=proxy_of or (lambda _: None),
            on_exchange=on_exchange or (lambda _: None),
            user_agent=user_agent,
        )
        self._authorizations: dict[tuple[Origin, str, _Secret], _Authorization] = {}

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    # -- what can be asked

    async def head_manifest(
        self, ref: ImageRef, credential: ImageAuth | None = None
    ) -> ManifestHead:
        """Return the digest a name stands for now.

        Raises:
            RegistryError: of the family in ``errors``.
        """
        answer, _ = await self._manifest("HEAD", ref, credential)
        told = answer.headers.get("Docker-Content-Digest", "")
        if not is_digest(told):
            # Registries need not tell it here; then it is computed.
            return (await self.get_manifest(ref, credential)).head
        if ref.digest and told != ref.digest:
            raise _lies(ref, answer)
        size = answer.headers.get("Content-Length", "")
        return ManifestHead(
            told,
            answer.content_type,
            int(size) if size.isdigit() else 0,
            str(answer.origin),
        )

    async def get_manifest(
        self, ref: ImageRef, credential: ImageAuth | None = None
    ) -> FetchedManifest:
        """Return the manifest or index of a name; its digest is checked.

        Raises:
            RegistryError: of the family in ``errors``.
        """
        answer, _ = await self._manifest("GET", ref, credential)
        told = answer.headers.get("Docker-Content-Digest", "")
        wanted = ref.digest or (told if is_digest(told) else "")
        digest = digest_like(answer.body, wanted or _SHA256)
        if wanted and digest != wanted:
            raise _lies(ref, answer)
        try:
            content = parse_manifest(answer.body, answer.content_type)
        except ManifestError as error:
            raise BadContentError(
                f"{ref}: {error}", host=str(answer.origin), status=answer.status
            ) from error
        head = ManifestHead(
            digest, content.media_type, len(answer.body), str(answer.origin)
        )
        return FetchedManifest(head, answer.body, content)

    async def get_blob(
        self, ref: ImageRef, content: Content, credential: ImageAuth | None = None
    ) -> bytes:
        """Return a small blob, an image's config, say; its digest is checked.

        Raises:
            RegistryError: of the family in ``errors``.
        """
        path = f"/{ref.path}/blobs/{content.digest}"
        answer, _ = await self._ask_all(
            ref.domain, "GET", path, scope=pull_scope(ref.path), credential=credential
        )
        if digest_like(answer.body, content.digest) != content.digest:
            raise _lies(replace(ref, tag="", digest=content.digest), answer)
        return answer.body

    async def log_in(self, host: str, credential: ImageAuth) -> bool:
        """Check credentials; tell whether the registry asked for any at all.

        Raises:
            UnauthorizedError: it refused them.
            RegistryError: of the family in ``errors``.
        """
        await self._ask_all(
            host, "GET", "/", scope="", credential=credential, by_mirrors=False
        )
        secret = _secret(credential)
        return any(known == secret for _, _, known in self._authorizations)

    async def check_realm(self, ref: ImageRef) -> bool:
        """Make sure that credentials for an image go nowhere they should not.

        Asks without credentials, and judges the realm that the registry names. A
        caller whose runtime pulls with credentials does this first.

        Returns:
            Whether the registry has said where credentials would go; one that is busy
            or fails has not.

        Raises:
            ForeignRealmError: credentials must not be used.
            RegistryError: of the family in ``errors``.
        """
        registry = find_registry(ref.domain, self._registries)
        path = f"/{ref.path}/manifests/{_reference(ref)}"
        own = [item for item in endpoints(registry) if not item.mirror]
        for number, endpoint in enumerate(own, 1):
            question = _Question(
                endpoint,
                "HEAD",
                path,
                pull_scope(ref.path),
                registry.trust,
                accept=MANIFEST_TYPES,
            )
            try:
                reply = await self._send(question)
            except (TlsError, UnreachableError):
                if number == len(own):
                    raise
                continue
            if reply.answer.status == 401 and reply.direct:
                _judge(reply.answer, registry.trust)
            return reply.direct and _tells_realm(reply.answer.status)
        return False

    # -- endpoints

    async def _manifest(
        self, method: str, ref: ImageRef, credential: ImageAuth | None
    ) -> tuple[Answer, Endpoint]:
        return await self._ask_all(
            ref.domain,
            method,
            f"/{ref.path}/manifests/{_reference(ref)}",
            scope=pull_scope(ref.path),
            credential=credential,
            accept=MANIFEST_TYPES,
            resolving=not ref.digest,
        )

    async def _ask_all(
        self,
        host: str,
        method: str,
        path: str,
        *,
        scope: str,
        credential: ImageAuth | None,
        accept: tuple[str, ...] = (),
        resolving: bool = False,
        by_mirrors: bool = True,
    ) -> tuple[Answer, Endpoint]:
        """Ask the mirrors, then the registry itself; the first good answer counts.

        A mirror's failure is logged and no more: it must not make an image
        unpullable. Mirrors are asked without credentials.
        """
        registry = find_registry(host, self._registries)
        question = _Question(
            Endpoint(""), method, path, scope, registry.trust, accept=accept
        )
        own = []
        for endpoint in endpoints(registry):
            if not endpoint.mirror:
                own.append(endpoint)
            elif by_mirrors and (endpoint.resolve or not resolving):
                asked = replace(question, endpoint=endpoint, query=f"?ns={host}")
                try:
                    return await self._ask(asked), endpoint
                except RegistryError as error:
                    log.info("mirror_failed", host=error.host, error=str(error))
        failed: RegistryError | None = None
        for endpoint in own:
            asked = replace(question, endpoint=endpoint, credential=credential)
            try:
                return await self._ask(asked), endpoint
            except (TlsError, UnreachableError) as error:
                # Plain HTTP is for servers that do not speak TLS, and for nothing else.
                failed = failed or error
        assert failed is not None
        raise failed

    async def _ask(self, question: _Question) -> Answer:
        """Ask one endpoint, with what it takes to be answered.

        Raises:
            RegistryError: it gave no good answer.
        """
        reply = await self._send(question)
        for _ in range(2):
            # The second round is for a redirect target that wants a token of its own.
            if reply.answer.status != 401:
                break
            if not await self._authorize(question, reply):
                break
            reply = await self._send(question)
        answer = reply.answer
        if question.method == "HEAD" and answer.status == 405:
            return await self._ask(replace(question, method="GET"))
        if answer.status != 200:
            raise self._failure(answer, str(answer.origin), question)
        if answer.is_page:
            raise _web_page(answer)
        return answer

    async def _send(self, question: _Question) -> _Reply:
        """Send a question and follow redirects, each hop with what is its own."""
        url, direct = question.url, True
        for _ in range(MAX_REDIRECTS + 1):
            origin = parse_origin(url)
            headers = {"Accept": ", ".join(question.accept)} if question.accept else {}
            known = self._known(origin, question, direct=direct)
            if known is not None:
                headers["Authorization"] = known.header
            answer = await self._transport.ask(
                Request(
                    question.method,
                    url,
                    insecure=question.endpoint.insecure,
                    ca=question.endpoint.ca,
                    headers=headers,
                    sent=known.sent if known else "nothing",
                    limit=MAX_MANIFEST_BYTES,
                )
            )
            if answer.status not in REDIRECTS:
                return _Reply(answer, direct)
            location = answer.headers.get("Location", "")
            match decide_redirect(url, location, insecure=question.insecure):
                case FollowRedirect(target, keep_credentials):
                    url, direct = target, direct and keep_credentials
                case RefuseRedirect(message):
                    raise BadContentError(
                        message, host=str(origin), status=answer.status
                    )
                case unknown:
                    assert_never(unknown)
        raise BadContentError(
            f"{show_url(question.url)} redirects more than {MAX_REDIRECTS} times",
            host=str(question.endpoint.origin),
        )

    # -- authorization

    def _known(
        self, origin: Origin, question: _Question, *, direct: bool
    ) -> _Authorization | None:
        secret = _secret(question.credential if direct else None)
        known = self._authorizations.get((origin, question.scope, secret))
        if known is None or known.until_s <= self._clock.monotonic_s():
            return None
        return known

    async def _authorize(self, question: _Question, reply: _Reply) -> bool:
        """Get ready to ask again after a 401; say whether there is any hope."""
        answer = reply.answer
        credential = question.credential if reply.direct else None
        plan = plan_auth(
            parse_challenges(answer.challenges),
            credential,
            registry=answer.origin,
            scope=question.scope,
            trust=question.trust,
        )
        match plan:
            case AskAnonymously():
                return False
            case CannotAsk(message, foreign_realm):
                kind = ForeignRealmError if foreign_realm else UnauthorizedError
                raise kind(message, host=str(answer.origin), status=401)
            case UseBasic(username, password):
                made = _Authorization(_basic(username, password), "basic", float("inf"))
            case UseToken(token):
                made = _Authorization(f"Bearer {token}", "token", float("inf"))
            case FetchToken():
                made = await self._fetch_token(question, plan)
            case unknown:
                assert_never(unknown)
        key = (answer.origin, question.scope, _secret(credential))
        if self._authorizations.get(key) == made:
            return False
        self._authorizations[key] = made
        return True

    async def _fetch_token(
        self, question: _Question, plan: FetchToken
    ) -> _Authorization:
        """Get a token; its server's redirects are not followed.

        Raises:
            RegistryError: there is none.
        """
        headers, sent = {}, "nothing"
        if plan.username:
            headers["Authorization"] = _basic(plan.username, plan.password)
            sent = "basic"
        elif plan.form is not None:
            sent = "identity token"
        asked_s = self._clock.monotonic_s()
        answer = await self._transport.ask(
            Request(
                "GET" if plan.form is None else "POST",
                plan.url,
                insecure=question.endpoint.insecure,
                ca=question.endpoint.ca,
                headers=headers,
                form=plan.form,
                sent=sent,
                limit=_MAX_TOKEN_BYTES,
            )
        )
        where = f"the token server {answer.origin}"
        if answer.status != 200:
            raise self._failure(answer, where, question, told=plan.with_credentials)
        try:
            token = parse_token(answer.body)
        except ValueError as error:
            raise NotARegistryError(
                f"{where} sent no token: {error}",
                host=str(answer.origin),
                status=answer.status,
            ) from error
        return _Authorization(f"Bearer {token.value}", "token", asked_s + token.lives_s)

    # -- failures

    def _failure(
        self, answer: Answer, where: str, question: _Question, *, told: bool = True
    ) -> RegistryError:
        """Return the error for a bad status.

        Args:
            answer: with that status.
            where: who gave it, for the message.
            question: what was asked.
            told: credentials went along, as far as there are any.
        """
        host, status, words = str(answer.origin), answer.status, answer.words
        with_credentials = told and question.credential is not None
        if status == 429:
            retry = decide_retry(
                429,
                attempt=1_000,
                retry_after=answer.headers.get("Retry-After", ""),
                now=self._clock.now(),
            )
            later_s = retry.retry_in_s if isinstance(retry, GiveUp) else None
            later = "" if later_s is None else f"; it asks to wait {later_s:g} s"
            return TooManyRequestsError(
                f"{where} has had too many requests (429){later}",
                host=host,
                words=words,
                retry_in_s=later_s,
            )
        kind, said = _STATUSES.get(status, (ServerFailedError, "failed"))
        if kind is not UnauthorizedError and answer.is_page:
            return _web_page(answer)
        if kind is UnauthorizedError:
            said = (
                "refused the credentials"
                if with_credentials
                else "wants credentials, and there are none"
            )
        return kind(f"{where} {said} ({status})", host=host, status=status, words=words)


_STATUSES: Final[dict[int, tuple[type[RegistryError], str]]] = {
    401: (UnauthorizedError, ""),
    403: (ForbiddenError, "does not allow it"),
    404: (NotFoundError, "knows no such image, or tells only those who may know"),
}


def _tells_realm(status: int) -> bool:
    """Say whether a registry that wants credentials would have said so."""
    return status < 500 and status not in {408, 425, 429}


def _judge(answer: Answer, trust: RegistryTrust) -> None:
    for challenge in parse_challenges(answer.challenges):
        if challenge.scheme != "bearer" or not challenge.realm:
            continue
        verdict = judge_realm(
            challenge.realm,
            answer.origin,
            allowed=trust.token_realms,
            insecure=trust.insecure,
        )
        if isinstance(verdict, MustNotSend):
            raise ForeignRealmError(
                verdict.message, host=str(answer.origin), status=401
            )


def _web_page(answer: Answer) -> NotARegistryError:
    return NotARegistryError(
        f"{answer.origin} sent a web page: it is no registry, or a captive portal is "
        "in between",
        host=str(answer.origin),
        status=answer.status,
    )


def _lies(ref: ImageRef, answer: Answer) -> BadContentError:
    told = answer.headers.get("Docker-Content-Digest", "")
    wanted = ref.digest or f'the digest it names ("{cut(told)}")'
    return BadContentError(
        f"{ref}: what {answer.origin} sent does not have {wanted}",
        host=str(answer.origin),
        status=answer.status,
    )


def _reference(ref: ImageRef) -> str:
    return ref.digest or ref.effective_tag


def _basic(username: str, password: str) -> str:
    pair = f"{username}:{password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _secret(credential: ImageAuth | None) -> _Secret:
    if credential is None:
        return ()
    return (
        credential.username,
        credential.password,
        credential.identity_token,
        credential.registry_token,
    )
