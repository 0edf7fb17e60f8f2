"""Manifest to static Pod, and static Pod to the mirror the API shows of it.

Source: Kubernetes docs "Create static Pods"; ``pkg/kubelet/config`` and
``pkg/kubelet/pod`` (v1.36).
"""

import hashlib
from datetime import datetime
from typing import Final

import orjson

from podyard.api.core_v1 import Pod, format_micro_time
from podyard.api.documents import Document

CONFIG_SOURCE: Final = "kubernetes.io/config.source"
CONFIG_HASH: Final = "kubernetes.io/config.hash"
CONFIG_SEEN: Final = "kubernetes.io/config.seen"
CONFIG_MIRROR: Final = "kubernetes.io/config.mirror"
#: Added to every static Pod: nothing evicts it but its own directory.
_TOLERATE_ALL: Final = {"operator": "Exists", "effect": "NoExecute"}


class ManifestError(Exception):
    """A manifest that is no Pod; the message says why."""


def build_static_pod(
    document: Document, *, path: str, node_name: str, seen_at: datetime
) -> Document:
    """Return the static Pod of a manifest.

    Its uid is a hash of node, file and content: an edited manifest is another Pod.

    Raises:
        ManifestError: it is no Pod, or has no name.
    """
    if document.get("kind") != "Pod" or document.get("apiVersion") != "v1":
        kind = f"{document.get('apiVersion')}, Kind={document.get('kind')}"
        raise ManifestError(f"not a Pod: {kind}")
    metadata = document.get("metadata")
    spec = document.get("spec")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ManifestError("metadata.name: Required value")
    if not isinstance(spec, dict):
        raise ManifestError("spec: Required value")
    uid = str(metadata.get("uid") or _uid_of(document, path, node_name))
    annotations = {
        **(metadata.get("annotations") or {}),
        CONFIG_HASH: uid,
        CONFIG_SEEN: format_micro_time(seen_at),
        CONFIG_SOURCE: "file",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata,
            "name": f"{metadata['name']}-{node_name.lower()}",
            "namespace": metadata.get("namespace") or "default",
            "uid": uid,
            "annotations": annotations,
        },
        "spec": {
            **spec,
            "nodeName": node_name,
            "tolerations": [*(spec.get("tolerations") or ()), _TOLERATE_ALL],
        },
        "status": {"phase": "Pending"},
    }


def _uid_of(document: Document, path: str, node_name: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    digest.update(f"host:{node_name}".encode())
    digest.update(f"file:{path}".encode())
    digest.update(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()


def build_mirror(pod: Pod, *, node_name: str, node_uid: str) -> Document:
    """Return the mirror Pod that makes a static Pod visible in the API."""
    metadata = pod.document["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    annotations[CONFIG_MIRROR] = annotations.get(CONFIG_HASH, pod.uid)
    mirror: Document = {
        "name": pod.name,
        "namespace": pod.namespace,
        "annotations": annotations,
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "name": node_name,
                "uid": node_uid,
                "controller": True,
            }
        ],
    }
    if metadata.get("labels"):
        mirror["labels"] = dict(metadata["labels"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": mirror,
        "spec": pod.document["spec"],
    }


def mirrors(mirror: Pod, pod: Pod) -> bool:
    """Return whether a mirror shows this very static Pod."""
    shown = mirror.metadata.annotations.get(CONFIG_MIRROR, "")
    return shown == pod.metadata.annotations.get(CONFIG_HASH, pod.uid)
