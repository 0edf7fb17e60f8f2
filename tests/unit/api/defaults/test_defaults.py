"""Defaults of every kind."""

import copy
from typing import Any

import pytest

from podyard.api.defaults import default_object, prepare_object
from podyard.api.defaults.batch import prepare_job
from podyard.api.documents import Document
from podyard.api.pod_templates import TEMPLATE_PATHS
from podyard.api.scheme import (
    CONFIG_MAP,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    JOB,
    KINDS,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Kind,
)


def defaulted(kind: Kind, document: Document) -> Document:
    result = copy.deepcopy(document)
    default_object(kind, result)
    return result


def pod_spec(spec: Document) -> Document:
    result: Document = defaulted(POD, {"spec": spec})["spec"]
    return result


def container(**fields: object) -> Document:
    spec = pod_spec({"containers": [{"name": "c", "image": "i:1", **fields}]})
    found: Document = spec["containers"][0]
    return found


def volume(**fields: object) -> Document:
    found: Document = pod_spec({"volumes": [{"name": "v", **fields}]})["volumes"][0]
    return found


def test_the_smallest_pod_gets_all_of_its_defaults() -> None:
    spec = pod_spec({"containers": [{"name": "c", "image": "nginx"}]})

    assert spec == {
        "containers": [
            {
                "name": "c",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    "which", ["containers", "initContainers", "ephemeralContainers"]
)
def test_every_list_of_containers_gets_a_pull_policy(which: Any) -> None:
    spec = pod_spec(
        {which: [{"name": "a", "image": "x:latest"}, {"name": "b", "image": "x:1"}]}
    )

    assert [entry["imagePullPolicy"] for entry in spec[which]] == [
        "Always",
        "IfNotPresent",
    ]


def test_what_is_said_stays() -> None:
    said = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
        "dnsPolicy": "None",
        "schedulerName": "mine",
    }

    assert said.items() <= pod_spec(said).items()
    assert container(imagePullPolicy="Never")["imagePullPolicy"] == "Never"


def test_requests_come_from_limits_in_pods_alone() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
    template = {"spec": {"containers": [{"name": "c", "resources": resources}]}}

    stored = defaulted(DEPLOYMENT, {"spec": {"template": template}})

    assert container(resources=resources)["resources"]["requests"] == {
        "cpu": "500m",
        "memory": "1Gi",
    }
    entry = stored["spec"]["template"]["spec"]["containers"][0]
    assert entry["resources"] == resources
    assert "enableServiceLinks" not in stored["spec"]["template"]["spec"]


def test_pod_level_requests_come_from_containers_then_from_limits() -> None:
    spec = pod_spec(
        {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        }
    )

    assert spec["resources"]["requests"] == {"cpu": "250m", "memory": "1Gi"}


def test_pod_level_hugepage_limits_come_from_containers() -> None:
    spec = pod_spec(
        {
            "containers": [
                {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}
            ],
            "resources": {"limits": {"cpu": "1"}},
        }
    )

    assert spec["resources"]["limits"] == {"cpu": "1", "hugepages-2Mi": "4Mi"}
    assert spec["resources"]["requests"] == {"cpu": "1", "hugepages-2Mi": "4Mi"}


def test_amounts_are_rounded_up_to_thousandths() -> None:
    entry = container(resources={"requests": {"cpu": "100u"}})

    assert entry["resources"]["requests"] == {"cpu": "1m"}


def test_host_network_claims_the_ports_of_pods_alone() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]
    spec = {"hostNetwork": True, "containers": [{"name": "c", "ports": ports}]}

    pod_ports = pod_spec(spec)["containers"][0]["ports"]
    stored = defaulted(DEPLOYMENT, {"spec": {"template": {"spec": spec}}})

    assert [port["hostPort"] for port in pod_ports] == [80, 8081]
    assert [port["protocol"] for port in pod_ports] == ["TCP", "TCP"]
    template_ports = stored["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert "hostPort" not in template_ports[0]


def test_the_two_names_of_the_service_account_mirror_each_other() -> None:
    assert pod_spec({"serviceAccount": "old"})["serviceAccountName"] == "old"
    spec = pod_spec({"serviceAccount": "old", "serviceAccountName": "new"})
    assert spec["serviceAccount"] == "new"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            {"httpGet": {"port": 80}},
            {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            id="http",
        ),
        pytest.param(
            {"grpc": {"port": 80}, "periodSeconds": 0, "timeoutSeconds": 7},
            {
                "grpc": {"port": 80, "service": ""},
                "timeoutSeconds": 7,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            id="grpc",
        ),
    ],
)
@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe", "startupProbe"])
def test_probes_get_their_times(probe: Any, before: Any, after: Any) -> None:
    assert container(**{probe: copy.deepcopy(before)})[probe] == after


