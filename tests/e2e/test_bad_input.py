"""Whatever is sent: a clear error, and everything else goes on."""

import contextlib
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.api import JSON_PATCH, MERGE, STRATEGIC, YAML, Api, path_of
from support.kubectl import find_kubectls
from support.manifests import config_map, container, pod

KUBECTLS = find_kubectls()
ENDS = [KUBECTLS[0], KUBECTLS[-1]] if KUBECTLS else []

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(autouse=True)
def and_everything_else_goes_on(api):
    yield
    assert api.ask("GET", "/readyz").content == b"ok"
    api.must("GET", "/api/v1/namespaces/default")


@pytest.fixture(scope="module")
def standing(api):
    """An object for what changes one."""
    api.create(config_map("standing", a="1"))
    yield f"{MAPS}/standing"
    api.delete(f"{MAPS}/standing")


@dataclass(frozen=True)
class Bad:
    """A request, and how it is to be answered."""

    method: str
    path: str
    body: Any
    status: int
    says: str
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def raw(text: str) -> bytes:
    return text.encode()


def bad_pod(**spec: Any) -> dict[str, Any]:
    return pod("bad", **spec)


def mounting(**mount: Any) -> dict[str, Any]:
    mounts = [{"name": "v", "mountPath": "/v", **mount}]
    return pod(
        "bad", container(volumeMounts=mounts), volumes=[{"name": "v", "emptyDir": {}}]
    )


LAUGHS = "\n".join(
    ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)

