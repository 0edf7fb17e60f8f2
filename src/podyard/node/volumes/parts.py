"""What the volume room hands to others."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that stands ready on the node.

    Attributes:
        name: the volume's name in the Pod.
        host_path: where it is on the node; empty for an image volume.
        read_only: whether the volume itself is read-only, whatever a mount says.
        selinux_relabel: whether the runtime may relabel it.
        image: the image reference of an image volume, else empty.
    """

    name: str
    host_path: str
    read_only: bool = False
    selinux_relabel: bool = False
    image: str = ""


class VolumeError(Exception):
    """A volume could not be made ready; tried again at the next sync.

    Attributes:
        reason: the event reason, ``FailedMount``.
        message: the event message.
    """

    def __init__(self, message: str, *, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
