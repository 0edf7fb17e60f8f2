"""The rarer rules, each with its text."""

import copy
from typing import Any

import pytest

from podyard.api.defaults import default_object, prepare_object
from podyard.api.documents import Document
from podyard.api.feature_gates import FeatureGates
from podyard.api.scheme import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    JOB,
    LEASE,
    NODE,
    POD,
    SERVICE,
    STATEFUL_SET,
    Kind,
)
from podyard.api.validation import (
    validate_create,
    validate_status_update,
    validate_update,
)
from podyard.api.validation.object_meta import check_label_selector
from podyard.api.validation.pods import check_pod_annotations
from podyard.api.validation.security import dotted_sysctl

MAIN = {"name": "c", "image": "i"}


def made(kind: Kind, body: Document) -> Document:
    document = {
        "metadata": {"name": "x", "namespace": "default", "uid": "u"},
        **copy.deepcopy(body),
    }
    if not kind.namespaced:
        del document["metadata"]["namespace"]
    default_object(kind, document)
    prepare_object(kind, document)
    return document


def faults_of(kind: Kind, body: Document, **gates: bool) -> list[str]:
    faults = validate_create(kind, made(kind, body), FeatureGates(gates))
    return [
        str(fault).replace("must consist of", "MUST").partition("MUST")[0]
        for fault in faults
    ]


def pod_faults(spec: Document, **gates: bool) -> list[str]:
    body = {"spec": {"serviceAccountName": "a", "containers": [MAIN], **spec}}
    return [text.removeprefix("spec.") for text in faults_of(POD, body, **gates)]


def container_faults(fields: Document, **gates: bool) -> list[str]:
    texts = pod_faults({"containers": [{**MAIN, **fields}]}, **gates)
    return [text.removeprefix("containers[0].") for text in texts]


def volume_faults(source: Document) -> list[str]:
    texts = pod_faults({"volumes": [{"name": "v", **source}]})
    return [text.removeprefix("volumes[0].") for text in texts]


# --- selectors, metadata -----------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            {"key": "a", "operator": "In"},
            "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            {"key": "a", "operator": "Exists", "values": ["b"]},
            "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (
            {"key": "a", "operator": "Gt", "values": ["1"]},
            's.matchExpressions[0].operator: Invalid value: "Gt": not a valid selector operator',
        ),
        ({"key": "a", "operator": "In", "values": ["b"]}, None),
    ],
)
def test_selector_expressions_are_checked(entry: Any, fault: Any) -> None:
    found = [
        str(text) for text in check_label_selector({"matchExpressions": [entry]}, "s")
    ]

    assert found == ([] if fault is None else [fault])


def test_selector_values_are_label_values() -> None:
    entry = {"key": "a", "operator": "In", "values": ["-"]}

    found = [
        text.field for text in check_label_selector({"matchExpressions": [entry]}, "s")
    ]

    assert found == ["s.matchExpressions[0].values[0]"]


OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        (
            {"ownerReferences": [{**OWNER, "apiVersion": ""}]},
            "metadata.ownerReferences[0].apiVersion: Required value: must not be empty",
        ),
        (
            {"ownerReferences": [{**OWNER, "apiVersion": "a/b/c"}]},
            'metadata.ownerReferences[0].apiVersion: Invalid value: "a/b/c": must be <group>/<version> or <version>',
        ),
        (
            {"ownerReferences": [{**OWNER, "kind": "Event"}]},
            "/v1, Kind=Event is disallowed from being an owner",
        ),
        (
            {"ownerReferences": [{**OWNER, "controller": True}] * 2},
            'Only one reference can have Controller set to true. Found "true" in references for Node/n and Node/n',
        ),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            "finalizer orphan and foregroundDeletion cannot be both set",
        ),
        (
            {"generateName": "XY-"},
            'metadata.generateName: Invalid value: "XY-": a lowercase RFC 1123 subdomain ',
        ),
        (
            {"generation": -1},
            "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"managedFields": [{"fieldsType": "X"}]},
            "metadata.managedFields[0].operation: Required value: must not be empty",
        ),
        (
            {"managedFields": [{"operation": "Apply", "fieldsType": "X"}]},
            'metadata.managedFields[0].fieldsType: Invalid value: "X": must be `FieldsV1`',
        ),
        (
            {"managedFields": [{"operation": "Apply", "manager": "m" * 129}]},
            "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes",
        ),
        (
            {"managedFields": [{"operation": "Apply", "manager": "a\tb"}]},
            "invalid character U+0009 (at position 1)",
        ),
        (
            {"managedFields": [{"operation": "Apply", "subresource": "s" * 257}]},
            "metadata.managedFields[0].subresource: Too long: may not be more than 256 bytes",
        ),
    ],
)
def test_metadata_details_are_checked(metadata: Any, fault: Any) -> None:
    document = made(LEASE, {})
    document["metadata"].update(metadata)

    texts = [str(found) for found in validate_create(LEASE, document)]

    assert any(
        fault in text.replace("must consist of", "MUST").partition("MUST")[0]
        for text in texts
    )


def test_a_namespace_and_a_generation_are_guarded() -> None:
    old = made(LEASE, {})
    old["metadata"]["generation"] = 5
    new = copy.deepcopy(old)
    new["metadata"]["generation"] = 4
    del new["metadata"]["namespace"]

    assert "metadata.namespace: Required value" in [
        str(fault) for fault in validate_create(LEASE, new)
    ]
    assert "metadata.generation: Invalid value: 4: must not be decremented" in [
        str(fault) for fault in validate_update(LEASE, new, old)
    ]


# --- containers ---------------------------------------------------------------------


RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}


