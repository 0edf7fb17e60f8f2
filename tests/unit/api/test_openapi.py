import json
from collections.abc import Iterator
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.openapi import (
    PATCH_TYPES,
    OpenApiDocuments,
    build_v2_document,
    group_version_keys,
)
from podyard.api.scheme import KINDS, POD, Kind
from support.definitions import load_definitions

DOCUMENTS = OpenApiDocuments(load_definitions(), "v1.36.0")
METHODS = ("get", "put", "post", "delete", "patch")


def v3(key: str) -> Document:
    document = DOCUMENTS.v3(key)
    assert document is not None
    parsed: Document = json.loads(document.body)
    return parsed


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def key_of(kind: Kind) -> str:
    return kind.path().rpartition("/")[0].removeprefix("/")


def test_the_index_names_every_group_version_by_the_hash_of_its_document() -> None:
    paths = json.loads(DOCUMENTS.index().body)["paths"]

    assert tuple(paths) == group_version_keys()
    for key, entry in paths.items():
        document = DOCUMENTS.v3(key)
        assert document is not None
        assert entry == {"serverRelativeURL": f"/openapi/v3/{key}?hash={document.hash}"}


def test_every_served_kind_is_in_a_group_version_of_the_index() -> None:
    assert {key_of(kind) for kind in KINDS} <= set(group_version_keys())


def test_an_unknown_group_version_has_no_document() -> None:
    assert DOCUMENTS.v3("apis/example.com/v1") is None
    assert DOCUMENTS.v3("") is None
    assert DOCUMENTS.v3("v2") is None


def test_a_document_is_made_once_and_always_the_same() -> None:
    again = OpenApiDocuments(load_definitions(), "v1.36.0")

    assert DOCUMENTS.v3("api/v1") is DOCUMENTS.v3("api/v1")
    assert DOCUMENTS.v3("api/v1") == again.v3("api/v1")
    assert DOCUMENTS.index() == again.index()


@pytest.mark.parametrize("key", group_version_keys())
def test_a_document_holds_all_it_refers_to(key: str) -> None:
    document = v3(key)
    schemas = document["components"]["schemas"]

    named = {name.rpartition("/")[2] for name in references(document)}

    assert named == set(schemas)
    assert {name.rpartition("/")[0] for name in references(document)} == {
        "#/components/schemas"
    }


@pytest.mark.parametrize("key", group_version_keys())
def test_every_operation_names_its_kind_its_action_and_itself(key: str) -> None:
    names = []
    for path, method, operation in operations(v3(key)):
        where = f"{method} {path}"
        assert set(operation["x-kubernetes-group-version-kind"]) == {
            "group",
            "version",
            "kind",
        }, where
        assert operation["x-kubernetes-action"], where
        names.append(operation["operationId"])

    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS, ids=[kind.qualified_resource for kind in KINDS])
def test_a_patch_tells_its_types_and_its_query(kind: Kind) -> None:
    path = kind.path("{namespace}", "{name}")

    patch = v3(key_of(kind))["paths"][path]["patch"]

    assert tuple(patch["requestBody"]["content"]) == PATCH_TYPES
    assert {"fieldValidation", "dryRun", "fieldManager", "force"} == {
        parameter["name"] for parameter in patch["parameters"]
    }
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": kind.group,
        "version": kind.version,
        "kind": kind.kind,
    }


@pytest.mark.parametrize(
    ("path", "actions"),
    [
        pytest.param(
            "/api/v1/namespaces/{namespace}/pods",
            {"get": "list", "post": "post", "delete": "deletecollection"},
            id="collection",
        ),
        pytest.param("/api/v1/pods", {"get": "list"}, id="all-namespaces"),
        pytest.param(
            "/api/v1/namespaces/{namespace}/pods/{name}",
            {"get": "get", "put": "put", "patch": "patch", "delete": "delete"},
            id="object",
        ),
        pytest.param(
            "/api/v1/namespaces/{namespace}/pods/{name}/exec",
            {"get": "connect", "post": "connect"},
            id="exec",
        ),
        pytest.param(
            "/api/v1/namespaces/{namespace}/pods/{name}/log", {"get": "get"}, id="log"
        ),
        pytest.param("/api/v1/namespaces/{name}/finalize", {"put": "put"}, id="final"),
        pytest.param(
            "/api/v1/nodes",
            {"get": "list", "post": "post", "delete": "deletecollection"},
            id="cluster-scoped",
        ),
    ],
)
def test_a_path_has_its_methods(path: str, actions: dict[str, str]) -> None:
    item = v3("api/v1")["paths"][path]

    found = {m: item[m]["x-kubernetes-action"] for m in METHODS if m in item}

    assert found == actions


@pytest.mark.parametrize(
    ("key", "path", "kind"),
    [
        pytest.param(
            "api/v1",
            "/api/v1/namespaces/{namespace}/pods/{name}/eviction",
            ("policy", "Eviction"),
            id="eviction",
        ),
        pytest.param(
            "api/v1",
            "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            ("authentication.k8s.io", "TokenRequest"),
            id="token",
        ),
        pytest.param(
            "apis/authorization.k8s.io/v1",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ("authorization.k8s.io", "SelfSubjectAccessReview"),
            id="review",
        ),
        pytest.param(
            "apis/authorization.k8s.io/v1",
            "/apis/authorization.k8s.io/v1/namespaces/{namespace}"
            "/localsubjectaccessreviews",
            ("authorization.k8s.io", "LocalSubjectAccessReview"),
            id="local-review",
        ),
    ],
)
def test_what_is_only_posted_names_its_own_kind(
    key: str, path: str, kind: tuple[str, str]
) -> None:
    gvk = v3(key)["paths"][path]["post"]["x-kubernetes-group-version-kind"]

    assert (gvk["group"], gvk["kind"]) == kind


def test_scale_is_of_the_autoscaling_group() -> None:
    path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"

    operation = v3("apis/apps/v1")["paths"][path]["patch"]

    assert operation["x-kubernetes-group-version-kind"]["kind"] == "Scale"
    schemas = v3("apis/apps/v1")["components"]["schemas"]
    assert "io.k8s.api.autoscaling.v1.Scale" in schemas


def test_a_described_reference_is_wrapped_so_that_its_description_counts() -> None:
    pod = v3("api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Pod"]

    spec = pod["properties"]["spec"]

    assert spec["description"].startswith("Specification of the desired behavior")
    assert spec["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}
    ]
    assert "$ref" not in spec


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("io.k8s.apimachinery.pkg.api.resource.Quantity", ["string", "number"]),
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", ["integer", "string"]),
    ],
)
def test_version_3_says_which_types_may_be_chosen(name: str, kinds: list[str]) -> None:
    schema = v3("api/v1")["components"]["schemas"][name]

    assert [choice["type"] for choice in schema["oneOf"]] == kinds
    assert "type" not in schema


def test_version_2_tells_dry_run_of_every_kind() -> None:
    document = build_v2_document(load_definitions(), release="v1.36.0")

    for kind in KINDS:
        patch = document["paths"][kind.path("{namespace}", "{name}")]["patch"]
        assert "dryRun" in {parameter["name"] for parameter in patch["parameters"]}
    assert document["definitions"] == load_definitions()


def test_version_2_is_there_as_json_too() -> None:
    document = json.loads(DOCUMENTS.v2_json().body)

    assert document["swagger"] == "2.0"
    assert POD.path("{namespace}", "{name}") in document["paths"]
