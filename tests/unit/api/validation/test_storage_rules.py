"""The rules of claims, volumes and storage classes."""

import copy
from typing import Any

import pytest

from podyard.api.defaults import default_object
from podyard.api.documents import Document
from podyard.api.scheme import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
    Kind,
)
from podyard.api.validation import (
    validate_create,
    validate_status_update,
    validate_update,
)

AFFINITY: Document = {
    "required": {
        "nodeSelectorTerms": [
            {
                "matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["n"]}
                ]
            }
        ]
    }
}
CLAIM: Document = {
    "accessModes": ["ReadWriteOnce"],
    "resources": {"requests": {"storage": "1Gi"}},
    "storageClassName": "local-path",
}
VOLUME: Document = {
    "accessModes": ["ReadWriteOnce"],
    "capacity": {"storage": "1Gi"},
    "local": {"path": "/data"},
    "nodeAffinity": AFFINITY,
}
CLASS: Document = {"provisioner": "podyard.dev/local-path"}


def made(kind: Kind, body: Document) -> Document:
    metadata: Document = {"name": "x", "uid": "u"}
    if kind.namespaced:
        metadata["namespace"] = "default"
    document = {"metadata": metadata, **copy.deepcopy(body)}
    default_object(kind, document)
    return document


def without(spec: Document, field: str) -> Document:
    return {key: value for key, value in spec.items() if key != field}


@pytest.mark.parametrize(
    ("kind", "body", "faults"),
    [
        pytest.param(PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}, [], id="claim"),
        pytest.param(
            PERSISTENT_VOLUME_CLAIM,
            {"spec": {}},
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
            id="empty-claim",
        ),
        pytest.param(PERSISTENT_VOLUME, {"spec": VOLUME}, [], id="volume"),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": without(VOLUME, "nodeAffinity")},
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            id="local-needs-a-node",
        ),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": {**VOLUME, "local": {"path": "/a/../b"}}},
            ["spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"],
            id="backsteps",
        ),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": {**VOLUME, "hostPath": {"path": "/b"}}},
            ["spec.local: Forbidden: may not specify more than 1 volume type"],
            id="two-sources",
        ),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": without(VOLUME, "local")},
            ["spec: Required value: must specify a volume type"],
            id="no-source",
        ),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": {**VOLUME, "persistentVolumeReclaimPolicy": "Burn"}},
            [
                (
                    'spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": '
                    'supported values: "Delete", "Recycle", "Retain"'
                )
            ],
            id="policy",
        ),
        pytest.param(STORAGE_CLASS, CLASS, [], id="class"),
        pytest.param(
            STORAGE_CLASS, {}, ["provisioner: Required value"], id="no-provisioner"
        ),
        pytest.param(
            STORAGE_CLASS,
            {**CLASS, "volumeBindingMode": "Later"},
            [
                (
                    'volumeBindingMode: Unsupported value: "Later": supported values: '
                    '"Immediate", "WaitForFirstConsumer"'
                )
            ],
            id="binding-mode",
        ),
    ],
)
def test_new_objects(kind: Kind, body: Document, faults: list[str]) -> None:
    assert [str(fault) for fault in validate_create(kind, made(kind, body))] == faults


def bound(**changes: Any) -> Document:
    spec = {**CLAIM, "volumeName": "v", **changes}
    claim = made(PERSISTENT_VOLUME_CLAIM, {"spec": spec})
    claim["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    return claim


def sized(amount: str) -> Document:
    return {"requests": {"storage": amount}}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        pytest.param(bound(), bound(), None, id="same"),
        pytest.param(bound(), bound(resources=sized("2Gi")), None, id="grows"),
        pytest.param(
            bound(),
            bound(resources=sized("1Mi")),
            "spec.resources.requests.storage",
            id="shrinks",
        ),
        pytest.param(bound(), bound(volumeName="w"), "spec", id="other-volume"),
        pytest.param(
            bound(), bound(accessModes=["ReadWriteMany"]), "spec", id="other-modes"
        ),
        pytest.param(
            made(PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}),
            made(PERSISTENT_VOLUME_CLAIM, {"spec": {**CLAIM, "volumeName": "v"}}),
            None,
            id="gets-its-volume",
        ),
        pytest.param(
            made(PERSISTENT_VOLUME_CLAIM, {"spec": without(CLAIM, "storageClassName")}),
            made(PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}),
            None,
            id="gets-its-class",
        ),
        pytest.param(
            made(PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}),
            made(
                PERSISTENT_VOLUME_CLAIM, {"spec": {**CLAIM, "resources": sized("2Gi")}}
            ),
            "spec",
            id="unbound-cannot-grow",
        ),
    ],
)
def test_changed_claims(old: Document, new: Document, field: str | None) -> None:
    old["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"] = "1"
    faults = validate_update(PERSISTENT_VOLUME_CLAIM, new, old)

    assert [fault.field for fault in faults] == ([field] if field else [])


@pytest.mark.parametrize(
    ("kind", "body", "changes", "field"),
    [
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": VOLUME},
            {"spec": {**VOLUME, "local": {"path": "/other"}}},
            "spec.persistentvolumesource",
            id="source",
        ),
        pytest.param(
            PERSISTENT_VOLUME,
            {"spec": VOLUME},
            {"spec": {**VOLUME, "persistentVolumeReclaimPolicy": "Delete"}},
            None,
            id="policy-may-change",
        ),
        pytest.param(
            STORAGE_CLASS,
            CLASS,
            {**CLASS, "provisioner": "other"},
            "provisioner",
            id="provisioner",
        ),
        pytest.param(
            STORAGE_CLASS,
            CLASS,
            {**CLASS, "volumeBindingMode": "WaitForFirstConsumer"},
            "volumeBindingMode",
            id="mode",
        ),
        pytest.param(
            STORAGE_CLASS, CLASS, {**CLASS, "allowVolumeExpansion": True}, None, id="ok"
        ),
    ],
)
def test_changed_volumes_and_classes(
    kind: Kind, body: Document, changes: Document, field: str | None
) -> None:
    old, new = made(kind, body), made(kind, changes)
    old["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"] = "1"

    faults = validate_update(kind, new, old)

    assert [fault.field for fault in faults] == ([field] if field else [])


def test_a_status_has_no_negative_capacity() -> None:
    old, new = bound(), bound()
    new["status"]["capacity"]["storage"] = "-1"
    old["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"] = "1"

    faults = validate_status_update(PERSISTENT_VOLUME_CLAIM, new, old)

    assert [fault.field for fault in faults] == ["status.capacity[storage]"]