@pytest.mark.parametrize(
    ("init", "gates", "faults"),
    [
        pytest.param(
            {"restartPolicyRules": [RULE]},
            {},
            [
                "restartPolicy: Required value: must specify restartPolicy when restart rules are used"
            ],
            id="rules-without-policy",
        ),
        pytest.param(
            {"restartPolicy": "Never"},
            {"ContainerRestartRules": False},
            ['restartPolicy: Unsupported value: "Never": supported values: "Always"'],
            id="gate-off",
        ),
        pytest.param(
            {"restartPolicy": "Always", "restartPolicyRules": [RULE]},
            {"RestartAllContainersOnContainerExits": False},
            [
                "restartPolicyRules: Forbidden: restartPolicyRules are not allowed for init containers with restart policy Always"
            ],
            id="sidecar-rules",
        ),
        pytest.param(
            {"restartPolicy": "Always", "restartPolicyRules": [RULE]},
            {},
            [],
            id="sidecar-rules-allowed",
        ),
    ],
)
def test_init_restart_policies_are_checked(init: Any, gates: Any, faults: Any) -> None:
    texts = pod_faults(
        {"initContainers": [{"name": "i", "image": "i", **init}]}, **gates
    )

    assert texts == [f"initContainers[0].{fault}" for fault in faults]


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        pytest.param(
            {"restartPolicy": "Never", "restartPolicyRules": [RULE] * 21},
            ["restartPolicyRules: Too long: may not be more than 20 bytes"],
            id="many-rules",
        ),
        pytest.param(
            {
                "restartPolicy": "Never",
                "restartPolicyRules": [
                    {
                        "action": "Restart",
                        "exitCodes": {"operator": "Odd", "values": list(range(256))},
                    }
                ],
            },
            [
                'restartPolicyRules[0].exitCodes.operator: Unsupported value: "Odd": supported values: "In", "NotIn"',
                "restartPolicyRules[0].exitCodes.values: Too long: may not be more than 255 bytes",
            ],
            id="exit-codes",
        ),
        pytest.param(
            {
                "resizePolicy": [
                    {"resourceName": "cpu", "restartPolicy": "NotRequired"}
                ]
                * 2
            },
            ['resizePolicy[1]: Duplicate value: "cpu"'],
            id="resize-twice",
        ),
        pytest.param(
            {"lifecycle": {"preStop": {"httpGet": {"path": "", "port": "web"}}}},
            [],
            id="defaulted-path",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "fieldRef": {
                                "apiVersion": "v2",
                                "fieldPath": "metadata.name",
                            }
                        },
                    }
                ]
            },
            [
                'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.name": error converting fieldPath: unsupported pod version: v2'
            ],
            id="field-version",
        ),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
            ["env[0].valueFrom.fieldRef.fieldPath: Required value"],
            id="no-field-path",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "fieldRef": {"fieldPath": "metadata.annotations['A/B']"}
                        },
                    }
                ]
            },
            [],
            id="annotation-key-in-any-case",
        ),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {}}}]},
            ["env[0].valueFrom.resourceFieldRef.resource: Required value"],
            id="no-resource",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "resourceFieldRef": {
                                "resource": "limits.memory",
                                "divisor": "3",
                            }
                        },
                    }
                ]
            },
            None,
            id="memory-divisor",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "resourceFieldRef": {
                                "resource": "limits.ephemeral-storage",
                                "divisor": "3",
                            }
                        },
                    }
                ]
            },
            None,
            id="storage-divisor",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {"fileKeyRef": {"key": "", "volumeName": ""}},
                    }
                ]
            },
            [
                "env[0].valueFrom.fileKeyRef.key: Required value",
                "env[0].valueFrom.fileKeyRef.volumeName: Required value",
                "env[0].valueFrom.fileKeyRef.path: Required value",
                'env[0].valueFrom.fileKeyRef.volumeName: Not found: ""',
            ],
            id="file-key",
        ),
        pytest.param(
            {"envFrom": [{"secretRef": {"name": "a-"}}]},
            [],
            id="env-from-name-may-end-in-a-dash",
        ),
        pytest.param(
            {"volumeMounts": [{"name": "", "mountPath": "/a"}]},
            [
                "volumeMounts[0].name: Required value",
                'volumeMounts[0].name: Not found: ""',
            ],
            id="nameless-mount",
        ),
        pytest.param(
            {"volumeDevices": [{"name": "", "devicePath": ""}]},
            [
                "volumeDevices[0].name: Required value",
                'volumeDevices[0].name: Not found: ""',
                "volumeDevices[0].devicePath: Required value",
            ],
            id="nameless-device",
        ),
        pytest.param(
            {"resources": {"limits": {"a/b/c": "1"}}},
            [
                'resources.limits[a/b/c]: Invalid value: "a/b/c": a valid label key ',
                'resources.limits[a/b/c]: Invalid value: "a/b/c": doesn\'t follow extended resource name standard',
            ]
            * 1,
            id="resource-key",
        ),
        pytest.param(
            {"resources": {"limits": {"hugepages-odd": "1", "cpu": "1"}}},
            [
                'resources.limits[hugepages-odd]: Invalid value: "1": 1 is not positive integer multiple of hugepages-odd',
                'resources.requests[hugepages-odd]: Invalid value: "1": 1 is not positive integer multiple of hugepages-odd',
            ],
            id="hugepages-without-size",
        ),
        pytest.param(
            {"resources": {"claims": [{"name": ""}]}},
            ["resources.claims[0]: Required value"],
            id="nameless-claim",
        ),
        pytest.param(
            {
                "securityContext": {
                    "windowsOptions": {
                        "gmsaCredentialSpec": "",
                        "runAsUserName": "",
                        "gmsaCredentialSpecName": "A",
                    }
                }
            },
            [
                'securityContext.windowsOptions.gmsaCredentialSpecName: Invalid value: "A": a lowercase RFC 1123 subdomain ',
                'securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: "": gmsaCredentialSpec cannot be an empty string',
                'securityContext.windowsOptions.runAsUserName: Invalid value: "": runAsUserName cannot be an empty string',
            ],
            id="windows",
        ),
        pytest.param(
            {
                "securityContext": {
                    "windowsOptions": {"gmsaCredentialSpec": "x" * 65537}
                }
            },
            None,
            id="windows-spec-size",
        ),
        pytest.param(
            {"securityContext": {"seccompProfile": {"type": "Odd"}}},
            [
                'securityContext.seccompProfile.type: Unsupported value: "Odd": supported values: "Localhost", "RuntimeDefault", "Unconfined"'
            ],
            id="seccomp-type",
        ),
        pytest.param(
            {
                "securityContext": {
                    "seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}
                }
            },
            [
                'securityContext.seccompProfile.localhostProfile: Invalid value: {"type":"Unconfined","localhostProfile":"x"}: can only be set when seccomp type is Localhost'
            ],
            id="seccomp-profile",
        ),
        pytest.param(
            {"securityContext": {"appArmorProfile": {}}},
            [
                "securityContext.appArmorProfile.type: Required value: type is required when appArmorProfile is set"
            ],
            id="apparmor-type",
        ),
        pytest.param(
            {
                "securityContext": {
                    "appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}
                }
            },
            [
                'securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost'
            ],
            id="apparmor-profile",
        ),
        pytest.param(
            {"securityContext": {"appArmorProfile": {"type": "Localhost"}}},
            [
                "securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"
            ],
            id="apparmor-no-profile",
        ),
        pytest.param(
            {
                "securityContext": {
                    "appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}
                }
            },
            [
                'securityContext.appArmorProfile.localhostProfile: Invalid value: " x": must not be padded with whitespace'
            ],
            id="apparmor-padded",
        ),
        pytest.param(
            {
                "securityContext": {
                    "appArmorProfile": {
                        "type": "Localhost",
                        "localhostProfile": "x" * 4096,
                    }
                }
            },
            [
                "securityContext.appArmorProfile.localhostProfile: Too long: may not be more than 4095 bytes"
            ],
            id="apparmor-long",
        ),
        pytest.param(
            {
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"add": ["CAP_SYS_ADMIN"]},
                }
            },
            None,
            id="sys-admin",
        ),
    ],
)
def test_container_details_are_checked(fields: Any, faults: Any) -> None:
    found = container_faults(fields)

    if faults is None:
        assert len(found) == 1
    elif faults and faults[0].startswith("resources.limits[a/b/c]"):
        assert found[0] == faults[0]
    else:
        assert found == faults


