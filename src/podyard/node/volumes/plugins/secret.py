"""``secret``: a Secret's keys as files in memory that follow its changes."""

from typing import Final

from podyard.api.scheme import SECRET
from podyard.node.volumes.build import secret_files
from podyard.node.volumes.parts import VolumeContext, VolumeMounter, VolumePlugin
from podyard.node.volumes.payload import Gathered, PayloadMounter


def _make(context: VolumeContext) -> VolumeMounter:
    spec = context.volume.spec

    async def gather() -> Gathered:
        name = spec.get("secretName", "")
        found = await context.services.objects.get(SECRET, context.pod.namespace, name)
        return Gathered(
            secret_files(
                found,
                name=name,
                items=spec.get("items"),
                default_mode=spec.get("defaultMode"),
                optional=bool(spec.get("optional")),
            )
        )

    return PayloadMounter(context, gather, in_memory=True)


PART: Final = VolumePlugin(
    name="kubernetes.io/secret",
    claims=lambda volume: volume.source == "secret",
    make=_make,
)