REQUESTS = {
    # --- not a document
    "broken-yaml": Bad("POST", PODS, raw("kind: [Pod"), 400, "yaml", YAML),
    "yaml-bomb": Bad("POST", PODS, raw(LAUGHS), 400, "", YAML),
    "yaml-tag": Bad(
        "POST", PODS, raw("!!python/object/apply:os.system ['true']"), 400, "", YAML
    ),
    "yaml-with-two-documents": Bad(
        "POST", MAPS, raw("kind: ConfigMap\n---\nkind: ConfigMap"), 400, "", YAML
    ),
    "broken-json": Bad("POST", PODS, raw('{"kind": "Pod"'), 400, "json"),
    "nothing": Bad("POST", PODS, b"", 400, ""),
    "a-list": Bad("POST", PODS, [], 400, ""),
    "a-number": Bad("POST", PODS, 3, 400, ""),
    "not-utf8": Bad("POST", MAPS, b'{"kind":"ConfigMap\xff\xfe"}', 400, ""),
    "deeply-nested": Bad("POST", PODS, b"[" * 200_000, 400, ""),
    "deeply-nested-in-an-object": Bad(
        "POST", PODS, b'{"kind":"Pod","spec":' + b'{"a":' * 100_000, 400, ""
    ),
    "zipped-nonsense": Bad(
        "POST", PODS, b"nonsense", 400, "gzip", headers={"Content-Encoding": "gzip"}
    ),
    "unknown-media-type": Bad("POST", PODS, b"x", 415, "", "text/html"),
    "broken-protobuf": Bad(
        "POST", PODS, b"k8s\x00\xff\xff\xff", 400, "", "application/vnd.kubernetes.protobuf"
    ),
    # --- not the kind
    "another-kind": Bad("POST", PODS, config_map("x"), 400, "ConfigMap"),
    "another-version": Bad(
        "POST", PODS, {**bad_pod(), "apiVersion": "v2"}, 400, "v2"
    ),
    "no-kind-there": Bad("POST", "/api/v1/namespaces/default/ponds", {}, 404, ""),
    "no-group-there": Bad("GET", "/apis/example.org/v1/things", None, 404, ""),
    "no-namespace-there": Bad(
        "POST", "/api/v1/namespaces/nowhere/configmaps", config_map("x", "nowhere"), 404, "nowhere"
    ),
    "another-namespace": Bad(
        "POST", "/api/v1/namespaces/kube-public/configmaps", config_map("x"), 400, "namespace"
    ),
    # --- the fields
    "unknown-field": Bad(
        "POST", f"{PODS}?fieldValidation=Strict", bad_pod(surprise=1), 400, 'unknown field "spec.surprise"'
    ),
    "duplicate-field": Bad(
        "POST",
        f"{MAPS}?fieldValidation=Strict",
        raw('{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{},"data":{}}'),
        400,
        "duplicate",
    ),
    "bad-field-validation": Bad(
        "POST", f"{PODS}?fieldValidation=Maybe", bad_pod(), 422, "fieldValidation"
    ),
    "a-text-for-a-list": Bad("POST", PODS, bad_pod(volumes="many"), 400, "volumes"),
    "a-map-for-a-text": Bad("POST", PODS, bad_pod(nodeName={}), 400, "nodeName"),
    "a-text-for-a-number": Bad(
        "POST", PODS, bad_pod(terminationGracePeriodSeconds="soon"), 400, "terminationGracePeriodSeconds"
    ),
    "a-fraction-for-a-number": Bad(
        "POST", PODS, bad_pod(terminationGracePeriodSeconds=1.5), 400, "terminationGracePeriodSeconds"
    ),
    "a-huge-number": Bad(
        "POST", PODS, bad_pod(terminationGracePeriodSeconds=10**30), 400, ""
    ),
    "a-number-for-a-label": Bad(
        "POST", MAPS, {**config_map("x"), "metadata": {"name": "x", "labels": {"a": 1}}}, 400, "labels"
    ),
    "a-list-for-metadata": Bad("POST", MAPS, {**config_map("x"), "metadata": []}, 400, "metadata"),
    "null-containers": Bad("POST", PODS, bad_pod(containers=None), 422, "spec.containers"),
    "no-quantity": Bad(
        "POST",
        PODS,
        pod("bad", container(resources={"limits": {"memory": "lots"}})),
        400,
        "quantities",
    ),
    "a-bad-port": Bad(
        "POST", PODS, pod("bad", container(ports=[{"containerPort": 70000}])), 422, "containerPort"
    ),
    # --- the way out of a directory
    "name-with-dots": Bad("POST", MAPS, config_map("../../etc/passwd"), 422, "metadata.name"),
    "name-is-dots": Bad("POST", MAPS, config_map(".."), 422, "metadata.name"),
    "name-with-nul": Bad("POST", MAPS, config_map("a\x00b"), 422, "metadata.name"),
    "name-with-newline": Bad("POST", MAPS, config_map("a\nb"), 422, "metadata.name"),
    "name-far-too-long": Bad("POST", MAPS, config_map("a" * 300), 422, "metadata.name"),
    "generate-name-with-dots": Bad(
        "POST", MAPS, {**config_map("x"), "metadata": {"generateName": "../x"}}, 422, "metadata.generateName"
    ),
    "dots-in-the-path": Bad("GET", f"{MAPS}/%2e%2e/%2e%2e/x", None, 400, ""),
    "slash-in-a-name": Bad("GET", f"{MAPS}/..%2F..%2Fetc%2Fpasswd", None, 400, ""),
    "sub-path-upwards": Bad("POST", PODS, mounting(subPath="../x"), 422, "subPath"),
    "sub-path-from-the-root": Bad("POST", PODS, mounting(subPath="/etc"), 422, "subPath"),
    "volume-name-upwards": Bad(
        "POST", PODS, bad_pod(volumes=[{"name": "../v", "emptyDir": {}}]), 422, "volumes[0].name"
    ),
    "container-name-upwards": Bad(
        "POST", PODS, pod("bad", container(name="../c")), 422, "containers[0].name"
    ),
    "key-upwards": Bad("POST", MAPS, config_map("x", **{"../k": "v"}), 422, "data"),
    "item-path-upwards": Bad(
        "POST",
        PODS,
        bad_pod(
            volumes=[
                {"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../k"}]}}
            ]
        ),
        422,
        "path",
    ),
    "host-path-upwards": Bad(
        "POST", PODS, bad_pod(volumes=[{"name": "v", "hostPath": {"path": "/a/../b"}}]), 422, "'..'"
    ),
    # --- too much
    "four-megabytes": Bad("POST", MAPS, config_map("x", a="x" * 4_000_000), 413, "too large"),
    "more-than-a-config-map-holds": Bad(
        "POST", MAPS, config_map("x", a="x" * 1_100_000), 422, "Too long"
    ),
    "a-thousand-parameters": Bad(
        "GET", f"{MAPS}?{'&'.join(f'a{i}=1' for i in range(2000))}", None, 400, ""
    ),
    # --- questions
    "bad-label-selector": Bad("GET", f"{MAPS}?labelSelector=a==b==c", None, 400, ""),
    "bad-field-selector": Bad("GET", f"{MAPS}?fieldSelector=spec.x=1", None, 400, "not a known field selector"),
    "bad-limit": Bad("GET", f"{MAPS}?limit=many", None, 400, "many"),
    "bad-continue": Bad("GET", f"{MAPS}?continue=nonsense", None, 400, "continue"),
    "bad-resource-version": Bad("GET", f"{MAPS}?resourceVersion=x", None, 400, "resource"),
    "bad-watch": Bad("GET", f"{MAPS}?watch=1&resourceVersion=x", None, 400, "resource"),
    "future-resource-version": Bad(
        "GET", f"{MAPS}?resourceVersion=99999999999&resourceVersionMatch=Exact", None, 504, "Too large resource version"
    ),
    "unknown-method": Bad("BREW", PODS, None, 400, "method"),
    "post-to-a-name": Bad("POST", f"{MAPS}/standing", config_map("standing"), 405, ""),
    "no-subresource-there": Bad("GET", f"{MAPS}/standing/status", None, 404, ""),
    "exec-without-upgrade": Bad("POST", f"{PODS}/nobody/exec?command=true", None, 404, "nobody"),
    # --- changes
    "patch-no-json": Bad("PATCH", f"{MAPS}/standing", b"{", 400, "", MERGE),
    "patch-a-list": Bad("PATCH", f"{MAPS}/standing", [], 400, "", MERGE),
    "patch-strategic-list": Bad("PATCH", f"{MAPS}/standing", [1], 400, "", STRATEGIC),
    "patch-no-operations": Bad("PATCH", f"{MAPS}/standing", {"a": 1}, 400, "", JSON_PATCH),
    "patch-what-is-not-there": Bad(
        "PATCH", f"{MAPS}/standing", [{"op": "remove", "path": "/data/zzz"}], 422, "", JSON_PATCH
    ),
    "patch-test-fails": Bad(
        "PATCH", f"{MAPS}/standing", [{"op": "test", "path": "/data/a", "value": "9"}], 422, "", JSON_PATCH
    ),
    "patch-unknown-type": Bad("PATCH", f"{MAPS}/standing", {}, 415, "", "application/json"),
    "patch-wrong-type": Bad("PATCH", f"{MAPS}/standing", {"data": 1}, 422, "data", MERGE),
    "patch-the-name": Bad("PATCH", f"{MAPS}/standing", {"metadata": {"name": "b"}}, 400, "name", MERGE),
    "patch-the-uid": Bad("PATCH", f"{MAPS}/standing", {"metadata": {"uid": "b"}}, 409, "UID", MERGE),
    "put-another-name": Bad("PUT", f"{MAPS}/standing", config_map("other"), 400, "name"),
    "put-an-old-one": Bad(
        "PUT",
        f"{MAPS}/standing",
        {**config_map("standing"), "metadata": {"name": "standing", "resourceVersion": "1"}},
        409,
        "modified",
    ),
    "delete-with-another-uid": Bad(
        "DELETE", f"{MAPS}/standing", {"preconditions": {"uid": "no"}}, 409, "UID"
    ),
    "delete-with-nonsense": Bad(
        "DELETE", f"{MAPS}/standing", {"gracePeriodSeconds": "now"}, 400, ""
    ),
    "create-twice": Bad("POST", MAPS, config_map("standing"), 409, "already exists"),
}  # fmt: skip


