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
    """Nothing is on the node but the image itself."""

    refresh_at_s: float | None = None

    def __init__(self, context: VolumeContext) -> None:
        self._context = context
        self._image = ""

    async def prepare(self) -> bytes:
        """Have the image on the node."""
        pull = self._context.services.pull_image
        if pull is None:
            raise SetUpError("the container runtime cannot mount images as volumes")
        try:
            self._image = await pull(self._context.pod, self._context.volume)
        except Exception as error:
            # The image room has errors of its own; its words are the volume's fault.
            raise SetUpError(str(error)) from error
        return self._image.encode()

    def set_up(self) -> None:
        """Leave it to the runtime, which mounts it into each container."""

    def is_set_up(self) -> bool:
        """Return false: the reference is looked up anew."""
        return False

    def mounted(self) -> MountedVolume:
        """Return the image's reference."""
        name = self._context.volume.name
        return MountedVolume(name, "", read_only=True, image=self._image)


PART: Final = VolumePlugin(
    name="kubernetes.io/image",
    claims=lambda volume: volume.source == "image",
    make=ImageVolume,
)
