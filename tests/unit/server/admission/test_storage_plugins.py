"""What admission does to claims and volumes."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from podyard.server.admission.parts import Operation
from podyard.server.admission.plugins import (
    default_storage_class,
    node_restriction,
    persistent_volume_claim_resize,
    storage_object_in_use_protection,
)
from support.admission import NODE_USER, admit, request
from support.stored_objects import StoredObjects, make

OURS = "podyard.dev/local-path"
CLASSES = StoredObjects(
    make(
        "StorageClass",
        "usual",
        metadata={
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}
        },
    ),
    make("StorageClass", "grows", allowVolumeExpansion=True),
)


def claim(size: str = "1Gi", **spec: Any) -> Document:
    return make(
        "PersistentVolumeClaim",
        "c",
        "web",
        spec={"resources": {"requests": {"storage": size}}, **spec},
    )


@pytest.mark.parametrize(
    ("spec", "objects", "wanted"),
    [
        pytest.param({}, CLASSES, "usual", id="none"),
        pytest.param({"storageClassName": ""}, CLASSES, "", id="empty-stays"),
        pytest.param({"storageClassName": "x"}, CLASSES, "x", id="named-stays"),
        pytest.param({}, StoredObjects(), None, id="no-default"),
    ],
)
async def test_a_claim_without_a_class_gets_the_default(
    spec: Document, objects: StoredObjects, wanted: str | None
) -> None:
    asked = request(claim(**spec), kind=PERSISTENT_VOLUME_CLAIM)

    assert await admit(default_storage_class.PART, asked, objects) == ""

    assert asked.object is not None
    assert asked.object["spec"].get("storageClassName") == wanted


@pytest.mark.parametrize(
    ("kind", "finalizer"),
    [
        pytest.param(PERSISTENT_VOLUME_CLAIM, "kubernetes.io/pvc-protection", id="pvc"),
        pytest.param(PERSISTENT_VOLUME, "kubernetes.io/pv-protection", id="pv"),
    ],
)
async def test_new_ones_are_protected(kind: Any, finalizer: str) -> None:
    asked = request({"metadata": {"name": "x"}}, kind=kind)

    await admit(storage_object_in_use_protection.PART, asked)

    assert asked.object == {"metadata": {"name": "x", "finalizers": [finalizer]}}


@pytest.mark.parametrize(
    ("name", "size", "allowed"),
    [
        pytest.param("usual", "2Gi", False, id="class-does-not-grow"),
        pytest.param("grows", "2Gi", True, id="class-grows"),
        pytest.param("usual", "1Gi", True, id="same"),
    ],
)
async def test_claims_grow_where_their_class_lets_them(
    name: str, size: str, allowed: bool
) -> None:
    asked = request(
        claim(size, storageClassName=name),
        kind=PERSISTENT_VOLUME_CLAIM,
        operation=Operation.UPDATE,
        old_object=claim(storageClassName=name),
    )

    refusal = await admit(persistent_volume_claim_resize.PART, asked, CLASSES)

    assert (refusal == "") is allowed


def volume(*finalizers: str, going: bool = True, **spec: Any) -> Document:
    metadata: Document = {"finalizers": list(finalizers)}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return make("PersistentVolume", "v", metadata=metadata, spec=spec)


@pytest.mark.parametrize(
    ("new", "old", "allowed"),
    [
        pytest.param(volume(), volume(OURS), True, id="its-finalizer"),
        pytest.param(volume("a"), volume("a", OURS), True, id="others-stay"),
        pytest.param(volume(), volume("a", OURS), False, id="not-others"),
        pytest.param(volume(x=1), volume(OURS), False, id="not-the-spec"),
        pytest.param(
            volume(going=False), volume(OURS, going=False), False, id="not-in-use"
        ),
    ],
)
async def test_a_node_only_says_that_the_data_is_gone(
    new: Document, old: Document, allowed: bool
) -> None:
    asked = request(
        new,
        kind=PERSISTENT_VOLUME,
        operation=Operation.UPDATE,
        namespace="",
        user=NODE_USER,
        old_object=old,
    )

    assert (await admit(node_restriction.PART, asked) == "") is allowed
