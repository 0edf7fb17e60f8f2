"""May this Pod run on this node?"""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.predicates import (
    NodeUsage,
    Rejection,
    decide_admission,
    node_preference,
    soft_taints_against,
    unschedulable_reasons,
    usage_of,
)

ALLOCATABLE = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "3"}


def node(
    *,
    labels: dict[str, str] | None = None,
    taints: list[Document] | None = None,
    unschedulable: bool = False,
    **allocatable: str,
) -> Document:
    return {
        "metadata": {
            "name": "n1",
            "labels": {"kubernetes.io/os": "linux"} | (labels or {}),
        },
        "spec": {"taints": taints or [], "unschedulable": unschedulable},
        "status": {"allocatable": ALLOCATABLE | allocatable},
    }


def pod(
    requests: dict[str, str] | None = None,
    ports: list[Document] | None = None,
    **spec: object,
) -> Document:
    main = {
        "name": "c",
        "resources": {"requests": requests or {}},
        "ports": ports or [],
    }
    return {"metadata": {"name": "p"}, "spec": {"containers": [main], **spec}}


def affinity(*terms: Document) -> Document:
    required = {"nodeSelectorTerms": list(terms)}
    return {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
    }


def expression(key: str, operator: str, *values: str) -> Document:
    return {
        "matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]
    }


def by_name(operator: str, *names: str) -> Document:
    return {
        "matchFields": [
            {"key": "metadata.name", "operator": operator, "values": list(names)}
        ]
    }


MISMATCH = "node(s) didn't match Pod's node affinity/selector"
GPU_TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
WEB_PORT = [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("subject", "where", "reasons"),
    [
        pytest.param(pod(), node(), (), id="fits"),
        pytest.param(
            pod(),
            node(unschedulable=True),
            ("node(s) were unschedulable",),
            id="cordoned",
        ),
        pytest.param(
            pod(tolerations=[{"operator": "Exists"}]),
            node(unschedulable=True),
            (),
            id="cordon-tolerated",
        ),
        pytest.param(
            pod(nodeName="n2"),
            node(),
            ("node(s) didn't match the requested node name",),
            id="another-node",
        ),
        pytest.param(
            pod(),
            node(taints=[GPU_TAINT]),
            ("node(s) had untolerated taint {gpu: yes}",),
            id="tainted",
        ),
        pytest.param(
            pod(tolerations=[{"key": "gpu", "operator": "Equal", "value": "yes"}]),
            node(taints=[GPU_TAINT]),
            (),
            id="tolerated-by-value",
        ),
        pytest.param(
            pod(tolerations=[{"key": "gpu", "value": "no", "effect": "NoSchedule"}]),
            node(taints=[GPU_TAINT]),
            ("node(s) had untolerated taint {gpu: yes}",),
            id="another-value",
        ),
        pytest.param(
            pod(
                tolerations=[
                    {"key": "gpu", "operator": "Exists", "effect": "NoExecute"}
                ]
            ),
            node(taints=[GPU_TAINT]),
            ("node(s) had untolerated taint {gpu: yes}",),
            id="another-effect",
        ),
        pytest.param(
            pod(),
            node(taints=[{**GPU_TAINT, "effect": "PreferNoSchedule"}]),
            (),
            id="a-soft-taint",
        ),
        pytest.param(
            pod(nodeSelector={"disk": "ssd"}), node(), (MISMATCH,), id="no-label"
        ),
        pytest.param(
            pod(nodeSelector={"disk": "ssd"}),
            node(labels={"disk": "ssd"}),
            (),
            id="label",
        ),
        pytest.param(
            pod(affinity=affinity(expression("zone", "In", "a", "b"))),
            node(labels={"zone": "b"}),
            (),
            id="in",
        ),
        pytest.param(
            pod(affinity=affinity(expression("zone", "NotIn", "a"))),
            node(),
            (),
            id="not-in",
        ),
        pytest.param(
            pod(affinity=affinity(expression("zone", "Exists"))),
            node(),
            (MISMATCH,),
            id="exists",
        ),
        pytest.param(
            pod(affinity=affinity(expression("zone", "DoesNotExist"))),
            node(),
            (),
            id="absent",
        ),
        pytest.param(
            pod(affinity=affinity(expression("cores", "Gt", "4"))),
            node(labels={"cores": "8"}),
            (),
            id="gt",
        ),
        pytest.param(
            pod(affinity=affinity(expression("cores", "Lt", "4"))),
            node(labels={"cores": "many"}),
            (MISMATCH,),
            id="lt-of-no-number",
        ),
        pytest.param(
            pod(affinity=affinity(by_name("In", "n1"))), node(), (), id="field"
        ),
        pytest.param(
            pod(affinity=affinity(by_name("NotIn", "n1"))),
            node(),
            (MISMATCH,),
            id="not-field",
        ),
        pytest.param(
            pod(affinity=affinity(by_name("In", "n2"), by_name("In", "n1"))),
            node(),
            (),
            id="terms-are-alternatives",
        ),
        pytest.param(
            pod(affinity=affinity({})), node(), (MISMATCH,), id="an-empty-term"
        ),
        pytest.param(pod(affinity=affinity()), node(), (MISMATCH,), id="no-terms"),
        pytest.param(
            pod({"cpu": "3", "memory": "5Gi", "example.com/gpu": "1"}),
            node(),
            ("Insufficient cpu", "Insufficient memory", "Insufficient example.com/gpu"),
            id="too-big",
        ),
        pytest.param(pod({"cpu": "2"}), node(), (), id="exactly-full"),
        pytest.param(
            pod({"cpu": "1"}, overhead={"cpu": "1100m"}),
            node(),
            ("Insufficient cpu",),
            id="overhead-counts",
        ),
        pytest.param(pod(), node(pods="0"), ("Too many pods",), id="no-room"),
    ],
)
def test_the_scheduler_says_why_it_passes_a_node_over(
    subject: Any, where: Any, reasons: Any
) -> None:
    assert unschedulable_reasons(subject, where, NodeUsage()) == reasons


