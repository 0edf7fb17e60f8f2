"""Services with a selector and the Pods they select, by namespace.

Told of changes, it says which Services have to be looked at. A Pod's labels lead to
the Services that ask for one of them, so that hundreds of others cost it nothing.
"""

from collections.abc import Iterator, Mapping

from podyard.api.documents import Document
from podyard.controllers.service_endpoints import is_selecting, relevant, selects

#: A Service's namespace and name.
Key = tuple[str, str]
#: A namespace, and a label with its value.
_Asked = tuple[str, str, str]


class SelectedPods:
    """Who selects whom."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Document]] = {}
        self._pods: dict[str, dict[str, Document]] = {}
        #: Services by the first label their selector asks for.
        self._asking: dict[_Asked, dict[str, Document]] = {}

    def take_service(self, old: Document | None, new: Document | None) -> Key:
        """Hear of a Service; return its key."""
        document = new or old
        assert document is not None
        namespace, name = key_of(document)
        services = self._services.setdefault(namespace, {})
        known = services.pop(name, None)
        if known is not None and is_selecting(known):
            asked = _asked(namespace, known)
            self._asking[asked].pop(name)
            if not self._asking[asked]:
                del self._asking[asked]
        if new is not None:
            services[name] = new
            if is_selecting(new):
                self._asking.setdefault(_asked(namespace, new), {})[name] = new
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
        found: dict[str, None] = {}
        for pod in (old, new):
            if pod is not None:
                labels = pod["metadata"].get("labels") or {}
                found.update(dict.fromkeys(self._selecting(namespace, labels)))
        return iter([(namespace, service) for service in found])

    def _selecting(self, namespace: str, labels: Mapping[str, str]) -> Iterator[str]:
        for label, value in labels.items():
            asking = self._asking.get((namespace, label, value), {})
            for name, service in asking.items():
                if selects(service, labels):
                    yield name

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


def _asked(namespace: str, service: Document) -> _Asked:
    selector = service["spec"]["selector"]
    label = min(selector)
    return namespace, label, selector[label]


def key_of(document: Document) -> Key:
    """Return an object's namespace and name."""
    metadata = document["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])
