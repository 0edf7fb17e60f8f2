"""What may change of a Pod, its status and its ephemeral containers."""

import copy
from typing import Any

import pytest

from podyard.api.defaults import default_object
from podyard.api.documents import Document
from podyard.api.scheme import POD
from podyard.api.validation import (
    validate_binding,
    validate_ephemeral_containers_update,
    validate_status_update,
    validate_update,
)
from podyard.api.validation.differences import show_differences
from podyard.api.validation.pods import should_restart

MAY_NOT = (
    "spec: Forbidden: pod updates may not change fields other than "
    "`spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it "
    "was previously negative)\n"
)


def pod(**spec: object) -> Document:
    document: Document = {
        "metadata": {
            "name": "p",
            "namespace": "default",
            "uid": "u",
            "resourceVersion": "1",
        },
        "spec": {
            "containers": [
                {"name": "c", "image": "i:1", "env": [{"name": "A", "value": "old"}]}
            ],
            "initContainers": [{"name": "i", "image": "i:1"}],
            "serviceAccountName": "default",
            **copy.deepcopy(spec),
        },
    }
    default_object(POD, document)
    return document


def changed(old: Document, **spec: object) -> list[str]:
    new = copy.deepcopy(old)
    new["spec"].update(copy.deepcopy(spec))
    default_object(POD, new)
    return [str(fault) for fault in validate_update(POD, new, old)]


def test_images_may_change() -> None:
    old = pod()
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["image"] = "i:2"
    new["spec"]["initContainers"][0]["image"] = "i:2"

    assert validate_update(POD, new, old) == ()


TOLERATION = {"key": "a", "operator": "Exists", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("before", "after", "faults"),
    [
        pytest.param({}, {}, [], id="nothing"),
        pytest.param({}, {"activeDeadlineSeconds": 5}, [], id="deadline-set"),
        pytest.param(
            {"activeDeadlineSeconds": 5},
            {"activeDeadlineSeconds": 4},
            [],
            id="deadline-shorter",
        ),
        pytest.param(
            {"activeDeadlineSeconds": 5},
            {"activeDeadlineSeconds": 6},
            [
                "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
            ],
            id="deadline-longer",
        ),
        pytest.param(
            {"activeDeadlineSeconds": 5},
            {"activeDeadlineSeconds": None},
            [
                "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"
            ],
            id="deadline-gone",
        ),
        pytest.param({}, {"tolerations": [TOLERATION]}, [], id="toleration-added"),
        pytest.param(
            {"tolerations": [TOLERATION]},
            {"tolerations": [{**TOLERATION, "tolerationSeconds": 5}]},
            [],
            id="toleration-seconds",
        ),
        pytest.param(
            {"tolerations": [TOLERATION]},
            {"tolerations": []},
            [
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
            ],
            id="toleration-gone",
        ),
        pytest.param(
            {"schedulingGates": [{"name": "a"}, {"name": "b"}]},
            {"schedulingGates": [{"name": "a"}]},
            [],
            id="gate-removed",
        ),
        pytest.param(
            {},
            {"schedulingGates": [{"name": "n"}]},
            [
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'n'"
            ],
            id="gate-added",
        ),
        pytest.param(
            {"terminationGracePeriodSeconds": -5},
            {"terminationGracePeriodSeconds": 1},
            [],
            id="negative-grace-repaired",
        ),
        pytest.param(
            {},
            {"terminationGracePeriodSeconds": 1},
            [
                MAY_NOT
                + "- terminationGracePeriodSeconds: 30\n+ terminationGracePeriodSeconds: 1"
            ],
            id="grace",
        ),
        pytest.param(
            {},
            {"hostNetwork": True},
            [MAY_NOT + "+ hostNetwork: true"],
            id="host-network",
        ),
        pytest.param(
            {},
            {"containers": []},
            [
                "spec.containers: Required value",
                "spec.containers: Forbidden: pod updates may not add or remove containers",
            ],
            id="containers-gone",
        ),
        pytest.param(
            {},
            {"nodeSelector": {"a": "b"}},
            [MAY_NOT + '+ nodeSelector: {"a":"b"}'],
            id="node-selector",
        ),
        pytest.param(
            {"schedulingGates": [{"name": "a"}]},
            {"nodeSelector": {"a": "b"}},
            [],
            id="gated-node-selector",
        ),
        pytest.param(
            {"schedulingGates": [{"name": "a"}], "nodeSelector": {"a": "b"}},
            {"nodeSelector": {}},
            [
                "spec.nodeSelector: Invalid value: {}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            ],
            id="gated-node-selector-gone",
        ),
    ],
)
def test_little_of_a_pod_may_change(before: Any, after: Any, faults: Any) -> None:
    assert changed(pod(**before), **after) == faults


def term(*keys: str) -> Document:
    return {"matchExpressions": [{"key": key, "operator": "Exists"} for key in keys]}


def affinity(*terms: Document) -> Document:
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": list(terms)
            }
        }
    }


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        pytest.param(None, affinity(term("a")), "", id="new"),
        pytest.param(affinity(term("a")), affinity(term("a", "b")), "", id="stricter"),
        pytest.param(
            affinity(term("a")),
            affinity(term("b")),
            "only additions are allowed (no mutations or deletions)",
            id="other",
        ),
        pytest.param(
            affinity(term("a")),
            affinity(term("a"), term("b")),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            id="more-terms",
        ),
    ],
)
def test_a_gated_pod_may_get_stricter_about_its_node(
    before: Any, after: Any, fault: Any
) -> None:
    gates = [{"name": "g"}]
    old = pod(schedulingGates=gates, **({"affinity": before} if before else {}))

    texts = changed(old, affinity=after)

    assert len(texts) == bool(fault)
    assert all(text.endswith(fault) for text in texts)


