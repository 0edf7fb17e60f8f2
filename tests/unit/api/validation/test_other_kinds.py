"""The rules of every kind but Pods."""

import base64
import copy
from typing import Any

import pytest

from podyard.api.defaults import default_object, prepare_object
from podyard.api.documents import Document
from podyard.api.feature_gates import FeatureGates
from podyard.api.scheme import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    EVENT_V1,
    JOB,
    KINDS,
    LEASE,
    NAMESPACE,
    NODE,
    POD_TEMPLATE,
    REPLICA_SET,
    RUNTIME_CLASS,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
)
from podyard.api.validation import (
    validate_create,
    validate_object_meta,
    validate_status_update,
    validate_update,
)

LABELS = {"app": "x"}
TEMPLATE: Document = {
    "metadata": {"labels": LABELS},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
WORKLOAD: Document = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
JOB_TEMPLATE: Document = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}


def made(kind: Kind, body: Document, name: str = "x") -> Document:
    metadata: Document = {"name": name, "uid": "u"}
    if kind.namespaced:
        metadata["namespace"] = "default"
    document = {"metadata": metadata, **copy.deepcopy(body)}
    default_object(kind, document)
    prepare_object(kind, document)
    return document


def faults_of(kind: Kind, body: Document, name: str = "x") -> list[str]:
    return [str(fault) for fault in validate_create(kind, made(kind, body, name))]


def changed(kind: Kind, before: Document, after: Document) -> list[str]:
    old, new = made(kind, before), made(kind, after)
    return [str(fault) for fault in validate_update(kind, new, old)]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# --- names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "valid"),
    [
        pytest.param(NAMESPACE, "a.b", False, id="namespace-is-a-label"),
        pytest.param(SERVICE, "1abc", True, id="service-may-start-with-a-digit"),
        pytest.param(SERVICE, "a.b", False, id="service-is-a-label"),
        pytest.param(STATEFUL_SET, "a.b", False, id="stateful-set-is-a-label"),
        pytest.param(DEPLOYMENT, "a.b", True, id="deployment-is-a-subdomain"),
        pytest.param(SERVICE_ACCOUNT, "A", False, id="no-upper-case"),
        pytest.param(CONFIG_MAP, "..", False, id="no-dots-alone"),
    ],
)
def test_names_follow_their_kind(kind: Any, name: Any, valid: Any) -> None:
    faults = [
        text for text in faults_of(kind, {}, name) if text.startswith("metadata.name")
    ]

    assert (not faults) is valid


def test_service_names_start_with_a_letter_when_the_gate_is_off() -> None:
    gates = FeatureGates({"RelaxedServiceNameValidation": False})
    service = made(SERVICE, {"spec": {"ports": [{"port": 1}]}}, "1abc")

    assert "a DNS-1035 label must consist of" in str(
        validate_create(SERVICE, service, gates)[0]
    )


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not kind.namespaced], ids=lambda kind: kind.kind
)
def test_cluster_kinds_have_no_namespace(kind: Any) -> None:
    document = made(kind, {"handler": "runc"})
    document["metadata"]["namespace"] = "default"

    texts = [str(fault) for fault in validate_create(kind, document)]

    assert texts[:1] == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_metadata_alone_can_be_checked() -> None:
    assert validate_object_meta({"name": "a", "namespace": "b"}, namespaced=True) == ()
    assert validate_object_meta({"generateName": "a-"}, namespaced=False)