def test_a_resize_never_restarts_what_never_restarts() -> None:
    policy = {"resourceName": "cpu", "restartPolicy": "RestartContainer"}

    assert pod_faults(
        {"restartPolicy": "Never", "containers": [{**MAIN, "resizePolicy": [policy]}]}
    ) == [
        "containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'"
    ]


def test_claims_overlap_and_repeat() -> None:
    claims = [
        {"name": "a", "request": "r"},
        {"name": "a"},
        {"name": "b"},
        {"name": "b"},
        {"name": "a", "request": "r"},
    ]
    spec = {
        "resourceClaims": [
            {"name": "a", "resourceClaimName": "x"},
            {"name": "b", "resourceClaimName": "y"},
        ],
        "containers": [{**MAIN, "resources": {"claims": claims}}],
    }

    assert pod_faults(spec) == [
        'containers[0].resources.claims[1]: Duplicate value: "a"',
        'containers[0].resources.claims[3]: Duplicate value: "b"',
        'containers[0].resources.claims[4]: Duplicate value: "a"',
    ]


def test_two_regular_containers_of_a_name() -> None:
    assert pod_faults({"containers": [MAIN, MAIN]}) == [
        'containers[1].name: Duplicate value: "c"'
    ]


# --- the Pod as a whole ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {"resources": {"claims": [{"name": "x"}]}},
            [
                "resources.claims: Forbidden: claims may not be set for Resources at pod-level"
            ],
            id="pod-level-claims",
        ),
        pytest.param(
            {"os": {"name": "windows"}, "resources": {"limits": {"cpu": "1"}}},
            ["resources: Forbidden: may not be set for a windows pod"],
            id="windows-resources",
        ),
        pytest.param(
            {"os": {"name": ""}}, ["os.name: Required value"], id="nameless-os"
        ),
        pytest.param(
            {
                "os": {"name": "linux"},
                "securityContext": {"windowsOptions": {}},
                "containers": [{**MAIN, "securityContext": {"windowsOptions": {}}}],
            },
            [
                "securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                "containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ],
            id="windows-options-on-linux",
        ),
        pytest.param(
            {
                "os": {"name": "windows"},
                "hostUsers": True,
                "shareProcessNamespace": False,
                "containers": [{**MAIN, "securityContext": {"privileged": True}}],
            },
            [
                "hostUsers: Forbidden: cannot be set for a windows pod",
                "shareProcessNamespace: Forbidden: cannot be set for a windows pod",
                "containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ],
            id="windows-fields",
        ),
        pytest.param(
            {"dnsConfig": {"searches": ["a"] * 33}},
            [
                "dnsConfig.searches: Invalid value: "
                + str(["a"] * 33).replace("'", '"').replace(" ", "")
                + ": must not have more than 32 search paths"
            ],
            id="searches",
        ),
        pytest.param(
            {"dnsConfig": {"searches": ["a" * 60 + ".b" * 90] * 9}},
            None,
            id="long-searches",
        ),
        pytest.param(
            {"resourceClaims": [{"name": ""}]},
            [
                "resourceClaims[0].name: Required value",
                'resourceClaims[0]: Invalid value: {"name":""}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`',
            ],
            id="nameless-resource-claim",
        ),
        pytest.param(
            {
                "resourceClaims": [
                    {
                        "name": "a",
                        "resourceClaimName": "x",
                        "resourceClaimTemplateName": "y",
                    },
                    {"name": "a", "resourceClaimName": "x"},
                ]
            },
            [
                'resourceClaims[0]: Invalid value: {"name":"a","resourceClaimName":"x","resourceClaimTemplateName":"y"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified',
                'resourceClaims[1].name: Duplicate value: "a"',
            ],
            id="claim-twice",
        ),
        pytest.param(
            {"priorityClassName": "A", "runtimeClassName": "B"},
            [
                'priorityClassName: Invalid value: "A": a lowercase RFC 1123 subdomain ',
                'runtimeClassName: Invalid value: "B": a lowercase RFC 1123 subdomain ',
            ],
            id="classes",
        ),
        pytest.param(
            {
                "hostUsers": False,
                "volumes": [{"name": "p", "persistentVolumeClaim": {"claimName": "x"}}],
                "containers": [
                    {**MAIN, "volumeDevices": [{"name": "p", "devicePath": "/d"}]}
                ],
            },
            ["containers[0].volumeDevices: Forbidden: when `hostUsers` is false"],
            id="devices-in-a-user-namespace",
        ),
        pytest.param(
            {"securityContext": {"sysctls": [{"name": "a", "value": "1"}] * 2}},
            ['securityContext.sysctls[1].name: Duplicate value: "a"'],
            id="sysctl-twice",
        ),
        pytest.param(
            {
                "volumes": [
                    {
                        "name": "e",
                        "ephemeral": {
                            "volumeClaimTemplate": {
                                "spec": {
                                    "accessModes": [
                                        "ReadWriteOncePod",
                                        "ReadWriteOnce",
                                    ],
                                    "resources": {"requests": {"storage": "1"}},
                                    "storageClassName": "A",
                                    "volumeMode": "Odd",
                                }
                            }
                        },
                    },
                    {"name": "v", "persistentVolumeClaim": {"claimName": "x-e"}},
                ]
            },
            [
                "volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                'volumes[0].ephemeral.volumeClaimTemplate.spec.storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain ',
                'volumes[0].ephemeral.volumeClaimTemplate.spec.volumeMode: Unsupported value: "Odd": supported values: "Block", "Filesystem"',
                'volumes[1].persistentVolumeClaim.claimName: Invalid value: "x-e": must not reference a PVC that gets created for an ephemeral volume',
            ],
            id="ephemeral-claim",
        ),
        pytest.param(
            {
                "volumes": [
                    {
                        "name": "v",
                        "ephemeral": {
                            "volumeClaimTemplate": {
                                "spec": {
                                    "accessModes": ["ReadWriteOnce"],
                                    "resources": {"requests": {"storage": "1"}},
                                }
                            }
                        },
                    }
                ]
                * 1,
                "containers": [MAIN],
            },
            [],
            id="ephemeral-fine",
        ),
    ],
)
def test_pod_details_are_checked(spec: Any, faults: Any) -> None:
    found = pod_faults(spec)

    if faults is None:
        assert found
    else:
        assert found == faults


