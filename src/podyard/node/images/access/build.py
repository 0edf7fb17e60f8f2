"""Records of pulls as documents: hashes and names, never a credential. Pure.

Source: ``kubernetes/kubelet`` ``config/v1beta1`` (``ImagePullIntent``,
``ImagePulledRecord``).
"""

from typing import Final

import orjson

from podyard.api.core_v1 import format_time, parse_time
from podyard.api.documents import Document
from podyard.node.images.access.decide import (
    Access,
    Coordinates,
    PulledRecord,
    SecretAccess,
)

_API_VERSION: Final = "kubelet.config.k8s.io/v1beta1"
_INTENT: Final = "ImagePullIntent"
_RECORD: Final = "ImagePulledRecord"


class RecordError(ValueError):
    """A file is no such record."""


def build_intent(image: str) -> bytes:
    """Return the file that says that an image is being pulled."""
    return orjson.dumps({"apiVersion": _API_VERSION, "kind": _INTENT, "image": image})


def parse_intent(raw: bytes) -> str:
    """Return the image of such a file.

    Raises:
        RecordError: it is none.
    """
    image = _parse(raw, _INTENT).get("image")
    if not isinstance(image, str) or not image:
        raise RecordError("it names no image")
    return image


def build_record(record: PulledRecord) -> bytes:
    """Return the file that says who may use an image."""
    return orjson.dumps(
        {
            "apiVersion": _API_VERSION,
            "kind": _RECORD,
            "lastUpdatedTime": format_time(record.updated_at),
            "imageRef": record.image_ref,
            "credentialMapping": {
                name: _access_document(access) for name, access in record.access.items()
            },
        },
        option=orjson.OPT_SORT_KEYS,
    )


def parse_record(raw: bytes) -> PulledRecord:
    """Read such a file.

    Raises:
        RecordError: it is none.
    """
    document = _parse(raw, _RECORD)
    try:
        updated_at = parse_time(document.get("lastUpdatedTime"))
    except (TypeError, ValueError) as error:
        raise RecordError("its time is none") from error
    image_ref = document.get("imageRef")
    mapping = document.get("credentialMapping") or {}
    if updated_at is None or not isinstance(image_ref, str) or not image_ref:
        raise RecordError("it has no image and time")
    try:
        access = {str(name): _parse_access(item) for name, item in mapping.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError("its credentialMapping is malformed") from error
    return PulledRecord(image_ref, updated_at, access)


def _parse(raw: bytes, kind: str) -> Document:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RecordError("it is not valid JSON") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise RecordError(f"it is no {kind}")
    return document


def _access_document(access: Access) -> Document:
    if access.everybody:
        return {"nodePodsAccessible": True}
    return {
        "kubernetesSecrets": [
            _coordinates(one.secret) | {"credentialHash": one.credential_hash}
            for one in access.secrets
        ],
        "kubernetesServiceAccounts": [_coordinates(one) for one in access.accounts],
    }


def _coordinates(whose: Coordinates) -> Document:
    namespace, name, uid = whose
    return {"uid": uid, "namespace": namespace, "name": name}


def _parse_access(document: Document) -> Access:
    return Access(
        everybody=document.get("nodePodsAccessible") is True,
        secrets=tuple(
            SecretAccess(_parse_coordinates(one), str(one["credentialHash"]))
            for one in document.get("kubernetesSecrets") or ()
        ),
        accounts=tuple(
            _parse_coordinates(one)
            for one in document.get("kubernetesServiceAccounts") or ()
        ),
    )


def _parse_coordinates(document: Document) -> Coordinates:
    return str(document["namespace"]), str(document["name"]), str(document["uid"])
