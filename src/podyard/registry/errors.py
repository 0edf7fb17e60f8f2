"""How a registry can fail us: a class per cause, and never a secret in a message."""

from typing import ClassVar


class RegistryError(Exception):
    """A registry did not give what was asked for.

    Attributes:
        kind: the cause as one word, for machines.
        host: which server.
        status: its HTTP status; ``None`` where there was no answer.
        words: what it said itself, cut; empty where it said nothing.
    """

    kind: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, host: str, status: int | None = None, words: str = ""
    ) -> None:
        super().__init__(f"{message}: {words}" if words else message)
        self.host = host
        self.status = status
        self.words = words


class UnauthorizedError(RegistryError):
    """It wants credentials, or refused those it got (401)."""

    kind = "unauthorized"


class ForbiddenError(RegistryError):
    """It knows who asks, and refuses (403)."""

    kind = "forbidden"


class NotFoundError(RegistryError):
    """There is no such image, or nobody may know of it (404)."""

    kind = "not-found"


class TooManyRequestsError(RegistryError):
    """It wants to be left alone for a while (429).

    Attributes:
        retry_in_s: seconds until it wants to be asked again; ``None`` where it did
            not say.
    """

    kind = "too-many-requests"

    def __init__(
        self,
        message: str,
        *,
        host: str,
        status: int | None = 429,
        words: str = "",
        retry_in_s: float | None = None,
    ) -> None:
        super().__init__(message, host=host, status=status, words=words)
        self.retry_in_s = retry_in_s


class ServerFailedError(RegistryError):
    """It failed itself (5xx), or answered with a status nobody expects."""

    kind = "server-failed"


class TlsError(RegistryError):
    """No TLS, or a certificate that is not trusted."""

    kind = "tls"


class DnsError(RegistryError):
    """Its name has no address."""

    kind = "dns"


class UnreachableError(RegistryError):
    """Nobody listens there, or the connection broke."""

    kind = "unreachable"


class TimedOutError(RegistryError):
    """It did not connect, or did not answer, in time."""

    kind = "timeout"


class NotARegistryError(RegistryError):
    """Something answers, but it is no registry: a web page, a captive portal."""

    kind = "not-a-registry"


class ForeignRealmError(RegistryError):
    """Its token realm must not be given the credentials; the message names it."""

    kind = "foreign-realm"


class BadContentError(RegistryError):
    """What it sent is not what was asked for: digest, size or shape are wrong."""

    kind = "bad-content"
