"""What to do when a watch has ended: resume it, list anew, or wait first.

Sources: https://kubernetes.io/docs/reference/using-api/api-concepts/ (efficient
detection of changes; 410 Gone responses) and the reflector of client-go.
"""

from typing import TypeAlias

from podyard.api.errors import ApiError
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Resume:
    """Watch again from where it stopped.

    Attributes:
        resource_version: the last one heard of.
    """

    resource_version: str


@dataclass(frozen=True, slots=True)
class Relist:
    """The history is lost: list everything and compare."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Back off, then resume, or list where there is nothing to resume.

    Attributes:
        resource_version: the last one heard of, empty to list.
    """

    resource_version: str


WatchDecision: TypeAlias = Resume | Relist | Wait

#: The reasons of a 504 whose resource version the server does not know (yet): it has
#: lost history (a restored backup), or another replica answered.
_TOO_LARGE = "ResourceVersionTooLarge"


def decide_watch(last_rev: str, error: Exception | None) -> WatchDecision:
    """Decide how to go on after a list or watch.

    Args:
        last_rev: the newest resource version heard of, empty when there is none.
        error: how it ended: ``None`` is a clean end, an ``ApiError`` what the server
            said, anything else means that the connection failed.
    """
    if error is None:
        return Resume(last_rev) if last_rev else Relist()
    if isinstance(error, ApiError):
        if error.code == 410:
            return Relist()
        if _is_too_large(error):
            return Wait("")
    return Wait(last_rev)


def _is_too_large(error: ApiError) -> bool:
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == _TOO_LARGE for cause in causes)