def test_an_environment_never_shows_in_an_error() -> None:
    old = pod()
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["env"][0]["value"] = "hunter2"
    new["spec"]["containers"][0]["args"] = ["--token=hunter2"]

    texts = [str(fault) for fault in validate_update(POD, new, old)]

    assert len(texts) == 1
    assert texts[0].startswith(MAY_NOT)
    assert "hunter2" not in texts[0]
    assert "old" not in texts[0]
    assert "containers[0].env[0].value: <value hidden>" in texts[0]


def test_differences_hide_secrets_inside_what_is_new() -> None:
    text = show_differences(
        {}, {"containers": [{"name": "c", "env": [{"value": "hunter2"}]}]}
    )

    assert text == '+ containers: [{"name":"c","env":"<value hidden>"}]'


def test_many_differences_are_cut() -> None:
    text = show_differences({}, {str(number): number for number in range(30)})

    assert text.count("\n") == 20
    assert text.endswith("...")


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("name", "q", 'metadata.name: Invalid value: "q": field is immutable'),
        ("uid", "v", 'metadata.uid: Invalid value: "v": field is immutable'),
    ],
)
def test_identity_stays(field: Any, value: Any, fault: Any) -> None:
    old = pod()
    new = copy.deepcopy(old)
    new["metadata"][field] = value

    assert fault in [str(found) for found in validate_update(POD, new, old)]


def test_a_deleted_object_gets_no_new_finalizers() -> None:
    old = pod()
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["a.b/c"]

    assert [str(found) for found in validate_update(POD, new, old)] == [
        (
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is "
            'being deleted, found new finalizers []string{"a.b/c"}'
        )
    ]


def test_the_mirror_annotation_stays() -> None:
    old = pod(nodeName="n")
    new = copy.deepcopy(old)
    new["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}

    assert [str(found) for found in validate_update(POD, new, old)] == [
        "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation"
    ]
    assert [str(found) for found in validate_update(POD, old, new)] == [
        "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
    ]


# --- status -----------------------------------------------------------------------


def ended(code: int, **more: object) -> Document:
    return {"name": "c", "state": {"terminated": {"exitCode": code}}, **more}


RUNNING = {"name": "c", "state": {"running": {}}}


def status_faults(
    old_status: Document, new_status: Document, **spec: object
) -> list[str]:
    old, new = pod(**spec), pod(**spec)
    old["status"], new["status"] = old_status, new_status
    return [str(fault) for fault in validate_status_update(POD, new, old)]


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        pytest.param(
            {},
            {"phase": "Running", "conditions": [{"type": "Ready"}, {"type": "a.b/c"}]},
            [],
            id="fine",
        ),
        pytest.param(
            {},
            {"conditions": [{"type": "/x", "observedGeneration": -1}]},
            [
                "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
                'status.conditions[0].Type: Invalid value: "/x": prefix part must be non-empty',
            ],
            id="condition",
        ),
        pytest.param(
            {"qosClass": "BestEffort"},
            {"qosClass": "Burstable"},
            ['status.qosClass: Invalid value: "Burstable": field is immutable'],
            id="qos",
        ),
        pytest.param(
            {},
            {"observedGeneration": -1},
            [
                "status.observedGeneration: Invalid value: -1: must be a non-negative integer"
            ],
            id="generation",
        ),
        pytest.param(
            {},
            {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
            [
                'status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family'
            ],
            id="two-of-a-family",
        ),
        pytest.param(
            {}, {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, [], id="dual-stack"
        ),
        pytest.param(
            {},
            {"podIPs": [{"ip": "x"}]},
            [
                'status.podIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            ],
            id="no-address",
        ),
        pytest.param(
            {},
            {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]},
            [
                'status.hostIPs[0].ip: Invalid value: "10.0.0.2": must be equal to `hostIP`'
            ],
            id="host-ip",
        ),
        pytest.param(
            {},
            {
                "containerStatuses": [
                    {"name": "c", "user": {"linux": {"uid": -1, "gid": 0}}}
                ]
            },
            [
                "status.containerStatuses[0].user.linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive"
            ],
            id="user",
        ),
    ],
)
def test_a_status_is_checked(old: Any, new: Any, faults: Any) -> None:
    assert status_faults(old, new) == faults


@pytest.mark.parametrize(
    ("policy", "code", "allowed"),
    [
        ("Always", 0, True),
        ("OnFailure", 1, True),
        ("OnFailure", 0, False),
        ("Never", 1, False),
    ],
)
def test_what_ended_for_good_does_not_run_again(
    policy: Any, code: Any, allowed: Any
) -> None:
    faults = status_faults(
        {"containerStatuses": [ended(code)]},
        {"containerStatuses": [RUNNING]},
        restartPolicy=policy,
    )

    expected = [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    ]
    assert faults == ([] if allowed else expected)


def test_a_rule_that_restarts_all_lets_all_run_again() -> None:
    rule = {
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [7]},
    }
    main = {
        "name": "c",
        "image": "i",
        "restartPolicy": "Never",
        "restartPolicyRules": [rule],
    }

    faults = status_faults(
        {"containerStatuses": [ended(0)]},
        {"containerStatuses": [RUNNING]},
        restartPolicy="Never",
        containers=[main],
    )

    assert faults == []