# --- Secrets and ConfigMaps -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param({}, [], id="empty"),
        pytest.param(
            {"data": {"..": ""}},
            ["data[..]: Invalid value: \"..\": must not be '..'"],
            id="key",
        ),
        pytest.param(
            {"data": {"a": "A" * 1_400_000}},
            ["data: Too long: may not be more than 1048576 bytes"],
            id="size",
        ),
        pytest.param(
            {"type": "kubernetes.io/dockercfg"},
            ["data[.dockercfg]: Required value"],
            id="dockercfg",
        ),
        pytest.param(
            {
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": b64("{x")},
            },
            None,
            id="bad-json",
        ),
        pytest.param(
            {
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": b64("[]")},
            },
            [
                'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": json: cannot unmarshal array into Go value of type map[string]interface {}'
            ],
            id="json-list",
        ),
        pytest.param(
            {
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": b64("{}")},
            },
            [],
            id="json",
        ),
        pytest.param(
            {"type": "kubernetes.io/basic-auth"},
            ["data[username]: Required value", "data[password]: Required value"],
            id="basic-auth",
        ),
        pytest.param(
            {"type": "kubernetes.io/ssh-auth"},
            ["data[ssh-privatekey]: Required value"],
            id="ssh",
        ),
        pytest.param(
            {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}},
            ["data[tls.key]: Required value"],
            id="tls",
        ),
        pytest.param(
            {"type": "kubernetes.io/service-account-token"},
            [
                "metadata.annotations[kubernetes.io/service-account.name]: Required value"
            ],
            id="token",
        ),
        pytest.param({"type": "my.own/type"}, [], id="own-type"),
    ],
)
def test_secrets_are_checked(body: Any, faults: Any) -> None:
    found = faults_of(SECRET, body)

    if faults is None:
        assert len(found) == 1
        assert found[0].startswith(
            'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": '
        )
    else:
        assert found == faults


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param({"data": {"a": "x"}, "binaryData": {"b": "eA=="}}, [], id="fine"),
        pytest.param(
            {"data": {"a": "x"}, "binaryData": {"a": "eA=="}},
            ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
            id="both",
        ),
        pytest.param(
            {"data": {"..x": ""}},
            ["data[..x]: Invalid value: \"..x\": must not start with '..'"],
            id="key",
        ),
        pytest.param(
            {"data": {"a": "ä" * 524289}},
            [": Too long: may not be more than 1048576 bytes"],
            id="size",
        ),
    ],
)
def test_config_maps_are_checked(body: Any, faults: Any) -> None:
    assert faults_of(CONFIG_MAP, body) == faults


@pytest.mark.parametrize("kind", [SECRET, CONFIG_MAP], ids=lambda kind: kind.kind)
def test_what_is_immutable_stays(kind: Any) -> None:
    frozen = {"immutable": True, "data": {"a": "eA=="}}

    assert changed(kind, frozen, frozen) == []
    assert changed(kind, frozen, {"immutable": True, "data": {"a": "eQ=="}}) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]
    assert changed(kind, frozen, {"data": {"a": "eA=="}}) == [
        "immutable: Forbidden: field is immutable when `immutable` is set"
    ]


def test_a_secrets_type_stays() -> None:
    assert changed(SECRET, {}, {"type": "a/b"}) == [
        'type: Invalid value: "a/b": field is immutable'
    ]


# --- Services ---------------------------------------------------------------------------------


