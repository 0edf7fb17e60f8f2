"""Volumes in directories of nodes, as documents."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.storage import VOLUMES_DIR, fits_node
from podyard.controllers.local_path import (
    Refused,
    build_claim_binding,
    build_ephemeral_claim,
    build_volume,
    choose_node,
    is_ours,
)
from support.stored_objects import make


def node(name: str = "n", ready: str = "True", **spec: Any) -> Document:
    return make(
        "Node",
        name,
        metadata={"annotations": {VOLUMES_DIR: "/var/volumes"}},
        spec=spec,
        status={"conditions": [{"type": "Ready", "status": ready}]},
    )


def claim(**spec: Any) -> Document:
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "s",
        **spec,
    }
    return make("PersistentVolumeClaim", "c", "web", spec=wanted)


def test_a_volume_is_a_directory_of_its_node() -> None:
    volume = build_volume(claim(), {"reclaimPolicy": "Retain"}, node())

    assert isinstance(volume, dict)
    assert volume["metadata"]["name"] == "pvc-uid-c"
    assert volume["spec"]["local"] == {"path": "/var/volumes/web/c-uid-c"}
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert is_ours(volume)
    assert fits_node(volume, node())
    assert not fits_node(volume, node("other"))


@pytest.mark.parametrize(
    ("wanted", "on", "why"),
    [
        pytest.param(
            claim(volumeMode="Block"), node(), "block volumes are not", id="block"
        ),
        pytest.param(
            claim(dataSource={"kind": "x"}), node(), "cannot be filled", id="source"
        ),
        pytest.param(claim(selector={"a": 1}), node(), "Selector", id="selector"),
        pytest.param(
            claim(), make("Node", "n"), 'node "n" keeps no volumes', id="no-directory"
        ),
    ],
)
def test_what_cannot_be_made_is_refused(
    wanted: Document, on: Document, why: str
) -> None:
    refused = build_volume(wanted, {}, on)

    assert isinstance(refused, Refused)
    assert why in refused.message


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        pytest.param((), None, id="none"),
        pytest.param((node("b"), node("a")), "a", id="first-by-name"),
        pytest.param((node("a", "False"), node("b")), "b", id="ready"),
        pytest.param((node("a", unschedulable=True), node("b")), "b", id="open"),
        pytest.param((make("Node", "a"),), None, id="keeps-none"),
    ],
)
def test_a_volume_without_a_pod_goes_to_the_first_node_that_is_ready(
    nodes: tuple[Document, ...], name: str | None
) -> None:
    found = choose_node(nodes)

    assert (found and found["metadata"]["name"]) == name


def test_a_claim_says_whether_its_volume_was_chosen_for_it() -> None:
    volume = make("PersistentVolume", "v")

    def notes(wanted: Document) -> set[str]:
        return set(build_claim_binding(wanted, volume)["metadata"]["annotations"])

    chosen = "pv.kubernetes.io/bound-by-controller"
    assert chosen in notes(claim())
    assert chosen not in notes(claim(volumeName="v"))


def test_an_ephemeral_volumes_claim_goes_with_its_pod() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}
    volume = {"name": "v", "ephemeral": {"volumeClaimTemplate": template}}

    made = build_ephemeral_claim(make("Pod", "p", "web"), volume)

    assert made["metadata"]["name"] == "p-v"
    assert made["metadata"]["labels"] == {"a": "b"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-p"
    assert made["spec"] == {"x": 1}
