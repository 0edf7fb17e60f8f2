"""Volumes in a directory of a node, as documents. Pure.

The controller writes where the data is to be; the node makes the directory, and
removes it before the volume goes.
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.storage import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    DATA_FINALIZER,
    NODE_LABEL,
    PROVISIONED_BY,
    PROVISIONER,
    VOLUMES_DIR,
    class_of,
    data_path,
    node_label,
)
from podyard.lib.values import dataclass

_BLOCK: Final = "block volumes are not supported: the volumes are directories"
_SOURCES: Final = "volumes cannot be filled from a data source"


@dataclass(frozen=True, slots=True)
class Refused:
    """No volume can be made; the message says why."""

    message: str


def choose_node(nodes: tuple[Document, ...]) -> Document | None:
    """Return the node for a volume whose Pod is not known yet: the first by name."""
    ready = [node for node in nodes if _takes_volumes(node)]
    return min(ready, key=lambda node: str(node["metadata"]["name"]), default=None)


def _takes_volumes(node: Document) -> bool:
    if (node.get("spec") or {}).get("unschedulable") or not volumes_dir(node):
        return False
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") == "Ready" and one.get("status") == "True" for one in conditions
    )


def volumes_dir(node: Document) -> str:
    """Return the directory a node keeps volumes in, empty if it has none."""
    annotations = node["metadata"].get("annotations") or {}
    return str(annotations.get(VOLUMES_DIR) or "")


def build_volume(
    claim: Document, storage_class: Document, node: Document
) -> Document | Refused:
    """Return the volume to make for a claim, on a node, or why there is none."""
    spec, name = claim["spec"], str(node["metadata"]["name"])
    if spec.get("volumeMode") == "Block":
        return Refused(_BLOCK)
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        return Refused(_SOURCES)
    if spec.get("selector"):
        return Refused("claim.Spec.Selector is not supported")
    root = volumes_dir(node)
    if not root:
        return Refused(f'node "{name}" keeps no volumes')
    volume_spec: Document = {
        "accessModes": list(spec["accessModes"]),
        "capacity": {"storage": spec["resources"]["requests"]["storage"]},
        "claimRef": build_reference(claim),
        "local": {"path": data_path(root, claim)},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {
                        "matchFields": [
                            {
                                "key": "metadata.name",
                                "operator": "In",
                                "values": [name],
                            }
                        ]
                    }
                ]
            }
        },
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
        "storageClassName": class_of(claim),
        "volumeMode": "Filesystem",
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{claim['metadata']['uid']}",
            "annotations": {PROVISIONED_BY: PROVISIONER},
            "labels": {NODE_LABEL: node_label(name)},
            "finalizers": [DATA_FINALIZER],
        },
        "spec": volume_spec,
    }


def is_ours(volume: Document) -> bool:
    """Say whether a volume was made by :func:`build_volume`."""
    annotations = volume["metadata"].get("annotations") or {}
    return bool(annotations.get(PROVISIONED_BY) == PROVISIONER)


def build_reference(claim: Document) -> Document:
    """Return what a volume says of the claim that has it."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata.get("resourceVersion") or "",
    }


def build_claim_binding(claim: Document, volume: Document) -> Document:
    """Return the patch that gives a claim its volume."""
    annotations = {BIND_COMPLETED: "yes"}
    if not (claim.get("spec") or {}).get("volumeName"):
        annotations[BOUND_BY_CONTROLLER] = "yes"
    return {
        "metadata": {
            "annotations": annotations,
            "resourceVersion": claim["metadata"]["resourceVersion"],
        },
        "spec": {"volumeName": volume["metadata"]["name"]},
    }


def build_bound_status(volume: Document) -> Document:
    """Return the status of a claim that has a volume."""
    spec = volume["spec"]
    return {
        "phase": "Bound",
        "accessModes": list(spec.get("accessModes") or ()),
        "capacity": dict(spec.get("capacity") or {}),
    }


def build_ephemeral_claim(pod: Document, volume: Document) -> Document:
    """Return the claim of a Pod's ephemeral volume; it goes with the Pod."""
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    metadata = template.get("metadata") or {}
    owner = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": f"{owner['name']}-{volume['name']}",
            "namespace": owner["namespace"],
            "annotations": dict(metadata.get("annotations") or {}),
            "labels": dict(metadata.get("labels") or {}),
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": owner["name"],
                    "uid": owner["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template.get("spec") or {},
    }