PORT = {"port": 80}


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({"ports": [PORT]}, [], id="fine"),
        pytest.param({}, ["spec.ports: Required value"], id="no-ports"),
        pytest.param({"clusterIP": "None"}, [], id="headless-without-ports"),
        pytest.param(
            {"ports": [PORT, {"port": 81}]},
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].name: Required value",
            ],
            id="names-needed",
        ),
        pytest.param(
            {"ports": [{"port": 0}]},
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
            id="port",
        ),
        pytest.param(
            {"ports": [{"port": 1, "protocol": "ICMP"}]},
            [
                'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'
            ],
            id="protocol",
        ),
        pytest.param(
            {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            [
                'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}'
            ],
            id="port-twice",
        ),
        pytest.param(
            {"ports": [{"port": 80, "nodePort": 30000}]},
            [
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"
            ],
            id="node-port-of-cluster-ip",
        ),
        pytest.param(
            {
                "type": "NodePort",
                "ports": [
                    {"name": "a", "port": 1, "nodePort": 30000},
                    {"name": "b", "port": 2, "nodePort": 30000},
                ],
            },
            ["spec.ports[1].nodePort: Duplicate value: 30000"],
            id="node-port-twice",
        ),
        pytest.param(
            {"type": "Odd", "ports": [PORT]},
            [
                'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'
            ],
            id="type",
        ),
        pytest.param(
            {"type": "ExternalName"},
            ["spec.externalName: Required value"],
            id="no-external-name",
        ),
        pytest.param(
            {"type": "ExternalName", "externalName": "a.b.", "clusterIP": "10.0.0.1"},
            ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
            id="external-name-with-ip",
        ),
        pytest.param(
            {"type": "NodePort", "clusterIP": "None", "ports": [PORT]},
            [
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"
            ],
            id="headless-node-port",
        ),
        pytest.param(
            {"ports": [PORT], "clusterIP": "x"},
            [
                'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            ],
            id="cluster-ip",
        ),
        pytest.param(
            {"ports": [PORT], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]},
            [
                'spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`'
            ],
            id="cluster-ips-differ",
        ),
        pytest.param(
            {
                "ports": [PORT],
                "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1", "10.0.0.2"],
            },
            [
                'spec.clusterIPs: Invalid value: ["10.0.0.1","10.0.0.2"]: may specify no more than one IP for each IP family'
            ],
            id="one-family",
        ),
        pytest.param(
            {"ports": [PORT], "clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]},
            [
                'spec.clusterIPs[0]: Invalid value: "10.0.0.1": expected an IPv6 value as indicated by `ipFamilies[0]`'
            ],
            id="wrong-family",
        ),
        pytest.param(
            {"ports": [PORT], "ipFamilyPolicy": "Odd"},
            [
                'spec.ipFamilyPolicy: Unsupported value: "Odd": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"'
            ],
            id="family-policy",
        ),
        pytest.param(
            {"ports": [PORT], "sessionAffinity": "Sticky"},
            [
                'spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"'
            ],
            id="affinity",
        ),
        pytest.param(
            {
                "ports": [PORT],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
            },
            [
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"
            ],
            id="affinity-timeout",
        ),
        pytest.param(
            {"ports": [PORT], "externalIPs": ["127.0.0.1"]},
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'
            ],
            id="external-ip",
        ),
        pytest.param(
            {"ports": [PORT], "externalTrafficPolicy": "Local"},
            [
                'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'
            ],
            id="external-policy",
        ),
        pytest.param(
            {"ports": [PORT], "loadBalancerClass": "a/b"},
            [
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"
            ],
            id="balancer-class",
        ),
        pytest.param(
            {"ports": [PORT], "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            [
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"
            ],
            id="source-ranges",
        ),
        pytest.param(
            {"ports": [PORT], "healthCheckNodePort": 1},
            [
                "spec.healthCheckNodePort: Invalid value: 1: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            ],
            id="health-port",
        ),
        pytest.param(
            {"ports": [PORT], "internalTrafficPolicy": "Odd"},
            [
                'spec.internalTrafficPolicy: Unsupported value: "Odd": supported values: "Cluster", "Local"'
            ],
            id="internal-policy",
        ),
        pytest.param(
            {"ports": [PORT], "trafficDistribution": "Odd"},
            [
                'spec.trafficDistribution: Unsupported value: "Odd": supported values: "PreferClose", "PreferSameZone", "PreferSameNode"'
            ],
            id="distribution",
        ),
        pytest.param({"ports": [PORT], "selector": {"a b": ""}}, None, id="selector"),
    ],
)
def test_services_are_checked(spec: Any, faults: Any) -> None:
    found = faults_of(SERVICE, {"spec": spec})

    if faults is None:
        assert found
    else:
        assert found == faults


def service(**spec: object) -> Document:
    return {"spec": {"ports": [PORT], **spec}}


@pytest.mark.parametrize(
    ("before", "after", "faults"),
    [
        pytest.param(
            service(clusterIP="10.0.0.1"),
            service(clusterIP="10.0.0.2"),
            [
                'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set'
            ],
            id="changed",
        ),
        pytest.param(
            service(clusterIP="10.0.0.1"),
            service(),
            [
                "spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset"
            ],
            id="unset",
        ),
        pytest.param(
            service(clusterIP="10.0.0.1"),
            {"spec": {"type": "ExternalName", "externalName": "a"}},
            [],
            id="to-external-name",
        ),
        pytest.param(service(), service(clusterIP="10.0.0.1"), [], id="given"),
    ],
)
def test_a_cluster_ip_stays(before: Any, after: Any, faults: Any) -> None:
    assert changed(SERVICE, before, after) == faults


