"""What everybody may: ask who they are and what they may, discovery, health, version.

Source: the default roles ``system:basic-user``, ``system:discovery``,
``system:public-info-viewer`` and ``system:service-account-issuer-discovery``,
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
"""

from typing import Final

from podyard.api.identity import AUTHENTICATED, SERVICE_ACCOUNTS, UNAUTHENTICATED, User
from podyard.server.authz.decide import any_covers, covers_path
from podyard.server.authz.parts import (
    Allow,
    AuthorizationContext,
    Authorizer,
    Decision,
    Mode,
    NoOpinion,
    PathRule,
    ResourceRule,
    Rules,
)
from podyard.server.build import RequestInfo

_PUBLIC: Final = PathRule(
    ("get",), ("/healthz", "/livez", "/readyz", "/version", "/version/")
)
_DISCOVERY: Final = PathRule(
    ("get",),
    (
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ),
)
_ISSUER: Final = PathRule(
    ("get",),
    ("/.well-known/openid-configuration", "/.well-known/openid-configuration/",
     "/openid/v1/jwks", "/openid/v1/jwks/"),
)  # fmt: skip
_REVIEWS: Final = (
    ResourceRule(
        ("create",),
        ("authorization.k8s.io",),
        ("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
    ),
    ResourceRule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
)


def make(context: AuthorizationContext) -> Mode:  # noqa: ARG001 - needs none
    """Return the mode."""
    return Mode(authorize, list_rules)


def rules(user: User) -> Rules:
    """Return the rules for a user, by group."""
    groups = set(user.groups)
    paths: list[PathRule] = []
    if groups & {AUTHENTICATED, UNAUTHENTICATED}:
        paths.append(_PUBLIC)
    if AUTHENTICATED in groups:
        paths.append(_DISCOVERY)
    if SERVICE_ACCOUNTS in groups:
        paths.append(_ISSUER)
    return Rules(_REVIEWS if AUTHENTICATED in groups else (), tuple(paths))


async def authorize(user: User, info: RequestInfo) -> Decision:
    """Allow what the rules cover."""
    allowed = rules(user)
    if any_covers(allowed.resources, info):
        return Allow()
    if any(covers_path(rule, info) for rule in allowed.paths):
        return Allow()
    return NoOpinion()


async def list_rules(user: User, namespace: str) -> Rules:  # noqa: ARG001
    """Return the rules."""
    return rules(user)


PART: Final = Authorizer(name="SelfService", order=30, make=make)
