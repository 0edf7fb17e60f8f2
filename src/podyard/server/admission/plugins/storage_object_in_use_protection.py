"""Claims and volumes stay until nobody uses them.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from typing import Final

from podyard.api.scheme import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from podyard.api.storage import CLAIM_PROTECTION, VOLUME_PROTECTION
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)

_FINALIZERS: Final = {
    PERSISTENT_VOLUME: VOLUME_PROTECTION,
    PERSISTENT_VOLUME_CLAIM: CLAIM_PROTECTION,
}


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:  # noqa: ARG001
    """Add the finalizer to a new claim or volume."""
    finalizer = _FINALIZERS.get(request.kind)
    if (
        finalizer is None
        or request.subresource
        or request.operation is not Operation.CREATE
        or request.object is None
    ):
        return
    finalizers = request.object["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


PART: Final = AdmissionPlugin(
    name="StorageObjectInUseProtection",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
    ),
    mutate=mutate,
)