@pytest.mark.parametrize(
    ("gate", "spec", "fault"),
    [
        (
            "HostnameOverride",
            {"hostnameOverride": "a"},
            "hostnameOverride: Forbidden: may only be set when the feature gate HostnameOverride is on",
        ),
        (
            "EnvFiles",
            {"containers": [{**MAIN, "env": [{"name": "A", "valueFrom": {}}]}]},
            'containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`',
        ),
    ],
)
def test_gates_change_what_is_said(gate: Any, spec: Any, fault: Any) -> None:
    assert pod_faults(spec, **{gate: False}) == [fault]


def test_static_pods_have_no_resource_claims() -> None:
    body = {
        "spec": {
            "containers": [MAIN],
            "nodeName": "n",
            "resourceClaims": [{"name": "a"}],
        },
    }
    document = made(POD, body)
    document["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}

    assert [str(fault) for fault in validate_create(POD, document)] == [
        ": Forbidden: static pods do not support resource claims"
    ]


@pytest.mark.parametrize(
    ("annotations", "context", "fault"),
    [
        (
            {"seccomp.security.alpha.kubernetes.io/pod": "localhost/../x"},
            {},
            "must not contain '..'",
        ),
        (
            {"container.apparmor.security.beta.kubernetes.io/c": "odd"},
            {},
            'invalid AppArmor profile name: "odd"',
        ),
        (
            {"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"},
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}},
            "seccomp type in annotation and field must match",
        ),
    ],
)
def test_profile_annotations_are_checked(
    annotations: Any, context: Any, fault: Any
) -> None:
    document = made(
        POD,
        {
            "spec": {
                "serviceAccountName": "a",
                "containers": [{**MAIN, "securityContext": context}],
            }
        },
    )
    document["metadata"]["annotations"] = annotations

    texts = [str(found) for found in validate_create(POD, document)]

    assert len(texts) == 1
    assert texts[0].endswith(fault)


def test_a_pod_annotation_may_name_a_deletion_cost() -> None:
    annotations = {"controller.kubernetes.io/pod-deletion-cost": "-5"}

    assert list(check_pod_annotations(annotations, {}, "a")) == []


def test_host_process_containers_agree_with_their_pod() -> None:
    options = {"windowsOptions": {"hostProcess": True}}
    other = {"windowsOptions": {"hostProcess": False}}
    spec = {
        "os": {"name": "windows"},
        "hostNetwork": True,
        "securityContext": options,
        "containers": [{**MAIN, "securityContext": other}],
    }

    assert pod_faults(spec) == [
        "containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true"
    ]


@pytest.mark.parametrize(
    ("name", "dotted"),
    [
        ("a.b", "a.b"),
        ("a/b", "a.b"),
        ("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x"),
        ("a", "a"),
    ],
)
def test_sysctl_names_have_dots(name: Any, dotted: Any) -> None:
    assert dotted_sysctl(name) == dotted


AFFINITY = "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "weight": 101,
                                "preference": {
                                    "matchExpressions": [
                                        {
                                            "key": "a",
                                            "operator": "Exists",
                                            "values": ["x"],
                                        }
                                    ]
                                },
                            }
                        ]
                    }
                }
            },
            [
                f"{AFFINITY}.weight: Invalid value: 101: must be in the range 1-100",
                f"{AFFINITY}.preference.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ],
            id="node-wish",
        ),
        pytest.param(
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "a", "operator": "In", "values": ["-"]}
                                    ],
                                    "matchFields": [
                                        {"key": "metadata.name", "operator": "Exists"},
                                        {
                                            "key": "metadata.name",
                                            "operator": "In",
                                            "values": ["A"],
                                        },
                                        {"key": "metadata.name", "operator": "In"},
                                    ],
                                }
                            ]
                        }
                    }
                }
            },
            None,
            id="node-need",
        ),
        pytest.param(
            {
                "affinity": {
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "topologyKey": "a",
                                "namespaces": ["A"],
                                "labelSelector": {
                                    "matchLabels": {"k": "v"},
                                    "matchExpressions": [
                                        {"key": "k", "operator": "Exists"}
                                    ],
                                },
                                "matchLabelKeys": ["k"],
                                "mismatchLabelKeys": ["k"],
                            }
                        ]
                    }
                }
            },
            None,
            id="pod-need",
        ),
        pytest.param(
            {"tolerations": [{"key": "a", "value": "-"}]},
            [
                "tolerations[0].operator: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
            id="toleration-value",
        ),
        pytest.param(
            {"tolerations": [{"key": "a", "operator": "Lt", "value": "1"}]},
            [
                'tolerations[0].operator: Unsupported value: "Lt": supported values: "Equal", "Exists", "Lt", "Gt"'
            ],
            id="toleration-lt",
        ),
        pytest.param(
            {
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "z",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "nodeTaintsPolicy": "Odd",
                    }
                ]
            },
            [
                'topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: "Odd": supported values: "Honor", "Ignore"'
            ],
            id="spread-policy",
        ),
    ],
)
def test_scheduling_details_are_checked(spec: Any, faults: Any) -> None:
    found = pod_faults(spec)

    if faults is None:
        assert len(found) >= 3
    else:
        assert found == faults


@pytest.mark.parametrize(("value", "valid"), [("5", True), ("05", False), ("x", False)])
def test_tolerations_may_compare_when_the_gate_is_on(value: Any, valid: Any) -> None:
    spec = {"tolerations": [{"key": "a", "operator": "Lt", "value": value}]}

    assert (pod_faults(spec, TaintTolerationComparisonOperators=True) == []) is valid