@pytest.mark.parametrize("bad", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_bad_request_is_answered_with_a_status_that_says_why(api, standing, bad):
    answer = api.ask(
        bad.method,
        bad.path,
        bad.body,
        content_type=bad.content_type,
        timeout_s=20,
        **bad.headers,
    )

    said = answer.content.decode()[:600]
    assert answer.status == bad.status, said
    status = answer.document
    assert (status["kind"], status["apiVersion"]) == ("Status", "v1"), said
    assert (status["status"], status["code"]) == ("Failure", bad.status), said
    assert bad.says in status["message"], said
    assert "Traceback" not in said


def test_an_unknown_field_is_warned_of_or_ignored_as_asked(api):
    document = {**config_map("lenient", a="1"), "surprise": 1}

    warned = api.ask("POST", f"{MAPS}?fieldValidation=Warn&dryRun=All", document)
    ignored = api.ask("POST", f"{MAPS}?fieldValidation=Ignore&dryRun=All", document)

    assert (warned.status, ignored.status) == (201, 201)
    assert 'unknown field \\"surprise\\"' in warned.headers["Warning"]
    assert "Warning" not in ignored.headers
    assert "surprise" not in warned.document


def test_a_body_without_a_length_is_refused_when_it_gets_too_large(instance):
    with talk(instance) as connection:
        connection.sendall(
            f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(64):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it has answered and closed before all was sent
        else:
            assert b" 413 " in connection.recv(200)


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param("nonsense\r\n\r\n", id="no-http"),
        pytest.param("GET / HTTP/9.9\r\n\r\n", id="http-9.9"),
        pytest.param("GET / HTTP/1.1\r\nHost\r\n\r\n", id="no-header"),
        pytest.param(
            f"GET / HTTP/1.1\r\nA: {'x' * 200_000}\r\n\r\n", id="a-header-too-long"
        ),
        pytest.param(
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="length-is-no-number"
        ),
        pytest.param(
            "POST / HTTP/1.1\r\nContent-Length: 1\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two-lengths",
        ),
    ],
)
def test_what_is_hardly_http_is_answered_with_400_or_closed(instance, request_text):
    with talk(instance) as connection:
        connection.sendall(request_text.encode())
        answer = b""
        with contextlib.suppress(OSError):
            answer = connection.recv(1000)

    assert answer == b"" or b" 400 " in answer.split(b"\n")[0], answer