def test_hooks_and_references_get_their_defaults() -> None:
    entry = container(
        lifecycle={
            "preStop": {"httpGet": {"port": 1}},
            "postStart": {"sleep": {"seconds": 1}},
        },
        env=[
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {
                "name": "B",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}},
            },
            {"name": "C", "valueFrom": {"fileKeyRef": {"key": "k"}}},
            {"name": "D", "value": "v"},
        ],
    )

    assert entry["lifecycle"]["preStop"]["httpGet"] == {
        "port": 1,
        "path": "/",
        "scheme": "HTTP",
    }
    assert entry["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert entry["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"
    assert entry["env"][2]["valueFrom"]["fileKeyRef"]["optional"] is False


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param({}, {"emptyDir": {}}, id="no-source"),
        pytest.param(
            {"secret": {"secretName": "s"}},
            {"secret": {"secretName": "s", "defaultMode": 420}},
            id="secret",
        ),
        pytest.param(
            {"configMap": {"name": "c", "defaultMode": 0}},
            {"configMap": {"name": "c", "defaultMode": 0}},
            id="a-mode-of-zero-stays",
        ),
        pytest.param(
            {"hostPath": {"path": "/"}},
            {"hostPath": {"path": "/", "type": ""}},
            id="host-path",
        ),
        pytest.param(
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "x"}}]}},
            {
                "downwardAPI": {
                    "defaultMode": 420,
                    "items": [
                        {
                            "path": "p",
                            "fieldRef": {"fieldPath": "x", "apiVersion": "v1"},
                        }
                    ],
                }
            },
            id="downward-api",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "t"}},
                        {"downwardAPI": {"items": [{"fieldRef": {"fieldPath": "x"}}]}},
                        {"podCertificate": {}},
                    ]
                }
            },
            {
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "path": "t",
                                "expirationSeconds": 3600,
                            }
                        },
                        {
                            "downwardAPI": {
                                "items": [
                                    {"fieldRef": {"fieldPath": "x", "apiVersion": "v1"}}
                                ]
                            }
                        },
                        {"podCertificate": {"maxExpirationSeconds": 86400}},
                    ],
                }
            },
            id="projected",
        ),
        pytest.param(
            {"image": {"reference": "quay.io/a/b"}},
            {"image": {"reference": "quay.io/a/b", "pullPolicy": "Always"}},
            id="image",
        ),
        pytest.param(
            {"ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {
                "ephemeral": {
                    "volumeClaimTemplate": {"spec": {"volumeMode": "Filesystem"}}
                }
            },
            id="ephemeral",
        ),
    ],
)
def test_volumes_get_the_defaults_of_their_source(source: Any, expected: Any) -> None:
    assert volume(**source) == {"name": "v", **expected}


