"""What is served beside the kinds."""

import gzip
import json
from pathlib import Path

import pytest

from podyard.server.app import Gates
from support.api_server import CONFIG_MAPS, PODS, Everybody, Running, api_server, pod

pytestmark = pytest.mark.integration

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json"
)


@pytest.mark.parametrize("path", ["/version", "/version/", "//version"])
async def test_the_version_is_kubernetes_with_ours_behind(api: Running, path: str):
    version = (await api.ask("GET", path)).json

    assert (version["major"], version["minor"]) == ("1", "36")
    assert version["gitVersion"].startswith("v1.36.")
    assert "+podyard." in version["gitVersion"]


@pytest.mark.parametrize("kind", ["healthz", "livez", "readyz"])
async def test_health_is_ok_in_one_word_or_in_detail(api: Running, kind: str):
    plain = await api.ask("GET", f"/{kind}")
    verbose = await api.ask("GET", f"/{kind}?verbose")
    one = await api.ask("GET", f"/{kind}/store")
    none = await api.ask("GET", f"/{kind}/nothing")

    assert (plain.status, plain.body) == (200, b"ok")
    assert b"[+]store ok\n" in verbose.body
    assert verbose.body.endswith(f"{kind} check passed\n".encode())
    assert (one.status, none.status) == (200, 404)


async def test_metrics_count_what_was_asked(api: Running):
    await api.make(PODS, pod("p"))
    await api.ask("GET", f"{PODS}/p")
    await api.ask("GET", f"{PODS}/nobody")
    await api.ask("GET", "/some/strange/path")

    text = (await api.ask("GET", "/metrics")).body.decode()

    labels = 'verb="GET",group="",version="v1",resource="pods",subresource=""'
    assert f'apiserver_request_total{{{labels},scope="resource",code="200"}} 1' in text
    assert f'apiserver_request_total{{{labels},scope="resource",code="404"}} 1' in text
    assert "apiserver_request_duration_seconds_bucket" in text
    assert "podyard_store_rows 2" in text
    assert "strange" not in text


async def test_discovery_comes_in_both_forms(api: Running):
    new = await api.ask("GET", "/api", Accept=AGGREGATED)
    old = await api.ask("GET", "/api/", Accept="application/json")
    groups = await api.ask("GET", "/apis/", Accept="*/*")
    kept = await api.ask(
        "GET", "/api", Accept=AGGREGATED, If_None_Match=new.headers["ETag"]
    )

    assert new.headers["Content-Type"].endswith(
        ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    )
    (core,) = new.json["items"]
    kinds = {part["resource"]: part for part in core["versions"][0]["resources"]}
    assert kinds["pods"]["shortNames"] == ["po"]
    assert kinds["pods"]["categories"] == ["all"]
    assert old.json["versions"] == ["v1"]
    assert {group["name"] for group in groups.json["groups"]} >= {"apps", "batch"}
    assert kept.status == 304


async def test_openapi_never_has_to_be_read_twice(api: Running):
    index = (await api.ask("GET", "/openapi/v3")).json
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    document = await api.ask("GET", url)
    kept = await api.ask("GET", url, If_None_Match=document.headers["ETag"])
    async with api.session.get(
        f"{api.url}/openapi/v3/apis/apps/v1?hash=old", allow_redirects=False
    ) as moved:
        assert moved.status == 301
        assert moved.headers["Location"] == url

    assert "immutable" in document.headers["Cache-Control"]
    assert "io.k8s.api.apps.v1.Deployment" in document.json["components"]["schemas"]
    assert kept.status == 304


async def test_large_lists_are_compressed_where_that_is_welcome(api: Running):
    text = "y" * 200_000
    body = {"metadata": {"name": "big"}, "data": {"x": text}}
    await api.make(CONFIG_MAPS, body)

    async with api.session.get(
        api.url + CONFIG_MAPS, headers={"Accept-Encoding": "gzip"}
    ) as zipped:
        assert zipped.headers["Content-Encoding"] == "gzip"
        length = int(zipped.headers["Content-Length"])
        listed = await zipped.json()
    async with api.session.get(
        api.url + CONFIG_MAPS, headers={"Accept-Encoding": "identity"}
    ) as plain:
        assert "Content-Encoding" not in plain.headers
        assert await plain.json() == listed

    assert length < len(gzip.compress(text.encode())) + 5000
    assert listed["items"][0]["data"]["x"] == text


async def test_the_issuer_tells_its_keys(tmp_path: Path):
    gates = Gates(
        Everybody(),
        Everybody(),
        openid_configuration=lambda: {"issuer": "x"},
        key_set=lambda: {"keys": []},
    )
    async with api_server(tmp_path, gates=gates) as api:
        configuration = await api.ask("GET", "/.well-known/openid-configuration")
        keys = await api.ask("GET", "/openid/v1/jwks")

    assert configuration.json == {"issuer": "x"}
    assert keys.json == {"keys": []}
    assert keys.headers["Content-Type"] == "application/jwk-set+json"


async def test_a_restart_remembers_addresses_and_revisions(tmp_path: Path):
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}
    async with api_server(tmp_path) as api:
        made = await api.make(services, body)
    address = made["spec"]["clusterIP"]
    async with api_server(tmp_path) as api:
        taken = await api.ask(
            "POST",
            services,
            {"metadata": {"name": "b"}, "spec": {**body["spec"], "clusterIP": address}},
        )
        stored = (await api.ask("GET", f"{services}/a")).json
        later = await api.make(services, {**body, "metadata": {"name": "c"}})

    assert taken.status == 422
    assert stored == json.loads(json.dumps(made))
    assert int(later["metadata"]["resourceVersion"]) > int(
        made["metadata"]["resourceVersion"]
    )