def test_a_balancers_addresses_are_checked() -> None:
    old = made(SERVICE, service(type="LoadBalancer"))
    new = copy.deepcopy(old)
    new["status"] = {
        "loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "10.0.0.1"}]}
    }

    assert [str(fault) for fault in validate_status_update(SERVICE, new, old)] == [
        "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
        'status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address',
    ]


# --- Namespaces, Nodes, Endpoints ---------------------------------------------------------------


def test_namespace_phases_follow_the_deletion_mark() -> None:
    old = made(NAMESPACE, {})
    new = copy.deepcopy(old)
    new["status"] = {"phase": "Terminating"}

    assert [str(fault) for fault in validate_status_update(NAMESPACE, new, old)] == [
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    ]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param({"status": {"capacity": {"cpu": "2"}}}, [], id="fine"),
        pytest.param(
            {"status": {"capacity": {"cpu": "-1"}}},
            [
                'status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0',
                'status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0',
            ],
            id="capacity",
        ),
        pytest.param(
            {"spec": {"taints": [{"key": "a", "effect": "Odd"}]}},
            [
                'metadata.taints[0].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'
            ],
            id="taint",
        ),
        pytest.param(
            {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 2}},
            [
                'metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be unique by key and effect pair'
            ],
            id="taint-twice",
        ),
        pytest.param(
            {"spec": {"podCIDRs": ["x"]}},
            [
                'spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
            ],
            id="cidr",
        ),
        pytest.param(
            {"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}},
            [
                'spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family'
            ],
            id="one-family",
        ),
    ],
)
def test_nodes_are_checked(body: Any, faults: Any) -> None:
    assert faults_of(NODE, body) == faults


def test_what_a_node_is_given_once_stays() -> None:
    before = {"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}}

    assert changed(NODE, before, {"spec": {"podCIDRs": ["10.0.1.0/24"]}}) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
        'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid',
    ]


@pytest.mark.parametrize(
    ("subset", "faults"),
    [
        pytest.param(
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}, [], id="fine"
        ),
        pytest.param(
            {},
            [": Required value: must specify `addresses` or `notReadyAddresses`"],
            id="no-addresses",
        ),
        pytest.param(
            {"addresses": [{"ip": "169.254.1.1"}]},
            [
                '.addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)'
            ],
            id="link-local",
        ),
        pytest.param(
            {"addresses": [{"ip": "224.0.0.1"}]},
            [
                '.addresses[0].ip: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)'
            ],
            id="multicast",
        ),
        pytest.param(
            {"addresses": [{"ip": "0.0.0.0"}]},
            [
                '.addresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)'
            ],
            id="unspecified",
        ),
        pytest.param(
            {"notReadyAddresses": [{"ip": "x", "hostname": "A"}]}, None, id="no-address"
        ),
        pytest.param(
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}, {"port": 81}]},
            [".ports[0].name: Required value", ".ports[1].name: Required value"],
            id="port-names",
        ),
    ],
)
def test_endpoints_are_checked(subset: Any, faults: Any) -> None:
    found = faults_of(ENDPOINTS, {"subsets": [subset]})

    if faults is None:
        assert len(found) == 2
    else:
        assert found == [f"subsets[0]{fault}" for fault in faults]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param(
            {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]},
            [],
            id="fine",
        ),
        pytest.param({}, ["addressType: Required value"], id="no-type"),
        pytest.param(
            {"addressType": "IPv4", "endpoints": [{}]},
            ["endpoints[0].addresses: Required value: must contain at least 1 address"],
            id="no-addresses",
        ),
        pytest.param(
            {"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]},
            [
                'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address'
            ],
            id="family",
        ),
        pytest.param(
            {"addressType": "FQDN", "endpoints": [{"addresses": ["x"]}]},
            [
                'endpoints[0].addresses[0]: Invalid value: "x": should be a domain with at least two segments separated by dots'
            ],
            id="fqdn",
        ),
        pytest.param(
            {
                "addressType": "IPv4",
                "ports": [{"name": "a"}, {"name": "a", "protocol": "X"}],
            },
            [
                'ports[1].name: Duplicate value: "a"',
                'ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
            ],
            id="ports",
        ),
        pytest.param(
            {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}] * 1001},
            ["endpoints: Too many: 1001: must have at most 1000 items"],
            id="too-many",
        ),
    ],
)
def test_endpoint_slices_are_checked(body: Any, faults: Any) -> None:
    assert faults_of(ENDPOINT_SLICE, body) == faults


