"""The review kinds: questions put to authentication and authorization, never stored.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
and .../authentication-resources/ ; kubernetes ``pkg/registry/authorization`` (v1.36).
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, TypeAlias

from podyard.api.documents import Document
from podyard.api.errors import FieldError, bad_request, invalid, invalid_object
from podyard.api.identity import AUTHENTICATED, User
from podyard.api.scheme import Kind
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.server.authz.chain import AuthorizationChain
from podyard.server.authz.parts import Allow, Decision, Deny
from podyard.server.build import RequestInfo

_AUTHORIZATION: Final = "authorization.k8s.io"
_AUTHENTICATION: Final = "authentication.k8s.io"

SELF_SUBJECT_ACCESS_REVIEW: Final = Kind(
    _AUTHORIZATION,
    "v1",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    namespaced=False,
)
SELF_SUBJECT_RULES_REVIEW: Final = Kind(
    _AUTHORIZATION,
    "v1",
    "SelfSubjectRulesReview",
    "selfsubjectrulesreviews",
    namespaced=False,
)
SUBJECT_ACCESS_REVIEW: Final = Kind(
    _AUTHORIZATION,
    "v1",
    "SubjectAccessReview",
    "subjectaccessreviews",
    namespaced=False,
)
LOCAL_SUBJECT_ACCESS_REVIEW: Final = Kind(
    _AUTHORIZATION, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews"
)
TOKEN_REVIEW: Final = Kind(
    _AUTHENTICATION, "v1", "TokenReview", "tokenreviews", namespaced=False
)
SELF_SUBJECT_REVIEW: Final = Kind(
    _AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False
)
#: Every review kind; their only verb is ``create``.
REVIEW_KINDS: Final = (
    LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
)

#: Answers one review: who asks, the body, the namespace of the path.
ReviewHandler: TypeAlias = Callable[[User, Document, str], Awaitable[Document]]


class TokenReviewer(Protocol):
    """Whoever can tell a bearer token's user."""

    async def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> User | None:
        """Return the token's user, or ``None`` where the token is no good."""

    def token_audiences(self, token: str) -> tuple[str, ...]:
        """Return the audiences of a token we signed."""


@dataclass(frozen=True, slots=True)
class Reviews:
    """Answers the review kinds.

    Attributes:
        authorization: who decides.
        tokens: who knows bearer tokens.
        audiences: the API server's own.
        clock: tells the time.
    """

    authorization: AuthorizationChain
    tokens: TokenReviewer
    audiences: tuple[str, ...]
    clock: Clock

    def handlers(self) -> Mapping[Kind, ReviewHandler]:
        """Return the handler of each kind."""
        return {
            LOCAL_SUBJECT_ACCESS_REVIEW: self.local_subject_access,
            SELF_SUBJECT_ACCESS_REVIEW: self.self_subject_access,
            SELF_SUBJECT_REVIEW: self.self_subject,
            SELF_SUBJECT_RULES_REVIEW: self.self_subject_rules,
            SUBJECT_ACCESS_REVIEW: self.subject_access,
            TOKEN_REVIEW: self.token,
        }

    async def self_subject_access(
        self, user: User, document: Document, namespace: str
    ) -> Document:
        """Answer whether the asking user may do something.

        Raises:
            ApiError: 422, the question is incomplete.
        """
        del namespace
        return await self._access(SELF_SUBJECT_ACCESS_REVIEW, user, document)

    async def subject_access(
        self, user: User, document: Document, namespace: str
    ) -> Document:
        """Answer whether some user may do something.

        Raises:
            ApiError: 422, the question is incomplete.
        """
        del user, namespace
        subject = _subject(SUBJECT_ACCESS_REVIEW, document)
        return await self._access(SUBJECT_ACCESS_REVIEW, subject, document)

    async def local_subject_access(
        self, user: User, document: Document, namespace: str
    ) -> Document:
        """Answer whether some user may do something in this namespace.

        Raises:
            ApiError: 400 the namespaces differ, 422 the question is incomplete.
        """
        del user
        kind = LOCAL_SUBJECT_ACCESS_REVIEW
        spec = _spec(document)
        resource = spec.get("resourceAttributes") or {}
        if spec.get("nonResourceAttributes"):
            error = invalid(
                "spec.nonResourceAttributes",
                spec["nonResourceAttributes"],
                "disallowed on this kind of request",
            )
            raise _invalid(kind, document, error)
        if resource.get("namespace", "") != namespace:
            raise bad_request(
                f"spec.resourceAttributes.namespace must match namespace: {namespace}"
            )
        return await self._access(kind, _subject(kind, document), document)

    async def _access(self, kind: Kind, user: User, document: Document) -> Document:
        decision = await self.authorization.decide(user, _attributes(kind, document))
        return _answer(kind, document, _access_status(decision))

    async def self_subject_rules(
        self, user: User, document: Document, namespace: str
    ) -> Document:
        """List what the asking user may do in a namespace.

        Raises:
            ApiError: 400, no namespace is named.
        """
        del namespace
        where = str(_spec(document).get("namespace") or "")
        if not where:
            raise bad_request("no namespace on request")
        rules = await self.authorization.list_rules(user, where)
        status: Document = {
            "resourceRules": [
                {
                    "verbs": list(rule.verbs),
                    "apiGroups": list(rule.groups),
                    "resources": list(rule.resources),
                    **({"resourceNames": list(rule.names)} if rule.names else {}),
                }
                for rule in rules.resources
            ],
            "nonResourceRules": [
                {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)}
                for rule in rules.paths
            ],
            "incomplete": bool(rules.incomplete),
        }
        if rules.incomplete:
            status["evaluationError"] = rules.incomplete
        return _answer(SELF_SUBJECT_RULES_REVIEW, document, status)

    async def self_subject(
        self, user: User, document: Document, namespace: str
    ) -> Document:
        """Tell the asking user who they are."""
        del namespace
        answer = _answer(
            SELF_SUBJECT_REVIEW, document, {"userInfo": user.to_document()}
        )
        answer.pop("spec", None)
        answer["metadata"]["creationTimestamp"] = _timestamp(self.clock.now())
        return answer

    async def token(self, user: User, document: Document, namespace: str) -> Document:
        """Tell whose a bearer token is.

        Raises:
            ApiError: 400, there is no token.
        """
        del user, namespace
        spec = _spec(document)
        token = str(spec.get("token") or "")
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        wanted = tuple(str(audience) for audience in spec.get("audiences") or ())
        found = await self.tokens.authenticate_token(token, wanted)
        if found is None:
            status: Document = {
                "user": {},
                "error": "invalid bearer token",
            }
            return _answer(TOKEN_REVIEW, document, status)
        groups = found.groups
        if AUTHENTICATED not in groups:
            groups = (*groups, AUTHENTICATED)
        shared = set(self.tokens.token_audiences(token))
        told = User(found.name, found.uid, groups, found.extra)
        status = {
            "authenticated": True,
            "user": told.to_document(),
            "audiences": [a for a in wanted or self.audiences if a in shared],
        }
        return _answer(TOKEN_REVIEW, document, status)