# --- volumes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        pytest.param(
            {"gitRepo": {}},
            [
                "gitRepo.repository: Required value",
                "gitRepo: Forbidden: git-repo volume plugin has been disabled",
            ],
            id="git",
        ),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "k"}]}},
            ["configMap.items[0].path: Required value"],
            id="no-item-path",
        ),
        pytest.param(
            {
                "downwardAPI": {
                    "items": [
                        {
                            "fieldRef": {"fieldPath": "metadata.name"},
                            "resourceFieldRef": {},
                        }
                    ]
                }
            },
            [
                "downwardAPI.path: Required value",
                'downwardAPI: Invalid value: "resource": fieldRef and resourceFieldRef can not be specified simultaneously',
            ],
            id="downward",
        ),
        pytest.param(
            {"projected": {"sources": [{"secret": {}}]}},
            ["projected.sources[0].secret.name: Required value"],
            id="projected-secret",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "a",
                                        "fieldRef": {"fieldPath": "metadata.name"},
                                    },
                                    {
                                        "path": "a",
                                        "fieldRef": {"fieldPath": "metadata.uid"},
                                    },
                                ]
                            }
                        }
                    ]
                }
            },
            ['projected: Invalid value: "a": conflicting duplicate paths'],
            id="projected-downward",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [{"serviceAccountToken": {"expirationSeconds": 2**33}}]
                }
            },
            [
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 8589934592: may not specify a duration larger than 2^32 seconds",
                "projected.path: Required value",
            ],
            id="token",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"clusterTrustBundle": {"name": "a", "signerName": "b/c"}}
                    ]
                }
            },
            None,
            id="bundle-both",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {
                            "clusterTrustBundle": {
                                "name": "A",
                                "labelSelector": {},
                                "path": "p",
                            }
                        }
                    ]
                }
            },
            None,
            id="bundle-name",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"clusterTrustBundle": {"signerName": "a.b/c", "path": "p"}}
                    ]
                }
            },
            [],
            id="bundle-signer",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [{"clusterTrustBundle": {"signerName": "", "path": "p"}}]
                }
            },
            ["projected.sources[0].clusterTrustBundle.signerName: Required value"],
            id="bundle-no-signer",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"clusterTrustBundle": {"signerName": "a", "path": "p"}}
                    ]
                }
            },
            [
                'projected.sources[0].clusterTrustBundle.signerName: Invalid value: "a": must be a fully qualified domain and path of the form "example.com/signer-name"'
            ],
            id="bundle-bad-signer",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {
                            "podCertificate": {
                                "signerName": "kubernetes.io/x",
                                "keyType": "ED25519",
                                "keyPath": "k",
                                "maxExpirationSeconds": 90000,
                            }
                        }
                    ]
                }
            },
            [
                "projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 90000: if provided, maxExpirationSeconds must be <= 86400"
            ],
            id="certificate",
        ),
        pytest.param(
            {"csi": {"driver": "x" * 64, "nodePublishSecretRef": {}}},
            [
                "csi.driver: Too long: may not be more than 63 bytes",
                "csi.nodePublishSecretRef.name: Required value",
            ],
            id="csi",
        ),
        pytest.param(
            {"csi": {"driver": "_"}},
            ['csi.driver: Invalid value: "_": a lowercase RFC 1123 subdomain '],
            id="csi-driver",
        ),
        pytest.param(
            {"gcePersistentDisk": {"partition": 256}},
            [
                "gcePersistentDisk.pdName: Required value",
                "gcePersistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ],
            id="gce",
        ),
        pytest.param(
            {
                "iscsi": {
                    "targetPortal": "t",
                    "iqn": "iqn.x",
                    "chapAuthSession": True,
                    "initiatorName": "zzz",
                }
            },
            [
                'iscsi.iqn: Invalid value: "iqn.x": must be valid format',
                "iscsi.secretRef: Required value",
                'iscsi.initiatorname: Invalid value: "zzz": must be valid format starting with iqn, eui, or naa',
            ],
            id="iscsi",
        ),
        pytest.param(
            {"fc": {"targetWWNs": ["a"], "wwids": ["b"]}},
            [
                'fc.targetWWNs: Invalid value: ["a"]: targetWWNs and wwids can not be specified simultaneously',
                "fc.lun: Required value: lun is required if targetWWNs is specified",
            ],
            id="fc-both",
        ),
        pytest.param(
            {"fc": {"targetWWNs": ["a"], "lun": 256}},
            ["fc.lun: Invalid value: 256: must be between 0 and 255, inclusive"],
            id="fc-lun",
        ),
        pytest.param(
            {"flocker": {}},
            ["flocker: Required value: one of datasetName and datasetUUID is required"],
            id="flocker",
        ),
        pytest.param(
            {"flocker": {"datasetName": "a/b", "datasetUUID": "u"}},
            [
                'flocker: Invalid value: "resource": datasetName and datasetUUID can not be specified simultaneously',
                "flocker.datasetName: Invalid value: \"a/b\": must not contain '/'",
            ],
            id="flocker-both",
        ),
        pytest.param(
            {"quobyte": {"registry": "a", "volume": "v", "tenant": "t" * 65}},
            [
                'quobyte.registry: Invalid value: "a": must be a host:port pair or multiple pairs separated by commas',
                "quobyte.tenant: Required value: must be a UUID and may not exceed a length of 64 characters",
            ],
            id="quobyte",
        ),
        pytest.param(
            {
                "azureDisk": {
                    "diskName": "d",
                    "diskURI": "u",
                    "cachingMode": "X",
                    "kind": "Y",
                }
            },
            [
                'azureDisk.cachingMode: Unsupported value: "X": supported values: "None", "ReadOnly", "ReadWrite"',
                'azureDisk.kind: Unsupported value: "Y": supported values: "Dedicated", "Managed", "Shared"',
            ],
            id="azure",
        ),
        pytest.param(
            {"storageos": {"volumeNamespace": "A"}},
            [
                "storageos.volumeName: Required value",
                'storageos.volumeNamespace: Invalid value: "A": a lowercase RFC 1123 label ',
            ],
            id="storageos",
        ),
    ],
)
def test_volume_details_are_checked(source: Any, faults: Any) -> None:
    found = volume_faults(source)

    if faults is None:
        assert len(found) >= 2
    else:
        assert found == faults


def test_an_ephemeral_volumes_claim_must_be_nameable() -> None:
    template = {
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1"}},
        }
    }
    document = made(
        POD,
        {
            "spec": {
                "containers": [MAIN],
                "volumes": [
                    {"name": "v", "ephemeral": {"volumeClaimTemplate": template}}
                ],
            }
        },
    )
    document["metadata"]["name"] = "p" * 253

    texts = [str(fault) for fault in validate_create(POD, document)]

    assert len(texts) == 1
    assert texts[0].startswith('spec.volumes[0].name: Invalid value: "v": PVC name "p')


# --- other kinds ------------------------------------------------------------------------


LABELS = {"app": "x"}
TEMPLATE: Document = {"metadata": {"labels": LABELS}, "spec": {"containers": [MAIN]}}
WORKLOAD: Document = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}