def test_what_runs_already_is_taken_into_account() -> None:
    usage = usage_of(
        [pod({"cpu": "1500m"}), {**pod({"cpu": "9"}), "status": {"phase": "Succeeded"}}]
    )

    assert usage.pods == 1
    assert unschedulable_reasons(pod({"cpu": "501m"}), node(), usage) == (
        "Insufficient cpu",
    )
    assert unschedulable_reasons(pod({"cpu": "500m"}), node(), usage) == ()


@pytest.mark.parametrize(
    ("taken", "conflict"),
    [
        pytest.param({}, True, id="same"),
        pytest.param({"protocol": "UDP"}, False, id="another-protocol"),
        pytest.param({"hostPort": 81}, False, id="another-port"),
        pytest.param({"hostIP": "10.0.0.1"}, True, id="any-address-meets-one"),
    ],
)
def test_host_ports_must_be_free(taken: Any, conflict: Any) -> None:
    usage = usage_of([pod(ports=[{**WEB_PORT[0], **taken}])])

    reasons = unschedulable_reasons(pod(ports=WEB_PORT), node(), usage)

    assert bool(reasons) is conflict
    assert reasons in {
        (),
        ("node(s) didn't have free ports for the requested pod ports",),
    }


def test_two_addresses_do_not_meet() -> None:
    usage = usage_of([pod(ports=[{**WEB_PORT[0], "hostIP": "10.0.0.1"}])])
    wanted = pod(ports=[{**WEB_PORT[0], "hostIP": "10.0.0.2"}])

    assert unschedulable_reasons(wanted, node(), usage) == ()


@pytest.mark.parametrize(
    ("subject", "is_static", "expected"),
    [
        pytest.param(pod(), False, None, id="admitted"),
        pytest.param(
            pod({"cpu": "1"}),
            False,
            Rejection(
                "OutOfcpu",
                "Node didn't have enough resource: cpu, requested: 1000, used: 1500, "
                "capacity: 2000",
            ),
            id="out-of-cpu",
        ),
        pytest.param(
            pod({"memory": "5Gi"}),
            False,
            Rejection(
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 5368709120, "
                "used: 0, capacity: 4294967296",
            ),
            id="out-of-memory",
        ),
        pytest.param(
            pod({"example.com/gpu": "1"}), False, None, id="unknown-extended-resource"
        ),
        pytest.param(
            pod(nodeSelector={"disk": "ssd"}),
            False,
            Rejection(
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node "
                "affinity/selector",
            ),
            id="affinity",
        ),
        pytest.param(
            pod(nodeName="n2"),
            False,
            Rejection(
                "NodeName",
                "Predicate NodeName failed: node(s) didn't match the requested node name",
            ),
            id="node-name",
        ),
        pytest.param(
            pod(ports=WEB_PORT),
            False,
            Rejection(
                "NodePorts",
                "Predicate NodePorts failed: node(s) didn't have free ports for the "
                "requested pod ports",
            ),
            id="ports",
        ),
        pytest.param(
            pod(os={"name": "windows"}),
            False,
            Rejection(
                "PodOSNotSupported",
                "Failed to admit pod as the OS field doesn't match node OS",
            ),
            id="windows",
        ),
        pytest.param(
            pod(nodeSelector={"kubernetes.io/os": "windows"}),
            False,
            Rejection(
                "PodOSSelectorNodeLabelDoesNotMatch",
                "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
            ),
            id="windows-selector",
        ),
        pytest.param(
            pod(securityContext={"supplementalGroupsPolicy": "Strict"}),
            False,
            Rejection(
                "SupplementalGroupsPolicyNotSupported",
                "SupplementalGroupsPolicy=Strict is not supported in this node",
            ),
            id="strict-groups",
        ),
    ],
)
def test_the_kubelet_says_why_it_refuses(
    subject: Any, is_static: Any, expected: Any
) -> None:
    usage = usage_of([pod({"cpu": "1500m"}, ports=WEB_PORT)])

    assert decide_admission(subject, node(), usage, is_static=is_static) == expected


def test_the_kubelet_counts_pods() -> None:
    rejection = decide_admission(pod(), node(), NodeUsage(pods=3))

    assert rejection == Rejection(
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    )


def test_only_static_pods_are_checked_for_taints_on_the_node() -> None:
    where = node(taints=[{"key": "x", "effect": "NoExecute"}])

    assert decide_admission(pod(), where, NodeUsage()) is None
    rejection = decide_admission(pod(), where, NodeUsage(), is_static=True)
    assert rejection is not None
    assert rejection.reason == "TaintToleration"


def test_preferences_are_weighed() -> None:
    wish = {"weight": 7, "preference": expression("zone", "In", "a")}
    subject = pod(
        affinity={
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}
        }
    )

    assert node_preference(subject, node(labels={"zone": "a"})) == 7
    assert node_preference(subject, node()) == 0
    soft = node(taints=[{**GPU_TAINT, "effect": "PreferNoSchedule"}])
    assert soft_taints_against(subject, soft) == 1
