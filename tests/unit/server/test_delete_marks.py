"""What a delete makes of an object."""

from datetime import UTC, datetime

import pytest

from podyard.server.app import load_resources
from podyard.server.resource import Propagation
from podyard.server.verbs.delete import DeleteOptions, mark_deleted
from podyard.server.verbs.writing import is_finished

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
PARTS = {part.kind.kind: part for part in load_resources()}


def marked(kind, options=None, **document):
    metadata = {"name": "x", **document.pop("metadata", {})}
    whole = {"kind": kind, "metadata": metadata, **document}
    return mark_deleted(PARTS[kind], whole, options or DeleteOptions(), NOW)


@pytest.mark.parametrize(
    ("spec", "status", "asked_s", "grace_s"),
    [
        ({"nodeName": "n"}, {}, None, 30),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 5}, {}, None, 5),
        ({"nodeName": "n"}, {}, 7, 7),
        ({"nodeName": "n"}, {}, 0, 0),
        ({"nodeName": "n"}, {}, -3, 1),
        ({}, {}, None, 0),
        ({"nodeName": "n"}, {"phase": "Succeeded"}, None, 0),
    ],
)
def test_a_pod_gets_the_time_it_may_have(spec, status, asked_s, grace_s):
    after = marked("Pod", DeleteOptions(grace_s=asked_s), spec=spec, status=status)

    assert after["metadata"]["deletionGracePeriodSeconds"] == grace_s
    assert is_finished(after) is (grace_s == 0)


@pytest.mark.parametrize(
    ("asked_s", "expected"),
    [(None, None), (40, None), (10, "2026-01-01T12:00:05Z")],
    ids=["unsaid", "longer", "shorter"],
)
def test_a_later_delete_may_only_leave_less_time(asked_s, expected):
    metadata = {
        "deletionTimestamp": "2026-01-01T12:00:25Z",
        "deletionGracePeriodSeconds": 30,
    }

    after = marked(
        "Pod", DeleteOptions(grace_s=asked_s), metadata=metadata, spec={"nodeName": "n"}
    )

    assert (after and after["metadata"]["deletionTimestamp"]) == expected


def test_a_finalizer_holds_the_object():
    after = marked("ConfigMap", metadata={"finalizers": ["a/b"]})

    assert after["metadata"]["deletionTimestamp"] == "2026-01-01T12:00:00Z"
    assert not is_finished(after)


@pytest.mark.parametrize(
    ("kind", "policy", "finalizers"),
    [
        ("Deployment", None, []),
        ("Job", None, ["orphan"]),
        ("Job", Propagation.BACKGROUND, []),
        ("Deployment", Propagation.FOREGROUND, ["foregroundDeletion"]),
        ("Deployment", Propagation.ORPHAN, ["orphan"]),
    ],
)
def test_what_becomes_of_dependants_is_a_finalizer(kind, policy, finalizers):
    after = marked(kind, DeleteOptions(propagation=policy))

    assert after["metadata"].get("finalizers", []) == finalizers
    assert is_finished(after) is not bool(finalizers)


def test_a_namespace_terminates_until_it_is_finalized():
    after = marked("Namespace", spec={"finalizers": ["kubernetes"]}, status={})

    assert after["status"]["phase"] == "Terminating"
    assert not is_finished(after)
    assert is_finished({**after, "spec": {}})