@pytest.mark.parametrize(
    ("kind", "spec", "faults"),
    [
        pytest.param(
            DEPLOYMENT,
            {
                **WORKLOAD,
                "selector": {"matchExpressions": [{"key": "a", "operator": "Odd"}]},
            },
            [
                'selector.matchExpressions[0].operator: Invalid value: "Odd": not a valid selector operator',
                'selector: Invalid value: {"matchExpressions":[{"key":"a","operator":"Odd"}]}: invalid label selector',
            ],
            id="selector",
        ),
        pytest.param(
            DEPLOYMENT,
            {
                **WORKLOAD,
                "template": {
                    **TEMPLATE,
                    "spec": {**TEMPLATE["spec"], "activeDeadlineSeconds": 5},
                },
            },
            [
                "template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"
            ],
            id="deadline",
        ),
        pytest.param(
            DEPLOYMENT,
            {**WORKLOAD, "strategy": {"rollingUpdate": {"maxSurge": -1}}},
            [
                "strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"
            ],
            id="surge",
        ),
        pytest.param(
            DAEMON_SET,
            {**WORKLOAD, "updateStrategy": {"type": "Odd"}},
            [
                'updateStrategy: Unsupported value: "Odd": supported values: "RollingUpdate", "OnDelete"'
            ],
            id="daemon-strategy",
        ),
        pytest.param(
            STATEFUL_SET,
            {
                **WORKLOAD,
                "podManagementPolicy": "Odd",
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Odd"},
            },
            [
                "podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
                'persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Odd": supported values: "Delete", "Retain"',
            ],
            id="stateful-policies",
        ),
        pytest.param(
            STATEFUL_SET,
            {**WORKLOAD, "updateStrategy": {"type": "Odd"}},
            [
                "updateStrategy: Invalid value: {\"type\":\"Odd\"}: must be 'RollingUpdate' or 'OnDelete'"
            ],
            id="stateful-strategy",
        ),
        pytest.param(
            STATEFUL_SET,
            {**WORKLOAD, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}},
            [
                "updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"
            ],
            id="stateful-unavailable",
        ),
    ],
)
def test_workload_details_are_checked(kind: Any, spec: Any, faults: Any) -> None:
    assert [
        text.removeprefix("spec.") for text in faults_of(kind, {"spec": spec})
    ] == faults


def test_strategies_without_defaults_are_incomplete() -> None:
    document = made(DEPLOYMENT, {"spec": WORKLOAD})
    del document["spec"]["strategy"]["rollingUpdate"]
    daemon_set = made(DAEMON_SET, {"spec": WORKLOAD})
    del daemon_set["spec"]["updateStrategy"]["rollingUpdate"]
    stateful_set = made(STATEFUL_SET, {"spec": WORKLOAD})
    stateful_set["spec"].update(updateStrategy={}, podManagementPolicy="")

    assert [str(fault) for fault in validate_create(DEPLOYMENT, document)] == [
        "spec.strategy.rollingUpdate: Required value: this should be defaulted and never be nil"
    ]
    assert [str(fault) for fault in validate_create(DAEMON_SET, daemon_set)] == [
        "spec.updateStrategy.rollingUpdate: Required value"
    ]
    assert [str(fault) for fault in validate_create(STATEFUL_SET, stateful_set)] == [
        "spec.podManagementPolicy: Required value",
        "spec.updateStrategy: Required value",
    ]


JOB_TEMPLATE: Document = {"spec": {"containers": [MAIN], "restartPolicy": "Never"}}
INDEXED = {"completionMode": "Indexed", "completions": 2}


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {**INDEXED, "parallelism": 100_001},
            [
                "parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"
            ],
            id="parallelism",
        ),
        pytest.param(
            {**INDEXED, "maxFailedIndexes": 3},
            [
                "backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
            ],
            id="failed-indexes",
        ),
        pytest.param(
            {
                **INDEXED,
                "completions": 200_000,
                "backoffLimitPerIndex": 1,
                "maxFailedIndexes": 100_001,
            },
            [
                "maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000"
            ],
            id="many-failed-indexes",
        ),
        pytest.param(
            {"successPolicy": {}},
            ["successPolicy: Invalid value: {}: requires indexed completion mode"],
            id="success-policy",
        ),
        pytest.param(
            {"managedBy": "a.b/" + "c" * 63},
            ["managedBy: Too long: may not be more than 63 bytes"],
            id="managed-by",
        ),
        pytest.param(
            {"template": {"spec": {"containers": [MAIN], "restartPolicy": "Odd"}}},
            [
                'template.spec.restartPolicy: Unsupported value: "Odd": supported values: "Always", "OnFailure", "Never"',
                'template.spec.restartPolicy: Unsupported value: "Odd": supported values: "OnFailure", "Never"',
            ],
            id="restart-policy",
        ),
        pytest.param(
            {
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "Odd",
                            "onExitCodes": {"operator": "NotIn", "values": [2, 1]},
                            "onPodConditions": [{"type": "A"}],
                        }
                    ]
                }
            },
            [
                'podFailurePolicy.rules[0].action: Unsupported value: "Odd": supported values: "Count", "FailIndex", "FailJob", "Ignore"',
                'podFailurePolicy.rules[0]: Invalid value: "": specifying both OnExitCodes and OnPodConditions is not supported',
                "podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered and without doubles",
            ],
            id="failure-rule",
        ),
        pytest.param(
            {
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailIndex",
                            "onExitCodes": {"operator": "In", "values": []},
                        }
                    ]
                }
            },
            [
                'podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
                "podFailurePolicy.rules[0].onExitCodes.values: Invalid value: []: at least one value is required",
            ],
            id="fail-index",
        ),
        pytest.param(
            {
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "A"}]}]
                    * 21
                }
            },
            ["podFailurePolicy.rules: Too many: 21: must have at most 20 items"],
            id="many-rules",
        ),
        pytest.param(
            {
                "podFailurePolicy": {},
                "template": {
                    "spec": {"containers": [MAIN], "restartPolicy": "OnFailure"}
                },
            },
            [
                'template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'
            ],
            id="policy-needs-never",
        ),
        pytest.param(
            {"manualSelector": True},
            [
                "selector: Required value",
                "template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`",
            ],
            id="manual",
        ),
        pytest.param(
            {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}},
            [
                "template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`"
            ],
            id="manual-misses",
        ),
    ],
)
def test_job_details_are_checked(spec: Any, faults: Any) -> None:
    found = faults_of(JOB, {"spec": {"template": JOB_TEMPLATE, **spec}})

    assert [text.removeprefix("spec.") for text in found] == faults