def test_a_connection_without_tls_is_closed(instance):
    url = urlsplit(Api(instance.kubeconfig).server)
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""

    assert b"200" not in answer


def test_a_hundred_silent_connections_keep_nobody_out(instance, api):
    url = urlsplit(api.server)
    silent = [
        socket.create_connection((url.hostname, url.port), timeout=10)
        for _ in range(100)
    ]
    try:
        assert api.must("GET", "/version")["major"] == "1"
    finally:
        for connection in silent:
            connection.close()


def talk(instance) -> ssl.SSLSocket:
    """Open a connection to write to as one likes, with the admin's certificate."""
    api = Api(instance.kubeconfig)
    url = urlsplit(api.server)
    plain = socket.create_connection((url.hostname, url.port), timeout=20)
    return api._tls.wrap_socket(plain, server_hostname=url.hostname)


# --- through kubectl

MANIFESTS = {
    "broken-yaml": ("kind: Pod\n  x: [", "error parsing"),
    "unknown-field": (
        json.dumps({**config_map("bad"), "surprise": 1}),
        "unknown field",
    ),
    "wrong-type": (json.dumps(bad_pod(volumes="many")), "volumes"),
    "no-kind": ("apiVersion: v1\nmetadata: {name: x}", "kind"),
    "unknown-kind": ("apiVersion: v1\nkind: Pond\nmetadata: {name: x}", "error: "),
    "name-upwards": (json.dumps(config_map("../x")), "../x"),
    "four-megabytes": (json.dumps(config_map("x", a="x" * 4_000_000)), "too large"),
    "no-container": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}",
        "spec.containers",
    ),
}


@pytest.mark.parametrize("kubectl", ENDS, ids=lambda kubectl: kubectl.id)
@pytest.mark.parametrize("case", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_kubectl_says_what_is_wrong_with_a_manifest(instance, kubectl, case):
    manifest, says = case

    done = kubectl.run(
        instance.kubeconfig, "create", "-f", "-", input=manifest, check=False
    )

    assert done.returncode == 1
    assert says.lower() in done.stderr.decode().lower()


@pytest.mark.parametrize("kubectl", ENDS, ids=lambda kubectl: kubectl.id)
def test_a_directory_with_one_broken_file_applies_the_others(
    instance, api, kubectl, tmp_path
):
    (tmp_path / "a.yaml").write_text(json.dumps(config_map("good-a")))
    (tmp_path / "b.yaml").write_text("kind: [")
    (tmp_path / "c.yaml").write_text(json.dumps(config_map("good-c")))

    done = kubectl.run(instance.kubeconfig, "apply", "-f", str(tmp_path), check=False)

    assert done.returncode == 1
    assert "b.yaml" in done.stderr.decode()
    for name in ("good-a", "good-c"):
        path = path_of(config_map(name), "default", name)
        assert api.ask("GET", path).status == 200
        api.delete(path)
