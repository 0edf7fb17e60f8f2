"""What a rule covers, and what a Pod refers to."""

import pytest

from podyard.server.authz.decide import (
    covers,
    covers_path,
    effective,
    referenced,
    selected,
)
from podyard.server.authz.parts import PathRule, ResourceRule
from podyard.server.build import parse_request


def request(method, path, query=""):
    return parse_request(method, path, query)


POD = "/api/v1/namespaces/default/pods/web"


@pytest.mark.parametrize(
    ("method", "path", "verb"),
    [
        pytest.param("GET", f"{POD}/exec", "create", id="websocket-exec"),
        pytest.param("POST", f"{POD}/exec", "create", id="spdy-exec"),
        pytest.param("GET", f"{POD}/attach", "create", id="attach"),
        pytest.param("GET", f"{POD}/portforward", "create", id="port-forward"),
        pytest.param("GET", f"{POD}/log", "get", id="log-is-reading"),
        pytest.param("GET", POD, "get", id="the-pod-itself"),
        pytest.param(
            "GET", "/apis/x/v1/namespaces/d/pods/web/exec", "get", id="other-group"
        ),
    ],
)
def test_running_something_needs_create_whatever_the_http_verb(method, path, verb):
    assert effective(request(method, path)).verb == verb


def rule(verbs=("get",), groups=("",), resources=("pods",), names=()):
    return ResourceRule(tuple(verbs), tuple(groups), tuple(resources), tuple(names))


@pytest.mark.parametrize(
    ("given", "method", "path", "allowed"),
    [
        pytest.param(rule(), "GET", POD, True, id="exactly"),
        pytest.param(rule(), "DELETE", POD, False, id="another-verb"),
        pytest.param(rule(), "GET", f"{POD}/log", False, id="not-its-subresource"),
        pytest.param(
            rule(resources=("pods/log",)), "GET", f"{POD}/log", True, id="subresource"
        ),
        pytest.param(
            rule(resources=("pods/log",)), "GET", POD, False, id="only-the-subresource"
        ),
        pytest.param(
            rule(resources=("*/log",)), "GET", f"{POD}/log", True, id="any-log"
        ),
        pytest.param(
            rule(resources=("*",)), "GET", f"{POD}/log", True, id="everything"
        ),
        pytest.param(rule(verbs=("*",)), "DELETE", POD, True, id="any-verb"),
        pytest.param(rule(groups=("apps",)), "GET", POD, False, id="another-group"),
        pytest.param(rule(groups=("*",)), "GET", POD, True, id="any-group"),
        pytest.param(rule(names=("web",)), "GET", POD, True, id="by-name"),
        pytest.param(rule(names=("db",)), "GET", POD, False, id="another-name"),
        pytest.param(rule(), "GET", "/healthz", False, id="no-resource"),
    ],
)
def test_a_rule_covers_requests_for_resources(given, method, path, allowed):
    assert covers(given, request(method, path)) is allowed


@pytest.mark.parametrize(
    ("paths", "method", "path", "allowed"),
    [
        pytest.param(("/healthz",), "GET", "/healthz", True, id="exactly"),
        pytest.param(("/healthz",), "GET", "/healthz/ping", False, id="not-below"),
        pytest.param(("/healthz/*",), "GET", "/healthz/ping", True, id="below"),
        pytest.param(("/healthz",), "POST", "/healthz", False, id="another-verb"),
        pytest.param(("*",), "GET", "/version", True, id="everything"),
        pytest.param(("*",), "GET", POD, False, id="never-a-resource"),
    ],
)
def test_a_rule_covers_paths(paths, method, path, allowed):
    assert covers_path(PathRule(("get",), paths), request(method, path)) is allowed


REFERRING = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "volume"}},
            {"name": "b", "configMap": {"name": "settings"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"secret": {"name": "projected"}},
                        {"configMap": {"name": "root-ca"}},
                    ]
                },
            },
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        ],
        "initContainers": [{"envFrom": [{"secretRef": {"name": "init"}}]}],
        "containers": [
            {
                "env": [
                    {"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"valueFrom": {"configMapKeyRef": {"name": "flag", "key": "k"}}},
                    {"name": "PLAIN", "value": "1"},
                ]
            }
        ],
        "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "debug"}}]}],
    },
}


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        pytest.param(
            "secrets", {"pull", "volume", "projected", "init", "key"}, id="secrets"
        ),
        pytest.param(
            "configmaps", {"settings", "root-ca", "flag", "debug"}, id="configmaps"
        ),
        pytest.param("serviceaccounts", {"robot"}, id="service-account"),
        pytest.param("persistentvolumeclaims", {"data"}, id="claims"),
        pytest.param("services", set(), id="nothing-else"),
    ],
)
def test_a_pod_refers_to_what_it_names_and_no_more(resource, names):
    assert referenced(REFERRING, resource) == names
    assert referenced({"metadata": {}}, resource) == frozenset()


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        pytest.param("spec.nodeName=vm", "vm", id="equals"),
        pytest.param("spec.nodeName==vm", "vm", id="double-equals"),
        pytest.param("status.phase!=Failed,spec.nodeName=vm", "vm", id="among-others"),
        pytest.param("spec.nodeName!=vm", None, id="not-equals-allows-many"),
        pytest.param("metadata.name=vm", None, id="another-field"),
        pytest.param("", None, id="no-selector"),
    ],
)
def test_a_field_selector_names_one_value_or_none(selector, value):
    assert selected(selector, "spec.nodeName") == value
