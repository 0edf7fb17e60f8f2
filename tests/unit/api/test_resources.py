"""Requests, limits, overhead and QoS classes."""

from collections.abc import Mapping
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.resources import (
    has_pod_level_resources,
    is_extended_resource,
    pod_limits,
    pod_requests,
    qos_class,
    requests_from_limits,
)


def container(
    requests: Document | None = None, limits: Document | None = None, **more: object
) -> Document:
    return {
        "name": "c",
        "resources": {"requests": requests or {}, "limits": limits or {}},
        **more,
    }


def pod(
    *containers: Document, init: tuple[Document, ...] = (), **spec: object
) -> Document:
    return {
        "spec": {"containers": list(containers), "initContainers": list(init), **spec}
    }


def sidecar(requests: Document) -> Document:
    return container(requests, restartPolicy="Always")


def texts(amounts: Mapping[str, object]) -> dict[str, str]:
    return {name: str(amount) for name, amount in amounts.items()}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(pod(container()), {}, id="nothing"),
        pytest.param(
            pod(container({"cpu": "100m"}), container({"cpu": 1})),
            {"cpu": "1100m"},
            id="containers-add-up",
        ),
        pytest.param(
            pod(container({"cpu": "1"}), init=(container({"cpu": "2"}),)),
            {"cpu": "2"},
            id="a-big-init-container-wins",
        ),
        pytest.param(
            pod(
                container({"cpu": "1"}),
                init=(sidecar({"cpu": "1"}), container({"cpu": "2"})),
            ),
            {"cpu": "3"},
            id="init-runs-beside-earlier-sidecars",
        ),
        pytest.param(
            pod(
                container({"cpu": "1"}),
                init=(container({"cpu": "2"}), sidecar({"cpu": "1"})),
            ),
            {"cpu": "2"},
            id="init-does-not-run-beside-later-sidecars",
        ),
        pytest.param(
            pod(
                container({"cpu": "1"}),
                init=(sidecar({"cpu": "1"}), sidecar({"cpu": "500m"})),
            ),
            {"cpu": "2500m"},
            id="sidecars-run-with-the-containers",
        ),
        pytest.param(
            pod(container({"cpu": "1"}), overhead={"cpu": "250m", "memory": "64Mi"}),
            {"cpu": "1250m", "memory": "64Mi"},
            id="overhead-is-added",
        ),
        pytest.param(
            pod(
                container({"cpu": "1", "example.com/gpu": "1"}),
                resources={"requests": {"cpu": "4", "example.com/gpu": "9"}},
                overhead={"cpu": "1"},
            ),
            {"cpu": "5", "example.com/gpu": "1"},
            id="pod-level-overrides-what-it-may",
        ),
    ],
)
def test_a_pod_requests_its_hungriest_moment(subject: Any, expected: Any) -> None:
    assert texts(pod_requests(subject)) == expected


def test_overhead_is_added_only_to_limits_that_exist() -> None:
    subject = pod(
        container(limits={"memory": "1Gi"}), overhead={"cpu": "1", "memory": "1Gi"}
    )

    assert texts(pod_limits(subject)) == {"memory": "2Gi"}
    assert texts(pod_limits(subject, include_overhead=False)) == {"memory": "1Gi"}


BOTH = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(pod(container()), "BestEffort", id="nothing"),
        pytest.param(
            pod(container({"cpu": "0"}, {"memory": "0"})), "BestEffort", id="zeros"
        ),
        pytest.param(
            pod(container({"ephemeral-storage": "1Gi"})),
            "BestEffort",
            id="storage-only",
        ),
        pytest.param(pod(container({"cpu": "1"})), "Burstable", id="request-only"),
        pytest.param(pod(container(BOTH, BOTH)), "Guaranteed", id="all-equal"),
        pytest.param(
            pod(container({**BOTH, "memory": "1024Mi"}, BOTH)),
            "Guaranteed",
            id="equal-in-another-form",
        ),
        pytest.param(
            pod(container(BOTH, BOTH), container()), "Burstable", id="one-without"
        ),
        pytest.param(
            pod(container(BOTH, BOTH), init=(container(),)),
            "Burstable",
            id="init-containers-count",
        ),
        pytest.param(
            pod(container({"cpu": "500m", "memory": "1Gi"}, BOTH)),
            "Burstable",
            id="limits-above-requests",
        ),
        pytest.param(
            pod(container(BOTH, BOTH), overhead={"cpu": "1"}),
            "Guaranteed",
            id="overhead-does-not-count",
        ),
        pytest.param(
            pod(container(), resources={"requests": BOTH, "limits": BOTH}),
            "Guaranteed",
            id="pod-level-guaranteed",
        ),
        pytest.param(
            pod(container(BOTH, BOTH), resources={"requests": {"cpu": "1"}}),
            "Burstable",
            id="pod-level-decides-alone",
        ),
        pytest.param(
            {**pod(container()), "status": {"qosClass": "Guaranteed"}},
            "Guaranteed",
            id="the-stored-class-stays",
        ),
    ],
)
def test_the_qos_class_follows_requests_and_limits(subject: Any, expected: Any) -> None:
    assert qos_class(subject) == expected


def test_limits_stand_in_for_missing_requests() -> None:
    resources = {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}

    assert requests_from_limits(resources) == {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu", False),
        ("hugepages-2Mi", False),
        ("example.com/gpu", True),
        ("kubernetes.io/x", False),
        ("requests.example.com/gpu", False),
        ("example.com/-bad", False),
    ],
)
def test_extended_resources_are_those_of_other_domains(
    name: Any, expected: Any
) -> None:
    assert is_extended_resource(name) is expected


def test_pod_level_resources_are_noticed() -> None:
    assert has_pod_level_resources(pod(resources={"limits": {"cpu": "1"}}))
    assert not has_pod_level_resources(
        pod(resources={"limits": {"example.com/x": "1"}})
    )
