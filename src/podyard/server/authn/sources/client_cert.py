"""The user of a client certificate that our authority signed."""

from typing import Final

from podyard.api.identity import User
from podyard.server.authn.parts import (
    Authenticate,
    AuthenticationContext,
    Authenticator,
    Credentials,
)


def make(context: AuthenticationContext) -> Authenticate:  # noqa: ARG001 - needs none
    """Return the function; the handshake has verified the certificate."""
    return authenticate


async def authenticate(credentials: Credentials) -> User | None:
    """Return the certificate's user, or ``None`` without a certificate."""
    peer = credentials.peer
    if peer is None:
        return None
    extra = {}
    if peer.fingerprint:
        credential = f"X509SHA256={peer.fingerprint}"
        extra["authentication.kubernetes.io/credential-id"] = (credential,)
    return User(peer.common_name, peer.uid, peer.organizations, extra)


PART: Final = Authenticator(name="client-cert", order=10, make=make)
