"""Authenticators, asked one after the other."""

from collections.abc import Iterable
from dataclasses import replace

from podyard.api.errors import unauthorized
from podyard.api.identity import AUTHENTICATED, UNAUTHENTICATED, User
from podyard.server.authn.parts import (
    AuthenticationContext,
    Authenticator,
    Credentials,
)


class AuthenticationChain:
    """The authenticators in their order.

    Args:
        authenticators: the sources to ask.
        context: what they are made with.
    """

    def __init__(
        self,
        authenticators: Iterable[Authenticator],
        context: AuthenticationContext,
    ) -> None:
        parts = sorted(authenticators, key=lambda part: (part.order, part.name))
        self._parts = tuple((part.name, part.make(context)) for part in parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The sources in the order they are asked."""
        return tuple(name for name, _ in self._parts)

    async def authenticate(self, credentials: Credentials) -> User:
        """Return who asks; everyone but the anonymous user is ``authenticated``.

        Raises:
            ApiError: 401, no or bad credentials.
        """
        for _, authenticate in self._parts:
            user = await authenticate(credentials)
            if user is None:
                continue
            if UNAUTHENTICATED in user.groups or AUTHENTICATED in user.groups:
                return user
            return replace(user, groups=(*user.groups, AUTHENTICATED))
        raise unauthorized()