@pytest.mark.parametrize("kind", list(TEMPLATE_PATHS), ids=lambda kind: kind.kind)
def test_every_template_gets_pod_spec_defaults(kind: Any) -> None:
    spec: Document = {"containers": [{"name": "c", "image": "x"}]}
    document: Document = {"template": {"spec": spec}}
    for name in reversed(TEMPLATE_PATHS[kind][:-1]):
        document = {name: document}

    default_object(kind, document)

    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        pytest.param(
            DEPLOYMENT,
            {},
            {
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
                },
            },
            id="deployment",
        ),
        pytest.param(
            DEPLOYMENT,
            {"replicas": 0, "strategy": {"type": "Recreate"}},
            {
                "replicas": 0,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "strategy": {"type": "Recreate"},
            },
            id="deployment-recreate",
        ),
        pytest.param(REPLICA_SET, {}, {"replicas": 1}, id="replica-set"),
        pytest.param(
            DAEMON_SET,
            {},
            {
                "revisionHistoryLimit": 10,
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
            },
            id="daemon-set",
        ),
        pytest.param(
            STATEFUL_SET,
            {"volumeClaimTemplates": [{}]},
            {
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"partition": 0},
                },
                "persistentVolumeClaimRetentionPolicy": {
                    "whenDeleted": "Retain",
                    "whenScaled": "Retain",
                },
                "volumeClaimTemplates": [
                    {
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "spec": {"volumeMode": "Filesystem"},
                        "status": {"phase": "Pending"},
                    }
                ],
            },
            id="stateful-set",
        ),
        pytest.param(
            JOB,
            {},
            {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
            id="job",
        ),
        pytest.param(
            JOB,
            {
                "parallelism": 3,
                "backoffLimitPerIndex": 1,
                "podFailurePolicy": {"rules": [{"onPodConditions": [{"type": "X"}]}]},
            },
            {
                "parallelism": 3,
                "backoffLimit": 2147483647,
                "backoffLimitPerIndex": 1,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {
                    "rules": [{"onPodConditions": [{"type": "X", "status": "True"}]}]
                },
            },
            id="job-with-policies",
        ),
        pytest.param(
            CRON_JOB,
            {},
            {
                "concurrencyPolicy": "Allow",
                "suspend": False,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
            },
            id="cron-job",
        ),
        pytest.param(
            SERVICE,
            {
                "ports": [
                    {"port": 80},
                    {"port": 53, "protocol": "UDP", "targetPort": "dns"},
                ]
            },
            {
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": [
                    {"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 53, "protocol": "UDP", "targetPort": "dns"},
                ],
            },
            id="service",
        ),
        pytest.param(
            SERVICE,
            {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
            {
                "type": "LoadBalancer",
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": True,
            },
            id="service-load-balancer",
        ),
        pytest.param(
            SERVICE,
            {
                "type": "ExternalName",
                "externalName": "x.y",
                "sessionAffinityConfig": {},
            },
            {"type": "ExternalName", "externalName": "x.y", "sessionAffinity": "None"},
            id="service-external-name",
        ),
    ],
)
def test_a_spec_is_filled_in(kind: Any, before: Any, after: Any) -> None:
    assert defaulted(kind, {"spec": before})["spec"] == after


def test_a_job_takes_the_labels_of_its_template() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {}}

    assert defaulted(JOB, {"spec": {"template": template}})["metadata"]["labels"] == {
        "a": "b"
    }


def test_a_new_job_gets_the_selector_of_its_uid() -> None:
    job: Document = {"metadata": {"name": "j", "uid": "u1"}, "spec": {"template": {}}}

    prepare_object(JOB, job)

    assert job["spec"]["selector"] == {
        "matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}
    }
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "controller-uid": "u1",
        "job-name": "j",
        "batch.kubernetes.io/controller-uid": "u1",
        "batch.kubernetes.io/job-name": "j",
    }


def test_a_manual_selector_is_left_alone() -> None:
    job: Document = {
        "spec": {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}}
    }
    before = copy.deepcopy(job)

    prepare_job(job, "u1")

    assert job == before


def test_string_data_of_a_secret_wins_and_is_not_kept() -> None:
    secret = defaulted(
        SECRET, {"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "Ä"}}
    )

    assert secret == {"type": "Opaque", "data": {"a": "eA==", "b": "w4Q="}}


def test_a_namespace_is_labelled_and_finalized() -> None:
    namespace: Document = {"metadata": {"name": "n", "labels": {"x": "y"}}}

    default_object(NAMESPACE, namespace)
    prepare_object(NAMESPACE, namespace)

    assert namespace == {
        "metadata": {
            "name": "n",
            "labels": {"x": "y", "kubernetes.io/metadata.name": "n"},
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def test_a_new_pod_is_pending() -> None:
    pod: Document = {
        "metadata": {"uid": "u"},
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    }

    prepare_object(POD, pod)

    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        pytest.param(
            NODE,
            {"status": {"capacity": {"cpu": "2"}}},
            {"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}},
            id="node",
        ),
        pytest.param(
            ENDPOINTS,
            {"subsets": [{"ports": [{"port": 1}]}]},
            {"subsets": [{"ports": [{"port": 1, "protocol": "TCP"}]}]},
            id="endpoints",
        ),
        pytest.param(
            ENDPOINT_SLICE,
            {"ports": [{"port": 1}]},
            {"ports": [{"port": 1, "name": "", "protocol": "TCP"}]},
            id="endpoint-slice",
        ),
        pytest.param(CONFIG_MAP, {"data": {}}, {}, id="config-map"),
    ],
)
def test_other_kinds_are_filled_in(kind: Any, before: Any, after: Any) -> None:
    assert defaulted(kind, before) == after


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.group}-{kind.kind}")
def test_doing_it_twice_changes_nothing(kind: Any) -> None:
    document: Document = {"metadata": {"name": "n"}, "spec": {"ports": [{"port": 1}]}}
    once = defaulted(kind, document)

    assert defaulted(kind, once) == once
