"""Warnings: said, never refused."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import DEPLOYMENT, ENDPOINTS, NODE, POD, RUNTIME_CLASS, SERVICE
from podyard.api.validation import object_warnings

MAIN = {"name": "c", "image": "i"}


def pod(**spec: object) -> Document:
    return {"metadata": {"name": "p"}, "spec": {"containers": [MAIN], **spec}}


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        pytest.param(pod(), [], id="nothing"),
        pytest.param(
            pod(nodeSelector={"beta.kubernetes.io/os": "linux"}),
            [
                'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'
            ],
            id="old-label",
        ),
        pytest.param(
            pod(imagePullSecrets=[{"name": ""}, {"name": "a"}, {"name": "a"}]),
            [
                'spec.imagePullSecrets[0]: invalid empty name ""',
                'spec.imagePullSecrets[2]: duplicate name "a"',
            ],
            id="pull-secrets",
        ),
        pytest.param(
            pod(
                volumes=[
                    {"name": "v", "glusterfs": {}},
                    {"name": "e", "emptyDir": {"sizeLimit": "1500m"}},
                ]
            ),
            [
                "spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+",
                'spec.volumes[1].emptyDir.sizeLimit: fractional byte value "1500m" is invalid, must be an integer',
            ],
            id="volumes",
        ),
        pytest.param(
            pod(
                containers=[
                    {
                        **MAIN,
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "A", "value": "2"},
                        ],
                    }
                ]
            ),
            [
                'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
            ],
            id="hidden-variable",
        ),
        pytest.param(
            pod(
                containers=[
                    {
                        **MAIN,
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "A", "value": "$(A)2"},
                        ],
                    }
                ]
            ),
            [],
            id="variable-that-grows",
        ),
        pytest.param(
            pod(containers=[{**MAIN, "resources": {"limits": {"memory": "100m"}}}]),
            [
                'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer'
            ],
            id="milli-bytes",
        ),
        pytest.param(
            pod(
                containers=[
                    {**MAIN, "ports": [{"containerPort": 1}, {"containerPort": 1}]}
                ]
            ),
            [
                "spec.containers[0].ports[1]: duplicate port definition with earlier port"
            ],
            id="port-twice",
        ),
        pytest.param(
            pod(terminationGracePeriodSeconds=-1),
            [
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
            ],
            id="negative-grace",
        ),
        pytest.param(
            pod(topologySpreadConstraints=[{"topologyKey": "zone"}]),
            [
                "spec.topologySpreadConstraints[0]: a null labelSelector results in matching no pod"
            ],
            id="spread-of-nothing",
        ),
        pytest.param(
            pod(hostAliases=[{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]),
            ['spec.hostAliases[1].ip: duplicate ip "10.0.0.1"'],
            id="alias-twice",
        ),
    ],
)
def test_a_pod_is_warned_about(document: Any, texts: Any) -> None:
    assert list(object_warnings(POD, document)) == texts


def test_a_dotted_pod_name_is_no_hostname() -> None:
    found = object_warnings(POD, {"metadata": {"name": "a.b"}, "spec": {}})

    assert len(found) == 1
    assert found[0].startswith("metadata.name: this is used in the Pod's hostname")


@pytest.mark.parametrize(
    ("kind", "document", "text"),
    [
        (
            ENDPOINTS,
            {},
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        (
            NODE,
            {"spec": {"externalID": "x"}},
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
        ),
        (
            SERVICE,
            {"spec": {"clusterIP": "None", "sessionAffinity": "ClientIP"}},
            "spec.SessionAffinity is ignored for headless services",
        ),
        (
            SERVICE,
            {"spec": {"clusterIPs": ["fd00:0::1"]}},
            'spec.clusterIPs[0]: IPv6 address "fd00:0::1" should be in RFC 5952 canonical format ("fd00::1")',
        ),
        (
            RUNTIME_CLASS,
            {"scheduling": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}},
            'scheduling.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead',
        ),
        (
            DEPLOYMENT,
            {
                "spec": {
                    "template": {
                        "spec": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}
                    }
                }
            },
            'spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead',
        ),
    ],
)
def test_other_kinds_are_warned_about(kind: Any, document: Any, text: Any) -> None:
    assert object_warnings(kind, document) == (text,)


def test_an_update_is_warned_about_what_is_new_alone() -> None:
    old = pod(terminationGracePeriodSeconds=-1)
    new = pod(terminationGracePeriodSeconds=-1, hostAliases=[{"ip": "1.1.1.1"}] * 2)

    assert object_warnings(POD, new, old) == (
        'spec.hostAliases[1].ip: duplicate ip "1.1.1.1"',
    )


def test_old_labels_in_affinity_are_noticed() -> None:
    term = {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone"}]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [term]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [{"preference": term}],
        }
    }

    assert len(object_warnings(POD, pod(affinity=affinity))) == 2
