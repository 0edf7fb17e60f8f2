"""Every image is pulled with the Pod's own credentials, each time.

Beyond upstream, this also covers ephemeral containers and image volumes.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#alwayspullimages
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import not_supported
from podyard.api.scheme import POD
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)
from podyard.server.admission.pods import containers, pod_spec

_ALWAYS: Final = "Always"


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Set every pull policy to Always."""
    if not _concerns(request):
        return
    for _, holder, field in _policies(pod_spec(request)):
        holder[field] = _ALWAYS


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Refuse any other pull policy.

    Raises:
        ApiError: 403.
    """
    if not _concerns(request):
        return
    for path, holder, field in _policies(pod_spec(request)):
        policy = holder.get(field)
        if policy != _ALWAYS:
            error = not_supported(f"{path}.{field}", policy or "", [_ALWAYS])
            raise deny(request, str(error))


def _concerns(request: AdmissionRequest) -> bool:
    """Say whether the request may bring a new image to a Pod."""
    if request.kind is not POD or request.object is None:
        return False
    if request.operation is Operation.CREATE:
        return not request.subresource
    if request.operation is not Operation.UPDATE:
        return False
    if request.subresource not in {"", "ephemeralcontainers"}:
        return False
    return not _images(request.object) <= _images(request.old_object or {})


def _images(pod: Document) -> set[str]:
    spec = pod.get("spec") or {}
    images = {container.get("image") or "" for _, container in containers(spec)}
    for volume in spec.get("volumes") or ():
        if volume.get("image"):
            images.add(volume["image"].get("reference") or "")
    return images


def _policies(spec: Document) -> Iterator[tuple[str, Document, str]]:
    """Iterate over path, holder and field name of each pull policy."""
    for path, container in containers(spec):
        yield path, container, "imagePullPolicy"
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume.get("image") is not None:
            yield f"spec.volumes[{index}].image", volume["image"], "pullPolicy"


PART: Final = AdmissionPlugin(
    name="AlwaysPullImages",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
    ),
    mutate=mutate,
    validate=validate,
    default=False,
)
