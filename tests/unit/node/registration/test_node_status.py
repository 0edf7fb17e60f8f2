"""The Node object and its status."""

from datetime import UTC, datetime

import pytest

from podyard.api.documents import Document
from podyard.api.observed import (
    Image,
    RuntimeHandler,
    RuntimeStatus,
    RuntimeVersion,
)
from podyard.node.registration.build import (
    MachineFacts,
    NodeCondition,
    NodeSettings,
    RuntimeFacts,
    build_allocatable,
    build_lease,
    build_node,
    build_node_status,
    without_heartbeats,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = MachineFacts(
    cpus=4,
    memory_bytes=8 << 30,
    disk_bytes=100 << 30,
    arch="amd64",
    hostname="host",
    hugepages={"2Mi": 1 << 30},
)
SETTINGS = NodeSettings(
    "n1",
    ("10.0.0.1",),
    kubelet_version="v1.36.2",
    kubelet_port=10250,
    pod_cidrs=("10.1.0.0/24",),
    reserved={"cpu": "500m"},
)
RUNTIME = RuntimeFacts(
    RuntimeVersion("containerd", "v2.1.0", "v1"),
    RuntimeStatus((), (RuntimeHandler("", recursive_read_only_mounts=True),)),
)


def status(
    condition: NodeCondition | None = None, previous: Document | None = None
) -> Document:
    return build_node_status(
        SETTINGS,
        FACTS,
        RUNTIME,
        condition or NodeCondition(),
        [Image("i", ("a:1",), ("a@sha256:1",), 5)],
        previous=previous or {},
        now=NOW,
    )


def test_a_node_shows_what_it_is() -> None:
    node = build_node(SETTINGS, FACTS)

    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert node["spec"] == {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}


def test_pods_get_what_is_not_reserved() -> None:
    allocatable = build_allocatable(SETTINGS, FACTS)

    assert allocatable["cpu"] == "3500m"
    # 8 GiB less the eviction threshold and the huge pages.
    assert allocatable["memory"] == f"{8 * 1024 - 100 - 1024}Mi"
    assert allocatable["pods"] == "110"


def test_the_status_in_full() -> None:
    shown = status()

    assert shown["addresses"] == [
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "Hostname", "address": "host"},
    ]
    assert shown["capacity"]["memory"] == f"{8 << 20}Ki"
    assert shown["nodeInfo"]["containerRuntimeVersion"] == "containerd://2.1.0"
    assert shown["images"] == [{"names": ["a@sha256:1", "a:1"], "sizeBytes": 5}]
    assert shown["runtimeHandlers"] == [
        {
            "name": "",
            "features": {"recursiveReadOnlyMounts": True, "userNamespaces": False},
        }
    ]
    assert shown["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}


@pytest.mark.parametrize(
    ("condition", "kind", "expected"),
    [
        pytest.param(
            NodeCondition(),
            "Ready",
            ("True", "KubeletReady", "kubelet is posting ready status"),
            id="ready",
        ),
        pytest.param(
            NodeCondition(("container runtime is down",)),
            "Ready",
            ("False", "KubeletNotReady", "container runtime is down"),
            id="one-error",
        ),
        pytest.param(
            NodeCondition(("a", "b")),
            "Ready",
            ("False", "KubeletNotReady", "[a, b]"),
            id="two-errors",
        ),
        pytest.param(
            NodeCondition(),
            "DiskPressure",
            ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            id="no-pressure",
        ),
        pytest.param(
            NodeCondition(pressures=frozenset({"MemoryPressure"})),
            "MemoryPressure",
            (
                "True",
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            id="pressure",
        ),
    ],
)
def test_conditions(
    condition: NodeCondition, kind: str, expected: tuple[str, str, str]
) -> None:
    found = next(c for c in status(condition)["conditions"] if c["type"] == kind)

    assert (found["status"], found["reason"], found["message"]) == expected


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    then = "2025-01-01T00:00:00Z"
    old = {"type": "Ready", "status": "True", "lastTransitionTime": then}
    foreign = {"type": "NetworkUnavailable", "status": "False"}

    shown = status(previous={"conditions": [foreign, old]})["conditions"]

    assert shown[0] == foreign
    assert shown[-1]["lastTransitionTime"] == then


def test_time_alone_changes_nothing_worth_telling() -> None:
    later = build_node_status(
        SETTINGS,
        FACTS,
        RUNTIME,
        NodeCondition(),
        [Image("i", ("a:1",), ("a@sha256:1",), 5)],
        previous=status(),
        now=datetime(2026, 1, 2, tzinfo=UTC),
    )

    assert without_heartbeats(later) == without_heartbeats(status())


def test_the_lease_names_its_node() -> None:
    lease = build_lease(SETTINGS, node_uid="u", now=NOW)

    assert lease["spec"] == {
        "holderIdentity": "n1",
        "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "u"
