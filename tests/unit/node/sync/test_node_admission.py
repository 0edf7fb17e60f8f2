"""Which Pods a node refuses by itself."""

from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.node.sync.admission.decide import (
    HostAbilities,
    decide_critical_preemption,
    decide_node_admission,
)

ALLOCATABLE = {"cpu": "2", "memory": "1Gi", "pods": "2", "ephemeral-storage": "10Gi"}
NODE: Document = {
    "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}},
    "spec": {},
    "status": {"allocatable": ALLOCATABLE, "capacity": ALLOCATABLE},
}


def document(cpu: str = "1", **spec: Any) -> Document:
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
            ],
            "nodeName": "n1",
            **spec,
        },
    }


def sysctl(name: str) -> Document:
    return {"sysctls": [{"name": name, "value": "1"}]}


APPARMOR = {"appArmorProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("pod", "others", "reason"),
    [
        pytest.param(document(), [], None, id="fits"),
        pytest.param(document("3"), [], "OutOfcpu", id="too-much-cpu"),
        pytest.param(document(), [document("2")], "OutOfcpu", id="others-have-it"),
        pytest.param(
            document("0"), [document("0"), document("0")], "OutOfpods", id="full"
        ),
        pytest.param(
            document(nodeSelector={"disk": "ssd"}), [], "NodeAffinity", id="selector"
        ),
        pytest.param(
            document(securityContext=APPARMOR), [], "AppArmor", id="no-apparmor-here"
        ),
        pytest.param(
            document(securityContext=sysctl("net.ipv4.tcp_syncookies")),
            [],
            None,
            id="safe-sysctl",
        ),
        pytest.param(
            document(securityContext=sysctl("kernel.msgmax")),
            [],
            "SysctlForbidden",
            id="unsafe-sysctl",
        ),
        pytest.param(
            document(
                securityContext=sysctl("net.ipv4.tcp_syncookies"), hostNetwork=True
            ),
            [],
            "SysctlForbidden",
            id="net-sysctl-on-the-hosts-network",
        ),
    ],
)
def test_admission(pod: Document, others: list[Document], reason: str | None) -> None:
    refused = decide_node_admission(Pod.of(pod), NODE, others, HostAbilities())

    assert (refused.reason if refused else None) == reason


def test_an_owner_may_allow_unsafe_sysctls() -> None:
    pod = Pod.of(document(securityContext=sysctl("kernel.msgmax")))
    host = HostAbilities(unsafe_sysctls=("kernel.msg*",))

    assert decide_node_admission(pod, NODE, [], host) is None


# --- critical Pods


def running(name: str, cpu: str, qos: str = "Burstable", priority: int = 0) -> Pod:
    requests = {"cpu": cpu, "memory": "1Mi"}
    resources: Document = {"requests": requests}
    if qos == "Guaranteed":
        resources["limits"] = requests
    if qos == "BestEffort":
        resources = {}
    found = document(
        containers=[{"name": "c", "resources": resources}], priority=priority
    )
    found["metadata"] = {"name": name, "namespace": "d", "uid": name}
    return Pod.of(found)


CRITICAL = 2_000_000_000


@pytest.mark.parametrize(
    ("cpu", "priority", "others", "victims"),
    [
        pytest.param("1", CRITICAL, [running("a", "2")], ("a",), id="the-only-one"),
        pytest.param("1", 5, [running("a", "2")], (), id="only-critical-ones-may"),
        pytest.param(
            "1", CRITICAL, [running("a", "2", priority=CRITICAL)], (), id="equals-stay"
        ),
        pytest.param(
            "1",
            CRITICAL + 1000,
            [running("a", "2", priority=CRITICAL)],
            ("a",),
            id="a-more-critical-one",
        ),
        pytest.param(
            "500m",
            CRITICAL,
            [running("big", "1500m"), running("small", "500m")],
            ("small",),
            id="the-nearest",
        ),
        pytest.param(
            "1",
            CRITICAL,
            [running("guaranteed", "1", "Guaranteed"), running("burstable", "1")],
            ("burstable",),
            id="the-lower-class",
        ),
        pytest.param(
            "2",
            CRITICAL,
            [running("guaranteed", "1", "Guaranteed"), running("burstable", "1")],
            ("guaranteed", "burstable"),
            id="both",
        ),
        pytest.param(
            "100m",
            CRITICAL,
            [running("b", "0", "BestEffort"), running("a", "1")],
            ("b",),
            id="one-pod-too-many",
        ),
        pytest.param("5", CRITICAL, [running("a", "2")], (), id="never-enough"),
    ],
)
def test_who_ends_for_a_critical_pod(
    cpu: str, priority: int, others: list[Pod], victims: tuple[str, ...]
) -> None:
    wanted = Pod.of(document(cpu, priority=priority))

    assert decide_critical_preemption(wanted, NODE, others, HostAbilities()) == victims


def test_what_room_does_not_help_ends_nobody() -> None:
    wanted = Pod.of(document(priority=CRITICAL, nodeSelector={"disk": "ssd"}))

    assert (
        decide_critical_preemption(wanted, NODE, [running("a", "2")], HostAbilities())
        == ()
    )
