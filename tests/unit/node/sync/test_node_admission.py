"""Which Pods a node refuses by itself."""

from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.node.sync.admission.decide import HostAbilities, decide_node_admission

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
