"""A claim that names no class gets the default one.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#defaultstorageclass
"""

from typing import Final

from podyard.api.scheme import PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS
from podyard.api.storage import default_class
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Write the class into a new claim; an empty name is one and stays."""
    if (
        request.kind is not PERSISTENT_VOLUME_CLAIM
        or request.subresource
        or request.operation is not Operation.CREATE
        or request.object is None
    ):
        return
    spec = request.object.setdefault("spec", {})
    if spec.get("storageClassName") is not None:
        return
    found = default_class(await lookup.list(STORAGE_CLASS, ""))
    if found is not None:
        spec["storageClassName"] = found["metadata"]["name"]


PART: Final = AdmissionPlugin(
    name="DefaultStorageClass",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
        "Priority",
        "DefaultTolerationSeconds",
    ),
    mutate=mutate,
)
