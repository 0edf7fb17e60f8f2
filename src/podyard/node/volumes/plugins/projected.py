"""``projected``: several sources in one directory, tokens among them.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import CONFIG_MAP, SECRET
from podyard.node.volumes.build import (
    Payload,
    PayloadError,
    config_map_files,
    downward_files,
    secret_files,
    token_file,
)
from podyard.node.volumes.parts import (
    SetUpError,
    VolumeContext,
    VolumeMounter,
    VolumePlugin,
)
from podyard.node.volumes.payload import Gathered, PayloadMounter

#: A token that names no life lives an hour, seconds.
DEFAULT_EXPIRATION_S: Final = 3600


class _Gatherer:
    def __init__(self, context: VolumeContext) -> None:
        self._context = context
        self._spec = context.volume.spec
        self._mode: int | None = self._spec.get("defaultMode")
        self._refresh_at_s: float | None = None

    async def gather(self) -> Gathered:
        """Collect every source; all faults are told together."""
        files: Payload = {}
        faults: dict[str, None] = {}
        for source in self._spec.get("sources") or ():
            try:
                files.update(await self._read(source))
            except PayloadError as error:
                faults[str(error)] = None
            except SetUpError as error:
                faults[error.message] = None
        if faults:
            told = list(faults)
            raise SetUpError(told[0] if len(told) == 1 else f"[{', '.join(told)}]")
        return Gathered(files, self._refresh_at_s)

    async def _read(self, source: Document) -> Payload:
        context = self._context
        objects, namespace = context.services.objects, context.pod.namespace
        if (spec := source.get("secret")) is not None:
            name = spec.get("name", "")
            return secret_files(
                await objects.get(SECRET, namespace, name),
                name=name,
                items=spec.get("items"),
                default_mode=self._mode,
                optional=bool(spec.get("optional")),
            )
        if (spec := source.get("configMap")) is not None:
            name = spec.get("name", "")
            return config_map_files(
                await objects.get(CONFIG_MAP, namespace, name),
                name=name,
                items=spec.get("items"),
                default_mode=self._mode,
                optional=bool(spec.get("optional")),
            )
        if (spec := source.get("downwardAPI")) is not None:
            return downward_files(
                context.pod,
                spec.get("items") or (),
                default_mode=self._mode,
                node_allocatable=context.services.node_allocatable(),
            )
        if (spec := source.get("serviceAccountToken")) is not None:
            return await self._token(spec)
        return self._refuse(source)

    async def _token(self, spec: Document) -> Payload:
        issued = await self._context.services.tokens.get(
            self._context.pod,
            audience=spec.get("audience") or "",
            expiration_s=int(spec.get("expirationSeconds") or DEFAULT_EXPIRATION_S),
        )
        soonest = self._refresh_at_s
        self._refresh_at_s = (
            issued.refresh_at_s
            if soonest is None
            else min(soonest, issued.refresh_at_s)
        )
        path = spec.get("path", "")
        file = token_file(self._context.pod, issued.text, default_mode=self._mode)
        return {path: file}

    def _refuse(self, source: Document) -> Payload:
        for name in ("clusterTrustBundle", "podCertificate"):
            if (spec := source.get(name)) is None:
                continue
            if spec.get("optional"):
                return {}
            raise PayloadError(f"projected source {name} is not supported on this node")
        return {}


def _make(context: VolumeContext) -> VolumeMounter:
    return PayloadMounter(context, _Gatherer(context).gather, in_memory=True)


PART: Final = VolumePlugin(
    name="kubernetes.io/projected",
    claims=lambda volume: volume.source == "projected",
    make=_make,
)
