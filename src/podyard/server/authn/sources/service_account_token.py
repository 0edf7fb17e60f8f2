"""The ServiceAccount of a bearer token.

Browsers cannot set a header on a WebSocket, so the token may come as a subprotocol:
``base64url.bearer.authorization.k8s.io.<token in unpadded base64url>``.
"""

import base64
import binascii
from typing import Final

from podyard.api.errors import unauthorized
from podyard.api.identity import User
from podyard.server.authn.parts import (
    Authenticate,
    AuthenticationContext,
    Authenticator,
    Credentials,
)

#: What the subprotocol that carries a token begins with.
PROTOCOL_PREFIX: Final = "base64url.bearer.authorization.k8s.io."


def make(context: AuthenticationContext) -> Authenticate:
    """Return the function that asks the context's tokens."""

    async def authenticate(credentials: Credentials) -> User | None:
        token = bearer_token(credentials)
        if token is None:
            return None
        user = await context.tokens.authenticate_token(token)
        if user is None:
            raise unauthorized()
        return user

    return authenticate


def bearer_token(credentials: Credentials) -> str | None:
    """Return the token a request brings, or ``None``.

    Raises:
        ApiError: 401, the subprotocol is not base64url of UTF-8, or there are two.
    """
    scheme, _, token = credentials.authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    offered = [
        name.removeprefix(PROTOCOL_PREFIX)
        for name in credentials.websocket_protocols
        if name.startswith(PROTOCOL_PREFIX)
    ]
    if not offered:
        return None
    if len(offered) > 1 or not offered[0]:
        raise unauthorized()
    padded = offered[0] + "=" * (-len(offered[0]) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise unauthorized() from error


PART: Final = Authenticator(name="service-account-token", order=20, make=make)
