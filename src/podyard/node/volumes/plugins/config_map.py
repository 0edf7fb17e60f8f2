"""``configMap``: a ConfigMap's keys as files that follow its changes."""

from typing import Final

from podyard.api.scheme import CONFIG_MAP
from podyard.node.volumes.build import config_map_files
from podyard.node.volumes.parts import VolumeContext, VolumeMounter, VolumePlugin
from podyard.node.volumes.payload import Gathered, PayloadMounter


def _make(context: VolumeContext) -> VolumeMounter:
    spec = context.volume.spec

    async def gather() -> Gathered:
        name = spec.get("name", "")
        found = await context.services.objects.get(
            CONFIG_MAP, context.pod.namespace, name
        )
        return Gathered(
            config_map_files(
                found,
                name=name,
                items=spec.get("items"),
                default_mode=spec.get("defaultMode"),
                optional=bool(spec.get("optional")),
            )
        )

    return PayloadMounter(context, gather, in_memory=False)


PART: Final = VolumePlugin(
    name="kubernetes.io/configmap",
    claims=lambda volume: volume.source == "configMap",
    make=_make,
)
