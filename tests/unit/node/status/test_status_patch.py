"""The patch of a status: only what differs, only what is ours."""

import pytest

from podyard.api.documents import Document
from podyard.node.status.build import (
    build_begun_anew,
    build_previous,
    build_status_patch,
)

READY = {"type": "Ready", "status": "True", "lastProbeTime": None}


def test_equal_statuses_need_no_patch() -> None:
    base: Document = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "a", "lastState": {}}],
    }
    wanted: Document = {
        "phase": "Running",
        "conditions": [READY],
        "containerStatuses": [{"name": "a"}],
        "reason": "",
    }

    assert build_status_patch(base, wanted, uid="u") is None


def test_only_what_differs_is_sent_and_what_is_gone_is_nulled() -> None:
    base: Document = {"phase": "Running", "reason": "Old", "hostIP": "1.2.3.4"}
    wanted: Document = {"phase": "Failed", "hostIP": "1.2.3.4"}

    patch = build_status_patch(base, wanted, uid="u")

    assert patch == {
        "metadata": {"uid": "u"},
        "status": {"phase": "Failed", "reason": None},
    }


def test_addresses_replace_one_another() -> None:
    base: Document = {"podIPs": [{"ip": "1"}], "podIP": "1"}
    wanted: Document = {"podIPs": [{"ip": "2"}], "podIP": "2"}

    patch = build_status_patch(base, wanted, uid="u")

    assert patch is not None
    assert patch["status"]["podIPs"] == [{"$patch": "replace"}, {"ip": "2"}]


def test_conditions_of_others_are_never_sent() -> None:
    foreign = {"type": "example.com/x", "status": "True"}
    base: Document = {
        "conditions": [{"type": "Ready", "status": "False", "reason": "R"}]
    }
    wanted: Document = {"conditions": [foreign, READY]}

    patch = build_status_patch(base, wanted, uid="u")

    assert patch is not None
    assert patch["status"]["conditions"] == [{"reason": None, **READY}]


def test_the_next_status_is_made_from_what_was_said_last() -> None:
    latest: Document = {"phase": "Running", "conditions": [READY]}
    in_api: Document = {
        "phase": "Pending",
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "gate", "status": "True"},
        ],
    }

    previous = build_previous(latest, in_api)

    assert previous["phase"] == "Running"
    assert previous["conditions"] == [{"type": "gate", "status": "True"}, READY]
    assert build_previous(None, in_api) is in_api


@pytest.mark.parametrize("phase", ["Failed", "Succeeded", "Running"])
def test_a_new_agent_begins_a_static_pod_that_was_over_anew(phase: str) -> None:
    before: Document = {
        "phase": phase,
        "reason": "Terminated",
        "message": "the node went down",
        "conditions": [
            {"type": "DisruptionTarget", "reason": "TerminationByKubelet"},
            {"type": "Ready", "status": "False"},
        ],
        "containerStatuses": [{"name": "app"}],
    }

    taken = build_begun_anew(before)

    if phase == "Running":
        assert taken == before
    else:
        assert taken == {
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "app"}],
        }
