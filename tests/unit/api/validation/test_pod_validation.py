"""What a Pod may say, and what it is told when it says something else."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.defaults import default_object
from podyard.api.documents import Document
from podyard.api.feature_gates import FeatureGates
from podyard.api.scheme import POD
from podyard.api.validation import validate_create

UPPER = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
    "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
    "'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def container(**fields: object) -> Document:
    return {"name": "c", "image": "i", **fields}


def faults_of(
    spec: Document, metadata: Document | None = None, **gates: bool
) -> list[str]:
    pod = {
        "metadata": {"name": "p", "namespace": "default", **(metadata or {})},
        "spec": {"serviceAccountName": "default", **copy.deepcopy(spec)},
    }
    default_object(POD, pod)
    return [str(fault) for fault in validate_create(POD, pod, FeatureGates(gates))]


def faults_in(**fields: object) -> list[str]:
    """Return the faults of a Pod whose one container has these fields."""
    texts = faults_of({"containers": [container(**fields)], "volumes": VOLUMES})
    return [text.removeprefix("spec.containers[0].") for text in texts]


VOLUMES = [{"name": "v"}, {"name": "pvc", "persistentVolumeClaim": {"claimName": "x"}}]
ONE = {"containers": [container()]}


def test_the_smallest_pod_is_valid() -> None:
    assert faults_of(ONE) == []


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        pytest.param(
            {"name": ""},
            "metadata.name: Required value: name or generateName is required",
            id="no-name",
        ),
        pytest.param(
            {"name": "../x"},
            'metadata.name: Invalid value: "../x": a lowercase RFC 1123 subdomain',
            id="traversal",
        ),
        pytest.param(
            {"namespace": "a.b"},
            'metadata.namespace: Invalid value: "a.b": must not contain dots',
            id="namespace",
        ),
        pytest.param(
            {"labels": {"a": "-"}},
            'metadata.labels: Invalid value: "-": a valid label must be',
            id="label-value",
        ),
        pytest.param(
            {"labels": {"a b": ""}},
            'metadata.labels: Invalid value: "a b": name part must consist of',
            id="label-key",
        ),
        pytest.param(
            {"annotations": {"/x": ""}},
            'metadata.annotations: Invalid value: "/x": prefix part must be non-empty',
            id="annotation-key",
        ),
        pytest.param(
            {"annotations": {"a": "x" * 262145}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
            id="annotations-too-long",
        ),
        pytest.param(
            {"finalizers": ["nope"]},
            'metadata.finalizers[0]: Invalid value: "nope": name is neither a standard finalizer name nor is it fully qualified',
            id="finalizer",
        ),
        pytest.param(
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]},
            "metadata.ownerReferences[0].uid: Required value: must not be empty",
            id="owner",
        ),
        pytest.param(
            {"annotations": {"kubernetes.io/config.mirror": "x"}},
            'metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName',
            id="mirror",
        ),
        pytest.param(
            {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "+1"}},
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value",
            id="deletion-cost",
        ),
        pytest.param(
            {
                "annotations": {
                    "container.apparmor.security.beta.kubernetes.io/x": "unconfined"
                }
            },
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value",
            id="apparmor-of-nobody",
        ),
        pytest.param(
            {"managedFields": [{"operation": "Odd"}]},
            'metadata.managedFields[0].operation: Unsupported value: "Odd": supported values: "Apply", "Update"',
            id="managed-fields",
        ),
    ],
)
def test_metadata_is_checked(metadata: Any, fault: Any) -> None:
    assert [text for text in faults_of(ONE, metadata) if text.startswith(fault)]


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        pytest.param({"name": ""}, ["name: Required value"], id="no-name"),
        pytest.param(
            {"name": "C"}, [f'name: Invalid value: "C": {UPPER}'], id="upper-case-name"
        ),
        pytest.param({"image": ""}, ["image: Required value"], id="no-image"),
        pytest.param(
            {"image": " i"},
            [
                'image: Invalid value: " i": must not have leading or trailing whitespace'
            ],
            id="padded-image",
        ),
        pytest.param(
            {"image": "http://not an image"}, [], id="a-bad-image-is-the-nodes-matter"
        ),
        pytest.param(
            {"imagePullPolicy": "Often"},
            [
                'imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'
            ],
            id="pull-policy",
        ),
        pytest.param(
            {"terminationMessagePolicy": "x"},
            [
                'terminationMessagePolicy: Unsupported value: "x": supported values: "File", "FallbackToLogsOnError"'
            ],
            id="message-policy",
        ),
        pytest.param(
            {"ports": [{"containerPort": 0}]},
            ["ports[0].containerPort: Required value"],
            id="no-port",
        ),
        pytest.param(
            {"ports": [{"containerPort": 65536, "hostPort": 70000}]},
            [
                "ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
                "ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
            id="port-range",
        ),
        pytest.param(
            {"ports": [{"containerPort": 1, "protocol": "tcp"}]},
            [
                'ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"'
            ],
            id="protocol",
        ),
        pytest.param(
            {
                "ports": [
                    {"containerPort": 1, "name": "a"},
                    {"containerPort": 2, "name": "a"},
                ]
            },
            ['ports[1].name: Duplicate value: "a"'],
            id="port-name-twice",
        ),
        pytest.param(
            {"ports": [{"containerPort": 1, "name": "A_"}]},
            [
                'ports[0].name: Invalid value: "A_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
                'ports[0].name: Invalid value: "A_": must contain at least one letter (a-z)',
            ],
            id="port-name",
        ),
        pytest.param(
            {
                "ports": [
                    {"containerPort": 1, "hostPort": 5},
                    {"containerPort": 2, "hostPort": 5},
                ]
            },
            ['ports[1].hostPort: Duplicate value: "TCP//5"'],
            id="host-port-twice",
        ),
        pytest.param(
            {
                "restartPolicyRules": [
                    {
                        "action": "Restart",
                        "exitCodes": {"operator": "In", "values": [1]},
                    }
                ]
            },
            [
                "restartPolicy: Required value: must specify restartPolicy when restart rules are used"
            ],
            id="rules-without-policy",
        ),
        pytest.param(
            {"restartPolicy": "Sometimes"},
            [
                'restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"'
            ],
            id="container-restart-policy",
        ),
        pytest.param(
            {"restartPolicy": "Never", "restartPolicyRules": [{"action": "Odd"}]},
            [
                'restartPolicyRules[0].action: Unsupported value: "Odd": supported values: "Restart", "RestartAllContainers"',
                "restartPolicyRules[0].exitCodes: Required value: must be specified",
            ],
            id="restart-rule",
        ),
        pytest.param(
            {
                "resizePolicy": [
                    {"resourceName": "disk", "restartPolicy": "NotRequired"}
                ]
            },
            [
                'resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"'
            ],
            id="resize-policy",
        ),
    ],
)
def test_containers_are_checked(fields: Any, faults: Any) -> None:
    assert faults_in(**fields) == faults


@pytest.mark.parametrize(
    ("variable", "faults"),
    [
        pytest.param({"name": "odd name!", "value": "x"}, [], id="relaxed-names"),
        pytest.param({"name": ""}, ["name: Required value"], id="no-name"),
        pytest.param(
            {"name": "A=B"},
            [
                "name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='"
            ],
            id="equals",
        ),
        pytest.param(
            {"name": "A\n"},
            [
                "name: Invalid value: \"A\\n\": a valid environment variable name must consist only of printable ASCII characters other than '='"
            ],
            id="newline",
        ),
        pytest.param(
            {"name": "A", "valueFrom": {}},
            [
                'valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`'
            ],
            id="no-source",
        ),
        pytest.param(
            {
                "name": "A",
                "value": "x",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
            },
            [
                'valueFrom: Invalid value: "": may not be specified when `value` is not empty'
            ],
            id="value-and-source",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "secretKeyRef": {"name": "s", "key": "k"},
                    "configMapKeyRef": {"name": "s", "key": "k"},
                },
            },
            [
                'valueFrom: Invalid value: "": may not have more than one field specified at a time'
            ],
            id="two-sources",
        ),
        pytest.param(
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
            [
                'valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"'
            ],
            id="field-not-for-env",
        ),
        pytest.param(
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.odd"}}},
            [
                'valueFrom.fieldRef.fieldPath: Invalid value: "spec.odd": error converting fieldPath: field label not supported: spec.odd'
            ],
            id="unknown-field",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['x']"}},
            },
            [
                "valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name['x']\": error converting fieldPath: field label does not support subscript: metadata.name['x']"
            ],
            id="subscript",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}},
            },
            [],
            id="label",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}},
            },
            [
                'valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"'
            ],
            id="unknown-resource",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}
                },
            },
            [
                'valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor\'s values 1m and 1 are supported with the cpu resource'
            ],
            id="cpu-divisor",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}
                },
            },
            [],
            id="memory-divisor",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "resourceFieldRef": {
                        "resource": "limits.hugepages-2Mi",
                        "divisor": "3",
                    }
                },
            },
            [
                'valueFrom.resourceFieldRef.divisor: Invalid value: "limits.hugepages-2Mi": only divisor\'s values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource'
            ],
            id="hugepages-divisor",
        ),
        pytest.param(
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}},
            [
                "valueFrom.secretKeyRef.key: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ],
            id="secret-key",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "fileKeyRef": {"volumeName": "v", "path": "../x", "key": "k"}
                },
            },
            [
                "valueFrom.fileKeyRef.path: Invalid value: \"../x\": must not contain '..'"
            ],
            id="file-key-path",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "fileKeyRef": {"volumeName": "pvc", "path": "x", "key": "k"}
                },
            },
            [
                'valueFrom.fileKeyRef.volumeName: Invalid value: "pvc": referenced volume must be of type emptyDir'
            ],
            id="file-key-volume",
        ),
        pytest.param(
            {
                "name": "A",
                "valueFrom": {
                    "fileKeyRef": {"volumeName": "gone", "path": "x", "key": "k"}
                },
            },
            ['valueFrom.fileKeyRef.volumeName: Not found: "gone"'],
            id="file-key-without-volume",
        ),
    ],
)
def test_variables_are_checked(variable: Any, faults: Any) -> None:
    assert faults_in(env=[variable]) == [f"env[0].{fault}" for fault in faults]


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        pytest.param(
            {},
            [
                'envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'
            ],
            id="none",
        ),
        pytest.param(
            {"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}},
            [
                'envFrom: Invalid value: "": may not have more than one field specified at a time'
            ],
            id="two",
        ),
        pytest.param(
            {"secretRef": {}},
            ["envFrom[0].secretRef.name: Required value"],
            id="no-name",
        ),
        pytest.param(
            {"prefix": "a=", "configMapRef": {"name": "a"}},
            [
                "envFrom[0].prefix: Invalid value: \"a=\": a valid environment variable name must consist only of printable ASCII characters other than '='"
            ],
            id="prefix",
        ),
    ],
)
def test_sources_of_variables_are_checked(source: Any, faults: Any) -> None:
    assert faults_in(envFrom=[source]) == faults


@pytest.mark.parametrize(
    ("mount", "faults"),
    [
        pytest.param({"name": "v", "mountPath": "/a"}, [], id="fine"),
        pytest.param(
            {"name": "gone", "mountPath": "/a"},
            ['volumeMounts[0].name: Not found: "gone"'],
            id="no-volume",
        ),
        pytest.param(
            {"name": "v"}, ["volumeMounts[0].mountPath: Required value"], id="no-path"
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "subPath": "../x"},
            ["volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"],
            id="sub-path-up",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "subPath": "/x"},
            ['volumeMounts.subPath: Invalid value: "/x": must be a relative path'],
            id="sub-path-absolute",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "subPath": "x", "subPathExpr": "y"},
            [
                'volumeMounts[0].subPathExpr: Invalid value: "y": subPathExpr and subPath are mutually exclusive'
            ],
            id="both-sub-paths",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "mountPropagation": "Both"},
            [
                'volumeMounts.mountPropagation: Unsupported value: "Both": supported values: "Bidirectional", "HostToContainer", "None"'
            ],
            id="propagation",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"},
            [
                "volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"
            ],
            id="bidirectional",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"},
            [
                "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"
            ],
            id="recursive",
        ),
        pytest.param(
            {
                "name": "v",
                "mountPath": "/a",
                "recursiveReadOnly": "IfPossible",
                "readOnly": True,
                "mountPropagation": "HostToContainer",
            },
            [
                "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified"
            ],
            id="recursive-propagated",
        ),
        pytest.param(
            {"name": "v", "mountPath": "/a", "recursiveReadOnly": "x"},
            [
                'volumeMounts.recursiveReadOnly: Unsupported value: "x": supported values: "Disabled", "Enabled", "IfPossible"'
            ],
            id="recursive-odd",
        ),
    ],
)
def test_mounts_are_checked(mount: Any, faults: Any) -> None:
    assert faults_in(volumeMounts=[mount]) == faults


def test_mounts_and_devices_share_no_name_and_no_path() -> None:
    mounts = [{"name": "pvc", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]
    devices = [
        {"name": "pvc", "devicePath": "/a"},
        {"name": "v", "devicePath": "/../b"},
    ]

    assert faults_in(volumeMounts=mounts, volumeDevices=devices) == [
        'volumeMounts[0].name: Invalid value: "pvc": must not already exist in volumeDevices',
        'volumeMounts[0].mountPath: Invalid value: "/a": must not already exist as a path in volumeDevices',
        'volumeMounts[1].mountPath: Invalid value: "/a": must be unique',
        'volumeMounts[1].name: Invalid value: "v": must not already exist in volumeDevices',
        'volumeMounts[1].mountPath: Invalid value: "/a": must not already exist as a path in volumeDevices',
        'volumeDevices[0].name: Invalid value: "pvc": must not already exist in volumeMounts',
        'volumeDevices[0].devicePath: Invalid value: "/a": must not already exist as a path in volumeMounts',
        'volumeDevices[1].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode',
        "volumeDevices[1].devicePath: Invalid value: \"/../b\": can not contain backsteps ('..')",
        'volumeDevices[1].name: Invalid value: "v": must not already exist in volumeMounts',
    ]


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        pytest.param({"emptyDir": {}}, [], id="empty-dir"),
        pytest.param(
            {"emptyDir": {"sizeLimit": "-1"}},
            [
                "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"
            ],
            id="negative-limit",
        ),
        pytest.param(
            {"emptyDir": {}, "hostPath": {"path": "/"}},
            ["hostPath: Forbidden: may not specify more than 1 volume type"],
            id="two-sources",
        ),
        pytest.param(
            {"hostPath": {"path": ""}},
            ["hostPath.path: Required value"],
            id="no-host-path",
        ),
        pytest.param(
            {"hostPath": {"path": "/a/../b"}},
            ["hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            id="host-path-up",
        ),
        pytest.param(
            {"hostPath": {"path": "/a", "type": "Odd"}},
            [
                'hostPath.type: Unsupported value: "Odd": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"'
            ],
            id="host-path-type",
        ),
        pytest.param(
            {"gitRepo": {"repository": "https://x"}},
            ["gitRepo: Forbidden: git-repo volume plugin has been disabled"],
            id="git-repo",
        ),
        pytest.param(
            {"secret": {}}, ["secret.secretName: Required value"], id="no-secret-name"
        ),
        pytest.param(
            {
                "secret": {
                    "secretName": "s",
                    "defaultMode": 512,
                    "items": [{"key": "", "path": "..x", "mode": -1}],
                }
            },
            [
                "secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "secret.items[0].key: Required value",
                "secret.items[0].path: Invalid value: \"..x\": must not start with '..'",
                "secret.items[0].mode: Invalid value: -1: must be a number between 0 and 0777 (octal), both inclusive",
            ],
            id="secret-items",
        ),
        pytest.param(
            {"configMap": {"items": [{"key": "k", "path": "/etc"}]}},
            [
                "configMap.name: Required value",
                'configMap.items[0].path: Invalid value: "/etc": must be a relative path',
            ],
            id="config-map",
        ),
        pytest.param(
            {
                "downwardAPI": {
                    "items": [{"path": "p", "fieldRef": {"fieldPath": "status.podIP"}}]
                }
            },
            [
                'downwardAPI.fieldRef.fieldPath: Unsupported value: "status.podIP": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"'
            ],
            id="downward-field",
        ),
        pytest.param(
            {"downwardAPI": {"items": [{"path": "p"}]}},
            [
                "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"
            ],
            id="downward-nothing",
        ),
        pytest.param(
            {
                "downwardAPI": {
                    "items": [
                        {"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}
                    ]
                }
            },
            ["downwardAPI.resourceFieldRef.containerName: Required value"],
            id="downward-container",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}
                    ]
                }
            },
            [
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"
            ],
            id="short-token",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                        {
                            "configMap": {
                                "name": "b",
                                "items": [{"key": "k", "path": "p"}],
                            }
                        },
                    ]
                }
            },
            ['projected: Invalid value: "b": conflicting duplicate paths'],
            id="projected-clash",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]
                }
            },
            [
                "projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"
            ],
            id="projected-two",
        ),
        pytest.param(
            {"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}},
            [
                "projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified"
            ],
            id="bundle",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {
                            "podCertificate": {
                                "signerName": "a.b/c",
                                "keyType": "X",
                                "maxExpirationSeconds": 1,
                            }
                        }
                    ]
                }
            },
            [
                'projected.sources[0].podCertificate.keyType: Unsupported value: "X": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"',
                "projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 1: if provided, maxExpirationSeconds must be >= 3600",
                "projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
            ],
            id="certificate",
        ),
        pytest.param(
            {"persistentVolumeClaim": {}},
            ["persistentVolumeClaim.claimName: Required value"],
            id="no-claim",
        ),
        pytest.param(
            {"image": {"reference": ""}},
            ["image.reference: Required value"],
            id="no-image-reference",
        ),
        pytest.param(
            {"image": {"reference": "x", "pullPolicy": "Odd"}},
            [
                'image.pullPolicy: Unsupported value: "Odd": supported values: "Always", "IfNotPresent", "Never"'
            ],
            id="image-policy",
        ),
        pytest.param({"csi": {}}, ["csi.driver: Required value"], id="no-driver"),
        pytest.param(
            {"ephemeral": {}},
            ["ephemeral.volumeClaimTemplate: Required value"],
            id="ephemeral",
        ),
        pytest.param(
            {"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}}}},
            [
                "ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                "ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
                "ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
            id="ephemeral-claim",
        ),
        pytest.param(
            {"nfs": {"server": "s", "path": "x"}},
            ['nfs.path: Invalid value: "x": must be an absolute path'],
            id="nfs",
        ),
        pytest.param(
            {"iscsi": {"targetPortal": "t", "iqn": "bad", "lun": 300}},
            [
                'iscsi.iqn: Invalid value: "bad": must be valid format starting with iqn, eui, or naa',
                "iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            ],
            id="iscsi",
        ),
        pytest.param(
            {"fc": {}},
            [
                "fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"
            ],
            id="fc",
        ),
        pytest.param(
            {"flexVolume": {"driver": "d", "options": {"kubernetes.io/x": "y"}}},
            [
                'flexVolume.options[kubernetes.io/x]: Invalid value: "kubernetes.io/x": kubernetes.io and k8s.io namespaces are reserved'
            ],
            id="flex",
        ),
    ],
)
def test_volumes_are_checked(source: Any, faults: Any) -> None:
    texts = faults_of({**ONE, "volumes": [{"name": "v", **source}]})

    assert texts == [f"spec.volumes[0].{fault}" for fault in faults]


def test_volume_names_are_labels_and_unique() -> None:
    volumes = [{"name": "a"}, {"name": "a"}, {"name": ""}, {"name": "../x"}]

    assert [text[:45] for text in faults_of({**ONE, "volumes": volumes})] == [
        'spec.volumes[1].name: Duplicate value: "a"',
        "spec.volumes[2].name: Required value",
        'spec.volumes[3].name: Invalid value: "../x": ',
    ]


EXEC = {"exec": {"command": ["x"]}}


@pytest.mark.parametrize(
    ("probe", "faults"),
    [
        pytest.param(EXEC, [], id="exec"),
        pytest.param(
            {}, [": Required value: must specify a handler type"], id="no-handler"
        ),
        pytest.param({"exec": {}}, [".exec.command: Required value"], id="no-command"),
        pytest.param(
            {**EXEC, "tcpSocket": {"port": 1}},
            [".tcpSocket: Forbidden: may not specify more than 1 handler type"],
            id="two-handlers",
        ),
        pytest.param(
            {"httpGet": {"port": 0}},
            [".httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            id="port",
        ),
        pytest.param(
            {"httpGet": {"port": "WEB"}},
            [
                '.httpGet.port: Invalid value: "WEB": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
                '.httpGet.port: Invalid value: "WEB": must contain at least one letter (a-z)',
            ],
            id="port-name",
        ),
        pytest.param(
            {"httpGet": {"port": 1, "scheme": "ftp"}},
            [
                '.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS"'
            ],
            id="scheme",
        ),
        pytest.param(
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}},
            [
                ".httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            ],
            id="header",
        ),
        pytest.param(
            {"grpc": {"port": 0}},
            [".grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            id="grpc",
        ),
        pytest.param(
            {**EXEC, "initialDelaySeconds": -1},
            [
                ".initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0"
            ],
            id="negative",
        ),
        pytest.param(
            {**EXEC, "terminationGracePeriodSeconds": 0},
            [
                ".terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0"
            ],
            id="grace",
        ),
        pytest.param(
            {**EXEC, "successThreshold": 2},
            [".successThreshold: Invalid value: 2: must be 1"],
            id="threshold",
        ),
    ],
)
@pytest.mark.parametrize("name", ["livenessProbe", "startupProbe"])
def test_probes_are_checked(name: Any, probe: Any, faults: Any) -> None:
    assert faults_in(**{name: copy.deepcopy(probe)}) == [
        f"{name}{fault}" for fault in faults
    ]


def test_a_readiness_probe_has_thresholds_but_no_grace() -> None:
    probe = {**EXEC, "successThreshold": 2, "terminationGracePeriodSeconds": 5}

    assert faults_in(readinessProbe=probe) == [
        "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"
    ]


@pytest.mark.parametrize(
    ("handler", "faults"),
    [
        pytest.param({"sleep": {"seconds": 0}}, [], id="sleep-zero"),
        pytest.param({"sleep": {"seconds": 30}}, [], id="sleep-as-long-as-the-grace"),
        pytest.param(
            {"sleep": {"seconds": 31}},
            [
                ".sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
            ],
            id="sleep-too-long",
        ),
        pytest.param(
            {"sleep": {"seconds": -1}},
            [
                ".sleep: Invalid value: -1: must be non-negative and less than terminationGracePeriodSeconds (30)"
            ],
            id="sleep-negative",
        ),
        pytest.param({"tcpSocket": {"port": 80}}, [], id="tcp-is-accepted"),
        pytest.param(
            {"grpc": {"port": 80}},
            [": Required value: must specify a handler type"],
            id="grpc-is-no-hook",
        ),
        pytest.param({}, [": Required value: must specify a handler type"], id="none"),
        pytest.param(
            {**EXEC, "sleep": {"seconds": 1}},
            [".sleep: Forbidden: may not specify more than 1 handler type"],
            id="two",
        ),
    ],
)
@pytest.mark.parametrize("hook", ["postStart", "preStop"])
def test_hooks_are_checked(hook: Any, handler: Any, faults: Any) -> None:
    assert faults_in(lifecycle={hook: handler}) == [
        f"lifecycle.{hook}{fault}" for fault in faults
    ]


@pytest.mark.parametrize(
    ("gate", "os_name", "signal", "faults"),
    [
        pytest.param(
            False,
            "linux",
            "SIGUSR1",
            [
                "Forbidden: may only be set when the feature gate ContainerStopSignals is on"
            ],
            id="gate-off",
        ),
        pytest.param(True, "linux", "SIGRTMIN+15", [], id="linux"),
        pytest.param(
            True,
            None,
            "SIGUSR1",
            ["Forbidden: may not be set for containers with empty `spec.os.name`"],
            id="no-os",
        ),
        pytest.param(
            True,
            "windows",
            "SIGUSR1",
            ['Unsupported value: "SIGUSR1": supported values: "SIGKILL", "SIGTERM"'],
            id="windows",
        ),
    ],
)
def test_stop_signals_stand_behind_their_gate(
    gate: Any, os_name: Any, signal: Any, faults: Any
) -> None:
    spec: Document = {"containers": [container(lifecycle={"stopSignal": signal})]}
    if os_name:
        spec["os"] = {"name": os_name}

    texts = faults_of(spec, ContainerStopSignals=gate)

    assert texts == [
        f"spec.containers[0].lifecycle.stopSignal: {fault}" for fault in faults
    ]


@pytest.mark.parametrize(
    ("resources", "faults"),
    [
        pytest.param(
            {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}},
            [
                'requests: Invalid value: "2": must be less than or equal to cpu limit of 1'
            ],
            id="request-over-limit",
        ),
        pytest.param(
            {"limits": {"cpu": "-1"}},
            [
                'limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
                'requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
            ],
            id="negative",
        ),
        pytest.param(
            {"requests": {"gpu": "1"}},
            [
                'requests[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified',
                'requests[gpu]: Invalid value: "gpu": must be a standard resource for containers',
            ],
            id="unknown",
        ),
        pytest.param(
            {"requests": {"pods": "1"}},
            [
                'requests[pods]: Invalid value: "pods": must be a standard resource for containers'
            ],
            id="not-for-containers",
        ),
        pytest.param(
            {"limits": {"example.com/gpu": "500m"}},
            [
                'limits[example.com/gpu]: Invalid value: "500m": must be an integer',
                'requests[example.com/gpu]: Invalid value: "500m": must be an integer',
            ],
            id="fraction-of-a-device",
        ),
        pytest.param(
            {"requests": {"example.com/gpu": "1"}},
            [
                "limits: Required value: Limit must be set for non overcommitable resources"
            ],
            id="device-without-limit",
        ),
        pytest.param(
            {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}},
            [
                'requests: Invalid value: "1": must be equal to example.com/gpu limit of 2'
            ],
            id="device-overcommitted",
        ),
        pytest.param(
            {"limits": {"hugepages-2Mi": "4Mi"}},
            [": Forbidden: HugePages require cpu or memory"],
            id="hugepages-alone",
        ),
        pytest.param(
            {"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}},
            [
                'limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
                'requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
            ],
            id="odd-hugepages",
        ),
        pytest.param(
            {"claims": [{"name": "x"}]},
            [
                'claims[0]: Not found: "x": must be one of the names in pod.spec.resourceClaims which is empty'
            ],
            id="unknown-claim",
        ),
    ],
)
def test_resources_are_checked(resources: Any, faults: Any) -> None:
    expected = [
        f"resources{'' if fault.startswith(':') else '.'}{fault}" for fault in faults
    ]

    assert faults_in(resources=copy.deepcopy(resources)) == expected


def test_pod_level_resources_hold_their_containers() -> None:
    spec = {
        "containers": [
            container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "4"}})
        ],
        "resources": {
            "requests": {"cpu": "1", "example.com/x": "1"},
            "limits": {"cpu": "3"},
        },
    }

    assert faults_of(spec) == [
        'spec.resources.requests[example.com/x]: Unsupported value: "example.com/x": supported values: "cpu", "hugepages-", "memory"',
        "spec.resources.limits: Required value: Limit must be set for non overcommitable resources",
        'spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2',
        'spec.resources.containers[0][cpu].limits: Invalid value: "4": must be less than or equal to pod limits of 3',
    ]


@pytest.mark.parametrize(
    ("context", "faults"),
    [
        pytest.param(
            {"runAsUser": -1, "runAsGroup": 2**31},
            [
                "runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "runAsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
            ],
            id="ids",
        ),
        pytest.param(
            {"procMount": "Odd"},
            [
                'procMount: Unsupported value: "Odd": supported values: "Default", "Unmasked"'
            ],
            id="proc-mount",
        ),
        pytest.param(
            {"procMount": "Unmasked"},
            [
                'procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`'
            ],
            id="unmasked",
        ),
        pytest.param(
            {"seccompProfile": {}},
            [
                "seccompProfile.type: Required value: type is required when seccompProfile is set"
            ],
            id="no-seccomp-type",
        ),
        pytest.param(
            {"seccompProfile": {"type": "Localhost"}},
            [
                "seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"
            ],
            id="no-seccomp-profile",
        ),
        pytest.param(
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}},
            [
                "seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"
            ],
            id="seccomp-up",
        ),
        pytest.param(
            {"appArmorProfile": {"type": "Odd"}},
            [
                'appArmorProfile.type: Unsupported value: "Odd": supported values: "Localhost", "RuntimeDefault", "Unconfined"'
            ],
            id="apparmor",
        ),
    ],
)
def test_container_security_is_checked(context: Any, faults: Any) -> None:
    assert faults_in(securityContext=context) == [
        f"securityContext.{fault}" for fault in faults
    ]


def test_privileged_containers_may_escalate() -> None:
    texts = faults_in(
        securityContext={"privileged": True, "allowPrivilegeEscalation": False}
    )

    assert len(texts) == 1
    assert texts[0].endswith(
        "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
    )


@pytest.mark.parametrize(
    ("spec", "sysctl", "fault"),
    [
        pytest.param(
            {}, {"name": "net.core.somaxconn", "value": "1024"}, None, id="fine"
        ),
        pytest.param(
            {},
            {"name": "net/ipv4/ip_local_port_range", "value": "1024 65535"},
            None,
            id="slashes-and-a-range",
        ),
        pytest.param(
            {}, {"name": "", "value": "1"}, "name: Required value", id="no-name"
        ),
        pytest.param(
            {},
            {"name": "Kernel.x", "value": "1"},
            'name: Invalid value: "Kernel.x": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$',
            id="upper-case",
        ),
        pytest.param(
            {},
            {"name": "a+b", "value": "1"},
            'name: Invalid value: "a+b": must have',
            id="plus-in-the-name",
        ),
        pytest.param(
            {},
            {"name": "kernel.shm_rmid_forced", "value": "1+kernel.core_pattern=|/x"},
            'value: Invalid value: "1+kernel.core_pattern=|/x": must consist of',
            id="plus-in-the-value",
        ),
        pytest.param(
            {},
            {"name": "kernel.sem", "value": "1\nkernel.core_pattern=x"},
            'value: Invalid value: "1\\nkernel.core_pattern=x"',
            id="newline-in-the-value",
        ),
        pytest.param(
            {"hostNetwork": True},
            {"name": "net.core.somaxconn", "value": "1"},
            "name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
            id="host-network",
        ),
        pytest.param(
            {"hostIPC": True},
            {"name": "kernel.sem", "value": "1"},
            "name: Invalid value: \"kernel.sem\": may not be specified when 'hostIPC' is true",
            id="host-ipc",
        ),
    ],
)
def test_sysctls_smuggle_nothing(spec: Any, sysctl: Any, fault: Any) -> None:
    texts = faults_of({**ONE, **spec, "securityContext": {"sysctls": [sysctl]}})

    if fault is None:
        assert texts == []
    else:
        assert len(texts) == 1
        assert texts[0].startswith(f"spec.securityContext.sysctls[0].{fault}")


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {"containers": []}, ["containers: Required value"], id="no-containers"
        ),
        pytest.param(
            {"restartPolicy": "Often"},
            [
                'restartPolicy: Unsupported value: "Often": supported values: "Always", "OnFailure", "Never"'
            ],
            id="restart-policy",
        ),
        pytest.param(
            {"dnsPolicy": "Mine"},
            [
                'dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'
            ],
            id="dns-policy",
        ),
        pytest.param(
            {"dnsPolicy": "None"},
            [
                "dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"
            ],
            id="no-dns-config",
        ),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {}},
            [
                "dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"
            ],
            id="no-nameserver",
        ),
        pytest.param(
            {"dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "x"]}},
            [
                'dnsConfig.nameservers: Invalid value: ["1.1.1.1","2.2.2.2","3.3.3.3","x"]: must not have more than 3 nameservers',
                'dnsConfig.nameservers[3]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
            ],
            id="nameservers",
        ),
        pytest.param(
            {"dnsConfig": {"searches": ["_sip.example.com.", "."]}},
            [],
            id="search-with-underscore",
        ),
        pytest.param(
            {"dnsConfig": {"options": [{"value": "1"}]}},
            ["dnsConfig.options[0]: Required value: must not be empty"],
            id="dns-option-without-a-name",
        ),
        pytest.param(
            {
                "dnsConfig": {
                    "options": [
                        {"name": "ndots", "value": "2"},
                        {"name": "x\nnameserver 192.0.2.1"},
                        {"name": "y", "value": "1 z"},
                    ]
                }
            },
            [
                (
                    "dnsConfig.options[1].name: Invalid value: "
                    '"x\\nnameserver 192.0.2.1": must not contain blanks or control '
                    "characters"
                ),
                (
                    'dnsConfig.options[2].value: Invalid value: "1 z": must not contain '
                    "blanks or control characters"
                ),
            ],
            id="dns-option",
        ),
        pytest.param(
            {"nodeSelector": {"a": "-"}},
            [
                "nodeSelector: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
            id="node-selector",
        ),
        pytest.param(
            {"activeDeadlineSeconds": 0},
            [
                "activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"
            ],
            id="deadline",
        ),
        pytest.param(
            {"hostname": "a.b"},
            ['hostname: Invalid value: "a.b": must not contain dots'],
            id="hostname",
        ),
        pytest.param(
            {"hostnameOverride": "a" * 65},
            ["hostnameOverride: Too long: may not be more than 64 bytes"],
            id="hostname-override-too-long",
        ),
        pytest.param(
            {"hostnameOverride": "a", "setHostnameAsFQDN": True, "hostNetwork": True},
            [
                "hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
                "hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
            ],
            id="hostname-override",
        ),
        pytest.param(
            {"hostAliases": [{"ip": "x", "hostnames": ["a"]}]},
            [
                'hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            ],
            id="host-alias",
        ),
        pytest.param(
            {"preemptionPolicy": "Odd"},
            [
                'preemptionPolicy: Unsupported value: "Odd": supported values: "PreemptLowerPriority", "Never"'
            ],
            id="preemption",
        ),
        pytest.param(
            {"overhead": {"cpu": "-1"}},
            [
                'overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'
            ],
            id="overhead",
        ),
        pytest.param(
            {"readinessGates": [{"conditionType": "/a"}]},
            [
                'readinessGates[0].conditionType: Invalid value: "/a": prefix part must be non-empty'
            ],
            id="readiness-gate",
        ),
        pytest.param(
            {"schedulingGates": [{"name": "a"}, {"name": "a"}]},
            ['schedulingGates[1]: Duplicate value: "a"'],
            id="scheduling-gates",
        ),
        pytest.param(
            {"schedulingGates": [{"name": "a"}], "nodeName": "n"},
            [
                "nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"
            ],
            id="gated-and-placed",
        ),
        pytest.param(
            {"ephemeralContainers": [container(name="e")]},
            ["ephemeralContainers: Forbidden: cannot be set on create"],
            id="ephemeral",
        ),
        pytest.param(
            {"hostUsers": False, "hostNetwork": True, "hostPID": True, "hostIPC": True},
            [
                "hostNetwork: Forbidden: when `hostUsers` is false",
                "HostPID: Forbidden: when `hostUsers` is false",
                "HostIPC: Forbidden: when `hostUsers` is false",
            ],
            id="user-namespace",
        ),
        pytest.param(
            {"hostPID": True, "shareProcessNamespace": True},
            [
                "securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"
            ],
            id="two-pid-namespaces",
        ),
        pytest.param(
            {"os": {"name": "plan9"}},
            ['os: Unsupported value: "plan9": supported values: "linux", "windows"'],
            id="os",
        ),
        pytest.param(
            {
                "os": {"name": "windows"},
                "hostPID": True,
                "securityContext": {"runAsUser": 1},
            },
            [
                "securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
                "hostPID: Forbidden: cannot be set for a windows pod",
            ],
            id="windows",
        ),
        pytest.param(
            {
                "securityContext": {
                    "fsGroupChangePolicy": "x",
                    "supplementalGroupsPolicy": "y",
                    "supplementalGroups": [-1],
                }
            },
            [
                "securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                'securityContext.fsGroupChangePolicy: Unsupported value: "x": supported values: "Always", "OnRootMismatch"',
                'securityContext.supplementalGroupsPolicy: Unsupported value: "y": supported values: "Merge", "Strict"',
            ],
            id="pod-security",
        ),
        pytest.param(
            {
                "hostNetwork": True,
                "containers": [container(ports=[{"containerPort": 1, "hostPort": 2}])],
            },
            [
                "containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true"
            ],
            id="host-network-port",
        ),
        pytest.param(
            {"resourceClaims": [{"name": "a"}]},
            [
                'resourceClaims[0]: Invalid value: {"name":"a"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`'
            ],
            id="resource-claim",
        ),
        pytest.param(
            {
                "serviceAccountName": "",
                "volumes": [
                    {
                        "name": "t",
                        "projected": {
                            "sources": [{"serviceAccountToken": {"path": "p"}}]
                        },
                    }
                ],
            },
            [
                "volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
            ],
            id="token-without-account",
        ),
    ],
)
def test_pod_specs_are_checked(spec: Any, faults: Any) -> None:
    assert faults_of({**ONE, **spec}) == [f"spec.{fault}" for fault in faults]


def sidecar(**fields: object) -> Document:
    return container(name="s", restartPolicy="Always", **fields)


@pytest.mark.parametrize(
    ("init", "faults"),
    [
        pytest.param(container(name="i"), [], id="plain"),
        pytest.param(container(), ['name: Duplicate value: "c"'], id="name-taken"),
        pytest.param(
            container(name="i", livenessProbe=EXEC),
            [
                "livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
            ],
            id="probe",
        ),
        pytest.param(
            container(name="i", lifecycle={"preStop": EXEC}),
            [
                "lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"
            ],
            id="hook",
        ),
        pytest.param(
            sidecar(lifecycle={"preStop": EXEC}, startupProbe=EXEC), [], id="sidecar"
        ),
        pytest.param(
            sidecar(readinessProbe={}),
            ["readinessProbe: Required value: must specify a handler type"],
            id="sidecar-probe",
        ),
    ],
)
def test_init_containers_are_checked(init: Any, faults: Any) -> None:
    texts = faults_of({**ONE, "initContainers": [copy.deepcopy(init)]})

    assert texts == [f"spec.initContainers[0].{fault}" for fault in faults]


def required_affinity(**term: object) -> Document:
    return {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [term]
                }
            }
        }
    }


def pod_affinity(**term: object) -> Document:
    return {
        "affinity": {
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        }
    }


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param(
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {}
                    }
                }
            },
            [
                "nodeSelectorTerms: Required value: must have at least one node selector term"
            ],
            id="no-terms",
        ),
        pytest.param(
            required_affinity(matchExpressions=[{"key": "a", "operator": "In"}]),
            [
                "values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ],
            id="in-without-values",
        ),
        pytest.param(
            required_affinity(
                matchExpressions=[{"key": "a", "operator": "Gt", "values": ["1", "2"]}]
            ),
            [
                "values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"
            ],
            id="gt",
        ),
        pytest.param(
            required_affinity(matchExpressions=[{"key": "a", "operator": "Like"}]),
            ['operator: Invalid value: "Like": not a valid selector operator'],
            id="operator",
        ),
        pytest.param(
            required_affinity(
                matchFields=[{"key": "metadata.uid", "operator": "In", "values": ["a"]}]
            ),
            ['key: Invalid value: "metadata.uid": not a valid field selector key'],
            id="field",
        ),
        pytest.param(
            pod_affinity(labelSelector={}),
            [
                "topologyKey: Required value: can not be empty",
                'topologyKey: Invalid value: "": name part must be non-empty',
                "topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
            id="topology-key",
        ),
        pytest.param(
            pod_affinity(topologyKey="a", matchLabelKeys=["x"]),
            [
                "matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"
            ],
            id="match-keys",
        ),
        pytest.param(
            {
                "affinity": {
                    "podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 0, "podAffinityTerm": {"topologyKey": "a"}}
                        ]
                    }
                }
            },
            ["weight: Invalid value: 0: must be in the range 1-100"],
            id="weight",
        ),
        pytest.param(
            {"tolerations": [{"operator": "Equal"}]},
            [
                'operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"'
            ],
            id="toleration-of-all",
        ),
        pytest.param(
            {
                "tolerations": [
                    {"key": "a", "tolerationSeconds": 1, "effect": "NoSchedule"}
                ]
            },
            [
                "effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set"
            ],
            id="toleration-seconds",
        ),
        pytest.param(
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            [
                "operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"
            ],
            id="toleration-value",
        ),
        pytest.param(
            {"tolerations": [{"key": "a", "operator": "Odd", "effect": "x"}]},
            [
                'operator: Unsupported value: "Odd": supported values: "Equal", "Exists"',
                'effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
            ],
            id="toleration-operator",
        ),
        pytest.param(
            {
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 0,
                        "topologyKey": "",
                        "whenUnsatisfiable": "x",
                        "minDomains": 1,
                    }
                ]
            },
            [
                "maxSkew: Invalid value: 0: must be greater than zero",
                "topologyKey: Required value: can not be empty",
                'whenUnsatisfiable: Unsupported value: "x": supported values: "DoNotSchedule", "ScheduleAnyway"',
                "minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not x",
            ],
            id="spread",
        ),
        pytest.param(
            {
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "z",
                        "whenUnsatisfiable": "DoNotSchedule",
                    }
                ]
                * 2
            },
            ['{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, DoNotSchedule}"'],
            id="spread-twice",
        ),
    ],
)
def test_scheduling_is_checked(spec: Any, faults: Any) -> None:
    found = []
    for text in faults_of({**ONE, **spec}):
        path, rest = text.split(": ", 1)
        found.append(f"{path.rpartition('].')[2].rpartition('Execution.')[2]}: {rest}")

    assert found == faults


@pytest.mark.parametrize(
    ("annotations", "context", "fault"),
    [
        pytest.param(
            {"seccomp.security.alpha.kubernetes.io/pod": "odd"},
            {},
            'metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: "odd": must be a valid seccomp profile',
            id="seccomp-name",
        ),
        pytest.param(
            {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"},
            {"seccompProfile": {"type": "RuntimeDefault"}},
            "spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
            id="seccomp-type",
        ),
        pytest.param(
            {"container.apparmor.security.beta.kubernetes.io/c": "localhost/a"},
            {"appArmorProfile": {"type": "Localhost", "localhostProfile": "b"}},
            "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match",
            id="apparmor-profile",
        ),
    ],
)
def test_profile_annotations_agree_with_the_fields(
    annotations: Any, context: Any, fault: Any
) -> None:
    texts = faults_of({**ONE, "securityContext": context}, {"annotations": annotations})

    assert texts == [fault]


def test_host_process_containers_need_the_host_network() -> None:
    options = {"windowsOptions": {"hostProcess": True}}
    spec = {
        "os": {"name": "windows"},
        "containers": [container(securityContext=options), container(name="d")],
    }

    assert faults_of(spec) == [
        'spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess containers',
        "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
    ]


def test_restart_rules_stand_behind_their_gate() -> None:
    spec = {"containers": [container(restartPolicy="Never")]}

    assert faults_of(spec) == []
    assert faults_of(spec, ContainerRestartRules=False) == [
        "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers"
    ]


@given(
    st.dictionaries(
        st.sampled_from(["name", "image", "workingDir"]), st.text("aA/. ", max_size=4)
    )
)
def test_any_texts_of_a_container_are_judged_not_tripped_over(fields: Any) -> None:
    assert all(": " in text for text in faults_in(**fields))
