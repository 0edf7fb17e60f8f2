"""What several plugins ask about Pods."""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import POD
from podyard.server.admission.parts import AdmissionRequest, Operation

#: The annotation that makes a Pod the API's picture of a static Pod.
MIRROR: Final = "kubernetes.io/config.mirror"
#: The fields that hold containers, with the one that only a subresource fills.
CONTAINER_FIELDS: Final = ("initContainers", "containers", "ephemeralContainers")


def is_pod_creation(request: AdmissionRequest) -> bool:
    """Say whether a Pod itself is created."""
    return _is_pod(request) and request.operation is Operation.CREATE


def is_pod_write(request: AdmissionRequest) -> bool:
    """Say whether a Pod itself is created or updated."""
    return _is_pod(request) and request.operation in {
        Operation.CREATE,
        Operation.UPDATE,
    }


def _is_pod(request: AdmissionRequest) -> bool:
    return request.kind is POD and not request.subresource


def pod_spec(request: AdmissionRequest) -> Document:
    """Return the spec of the Pod in a request, to be changed in place."""
    assert request.object is not None
    spec: Document = request.object.setdefault("spec", {})
    return spec


def is_mirror(pod: Document | None) -> bool:
    """Say whether a Pod is a mirror Pod."""
    metadata = (pod or {}).get("metadata") or {}
    return MIRROR in (metadata.get("annotations") or {})


def containers(spec: Document) -> Iterator[tuple[str, Document]]:
    """Iterate over path and container, of every kind of container."""
    for field in CONTAINER_FIELDS:
        for index, container in enumerate(spec.get(field) or ()):
            yield f"spec.{field}[{index}]", container


def projections(spec: Document) -> Iterator[Document]:
    """Iterate over the sources of projected volumes."""
    for volume in spec.get("volumes") or ():
        yield from (volume.get("projected") or {}).get("sources") or ()


def secret_names(spec: Document) -> Iterator[str]:
    """Iterate over the names of Secrets a Pod's spec refers to."""
    for reference in spec.get("imagePullSecrets") or ():
        yield reference.get("name") or ""
    for volume in spec.get("volumes") or ():
        if volume.get("secret") is not None:
            yield volume["secret"].get("secretName") or ""
        inner = volume.get("csi") or {}
        if inner.get("nodePublishSecretRef"):
            yield inner["nodePublishSecretRef"].get("name") or ""
    for source in projections(spec):
        if source.get("secret") is not None:
            yield source["secret"].get("name") or ""
    yield from _environment_names(spec, "secretKeyRef", "secretRef")


def config_map_names(spec: Document) -> Iterator[str]:
    """Iterate over the names of ConfigMaps a Pod's spec refers to."""
    for volume in [*(spec.get("volumes") or ()), *projections(spec)]:
        if volume.get("configMap") is not None:
            yield volume["configMap"].get("name") or ""
    yield from _environment_names(spec, "configMapKeyRef", "configMapRef")


def _environment_names(spec: Document, key_field: str, field: str) -> Iterator[str]:
    for _, container in containers(spec):
        for variable in container.get("env") or ():
            source = (variable.get("valueFrom") or {}).get(key_field)
            if source is not None:
                yield source.get("name") or ""
        for entry in container.get("envFrom") or ():
            if entry.get(field) is not None:
                yield entry[field].get("name") or ""
