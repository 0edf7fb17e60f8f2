"""Objects in memory, looked up as the API server's plugins look them up."""

from collections.abc import Sequence

from podyard.api.documents import Document
from podyard.api.scheme import Kind, find_kind_by_name


class StoredObjects:
    """A lookup over the documents it was given."""

    def __init__(self, *documents: Document) -> None:
        self.documents: dict[tuple[Kind, str, str], Document] = {}
        self.gets = 0
        self.lists = 0
        for document in documents:
            self.put(document)

    def put(self, document: Document) -> None:
        kind = find_kind_by_name(document["apiVersion"], document["kind"])
        assert kind is not None
        metadata = document["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        self.documents[key] = document

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        del self.documents[(kind, namespace, name)]

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        self.gets += 1
        return self.documents.get((kind, namespace, name))

    async def list(self, kind: Kind, namespace: str) -> Sequence[Document]:
        self.lists += 1
        return [
            document
            for (of, where, _), document in self.documents.items()
            if of is kind and namespace in {"", where}
        ]


def make(kind: str, name: str, namespace: str = "", **fields: object) -> Document:
    """Return a document; the uid is made from the name."""
    api_version = {
        "Lease": "coordination.k8s.io/v1",
        "PodDisruptionBudget": "policy/v1",
        "PriorityClass": "scheduling.k8s.io/v1",
        "RuntimeClass": "node.k8s.io/v1",
        "ReplicaSet": "apps/v1",
        "StorageClass": "storage.k8s.io/v1",
    }.get(kind, "v1")
    metadata: Document = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    if namespace:
        metadata["namespace"] = namespace
    metadata.update(fields.pop("metadata", {}))  # type: ignore[call-overload]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}
