"""What the image room hands to others."""

from dataclasses import dataclass

from podyard.api.observed import Image


@dataclass(frozen=True, slots=True)
class EnsuredImage:
    """An image that is on the node and that this Pod may use.

    Attributes:
        ref: what ``CreateContainer`` is given.
        image: the image as the runtime knows it.
    """

    ref: str
    image: Image


class ImageError(Exception):
    """The image cannot be used now.

    Attributes:
        reason: the waiting reason (``ErrImagePull``, ``ImagePullBackOff`` …).
        message: the waiting message.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
