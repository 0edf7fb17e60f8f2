"""Bad input is a clear error, and everything else goes on."""

import asyncio
import gzip
import json

import pytest

from support.api_server import CONFIG_MAPS, PODS, Running, config_map, pod

pytestmark = pytest.mark.integration

YAML = "application/yaml"
ANCHORS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = b'{"metadata":{"name":"d"},"data":' + b"[" * 5000 + b"]" * 5000 + b"}"
MANY = json.dumps({"metadata": {"name": "m"}, "data": {"x": "y" * 4_000_000}}).encode()


@pytest.mark.parametrize(
    ("body", "media", "status", "said"),
    [
        pytest.param(b"{", "application/json", 400, "json parse error", id="half"),
        pytest.param(b"[]", "application/json", 400, "", id="list"),
        pytest.param(b"null", "application/json", 400, "", id="null"),
        pytest.param(b"", "application/json", 400, "", id="empty"),
        pytest.param(b"\xff\xfe", "application/json", 400, "", id="no-text"),
        pytest.param(b'{"metadata":[]}', "application/json", 400, "", id="metadata"),
        pytest.param(
            b'{"metadata":{"name":1}}', "application/json", 400, "", id="name"
        ),
        pytest.param(b'{"kind":3}', "application/json", 400, "", id="kind-number"),
        pytest.param(DEEP, "application/json", 400, "", id="deep"),
        pytest.param(b"a: b: c", YAML, 400, "yaml", id="yaml"),
        pytest.param(ANCHORS.encode(), YAML, 400, "aliasing", id="yaml-bomb"),
        pytest.param(b"&a [*a]", YAML, 400, "itself", id="yaml-circle"),
        pytest.param(b"[" * 9000, YAML, 400, "deeper", id="yaml-deep"),
        pytest.param(b"a: !!python/name:os.system", YAML, 400, "yaml", id="yaml-tag"),
        pytest.param(b"x", "text/plain", 415, "accepted media types", id="media"),
        pytest.param(
            b"k8s\0\xff", "application/vnd.kubernetes.protobuf", 400, "", id="protobuf"
        ),
        pytest.param(
            b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}',
            "application/json",
            400,
            "cannot be handled as a ConfigMap",
            id="other-kind",
        ),
        pytest.param(
            b'{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}',
            "application/json",
            400,
            "does not match the expected API version",
            id="other-version",
        ),
        pytest.param(
            b'{"metadata":{"name":"a","namespace":"other"}}',
            "application/json",
            400,
            "does not match the namespace sent on the request",
            id="other-namespace",
        ),
        pytest.param(
            b'{"metadata":{"name":"../x"}}', "application/json", 422, "", id="dots"
        ),
        pytest.param(b"{}", "application/json", 422, "metadata.name", id="no-name"),
        pytest.param(MANY, "application/json", 413, "limit is 3145728", id="large"),
    ],
)
async def test_a_bad_body_is_told_and_nothing_breaks(
    api: Running, body: bytes, media: str, status: int, said: str
):
    answer = await api.ask("POST", CONFIG_MAPS, body, content_type=media)

    assert answer.status == status, answer.body
    assert answer.json["kind"] == "Status"
    assert answer.json["code"] == status
    assert said in answer.json["message"]
    assert (await api.ask("GET", CONFIG_MAPS)).json["items"] == []


async def test_a_body_without_a_length_is_limited_too(api: Running):
    async def pieces():
        for _ in range(80):
            yield b"x" * 65536

    async with api.session.post(
        api.url + CONFIG_MAPS,
        data=pieces(),
        headers={"Content-Type": "application/json"},
    ) as answer:
        assert answer.status == 413


async def test_gzip_bodies_are_read_and_bombs_are_not(api: Running):
    good = gzip.compress(json.dumps(config_map("z")).encode())
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content_Encoding": "gzip"}

    read = await api.ask("POST", CONFIG_MAPS, good, **headers)
    refused = await api.ask("POST", CONFIG_MAPS, bomb, **headers)
    broken = await api.ask("POST", CONFIG_MAPS, b"no", **headers)

    assert (read.status, refused.status, broken.status) == (201, 413, 400)


async def test_a_yaml_body_is_as_good_as_json(api: Running):
    body = b"metadata: {name: y}\ndata: {when: '2026-01-01', word: 'yes'}\n"

    answer = await api.ask("POST", CONFIG_MAPS, body, content_type=YAML)

    assert answer.json["data"] == {"when": "2026-01-01", "word": "yes"}