def _spec(document: Document) -> Document:
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}


def _attributes(kind: Kind, document: Document) -> RequestInfo:
    """Return the request that a review asks about."""
    spec = _spec(document)
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        detail = (
            "exactly one of nonResourceAttributes or resourceAttributes must be "
            "specified"
        )
        if resource is None:
            error = invalid("spec.resourceAttributes", None, detail)
        else:
            detail = "cannot be specified in combination with resourceAttributes"
            error = invalid("spec.nonResourceAttributes", path, detail)
        raise _invalid(kind, document, error)
    if path is not None:
        return RequestInfo(
            verb=str(path.get("verb") or ""), path=str(path.get("path") or "")
        )
    assert resource is not None
    return RequestInfo(
        verb=str(resource.get("verb") or ""),
        path="",
        is_resource_request=True,
        group=str(resource.get("group") or ""),
        version=str(resource.get("version") or ""),
        resource=str(resource.get("resource") or ""),
        subresource=str(resource.get("subresource") or ""),
        namespace=str(resource.get("namespace") or ""),
        name=str(resource.get("name") or ""),
        query=_query(resource.get("fieldSelector")),
    )


def _query(selector: Document | None) -> Mapping[str, tuple[str, ...]]:
    """Return a review's field selector as the query parameter it stands for."""
    if not selector:
        return {}
    text = selector.get("rawSelector") or ",".join(
        f"{term.get('key')}={term['values'][0]}"
        for term in selector.get("requirements") or ()
        if term.get("operator") == "In" and len(term.get("values") or ()) == 1
    )
    return {"fieldSelector": (str(text),)}


def _subject(kind: Kind, document: Document) -> User:
    """Return the user that a review asks about."""
    spec = _spec(document)
    name, groups = str(spec.get("user") or ""), spec.get("groups") or []
    if not name and not groups:
        detail = "at least one of user or group must be specified"
        raise _invalid(kind, document, invalid("spec.user", name, detail))
    extra = {
        str(key): tuple(str(value) for value in values)
        for key, values in (spec.get("extra") or {}).items()
    }
    members = tuple(str(group) for group in groups)
    return User(name, str(spec.get("uid") or ""), members, extra)


def _invalid(kind: Kind, document: Document, error: FieldError) -> Exception:
    name = str((document.get("metadata") or {}).get("name") or "")
    return invalid_object(kind.group, kind.kind, name, [error])


def _access_status(decision: Decision) -> Document:
    status: Document = {"allowed": isinstance(decision, Allow)}
    if isinstance(decision, Deny):
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    return status


def _answer(kind: Kind, document: Document, status: Document) -> Document:
    answer: Document = {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": dict(document.get("metadata") or {}),
        "spec": _spec(document),
        "status": status,
    }
    return answer


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
