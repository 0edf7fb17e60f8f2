"""Manifest → static Pod → mirror."""

from datetime import UTC, datetime
from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.node.sources.build import (
    ManifestError,
    build_mirror,
    build_static_pod,
    mirrors,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANIFEST: Document = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


def static(document: Document = MANIFEST, path: str = "/etc/m/web.yaml") -> Pod:
    built = build_static_pod(document, path=path, node_name="N1", seen_at=NOW)
    return Pod.of(built)


def test_a_static_pod_is_named_after_its_node() -> None:
    pod = static()

    assert (pod.name, pod.namespace) == ("web-n1", "default")
    assert pod.spec.node_name == "N1"
    assert pod.is_static
    assert pod.metadata.annotations["kubernetes.io/config.hash"] == pod.uid
    assert pod.document["spec"]["tolerations"] == [
        {"operator": "Exists", "effect": "NoExecute"}
    ]


def test_its_uid_is_of_node_file_and_content() -> None:
    edited = {**MANIFEST, "spec": {"containers": [{"name": "c", "image": "j"}]}}

    uids = {static().uid, static(edited).uid, static(path="/other").uid}

    assert len(uids) == 3
    assert static().uid == static().uid


@pytest.mark.parametrize(
    ("document", "error"),
    [
        pytest.param({"kind": "Service", "apiVersion": "v1"}, "not a Pod", id="kind"),
        pytest.param({**MANIFEST, "metadata": {}}, "metadata.name", id="no-name"),
        pytest.param({**MANIFEST, "spec": None}, "spec", id="no-spec"),
    ],
)
def test_what_is_no_pod_is_refused(document: Any, error: str) -> None:
    with pytest.raises(ManifestError, match=error):
        static(document)


def test_a_mirror_shows_the_pod_and_belongs_to_the_node() -> None:
    pod = static()

    mirror = Pod.of(build_mirror(pod, node_name="N1", node_uid="nu"))

    assert mirror.is_mirror
    assert mirrors(mirror, pod)
    assert not mirrors(mirror, static(path="/other"))
    assert mirror.metadata.owner_references[0].uid == "nu"
    assert mirror.metadata.labels == {"app": "web"}
