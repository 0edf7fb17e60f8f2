"""``downwardAPI``: what a Pod says of itself, as files that follow its changes."""

from typing import Final

from podyard.node.volumes.build import downward_files
from podyard.node.volumes.parts import VolumeContext, VolumeMounter, VolumePlugin
from podyard.node.volumes.payload import Gathered, PayloadMounter


def _make(context: VolumeContext) -> VolumeMounter:
    spec = context.volume.spec

    async def gather() -> Gathered:
        return Gathered(
            downward_files(
                context.pod,
                spec.get("items") or (),
                default_mode=spec.get("defaultMode"),
                node_allocatable=context.services.node_allocatable(),
            )
        )

    return PayloadMounter(context, gather, in_memory=True)


PART: Final = VolumePlugin(
    name="kubernetes.io/downward-api",
    claims=lambda volume: volume.source == "downwardAPI",
    make=_make,
)