def test_an_indexed_jobs_pods_must_be_nameable() -> None:
    document = made(JOB, {"spec": {"template": JOB_TEMPLATE, **INDEXED}})
    name = "a" * 62
    document["metadata"]["name"] = name
    document["spec"]["template"]["metadata"]["labels"][
        "batch.kubernetes.io/job-name"
    ] = name

    assert [str(fault) for fault in validate_create(JOB, document)] == [
        f'metadata.name: Invalid value: "{name}": will not able to create pod with invalid DNS label: must be no more than 63 characters'
    ]


def test_a_jobs_labels_agree_with_its_name() -> None:
    document = made(JOB, {"spec": {"template": JOB_TEMPLATE}})
    document["metadata"]["name"] = "y"

    texts = [str(fault) for fault in validate_create(JOB, document)]

    assert len(texts) == 1
    assert texts[0].endswith("must be 'y'")


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            {"schedule": "TZ=UTC * * * * *", "timeZone": "UTC"},
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        ),
        (
            {"schedule": "@daily", "timeZone": ""},
            "timeZone must be nil or non-empty string",
        ),
    ],
)
def test_cron_job_zones_are_checked(spec: Any, fault: Any) -> None:
    body = {"spec": {"jobTemplate": {"spec": {"template": JOB_TEMPLATE}}, **spec}}

    assert faults_of(CRON_JOB, body)[0].endswith(fault)


PORT = {"port": 80}


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {
                "type": "ExternalName",
                "externalName": "a",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
            },
            [
                "ipFamilies: Forbidden: may not be set for ExternalName services",
                "ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
            id="external-name",
        ),
        pytest.param(
            {
                "ports": [
                    {"name": "a", "port": 1},
                    {"name": "a", "port": 2, "appProtocol": "/x"},
                ]
            },
            [
                'ports[1].name: Duplicate value: "a"',
                'ports[1].appProtocol: Invalid value: "/x": prefix part must be non-empty',
            ],
            id="port-names",
        ),
        pytest.param(
            {"ports": [PORT], "clusterIPs": ["10.0.0.1"]},
            [
                'clusterIPs: Invalid value: ["10.0.0.1"]: must be empty when `clusterIP` is not specified'
            ],
            id="cluster-ips-alone",
        ),
        pytest.param(
            {"ports": [PORT], "clusterIP": "None", "clusterIPs": ["None", "10.0.0.1"]},
            [
                'clusterIPs: Invalid value: ["None","10.0.0.1"]: \'None\' must be the first and only value'
            ],
            id="none-and-more",
        ),
        pytest.param(
            {
                "ports": [PORT],
                "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1", "fd00::1", "fd00::2"],
            },
            None,
            id="three",
        ),
        pytest.param(
            {"ports": [PORT], "ipFamilies": ["IPv4", "IPv4", "IPv5"]},
            [
                'ipFamilies[1]: Duplicate value: "IPv4"',
                'ipFamilies[2]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
            ],
            id="families",
        ),
        pytest.param(
            {
                "ports": [PORT],
                "type": "LoadBalancer",
                "loadBalancerClass": "/x",
                "loadBalancerSourceRanges": ["x"],
            },
            [
                'LoadBalancerSourceRanges[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
                'loadBalancerClass: Invalid value: "/x": prefix part must be non-empty',
            ],
            id="balancer",
        ),
        pytest.param(
            {"ports": [PORT], "allocateLoadBalancerNodePorts": True},
            [
                "allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"
            ],
            id="allocate",
        ),
        pytest.param(
            {
                "ports": [PORT],
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 70000,
            },
            [
                "healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ],
            id="health-port",
        ),
    ],
)
def test_service_details_are_checked(spec: Any, faults: Any) -> None:
    found = [text.removeprefix("spec.") for text in faults_of(SERVICE, {"spec": spec})]

    if faults is None:
        assert any("may only hold up to 2 values" in text for text in found)
    else:
        assert found == faults


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            None,
            "spec.sessionAffinityConfig: Required value: when session affinity type is ClientIP",
        ),
        (
            {},
            "spec.sessionAffinityConfig.clientIP: Required value: when session affinity type is ClientIP",
        ),
        (
            {"clientIP": {}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Required value: when session affinity type is ClientIP",
        ),
    ],
)
def test_session_affinity_needs_its_settings(config: Any, fault: Any) -> None:
    document = made(SERVICE, {"spec": {"ports": [PORT], "sessionAffinity": "ClientIP"}})
    document["spec"]["sessionAffinityConfig"] = config

    assert [str(found) for found in validate_create(SERVICE, document)] == [fault]


def test_no_affinity_has_no_settings() -> None:
    document = made(SERVICE, {"spec": {"ports": [PORT]}})
    document["spec"]["sessionAffinityConfig"] = {}

    assert [str(found) for found in validate_create(SERVICE, document)] == [
        "spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None"
    ]


def dual(**spec: object) -> Document:
    return {
        "spec": {
            "ports": [PORT],
            "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ipFamilies": ["IPv4", "IPv6"],
            **spec,
        }
    }


def test_a_second_family_is_given_up_on_purpose() -> None:
    old = made(SERVICE, dual())
    single = {"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}
    new = made(SERVICE, dual(**single))

    assert [str(found) for found in validate_update(SERVICE, new, old)] == [
        "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary clusterIP"
    ]
    assert (
        validate_update(
            SERVICE, made(SERVICE, dual(**single, ipFamilyPolicy="SingleStack")), old
        )
        == ()
    )


def test_a_family_and_a_balancers_class_stay() -> None:
    old = made(
        SERVICE,
        dual(clusterIP="", clusterIPs=[], type="LoadBalancer", loadBalancerClass="a/b"),
    )
    new = made(
        SERVICE,
        dual(
            clusterIP="",
            clusterIPs=[],
            ipFamilies=["IPv6"],
            type="LoadBalancer",
            loadBalancerClass="a/c",
        ),
    )

    assert [str(found) for found in validate_update(SERVICE, new, old)] == [
        'spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set',
        'spec.loadBalancerClass: Invalid value: "a/c": may not change once set',
    ]


def test_headless_services_stay_headless_as_they_like() -> None:
    headless = {"spec": {"clusterIP": "None", "ports": [PORT]}}

    assert (
        validate_update(SERVICE, made(SERVICE, headless), made(SERVICE, headless)) == ()
    )


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            {"ipMode": "VIP", "hostname": "a"},
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            {"ip": "10.0.0.1", "ipMode": "Odd"},
            'status.loadBalancer.ingress[0].ipMode: Unsupported value: "Odd": supported values: "Proxy", "VIP"',
        ),
    ],
)
def test_ingress_modes_are_checked(entry: Any, fault: Any) -> None:
    old = made(SERVICE, {"spec": {"ports": [PORT], "type": "LoadBalancer"}})
    new = {**copy.deepcopy(old), "status": {"loadBalancer": {"ingress": [entry]}}}

    assert [str(found) for found in validate_status_update(SERVICE, new, old)] == [
        fault
    ]


