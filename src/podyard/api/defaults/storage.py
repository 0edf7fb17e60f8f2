"""Defaults of PersistentVolumes, PersistentVolumeClaims and StorageClasses.

Source: ``pkg/apis/core/v1/defaults.go`` and ``pkg/apis/storage/v1/defaults.go``
(v1.36).
"""

from podyard.api.defaults.pod_spec import fill
from podyard.api.documents import Document


def default_volume(volume: Document) -> None:
    """Fill in that a volume is kept when it is released, and is a directory."""
    spec: Document = volume.setdefault("spec", {})
    fill(
        spec,
        {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
    )
    if spec.get("hostPath") is not None:
        fill(spec["hostPath"], {"type": ""})
    fill(volume.setdefault("status", {}), {"phase": "Pending"})


def default_claim(claim: Document) -> None:
    """Fill in that a claim waits, for a directory."""
    fill(claim.setdefault("spec", {}), {"volumeMode": "Filesystem"})
    fill(claim.setdefault("status", {}), {"phase": "Pending"})


def default_storage_class(storage_class: Document) -> None:
    """Fill in that volumes are made at once, and removed with their claim."""
    fill(
        storage_class,
        {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
    )
