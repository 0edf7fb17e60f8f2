"""Acting as somebody else: ``kubectl --as``. Pure.

Whoever is named takes the place of the user once every part of them is allowed.

Source: https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/ and
apiserver ``endpoints/filters/impersonation`` (v1.36).
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from podyard.api.errors import internal
from podyard.api.identity import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    User,
    parse_service_account,
    service_account_groups,
)
from podyard.lib.values import dataclass
from podyard.server.build import RequestInfo

#: What the names of the headers begin with, in lower case.
PREFIX: Final = "impersonate-"
_EXTRA: Final = f"{PREFIX}extra-"
_AUTHENTICATION: Final = "authentication.k8s.io"


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom a request wants to be made as.

    Attributes:
        user: that user.
        questions: what the asking user has to be allowed, each of them.
    """

    user: User
    questions: tuple[RequestInfo, ...]


def parse_impersonation(headers: Iterable[tuple[str, str]]) -> Impersonation | None:
    """Return whom the headers name, or ``None`` where they name nobody.

    Args:
        headers: those that begin with the prefix; a name may be there several times.

    Raises:
        ApiError: 500, as upstream, where there is a group, uid or more but no user.
    """
    name, uid = "", ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    for header, value in headers:
        lower = header.lower()
        if lower == f"{PREFIX}user":
            name = value
        elif lower == f"{PREFIX}uid":
            uid = value
        elif lower == f"{PREFIX}group":
            groups.append(value)
        elif lower.startswith(_EXTRA):
            key = unquote(lower.removeprefix(_EXTRA))
            extra.setdefault(key, []).append(value)
    if not name:
        if not (uid or groups or extra):
            return None
        raise internal("requested impersonation without impersonating a user")
    questions = [_about_user(name)]
    questions += [_question("groups", group) for group in groups]
    questions += [
        _question("userextras", value, group=_AUTHENTICATION, subresource=key)
        for key, values in extra.items()
        for value in values
    ]
    if uid:
        questions.append(_question("uids", uid, group=_AUTHENTICATION))
    return Impersonation(
        User(name, uid, _groups(name, groups), {k: tuple(v) for k, v in extra.items()}),
        tuple(questions),
    )


def _about_user(name: str) -> RequestInfo:
    account = parse_service_account(name)
    if account is None:
        return _question("users", name)
    return _question("serviceaccounts", account[1], namespace=account[0])


def _question(
    resource: str,
    name: str,
    *,
    group: str = "",
    subresource: str = "",
    namespace: str = "",
) -> RequestInfo:
    return RequestInfo(
        verb="impersonate",
        path="",
        is_resource_request=True,
        group=group,
        version="v1",
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


def _groups(name: str, groups: list[str]) -> tuple[str, ...]:
    """Return the groups that are named, and those that everyone is in."""
    found = list(groups)
    account = parse_service_account(name)
    if account is not None and not found:
        found += service_account_groups(account[0])
    everyone = UNAUTHENTICATED if name == ANONYMOUS else AUTHENTICATED
    if not {AUTHENTICATED, UNAUTHENTICATED} & set(found):
        found.append(everyone)
    return tuple(found)
