"""What the image room hands to others."""

from collections.abc import Callable
from typing import Protocol

from podyard.api.observed import Image
from podyard.api.runtime import ImageAuth
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class EnsuredImage:
    """An image that is on the node and that this Pod may use.

    Attributes:
        ref: what ``CreateContainer`` is given.
        image: the image as the runtime knows it.
    """

    ref: str
    image: Image


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is.

    Attributes:
        done_bytes: bytes that are here.
        total_bytes: bytes known to be needed; grows while layers are found.
    """

    done_bytes: int = 0
    total_bytes: int = 0


class ProgressSource(Protocol):
    """Where a runtime tells how far its pulls are."""

    async def watch(self, tell: Callable[[PullProgress], None]) -> None:
        """Tell of what is being pulled from now on, until cancelled.

        Returns where the runtime does not tell. Never raises.
        """


class RemoteDigests(Protocol):
    """What registries have now."""

    async def remote_digest(self, image: str, auth: ImageAuth | None) -> str:
        """Return the digest an image has there; empty where that is not told.

        Never waits long, never raises.
        """


class ImageError(Exception):
    """The image cannot be used now.

    Attributes:
        reason: the waiting reason (``ErrImagePull``, ``ImagePullBackOff`` …).
        message: the waiting message.
        look_in_s: when things will be different even if nothing happens, seconds from
            now; ``None`` where that is not known.
    """

    def __init__(
        self, reason: str, message: str, *, look_in_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.look_in_s = look_in_s
