"""A claim may grow only where its class lets volumes grow.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#persistentvolumeclaimresize
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.quantity import parse_quantity
from podyard.api.scheme import PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from podyard.api.storage import class_of
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)

_REFUSED: Final = (
    "only dynamically provisioned pvc can be resized and the storageclass that "
    "provisions the pvc must support resize"
)


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse growth that nobody provides.

    Raises:
        ApiError: 403.
    """
    if (
        request.kind is not PERSISTENT_VOLUME_CLAIM
        or request.subresource
        or request.operation is not Operation.UPDATE
        or request.object is None
        or request.old_object is None
        or _size(request.object) <= _size(request.old_object)
    ):
        return
    name = class_of(request.object)
    found = await lookup.get(STORAGE_CLASS, "", name) if name else None
    if found is None or not found.get("allowVolumeExpansion"):
        raise deny(request, _REFUSED)


def _size(claim: Document) -> int:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return parse_quantity(requests.get("storage") or 0).value


PART: Final = AdmissionPlugin(
    name="PersistentVolumeClaimResize",
    after=("StorageObjectInUseProtection", "DefaultStorageClass"),
    validate=validate,
)