def test_an_ephemeral_container_never_runs_again() -> None:
    faults = status_faults(
        {"ephemeralContainerStatuses": [ended(0)]},
        {"ephemeralContainerStatuses": [RUNNING]},
    )

    assert faults == [
        "status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    ]


@pytest.mark.parametrize(
    ("container", "code", "expected"),
    [
        (
            {"restartPolicyRules": [{"exitCodes": {"operator": "In", "values": [3]}}]},
            3,
            True,
        ),
        (
            {"restartPolicyRules": [{"exitCodes": {"operator": "In", "values": [3]}}]},
            4,
            False,
        ),
        (
            {
                "restartPolicyRules": [
                    {"exitCodes": {"operator": "NotIn", "values": [3]}}
                ]
            },
            4,
            True,
        ),
        ({"restartPolicy": "Always"}, 0, True),
        ({}, 1, False),
    ],
)
def test_rules_come_before_policies(container: Any, code: Any, expected: Any) -> None:
    assert should_restart(container, {"restartPolicy": "Never"}, code) is expected


# --- subresources --------------------------------------------------------------------


DEBUG = {"name": "d", "image": "busybox"}


def debugged(*containers: Document) -> Document:
    return pod(ephemeralContainers=list(containers))


def ephemeral_faults(new: Document, old: Document) -> list[str]:
    return [str(fault) for fault in validate_ephemeral_containers_update(new, old)]


@pytest.mark.parametrize(
    ("container", "faults"),
    [
        pytest.param(DEBUG, [], id="fine"),
        pytest.param({**DEBUG, "targetContainerName": "c"}, [], id="target"),
        pytest.param(
            {**DEBUG, "targetContainerName": "x"},
            ['targetContainerName: Not found: "x"'],
            id="no-target",
        ),
        pytest.param(
            {**DEBUG, "name": "c"}, ['name: Duplicate value: "c"'], id="name-taken"
        ),
        pytest.param(
            {**DEBUG, "image": " x"},
            [
                'image: Invalid value: " x": must not have leading or trailing whitespace'
            ],
            id="padded-image",
        ),
        pytest.param(
            {**DEBUG, "ports": [{"containerPort": 1}]},
            ["ports: Forbidden: cannot be set for an Ephemeral Container"],
            id="ports",
        ),
        pytest.param(
            {**DEBUG, "resources": {"limits": {"cpu": "1"}}},
            ["resources: Forbidden: cannot be set for an Ephemeral Container"],
            id="resources",
        ),
        pytest.param(
            {**DEBUG, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}},
            ["lifecycle: Forbidden: cannot be set for an Ephemeral Container"],
            id="hooks",
        ),
    ],
)
def test_ephemeral_containers_are_checked(container: Any, faults: Any) -> None:
    texts = ephemeral_faults(debugged(container), pod())

    assert texts == [f"spec.ephemeralContainers[0].{fault}" for fault in faults]


def test_an_ephemeral_container_mounts_no_part_of_a_volume() -> None:
    mount = {"name": "v", "mountPath": "/v", "subPath": "x"}
    volumes = [{"name": "v"}]
    new = pod(ephemeralContainers=[{**DEBUG, "volumeMounts": [mount]}], volumes=volumes)

    assert ephemeral_faults(new, pod(volumes=volumes)) == [
        "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container"
    ]


def test_existing_ephemeral_containers_stay_as_they_are() -> None:
    old = debugged(DEBUG)

    assert ephemeral_faults(pod(), old) == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed\n'
    ]
    changes = ephemeral_faults(debugged({**DEBUG, "image": "other"}), old)
    assert changes[0].startswith(
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed\n- image: "busybox"'
    )


def test_static_pods_have_no_ephemeral_containers() -> None:
    old = pod(nodeName="n")
    old["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}

    assert ephemeral_faults(debugged(DEBUG), old) == [
        ": Forbidden: static pods do not support ephemeral containers"
    ]


@pytest.mark.parametrize(
    ("target", "faults"),
    [
        ({"name": "n"}, []),
        ({"kind": "Node", "name": "n"}, []),
        (
            {"kind": "Pod"},
            [
                'target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"',
                "target.name: Required value",
            ],
        ),
    ],
)
def test_a_binding_names_a_node(target: Any, faults: Any) -> None:
    assert [str(fault) for fault in validate_binding({"target": target})] == faults
