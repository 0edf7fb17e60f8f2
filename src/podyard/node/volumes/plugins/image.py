"""``image``: an OCI image mounted read-only, where the runtime can.

Source: https://kubernetes.io/docs/concepts/storage/volumes/#image
"""

from typing import Final

from podyard.node.volumes.parts import (
    MountedVolume,
    SetUpError,
    VolumeContext,
    VolumePlugin,
)


class ImageVolume:
    """Nothing is on the node but the image itself.

    It is pulled when a container that mounts it is started: a volume that nobody
    mounts fails no Pod.
    """

    refresh_at_s: float | None = None

    def __init__(self, context: VolumeContext) -> None:
        self._context = context

    async def prepare(self) -> bytes:
        """Find out whether the runtime can mount it."""
        if not self._context.services.mounts_images:
            raise SetUpError("the container runtime cannot mount images as volumes")
        return b""

    def set_up(self) -> None:
        """Leave it to the runtime, which mounts it into each container."""

    def is_set_up(self) -> bool:
        """Return false: nothing of it is on disk."""
        return False

    def mounted(self) -> MountedVolume:
        """Return the image it is of."""
        volume = self._context.volume
        reference = str(volume.spec.get("reference") or "")
        return MountedVolume(volume.name, "", read_only=True, image=reference)


PART: Final = VolumePlugin(
    name="kubernetes.io/image",
    claims=lambda volume: volume.source == "image",
    make=ImageVolume,
)
