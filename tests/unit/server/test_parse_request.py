"""Path and query → RequestInfo."""

import pytest

from podyard.api.errors import ApiError
from podyard.server.build import RequestInfo, parse_request

RESOURCE = {"is_resource_request": True, "version": "v1"}


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        pytest.param("GET", "/", "", {"verb": "get", "path": "/"}, id="root"),
        pytest.param(
            "GET", "/version/", "", {"verb": "get", "path": "/version"}, id="slash"
        ),
        pytest.param(
            "GET", "/api/v1", "", {"verb": "get", "path": "/api/v1"}, id="discovery"
        ),
        pytest.param(
            "GET",
            "/apis/apps/v1",
            "",
            {"verb": "get", "path": "/apis/apps/v1"},
            id="group",
        ),
        pytest.param(
            "GET",
            "/api/v1/pods",
            "",
            {**RESOURCE, "verb": "list", "resource": "pods"},
            id="all",
        ),
        pytest.param(
            "GET",
            "/api/v1/namespaces/d/pods",
            "watch=1",
            {**RESOURCE, "verb": "watch", "resource": "pods", "namespace": "d"},
            id="watch",
        ),
        pytest.param(
            "GET",
            "/api/v1/namespaces/d/pods",
            "watch=false",
            {**RESOURCE, "verb": "list", "resource": "pods", "namespace": "d"},
            id="no-watch",
        ),
        pytest.param(
            "GET",
            "/api/v1/watch/namespaces/d/pods/p",
            "",
            {
                **RESOURCE,
                "verb": "watch",
                "resource": "pods",
                "namespace": "d",
                "name": "p",
            },
            id="old-watch",
        ),
        pytest.param(
            "GET",
            "/api/v1/pods",
            "fieldSelector=metadata.name%3Dx,spec.nodeName%3Dn",
            {**RESOURCE, "verb": "list", "resource": "pods", "name": "x"},
            id="selected-name",
        ),
        pytest.param(
            "GET",
            "/api/v1/pods",
            "fieldSelector=metadata.name!%3Dx",
            {**RESOURCE, "verb": "list", "resource": "pods"},
            id="excluded-name",
        ),
        pytest.param(
            "PUT",
            "/apis/apps/v1/namespaces/d/deployments/x/scale",
            "",
            {
                **RESOURCE,
                "verb": "update",
                "group": "apps",
                "resource": "deployments",
                "namespace": "d",
                "name": "x",
                "subresource": "scale",
            },
            id="subresource",
        ),
        pytest.param(
            "DELETE",
            "/api/v1/namespaces/d/pods",
            "",
            {
                **RESOURCE,
                "verb": "deletecollection",
                "resource": "pods",
                "namespace": "d",
            },
            id="deletecollection",
        ),
        pytest.param(
            "PATCH",
            "/api/v1/namespaces/d/status",
            "",
            {
                **RESOURCE,
                "verb": "patch",
                "resource": "namespaces",
                "namespace": "d",
                "name": "d",
                "subresource": "status",
            },
            id="namespace-status",
        ),
        pytest.param(
            "POST",
            "/api/v1/namespaces",
            "",
            {**RESOURCE, "verb": "create", "resource": "namespaces"},
            id="new-namespace",
        ),
        pytest.param(
            "GET",
            "/api/v1/nodes/n/proxy/stats/summary",
            "",
            {
                **RESOURCE,
                "verb": "get",
                "resource": "nodes",
                "name": "n",
                "subresource": "proxy",
                "rest": ("stats", "summary"),
            },
            id="proxy",
        ),
        pytest.param(
            "GET",
            "/api/v1/namespaces/d/events/a%20b",
            "",
            {
                **RESOURCE,
                "verb": "get",
                "resource": "events",
                "namespace": "d",
                "name": "a b",
            },
            id="encoded",
        ),
    ],
)
def test_a_path_says_what_is_asked(method, path, query, expected):
    info = parse_request(method, path, query)

    wanted = {"path": info.path, **expected}
    assert info == RequestInfo(**wanted, query=info.query)


@pytest.mark.parametrize("segment", ["..", ".", "%2e%2e", "a%2Fb", "%00", "a%25b"])
def test_a_segment_no_name_may_be_is_refused(segment):
    with pytest.raises(ApiError) as refused:
        parse_request("GET", f"/api/v1/namespaces/d/pods/{segment}")

    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", False),
        ("x", True),
        ("x=", True),
        ("x=false", False),
        ("x=0", False),
        ("x=1", True),
    ],
)
def test_a_flag_is_on_unless_it_says_otherwise(query, expected):
    assert parse_request("GET", "/", query).flag("x") is expected
