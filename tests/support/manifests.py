"""Pods of the demo image, as short as tests want them."""

from typing import Any

from podyard.api.documents import Document

IMAGE = "podyard.local/busybox:1.35"
#: Ends at once when asked to, which a shell as process 1 does not by itself.
SLEEP = "trap 'exit 0' TERM; sleep 3600 & wait"


def container(script: str = SLEEP, name: str = "main", **fields: Any) -> Document:
    """Return a container that runs a shell script."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        **fields,
    }


def pod(
    name: str,
    *containers: Document,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Document:
    """Return a Pod; with no containers, one that sleeps."""
    metadata: Document = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    spec.setdefault("terminationGracePeriodSeconds", 2)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def config_map(name: str, namespace: str = "default", **data: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def secret(name: str, namespace: str = "default", **data: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": data,
    }


def namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
