"""``persistentVolumeClaim`` and ``ephemeral``: a directory that outlives the Pod.

Volumes of the kinds ``local`` and ``hostPath`` can be had; the directory of a
volume that the built-in provisioner has promised is made here.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/ and
kubernetes ``pkg/kubelet/volumemanager/populator``, ``pkg/volume/local`` (v1.36).
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from podyard.api.core_v1 import Volume
from podyard.api.documents import Document
from podyard.api.scheme import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from podyard.api.storage import PROVISIONED_BY, PROVISIONER, is_claimed_by
from podyard.node.volumes.host_path import HostPath
from podyard.node.volumes.mounts import (
    is_bound_at,
    make_below,
    prepare_sub_path,
    set_ownership,
)
from podyard.node.volumes.parts import (
    MountedVolume,
    SetUpError,
    VolumeContext,
    VolumeMounter,
    VolumePlugin,
)


class ClaimedVolume:
    """A volume found through its claim, then bound to a place of the Pod's own."""

    refresh_at_s: float | None = None

    def __init__(self, context: VolumeContext) -> None:
        self._context = context
        spec = context.volume.spec
        self._is_ephemeral = context.volume.source == "ephemeral"
        self._claim = (
            f"{context.pod.name}-{context.volume.name}"
            if self._is_ephemeral
            else str(spec.get("claimName") or "")
        )
        self._read_only = bool(spec.get("readOnly"))
        self._path = ""
        self._is_ours = False
        self._host_path: HostPath | None = None

    async def prepare(self) -> bytes:
        """Find the volume behind the claim."""
        claim = await self._find_claim()
        volume = await self._find_volume(claim)
        spec = volume["spec"]
        annotations = volume["metadata"].get("annotations") or {}
        self._is_ours = annotations.get(PROVISIONED_BY) == PROVISIONER
        if spec.get("volumeMode") == "Block":
            raise self._fault(
                "has volumeMode Block, but is specified in volumeMounts: block "
                "volumes are not supported"
            )
        if spec.get("hostPath") is not None:
            volume_of_node = Volume(
                self._context.volume.name, "hostPath", spec["hostPath"]
            )
            self._host_path = HostPath(replace(self._context, volume=volume_of_node))
            return await self._host_path.prepare()
        if spec.get("local") is None:
            name = volume["metadata"]["name"]
            raise SetUpError(f'no volume plugin matched for volume "{name}"')
        self._path = str(spec["local"].get("path") or "")
        if ".." in self._path.split("/"):
            raise SetUpError(f"invalid path: must not contain '..': {self._path}")
        return f"{volume['metadata']['uid']} {self._path} {self._read_only}".encode()

    async def _find_claim(self) -> Document:
        pod = self._context.pod
        objects = self._context.services.objects
        claim = await objects.get(PERSISTENT_VOLUME_CLAIM, pod.namespace, self._claim)
        if claim is None:
            raise SetUpError(
                f"error processing PVC {pod.namespace}/{self._claim}: failed to fetch "
                f'PVC from API server: persistentvolumeclaims "{self._claim}" not found'
            )
        metadata = claim["metadata"]
        owners = metadata.get("ownerReferences") or ()
        if self._is_ephemeral and pod.uid not in {one.get("uid") for one in owners}:
            raise self._fault(
                f"was not created for pod {pod.namespace}/{pod.name} (pod is not owner)"
            )
        if metadata.get("deletionTimestamp") and not self.is_set_up():
            raise SetUpError(
                f"error processing PVC {pod.namespace}/{self._claim}: can't use PVC "
                "because it is being deleted"
            )
        is_bound = (claim.get("status") or {}).get("phase") == "Bound"
        if not is_bound or not claim["spec"].get("volumeName"):
            text = f"error processing PVC {pod.namespace}/{self._claim}"
            raise SetUpError(f"{text}: PVC is not bound")
        return claim

    async def _find_volume(self, claim: Document) -> Document:
        name = str(claim["spec"]["volumeName"])
        volume = await self._context.services.objects.get(PERSISTENT_VOLUME, "", name)
        start = f"error processing PVC {self._context.pod.namespace}/{self._claim}"
        if volume is None:
            raise SetUpError(
                f'{start}: failed to fetch PV "{name}" from API server: '
                f'persistentvolumes "{name}" not found'
            )
        if not is_claimed_by(volume, claim):
            raise SetUpError(f'{start}: PV "{name}" is bound to another claim')
        return volume

    def _fault(self, why: str) -> SetUpError:
        return SetUpError(f"PVC {self._context.pod.namespace}/{self._claim} {why}")

    def set_up(self) -> None:
        """Have the directory at the Pod's own place."""
        if self._host_path is not None:
            self._host_path.set_up()
            return
        root = self._context.services.volumes_dir
        path = Path(self._path)
        if self._is_ours and root is not None and path.is_relative_to(root):
            make_below(root, path.relative_to(root).parts, mode=0o777)
        elif not path.is_dir():
            raise SetUpError(f'path "{self._path}" does not exist')
        set_ownership(
            path,
            self._context.fs_group,
            read_only=self._read_only,
            on_mismatch=self._context.pod.spec.security_context.get(
                "fsGroupChangePolicy"
            )
            == "OnRootMismatch",
        )
        if not self.is_set_up():
            prepare_sub_path(self._path, "", self._context.path)

    def is_set_up(self) -> bool:
        """Return whether the directory is bound to the Pod's own place."""
        return is_bound_at(self._context.path)

    def mounted(self) -> MountedVolume:
        """Return the Pod's own place, or the path a hostPath volume names."""
        name = self._context.volume.name
        if self._host_path is not None:
            found = self._host_path.mounted()
            return replace(found, read_only=self._read_only)
        return MountedVolume(
            name,
            str(self._context.path),
            read_only=self._read_only,
            selinux_relabel=True,
        )


def _make(context: VolumeContext) -> VolumeMounter:
    return ClaimedVolume(context)


PART: Final = VolumePlugin(
    name="kubernetes.io/local-volume",
    claims=lambda volume: volume.source in {"persistentVolumeClaim", "ephemeral"},
    make=_make,
)
