"""The user without credentials: let in where health and version are told only.

Anyone else without credentials is answered with 401.
"""

from typing import Final

from podyard.api.identity import ANONYMOUS, UNAUTHENTICATED, User
from podyard.server.authn.parts import (
    Authenticate,
    AuthenticationContext,
    Authenticator,
    Credentials,
)

#: The paths for everybody, with or without a slash at the end.
PATHS: Final = frozenset({"/healthz", "/livez", "/readyz", "/version"})


def make(context: AuthenticationContext) -> Authenticate:  # noqa: ARG001 - needs none
    """Return the function."""
    return authenticate


async def authenticate(credentials: Credentials) -> User | None:
    """Return the anonymous user for the few paths, else ``None``."""
    if credentials.authorization:
        return None
    if credentials.path.rstrip("/") not in PATHS:
        return None
    return User(ANONYMOUS, groups=(UNAUTHENTICATED,))


PART: Final = Authenticator(name="anonymous", order=90, make=make)
