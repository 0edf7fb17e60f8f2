"""A Pod goes where its volumes are, once it is known where that is.

Source: kubernetes ``pkg/scheduler/framework/plugins/{volumebinding,
volumerestrictions}`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.storage import (
    NO_PROVISIONER,
    PROVISIONER,
    VOLUMES_DIR,
    PodClaim,
    PodStorage,
    find_volume,
    fits_node,
    is_bound,
    waits_for_consumer,
)
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin, Unfit

UNBOUND: Final = "pod has unbound immediate PersistentVolumeClaims"
ELSEWHERE: Final = "node(s) didn't match PersistentVolume's node affinity"
NONE_TO_BIND: Final = "node(s) didn't find available persistent volumes to bind"
TAKEN: Final = (
    "node has pod using PersistentVolumeClaim with the same name and "
    "ReadWriteOncePod access mode"
)


def check(pod: Document, info: NodeInfo) -> Unfit | None:
    """Pass over a node where the Pod's volumes cannot be."""
    if info.storage is None:
        return None
    for one in info.storage.claims:
        reason = _everywhere(pod, one)
        if reason:
            return Unfit((reason,), everywhere=True)
    for one in info.storage.claims:
        reason = _here(one, info, info.storage)
        if reason:
            return Unfit((reason,))
    return None


def _everywhere(pod: Document, one: PodClaim) -> str:
    """Return why a claim can be used nowhere now, or an empty string."""
    claim = one.claim
    if claim is None and _is_ephemeral(pod, one.name):
        return (
            "waiting for ephemeral volume controller to create the "
            f'persistentvolumeclaim "{one.name}"'
        )
    if claim is None:
        return f'persistentvolumeclaim "{one.name}" not found'
    if claim["metadata"].get("deletionTimestamp"):
        return f'persistentvolumeclaim "{one.name}" is being deleted'
    volume_name = (claim.get("spec") or {}).get("volumeName")
    if (claim.get("status") or {}).get("phase") == "Lost":
        return (
            f'persistentvolumeclaim "{one.name}" bound to non-existent '
            f'persistentvolume "{volume_name}"'
        )
    if one.users:
        return TAKEN
    if is_bound(claim, one.volume):
        return ""
    if volume_name or not waits_for_consumer(one.storage_class):
        return UNBOUND
    return ""


def _is_ephemeral(pod: Document, claim: str) -> bool:
    name = pod["metadata"].get("name")
    return any(
        volume.get("ephemeral") is not None and f"{name}-{volume.get('name')}" == claim
        for volume in (pod.get("spec") or {}).get("volumes") or ()
    )


def _here(one: PodClaim, info: NodeInfo, storage: PodStorage) -> str:
    """Return why a claim cannot be used on a node, or an empty string."""
    assert one.claim is not None
    if is_bound(one.claim, one.volume):
        assert one.volume is not None
        return "" if fits_node(one.volume, info.node) else ELSEWHERE
    if find_volume(one.claim, storage.volumes, info.node) is not None:
        return ""
    provisioner = (one.storage_class or {}).get("provisioner")
    annotations = info.node["metadata"].get("annotations") or {}
    if provisioner == NO_PROVISIONER or (
        provisioner == PROVISIONER and not annotations.get(VOLUMES_DIR)
    ):
        return NONE_TO_BIND
    return ""


PART: Final = SchedulerPlugin(name="VolumeBinding", order=15, filter=check)
