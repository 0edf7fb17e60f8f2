"""Where a kind keeps its Pod template."""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    POD_TEMPLATE,
    REPLICA_SET,
    STATEFUL_SET,
    Kind,
)

#: The path of the template in each kind that has one.
TEMPLATE_PATHS: Final[dict[Kind, tuple[str, ...]]] = {
    POD_TEMPLATE: ("template",),
    DEPLOYMENT: ("spec", "template"),
    REPLICA_SET: ("spec", "template"),
    STATEFUL_SET: ("spec", "template"),
    DAEMON_SET: ("spec", "template"),
    JOB: ("spec", "template"),
    CRON_JOB: ("spec", "jobTemplate", "spec", "template"),
}

#: The three lists of containers in a Pod spec, in the order they are looked at.
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


def template_of(kind: Kind, document: Document) -> Document | None:
    """Return the Pod template inside the document (not a copy), if it has one."""
    found: object = document
    path = TEMPLATE_PATHS.get(kind)
    if path is None:
        return None
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def all_containers(pod_spec: Document) -> Iterator[tuple[str, Document]]:
    """Yield every container with its path, ``initContainers[0]``."""
    for name in CONTAINER_LISTS:
        for index, container in enumerate(pod_spec.get(name) or ()):
            yield f"{name}[{index}]", container
