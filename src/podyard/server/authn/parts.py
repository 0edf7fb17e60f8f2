"""What an authenticator is, and what it is given.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from podyard.api.identity import User
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The subject of a client certificate that the TLS handshake has verified.

    Attributes:
        common_name: the subject's CN; the user name.
        organizations: the subject's O entries; the groups.
        uid: the subject's uid entry (1.3.6.1.4.1.57683.2), usually empty.
        fingerprint: the certificate's SHA-256 in hexadecimal.
    """

    common_name: str
    organizations: tuple[str, ...] = ()
    uid: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says about its sender.

    Attributes:
        path: the request's path; anonymous requests are allowed on few.
        peer: the client certificate, if one was given. Parse it once a connection
            with ``podyard.server.authn.certificates.parse_peer``.
        authorization: the Authorization header, empty where absent.
        websocket_protocols: the offered ``Sec-WebSocket-Protocol`` names.
    """

    path: str
    peer: PeerCertificate | None = None
    authorization: str = ""
    websocket_protocols: tuple[str, ...] = ()


class TokenAuthentication(Protocol):
    """Whoever can tell a ServiceAccount token's user."""

    async def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> User | None:
        """Return the token's user, or ``None`` where the token is no good.

        Args:
            token: the compact JWT.
            audiences: one of them must be the token's; none means the API server's.
        """


@dataclass(frozen=True, slots=True)
class AuthenticationContext:
    """What authenticators are made with.

    Attributes:
        tokens: verifies bearer tokens.
    """

    tokens: TokenAuthentication


#: Returns the user, ``None`` where these credentials are none of its business, and
#: raises ``ApiError`` 401 where they are but are no good.
Authenticate: TypeAlias = Callable[[Credentials], Awaitable[User | None]]


@dataclass(frozen=True, slots=True)
class Authenticator:
    """One way to tell who asks.

    Attributes:
        name: the source's name.
        order: authenticators are asked from low to high.
        make: builds the function.
    """

    name: str
    order: int
    make: Callable[[AuthenticationContext], Authenticate]
