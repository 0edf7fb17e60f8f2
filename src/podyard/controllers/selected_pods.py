"""Services with a selector and the Pods they select, by namespace.

Told of changes, it says which Services have to be looked at; nothing is scanned but
one namespace.
"""

from collections.abc import Iterator

from podyard.api.documents import Document
from podyard.controllers.service_endpoints import is_selecting, relevant, selects

#: A Service's namespace and name.
Key = tuple[str, str]


class SelectedPods:
    """Who selects whom."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Document]] = {}
        self._pods: dict[str, dict[str, Document]] = {}

    def take_service(self, old: Document | None, new: Document | None) -> Key:
        """Hear of a Service; return its key."""
        document = new or old
        assert document is not None
        namespace, name = key_of(document)
        services = self._services.setdefault(namespace, {})
        if new is None:
            services.pop(name, None)
        else:
            services[name] = new
        return namespace, name

    def take_pod(self, old: Document | None, new: Document | None) -> Iterator[Key]:
        """Hear of a Pod; return the Services it means something to."""
        document = new or old
        assert document is not None
        namespace, name = key_of(document)
        pods = self._pods.setdefault(namespace, {})
        if new is None:
            pods.pop(name, None)
        else:
            pods[name] = new
        if old is not None and new is not None and relevant(old) == relevant(new):
            return iter(())
        both = [
            pod["metadata"].get("labels") or {} for pod in (old, new) if pod is not None
        ]
        return iter(
            [
                (namespace, service)
                for service, found in self._services.get(namespace, {}).items()
                if is_selecting(found)
                and any(selects(found, labels) for labels in both)
            ]
        )

    def service(self, key: Key) -> Document | None:
        """Return a Service as last heard of."""
        return self._services.get(key[0], {}).get(key[1])

    def pods_of(self, service: Document) -> list[Document]:
        """Return the Pods a Service selects."""
        return [
            pod
            for pod in self._pods.get(service["metadata"]["namespace"], {}).values()
            if selects(service, pod["metadata"].get("labels") or {})
        ]


def key_of(document: Document) -> Key:
    """Return an object's namespace and name."""
    metadata = document["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])