@pytest.mark.parametrize("mode", ["Strict", "Warn", "", "Ignore"])
async def test_unknown_and_doubled_fields_are_refused_told_or_ignored(
    api: Running, mode: str
):
    text = json.dumps(pod("p")).replace(
        '"containers":',
        '"wrong": 1, "dnsPolicy": "Default", "dnsPolicy": "Default", "containers":',
    )
    query = f"?fieldValidation={mode}" if mode else ""

    answer = await api.ask("POST", f"{PODS}{query}", text.encode())

    unknown, doubled = 'unknown field "spec.wrong"', 'duplicate field "spec.dnsPolicy"'
    if mode == "Strict":
        assert answer.json["message"] == (
            'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
            f"{unknown}, {doubled}"
        )
        return
    warnings = answer.headers.getall("Warning", [])
    assert answer.status == 201
    assert "wrong" not in answer.json["spec"]
    expected = [] if mode == "Ignore" else [unknown, doubled]
    quoted = [text.replace('"', '\\"') for text in expected]
    assert warnings == [f'299 - "{text}"' for text in quoted]


async def test_a_wrong_type_is_refused_in_any_mode(api: Running):
    body = pod("p", terminationGracePeriodSeconds="soon")

    answer = await api.ask("POST", f"{PODS}?fieldValidation=Ignore", body)

    assert answer.status == 400
    assert "cannot unmarshal string into Go struct field" in answer.json["message"]


async def test_an_invalid_pod_lists_every_fault(api: Running):
    body = pod("p", restartPolicy="Sometimes")
    body["spec"]["containers"].append({"name": "c"})

    answer = await api.ask("POST", PODS, body)

    fields = {cause["field"] for cause in answer.json["details"]["causes"]}
    assert answer.status == 422
    assert {"spec.containers[1].image", "spec.restartPolicy"} <= fields


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{PODS}/..", 400),
        ("GET", f"{PODS}/%2e%2e", 400),
        ("GET", f"{PODS}/a%2fb", 400),
        ("GET", "/api/v1/namespaces/..%2f/pods", 400),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/apis/no.such.group/v1/things", 404),
        ("GET", "/no/such/path", 404),
        ("GET", f"{PODS}/p/nothing", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("POST", f"{PODS}/p", 405),
        ("PUT", PODS, 405),
        ("PATCH", PODS, 405),
        ("POST", f"{PODS}/p/log", 405),
        ("OPTIONS", PODS, 405),
        ("POST", "/version", 405),
        ("DELETE", "/api/v1/namespaces", 405),
    ],
)
async def test_a_bad_path_is_a_status(
    api: Running, method: str, path: str, status: int
):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(api.url.rpartition(":")[2])
    )
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()

    first, _, body = answer.partition(b"\r\n\r\n")
    assert first.split()[1] == str(status).encode(), answer
    assert json.loads(body)["kind"] == "Status"


async def test_garbage_instead_of_http_is_a_status_too(api: Running):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(api.url.rpartition(":")[2])
    )
    writer.write(b"\x16\x03\x01 what\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert b" 400 " in answer.splitlines()[0]
    assert (await api.ask("GET", "/version")).status == 200


@pytest.mark.parametrize("depth", [300, 900, 1020])
async def test_a_deep_patch_is_refused(api: Running, depth: int):
    await api.make(CONFIG_MAPS, config_map("a"))
    body = b'{"a":' * depth + b"1" + b"}" * depth

    answer = await api.ask(
        "PATCH",
        f"{CONFIG_MAPS}/a?fieldValidation=Strict",
        body,
        content_type="application/merge-patch+json",
    )

    assert answer.status in {400, 422}
    assert answer.json["kind"] == "Status"


async def test_a_deep_opaque_field_is_refused_or_kept(api: Running):
    path = "/apis/apps/v1/namespaces/default/controllerrevisions"
    deep: dict[str, object] = {}
    for _ in range(400):
        deep = {"a": deep}
    body = {"metadata": {"name": "r"}, "revision": 1, "data": deep}

    answer = await api.ask("POST", path, body)

    assert answer.status in {201, 400}


async def test_an_accept_we_cannot_give_is_refused(api: Running):
    answer = await api.ask("GET", PODS, Accept="text/html")

    assert answer.status == 406
    assert answer.json["reason"] == "NotAcceptable"