def test_only_balancers_have_ingress() -> None:
    old = made(SERVICE, {"spec": {"ports": [PORT]}})
    new = {
        **copy.deepcopy(old),
        "status": {"loadBalancer": {"ingress": [{"hostname": "a"}]}},
    }

    assert [str(found) for found in validate_status_update(SERVICE, new, old)] == [
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    ]


def test_node_addresses_are_listed_once() -> None:
    old = made(NODE, {})
    address = {"type": "InternalIP", "address": "10.0.0.1"}
    new = {**copy.deepcopy(old), "status": {"addresses": [address, address]}}

    assert [str(found) for found in validate_status_update(NODE, new, old)] == [
        'status.addresses[1]: Duplicate value: {"type":"InternalIP","address":"10.0.0.1"}'
    ]


def test_endpoints_that_were_let_in_may_stay() -> None:
    old = made(ENDPOINTS, {"subsets": [{}]})
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}

    assert validate_update(ENDPOINTS, new, old) == ()


@pytest.mark.parametrize(
    ("subset", "faults"),
    [
        ({"addresses": [{"ip": "10.0.0.1", "nodeName": "A"}]}, 1),
        (
            {
                "addresses": [{"ip": "10.0.0.1"}],
                "ports": [{"name": "A", "port": 0, "appProtocol": "/x"}],
            },
            3,
        ),
    ],
)
def test_endpoint_details_are_checked(subset: Any, faults: Any) -> None:
    assert len(faults_of(ENDPOINTS, {"subsets": [subset]})) >= faults


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ({"addresses": ["10.0.0.1"] * 101}, {"addresses"}),
        ({"addresses": ["x"]}, {"addresses[0]"}),
        (
            {
                "addresses": ["10.0.0.1"],
                "deprecatedTopology": {"/": "-"},
                "nodeName": "A",
                "zone": "-",
                "hostname": "A",
            },
            {"deprecatedTopology[/]", "nodeName", "zone", "hostname"},
        ),
        (
            {"addresses": ["10.0.0.1"], "hints": {"forZones": [{}] * 9}},
            {"hints.forZones"},
        ),
    ],
)
def test_slice_details_are_checked(endpoint: Any, fields: Any) -> None:
    faults = validate_create(
        ENDPOINT_SLICE,
        made(ENDPOINT_SLICE, {"addressType": "IPv4", "endpoints": [endpoint]}),
    )

    assert {fault.field.removeprefix("endpoints[0].") for fault in faults} == fields


def test_slice_ports_are_checked() -> None:
    ports = [{"name": "A", "port": 0, "appProtocol": "/x"}]

    fields = [
        fault.field
        for fault in validate_create(
            ENDPOINT_SLICE,
            made(ENDPOINT_SLICE, {"addressType": "IPv4", "ports": ports}),
        )
    ]

    assert fields == ["ports[0].name", "ports[0].port", "ports[0].appProtocol"]


def test_event_texts_have_limits() -> None:
    body = {
        "involvedObject": {},
        "eventTime": "t",
        "reportingComponent": "/x",
        "reportingInstance": "i" * 129,
        "action": "a",
        "reason": "r",
        "message": "m" * 1025,
    }

    assert faults_of(EVENT, body) == [
        'reportingController: Invalid value: "/x": prefix part must be non-empty',
        'reportingInstance: Invalid value: "": can have at most 128 characters',
        'message: Invalid value: "": can have at most 1024 characters',
    ]


def test_a_lease_strategy_is_named() -> None:
    assert faults_of(LEASE, {"spec": {"strategy": ""}}) == [
        "spec.strategy: Required value"
    ]


# --- changes and statuses of Pods -----------------------------------------------------


def test_unusual_changes_of_a_pod_are_refused() -> None:
    old = made(POD, {"spec": {"serviceAccountName": "a", "containers": [MAIN]}})
    old["spec"]["schedulingGates"] = [{"name": "g"}]
    new = copy.deepcopy(old)
    new["spec"]["affinity"] = {"podAffinity": {}}
    new["metadata"]["annotations"] = {
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined"
    }

    texts = [str(found) for found in validate_update(POD, new, old)]

    assert texts[0] == (
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations"
    )
    assert texts[1].startswith(
        "spec: Forbidden: pod updates may not change fields other than "
    )


def test_a_negative_deadline_is_refused() -> None:
    old = made(POD, {"spec": {"serviceAccountName": "a", "containers": [MAIN]}})
    new = copy.deepcopy(old)
    new["spec"]["activeDeadlineSeconds"] = -1

    texts = [str(found) for found in validate_update(POD, new, old)]

    assert (
        "spec.activeDeadlineSeconds: Invalid value: -1: must be between 0 and 2147483647, inclusive"
        in texts
    )


def test_a_status_names_no_other_node() -> None:
    old = made(
        POD,
        {"spec": {"serviceAccountName": "a", "containers": [MAIN], "nodeName": "n"}},
    )
    new = copy.deepcopy(old)
    new["spec"]["nodeName"] = "m"
    new["status"]["nominatedNodeName"] = "M"
    users = {"user": {"linux": {"uid": 1, "gid": 1, "supplementalGroups": [-1]}}}
    new["status"]["containerStatuses"] = [{"name": "c", **users}]

    fields = [found.field for found in validate_status_update(POD, new, old)]

    assert fields == [
        "status.nodeName",
        "status.nominatedNodeName",
        "status.nominatedNodeName",
        "status.containerStatuses[0].user.linux.supplementalGroups[0]",
    ]


def test_a_container_that_is_still_ended_is_fine() -> None:
    old = made(
        POD,
        {
            "spec": {
                "serviceAccountName": "a",
                "containers": [MAIN],
                "restartPolicy": "Never",
            }
        },
    )
    status = {"name": "c", "state": {"terminated": {"exitCode": 0}}}
    old["status"]["containerStatuses"] = [status]

    assert validate_status_update(POD, copy.deepcopy(old), old) == ()


def test_pod_level_hugepages_hold_those_of_the_containers() -> None:
    spec = {
        "containers": [
            {**MAIN, "resources": {"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}}}
        ],
        "resources": {"limits": {"hugepages-2Mi": "2Mi", "cpu": "1"}},
    }

    texts = pod_faults(spec)

    assert (
        'resources.limits[hugepages-2Mi]: Invalid value: "2Mi": must be greater than or equal to aggregate container limits of 4Mi'
        in texts
    )
