"""Requests on their way through admission plugins."""

from typing import Any

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.api.scheme import POD, Kind
from podyard.server.admission.parts import AdmissionPlugin, AdmissionRequest, Operation
from support.stored_objects import StoredObjects

USER = User("jane", groups=("system:authenticated",))
NODE_USER = User("system:node:n1", groups=("system:nodes", "system:authenticated"))


def request(
    document: Document | None = None,
    *,
    operation: Operation = Operation.CREATE,
    kind: Kind = POD,
    namespace: str = "web",
    name: str | None = None,
    user: User = USER,
    **more: Any,
) -> AdmissionRequest:
    """Return a request for a document; its name is the document's."""
    if name is None:
        name = ((document or {}).get("metadata") or {}).get("name", "")
    more.setdefault("suffix", lambda: "abcde")
    return AdmissionRequest(
        operation, kind, namespace, name, user, object=document, **more
    )


def pod(
    name: str = "p", *, annotations: Document | None = None, **spec: Any
) -> Document:
    """Return a Pod with one container."""
    spec.setdefault("containers", [{"name": "c", "image": "i"}])
    metadata: Document = {"name": name, "namespace": "web", "uid": f"uid-{name}"}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def admit(
    part: AdmissionPlugin, asked: AdmissionRequest, objects: StoredObjects | None = None
) -> str:
    """Run both halves of a plugin; return the refusal, or an empty string."""
    objects = objects or StoredObjects()
    try:
        if part.mutate is not None:
            await part.mutate(asked, objects)
        if part.validate is not None:
            await part.validate(asked, objects)
    except ApiError as error:
        return error.message
    return ""