def test_an_address_type_stays() -> None:
    assert changed(
        ENDPOINT_SLICE, {"addressType": "IPv4"}, {"addressType": "IPv6"}
    ) == ['addressType: Invalid value: "IPv6": field is immutable']


# --- workloads -----------------------------------------------------------------------------------


WORKLOADS = [DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET]


@pytest.mark.parametrize("kind", WORKLOADS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        pytest.param(WORKLOAD, None, id="fine"),
        pytest.param(
            {"template": TEMPLATE}, "spec.selector: Required value", id="no-selector"
        ),
        pytest.param(
            {**WORKLOAD, "selector": {}},
            "spec.selector: Invalid value: {}: empty selector is ",
            id="empty-selector",
        ),
        pytest.param(
            {**WORKLOAD, "selector": {"matchLabels": {"app": "y"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`',
            id="selector-misses",
        ),
        pytest.param(
            {**WORKLOAD, "minReadySeconds": -1},
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            id="negative",
        ),
        pytest.param(
            {
                **WORKLOAD,
                "template": {
                    **TEMPLATE,
                    "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"},
                },
            },
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
            id="restart-policy",
        ),
        pytest.param(
            {**WORKLOAD, "template": {**TEMPLATE, "spec": {"containers": []}}},
            "spec.template.spec.containers: Required value",
            id="template-is-checked",
        ),
        pytest.param(
            {
                **WORKLOAD,
                "template": {
                    **TEMPLATE,
                    "spec": {
                        **TEMPLATE["spec"],
                        "ephemeralContainers": [{"name": "e", "image": "i"}],
                    },
                },
            },
            "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
            id="ephemeral",
        ),
    ],
)
def test_workloads_are_checked(kind: Any, spec: Any, fault: Any) -> None:
    found = faults_of(kind, {"spec": spec})

    if fault is None:
        assert found == []
    else:
        assert [text for text in found if text.startswith(fault)]


def test_templates_may_pad_an_image() -> None:
    spec = {"containers": [{"name": "c", "image": " "}]}

    assert faults_of(POD_TEMPLATE, {"template": {"spec": spec}}) == []


@pytest.mark.parametrize(
    "kind", [DEPLOYMENT, REPLICA_SET, DAEMON_SET], ids=lambda kind: kind.kind
)
def test_a_selector_stays(kind: Any) -> None:
    other = {
        "selector": {"matchLabels": {"app": "y"}},
        "template": {**TEMPLATE, "metadata": {"labels": {"app": "y"}}},
    }

    assert changed(kind, {"spec": WORKLOAD}, {"spec": other}) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"y"}}: field is immutable'
    ]


@pytest.mark.parametrize(
    ("kind", "strategy", "faults"),
    [
        pytest.param(
            DEPLOYMENT,
            {"type": "Odd"},
            [
                '.type: Unsupported value: "Odd": supported values: "Recreate", "RollingUpdate"'
            ],
            id="deployment-type",
        ),
        pytest.param(
            DEPLOYMENT,
            {"type": "Recreate", "rollingUpdate": {}},
            [
                ".rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
            ],
            id="recreate",
        ),
        pytest.param(
            DEPLOYMENT,
            {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}},
            [
                ".rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ],
            id="both-zero",
        ),
        pytest.param(
            DEPLOYMENT,
            {"rollingUpdate": {"maxUnavailable": "150%"}},
            [
                '.rollingUpdate.maxUnavailable: Invalid value: "150%": must not be greater than 100%'
            ],
            id="over-hundred",
        ),
        pytest.param(
            DEPLOYMENT,
            {"rollingUpdate": {"maxSurge": "x"}},
            [
                ".rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            ],
            id="no-percent",
        ),
        pytest.param(
            DAEMON_SET,
            {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            [
                ".rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
            ],
            id="daemon-both",
        ),
        pytest.param(
            DAEMON_SET,
            {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}},
            [
                ".rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ],
            id="daemon-none",
        ),
        pytest.param(DAEMON_SET, {"type": "OnDelete"}, [], id="daemon-on-delete"),
        pytest.param(
            STATEFUL_SET,
            {"type": "OnDelete", "rollingUpdate": {}},
            [
                ".rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'"
            ],
            id="stateful-on-delete",
        ),
        pytest.param(
            STATEFUL_SET,
            {"rollingUpdate": {"partition": -1}},
            [
                ".rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"
            ],
            id="partition",
        ),
    ],
)
def test_strategies_are_checked(kind: Any, strategy: Any, faults: Any) -> None:
    name = "strategy" if kind is DEPLOYMENT else "updateStrategy"

    found = faults_of(kind, {"spec": {**WORKLOAD, name: strategy}})

    assert found == [f"spec.{name}{fault}" for fault in faults]


def test_a_deployment_needs_more_time_than_its_pods() -> None:
    spec = {**WORKLOAD, "minReadySeconds": 600}

    assert faults_of(DEPLOYMENT, {"spec": spec}) == [
        "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"
    ]


CLAIM: Document = {
    "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
}


def test_a_stateful_set_mounts_its_claims() -> None:
    mount = {"name": "data", "mountPath": "/data"}
    template = {
        **TEMPLATE,
        "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}]},
    }
    spec = {**WORKLOAD, "template": template}

    assert (
        faults_of(STATEFUL_SET, {"spec": {**spec, "volumeClaimTemplates": [CLAIM]}})
        == []
    )
    assert faults_of(STATEFUL_SET, {"spec": spec}) == [
        'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"'
    ]


def test_a_stateful_sets_claims_are_checked() -> None:
    claim = {
        "metadata": {"name": "d"},
        "spec": {"accessModes": ["Odd"], "resources": {"requests": {"storage": "0"}}},
    }

    assert faults_of(
        STATEFUL_SET, {"spec": {**WORKLOAD, "volumeClaimTemplates": [claim]}}
    ) == [
        'spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"',
        'spec.volumeClaimTemplates[0].spec.resources[storage]: Invalid value: "0": must be greater than zero',
    ]


def test_little_of_a_stateful_set_may_change() -> None:
    assert (
        changed(STATEFUL_SET, {"spec": WORKLOAD}, {"spec": {**WORKLOAD, "replicas": 3}})
        == []
    )
    assert changed(
        STATEFUL_SET, {"spec": WORKLOAD}, {"spec": {**WORKLOAD, "serviceName": "x"}}
    ) == [
        (
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
    ]


def test_a_revision_keeps_its_data() -> None:
    assert faults_of(CONTROLLER_REVISION, {}) == [
        "data: Required value: data is mandatory"
    ]
    assert changed(CONTROLLER_REVISION, {"data": {"a": 1}}, {"data": {"a": 2}}) == [
        'data: Invalid value: {"a":2}: field is immutable'
    ]


def test_replica_counts_add_up() -> None:
    old = made(REPLICA_SET, {"spec": WORKLOAD})
    new = copy.deepcopy(old)
    new["status"] = {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}

    assert [str(fault) for fault in validate_status_update(REPLICA_SET, new, old)] == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
    ]


# --- Jobs and CronJobs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({}, [], id="fine"),
        pytest.param(
            {"parallelism": -1},
            ["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
            id="parallelism",
        ),
        pytest.param(
            {"completionMode": "Odd"},
            [
                'spec.completionMode: Unsupported value: "Odd": supported values: "NonIndexed", "Indexed"'
            ],
            id="mode",
        ),
        pytest.param(
            {"completionMode": "Indexed", "parallelism": 1},
            ["spec.completions: Required value: when completion mode is Indexed"],
            id="indexed",
        ),
        pytest.param(
            {"backoffLimitPerIndex": 1},
            [
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"
            ],
            id="per-index",
        ),
        pytest.param(
            {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Always"}}},
            [
                'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
            ],
            id="restart-always",
        ),
        pytest.param(
            {"managedBy": "x"},
            [
                'spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")'
            ],
            id="managed-by",
        ),
        pytest.param(
            {"podReplacementPolicy": "Odd"},
            [
                'spec.podReplacementPolicy: Unsupported value: "Odd": supported values: "Failed", "TerminatingOrFailed"'
            ],
            id="replacement",
        ),
        pytest.param(
            {"podFailurePolicy": {"rules": [{"action": "Ignore"}]}},
            [
                'spec.podFailurePolicy.rules[0]: Invalid value: "": specifying one of OnExitCodes and OnPodConditions is required'
            ],
            id="failure-rule",
        ),
        pytest.param(
            {
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {"operator": "In", "values": [0]},
                        }
                    ]
                }
            },
            [
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: 0: must not be 0 for the In operator"
            ],
            id="exit-code-zero",
        ),
    ],
)
def test_jobs_are_checked(spec: Any, faults: Any) -> None:
    assert faults_of(JOB, {"spec": {"template": JOB_TEMPLATE, **spec}}) == faults


def test_a_jobs_own_controller_uid_is_refused() -> None:
    selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": "other"}}

    faults = faults_of(JOB, {"spec": {"template": JOB_TEMPLATE, "selector": selector}})

    assert (
        "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Required value: must be 'u'"
        in faults
    )


def test_a_jobs_template_stays_unless_it_waits() -> None:
    base = {"template": JOB_TEMPLATE}
    placed = {
        "template": {"spec": {**JOB_TEMPLATE["spec"], "nodeSelector": {"a": "b"}}}
    }

    assert changed(JOB, {"spec": base}, {"spec": placed})[0].startswith(
        "spec.template: Invalid value: "
    )
    assert (
        changed(
            JOB,
            {"spec": {**base, "suspend": True}},
            {"spec": {**placed, "suspend": True}},
        )
        == []
    )
    assert changed(
        JOB, {"spec": base}, {"spec": {**base, "parallelism": 4, "completions": 9}}
    ) == ["spec.completions: Invalid value: 9: field is immutable"]


def test_a_job_is_complete_before_it_has_a_time() -> None:
    old = made(JOB, {"spec": {"template": JOB_TEMPLATE}})
    new = copy.deepcopy(old)
    new["status"] = {"completionTime": "2026-01-01T00:00:00Z", "failed": -1}

    assert [str(fault) for fault in validate_status_update(JOB, new, old)] == [
        "status.failed: Invalid value: -1: must be greater than or equal to 0",
        "status.completionTime: Forbidden: cannot set completionTime when there is no Complete=True condition",
    ]


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({"schedule": "*/5 * * * *"}, [], id="fine"),
        pytest.param({}, ["spec.schedule: Required value"], id="no-schedule"),
        pytest.param(
            {"schedule": "* * *"},
            [
                'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'
            ],
            id="too-few",
        ),
        pytest.param(
            {"schedule": "TZ=UTC * * * * *"},
            [
                'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead'
            ],
            id="tz",
        ),
        pytest.param(
            {"schedule": "@daily", "timeZone": "Local"},
            [
                'spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones'
            ],
            id="local",
        ),
        pytest.param(
            {"schedule": "@daily", "timeZone": "../etc"},
            ['spec.timeZone: Invalid value: "../etc": unknown time zone ../etc'],
            id="zone-path",
        ),
        pytest.param(
            {"schedule": "@daily", "timeZone": "Europe/Berlin"}, [], id="zone"
        ),
        pytest.param(
            {"schedule": "@daily", "concurrencyPolicy": "Odd"},
            [
                'spec.concurrencyPolicy: Unsupported value: "Odd": supported values: "Allow", "Forbid", "Replace"'
            ],
            id="concurrency",
        ),
    ],
)
def test_cron_jobs_are_checked(spec: Any, faults: Any) -> None:
    body = {"spec": {"jobTemplate": {"spec": {"template": JOB_TEMPLATE}}, **spec}}

    assert faults_of(CRON_JOB, body) == faults


def test_a_cron_jobs_template_has_no_selector_and_its_name_leaves_room() -> None:
    template = {
        "spec": {"template": JOB_TEMPLATE, "selector": {}, "manualSelector": True}
    }
    body = {"spec": {"schedule": "@daily", "jobTemplate": template}}

    assert faults_of(CRON_JOB, body, "x" * 53) == [
        f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 characters',
        "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
        'spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"',
    ]


# --- Leases, Events, RuntimeClasses ---------------------------------------------------------------


def test_leases_are_checked() -> None:
    spec = {"leaseDurationSeconds": 0, "leaseTransitions": -1}

    assert faults_of(LEASE, {"spec": spec}) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]
    assert (
        faults_of(LEASE, {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 40}})
        == []
    )


@pytest.mark.parametrize(
    ("kind", "body", "faults"),
    [
        pytest.param(
            EVENT, {"involvedObject": {"namespace": "default"}}, [], id="core"
        ),
        pytest.param(EVENT, {"involvedObject": {}}, [], id="about-a-cluster-object"),
        pytest.param(
            EVENT,
            {"involvedObject": {"namespace": "other"}},
            [
                'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
            ],
            id="namespace",
        ),
        pytest.param(
            EVENT,
            {"involvedObject": {}, "eventTime": "2026-01-01T00:00:00.000000Z"},
            [
                "reportingController: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
            ],
            id="new-style",
        ),
        pytest.param(
            EVENT_V1,
            {"regarding": {}},
            [
                "eventTime: Required value",
                "reportingController: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
                'type: Invalid value: "": has invalid value: ',
            ],
            id="v1",
        ),
    ],
)
def test_events_are_checked(kind: Any, body: Any, faults: Any) -> None:
    assert faults_of(kind, body) == faults


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param({"handler": "runc"}, [], id="fine"),
        pytest.param({}, ["handler: Required value"], id="no-handler"),
        pytest.param(
            {"handler": "a.b"},
            ['handler: Invalid value: "a.b": must not contain dots'],
            id="handler",
        ),
        pytest.param(
            {"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}},
            [
                'overhead.podFixed.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'
            ],
            id="overhead",
        ),
        pytest.param(
            {
                "handler": "a",
                "scheduling": {"tolerations": [{"operator": "Exists"}] * 2},
            },
            ['scheduling.tolerations[1]: Duplicate value: {"operator":"Exists"}'],
            id="toleration-twice",
        ),
        pytest.param(
            {
                "handler": "a",
                "scheduling": {"tolerations": [{"key": "k", "operator": "Odd"}]},
            },
            [
                'scheduling.tolerations[0].operator: Unsupported value: "Odd": supported values: "Equal", "Exists"'
            ],
            id="toleration",
        ),
    ],
)
def test_runtime_classes_are_checked(body: Any, faults: Any) -> None:
    assert faults_of(RUNTIME_CLASS, body) == faults


def test_a_handler_stays_but_the_rest_may_change() -> None:
    assert changed(RUNTIME_CLASS, {"handler": "a"}, {"handler": "b"}) == [
        'handler: Invalid value: "b": field is immutable'
    ]
    after = {"handler": "a", "overhead": {"podFixed": {"cpu": "1"}}}
    assert changed(RUNTIME_CLASS, {"handler": "a"}, after) == []


@pytest.mark.parametrize(
    "kind", [SERVICE_ACCOUNT, NAMESPACE], ids=lambda kind: kind.kind
)
def test_plain_kinds_are_plain(kind: Any) -> None:
    assert faults_of(kind, {}) == []
    assert changed(kind, {}, {}) == []
