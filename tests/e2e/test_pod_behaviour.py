"""What Pods do when something happens to them."""

import contextlib
import http.server
import json
import sys
import threading
import time
import urllib.request
from datetime import datetime

import pytest
import yaml

from podyard.app.host import find_program
from support.api import (
    STRATEGIC,
    Api,
    condition,
    has_ended,
    is_ready,
    phase,
    pod_path,
    state_of,
    statuses,
    until,
)
from support.kubectl import find_kubectls
from support.manifests import IMAGE, SLEEP, config_map, container, namespace, pod

NAMESPACES = "/api/v1/namespaces"


@pytest.fixture(scope="module")
def sh(instance):
    """Runs a shell command in a Pod."""
    kubectl = find_kubectls()[-1]

    def run(name: str, script: str, *, namespace: str = "default", c: str = "main"):
        return kubectl.text(
            instance.kubeconfig,
            "exec", "-n", namespace, name, "-c", c, "--", "sh", "-c", script,
        )  # fmt: skip

    return run


@pytest.fixture
def ours(api):
    """Creates Pods, waits until they are Ready, and removes them at the end."""
    names: list[str] = []

    def make(document, *, ready: bool = True):
        name = document["metadata"]["name"]
        names.append(name)
        made = api.create(document)
        return api.until_pod(name, is_ready) if ready else made

    yield make
    for name in names:
        api.delete(pod_path(name), gracePeriodSeconds=0)


def probe(*command: str, **more):
    return {
        "periodSeconds": 1,
        "failureThreshold": 1,
        "exec": {"command": [*command]},
        **more,
    }


def mounts(**paths: str):
    return [{"name": name, "mountPath": path} for name, path in paths.items()]


EMPTY = {"volumes": [{"name": "data", "emptyDir": {}}]}


# --- probes


def test_readiness_follows_its_probe_to_and_fro(api, ours, sh):
    ours(
        pod("flips", container(readinessProbe=probe("test", "-e", "/ready"))),
        ready=False,
    )
    api.until_pod(
        "flips",
        lambda p: (
            condition(p, "Ready") == "False ContainersNotReady"
            and state_of(p) == "running"
        ),
    )

    sh("flips", "touch /ready")
    api.until_pod("flips", is_ready)
    sh("flips", "rm /ready")
    seen = api.until_pod("flips", lambda p: not is_ready(p))

    assert statuses(seen)["main"]["restartCount"] == 0
    assert any("Readiness probe failed" in event for event in api.events("flips"))


def test_no_other_probe_runs_until_the_startup_probe_succeeded(api, ours, sh):
    ours(
        pod(
            "starts",
            container(
                startupProbe=probe("test", "-e", "/data/up", failureThreshold=100),
                livenessProbe=probe("test", "!", "-e", "/data/up"),
                volumeMounts=mounts(data="/data"),
            ),
            terminationGracePeriodSeconds=1,
            **EMPTY,
        ),
        ready=False,
    )
    api.until_event("starts", "Warning Unhealthy Startup probe failed")
    before = api.until_pod("starts", lambda p: state_of(p) == "running")
    sh("starts", "touch /data/up")
    api.until_pod("starts", lambda p: statuses(p)["main"]["restartCount"] == 1)

    assert statuses(before)["main"]["started"] is False
    assert statuses(before)["main"]["restartCount"] == 0
    assert any(
        "failed liveness probe, will be restarted" in e for e in api.events("starts")
    )


# --- deletion and hooks


@pytest.fixture
def listener():
    """A web server of the node that notes what it is asked."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("X-From", "")))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_hooks_ask_over_http_and_any_answer_will_do(api, ours, listener):
    port, asked = listener
    hook = {
        "host": "127.0.0.1",
        "port": port,
        "httpHeaders": [{"name": "X-From", "value": "hook"}],
    }
    ours(
        pod(
            "asks",
            container(
                lifecycle={
                    "postStart": {"httpGet": {**hook, "path": "/started?a=b"}},
                    "preStop": {"httpGet": {**hook, "path": "/stopping"}},
                }
            ),
        )
    )

    api.delete(pod_path("asks"))
    until(lambda: api.is_gone(pod_path("asks")))

    assert asked == [("/started?a=b", "hook"), ("/stopping", "hook")]


def test_an_exec_hook_runs_in_the_containers_cgroups_and_namespaces(api, ours, sh):
    look = "cat /proc/self/cgroup; for n in cgroup ipc mnt net pid uts; do readlink"
    look += " /proc/self/ns/$n; done"
    hook = {"exec": {"command": ["sh", "-c", f"({look}) > /tmp/hook"]}}
    limited = {"limits": {"memory": "64Mi"}}
    ours(pod("inside", container(lifecycle={"postStart": hook}, resources=limited)))

    own = look.replace("self", "1")
    assert sh("inside", f"({own}) > /tmp/own; cat /tmp/own") == sh(
        "inside", "cat /tmp/hook"
    )


def test_an_https_hook_or_probe_of_a_plain_server_ends_as_documented(api, ours):
    serve = "mkdir /w; echo hi > /w/index.html; exec httpd -f -p 8080 -h /w"
    listens = "until wget -qO /dev/null http://127.0.0.1:8080/; do sleep 0.1; done"
    hook = {"httpGet": {"port": 8080, "scheme": "HTTPS"}}
    # The hook may ask when somebody listens; the first container's hook waits for it.
    first = container(
        serve, lifecycle={"postStart": {"exec": {"command": ["sh", "-c", listens]}}}
    )
    second = container(name="second", lifecycle={"postStart": hook})
    probed = container(name="probed", readinessProbe={**hook, "periodSeconds": 1})
    ours(pod("plain", first, second, probed), ready=False)

    assert api.until_event("plain", "Warning LifecycleHTTPFallback").endswith(
        ":8080 got HTTP response, retry with HTTP succeeded"
    )
    assert api.until_event("plain", "Warning Unhealthy").endswith(
        "server gave HTTP response to HTTPS client"
    )


def test_deletion_runs_pre_stop_then_asks_politely_then_is_done(api, ours, tmp_path):
    tmp_path.chmod(0o777)
    script = "trap 'echo term >> /host/story; exit 0' TERM; sleep 3600 & wait"
    ours(
        pod(
            "leaves",
            container(
                script,
                volumeMounts=mounts(host="/host"),
                lifecycle={
                    "preStop": {
                        "exec": {
                            "command": [
                                "sh",
                                "-c",
                                "echo hook >> /host/story; sleep 0.3; echo hooked >> /host/story",
                            ]
                        }
                    }
                },
            ),
            volumes=[{"name": "host", "hostPath": {"path": str(tmp_path)}}],
            terminationGracePeriodSeconds=30,
        )
    )

    api.delete(pod_path("leaves"))
    leaving = api.ask("GET", pod_path("leaves"))
    until(lambda: api.is_gone(pod_path("leaves")))

    assert leaving.document["metadata"]["deletionGracePeriodSeconds"] == 30
    assert leaving.document["metadata"]["deletionTimestamp"]
    assert (tmp_path / "story").read_text() == "hook\nhooked\nterm\n"
    assert "Normal Killing Stopping container main" in api.events("leaves")


def test_a_sleep_before_the_stop_ends_when_the_container_does(api, ours):
    ours(
        pod(
            "naps",
            container(SLEEP, lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
            terminationGracePeriodSeconds=20,
        )
    )
    begin = time.monotonic()
    api.delete(pod_path("naps"))
    until(lambda: api.is_gone(pod_path("naps")))

    assert 1 <= time.monotonic() - begin < 15


def test_a_pre_stop_hook_that_fails_is_told_and_holds_up_nothing(api, ours):
    ours(
        pod(
            "fails",
            container(lifecycle={"preStop": {"exec": {"command": ["false"]}}}),
        )
    )
    api.delete(pod_path("fails"))
    until(lambda: api.is_gone(pod_path("fails")))

    api.until_event("fails", "Warning FailedPreStopHook PreStopHook failed")


def test_who_does_not_listen_is_killed_after_the_grace_period(api, ours):
    ours(pod("deaf", container("trap '' TERM; while :; do sleep 1; done")))
    begin = time.monotonic()
    api.delete(pod_path("deaf"), gracePeriodSeconds=1)
    until(lambda: api.is_gone(pod_path("deaf")))

    assert time.monotonic() - begin < 20


def test_deletion_with_no_grace_removes_the_object_at_once_and_its_container_soon(
    api, ours, instance
):
    made = ours(pod("forced", container("trap '' TERM; while :; do sleep 1; done")))
    uid = made["metadata"]["uid"]

    api.delete(pod_path("forced"), gracePeriodSeconds=0)

    assert api.is_gone(pod_path("forced"))
    until(lambda: not (instance.data_dir / "pods" / uid).exists())


def test_a_shorter_grace_period_counts_even_when_the_stop_has_begun(api, ours):
    ours(
        pod(
            "stubborn",
            container("trap '' TERM; while :; do sleep 1; done"),
            terminationGracePeriodSeconds=600,
        )
    )
    api.delete(pod_path("stubborn"))
    api.until_event("stubborn", "Normal Killing")
    api.delete(pod_path("stubborn"), gracePeriodSeconds=1)

    until(lambda: api.is_gone(pod_path("stubborn")), within_s=30)


def test_sidecars_stop_after_the_others_in_reverse_order(api, ours, tmp_path):
    tmp_path.chmod(0o777)

    def told(name: str, **more):
        script = f"trap 'sleep 0.2; echo {name} >> /host/order; exit 0' TERM; sleep 3600 & wait"
        return container(script, name, volumeMounts=mounts(host="/host"), **more)

    ours(
        pod(
            "ordered",
            told("main"),
            initContainers=[
                told("first", restartPolicy="Always"),
                told("second", restartPolicy="Always"),
            ],
            volumes=[{"name": "host", "hostPath": {"path": str(tmp_path)}}],
            terminationGracePeriodSeconds=30,
        )
    )
    api.delete(pod_path("ordered"))
    until(lambda: api.is_gone(pod_path("ordered")))

    assert (tmp_path / "order").read_text().split() == ["main", "second", "first"]


# --- what changes while a Pod runs


def test_an_ephemeral_container_joins_and_is_never_restarted(api, ours):
    ours(pod("host-of-one"))
    guest = {
        **container("echo looked; exit 3", "guest"),
        "targetContainerName": "main",
    }

    api.patch(
        pod_path("host-of-one") + "/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [guest]}},
        kind=STRATEGIC,
    )
    seen = api.until_pod(
        "host-of-one", lambda p: state_of(p, "guest") == "terminated Error 3"
    )

    assert is_ready(seen)
    assert api.log("host-of-one", container="guest") == "looked\n"
    assert statuses(seen)["guest"]["restartCount"] == 0


def test_a_changed_config_map_is_seen_inside_but_not_by_sub_path(api, ours, sh):
    api.create(config_map("live", word="old"))
    ours(
        pod(
            "reads",
            container(
                volumeMounts=[
                    *mounts(live="/live"),
                    {"name": "live", "mountPath": "/fixed", "subPath": "word"},
                ]
            ),
            volumes=[{"name": "live", "configMap": {"name": "live"}}],
        )
    )
    api.patch(
        "/api/v1/namespaces/default/configmaps/live",
        {"data": {"word": "new", "more": "1"}},
    )

    until(lambda: sh("reads", "cat /live/word") == "new", within_s=100)
    assert sh("reads", "ls /live").split() == ["more", "word"]
    assert sh("reads", "cat /fixed") == "old"
    api.delete("/api/v1/namespaces/default/configmaps/live")


def test_a_changed_label_is_seen_in_a_downward_volume(api, ours, sh):
    ours(
        pod(
            "labelled",
            container(volumeMounts=mounts(about="/about")),
            labels={"colour": "red"},
            volumes=[
                {
                    "name": "about",
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "labels",
                                "fieldRef": {"fieldPath": "metadata.labels"},
                            }
                        ]
                    },
                }
            ],
        )
    )
    api.patch(pod_path("labelled"), {"metadata": {"labels": {"colour": "blue"}}})

    until(lambda: sh("labelled", "cat /about/labels") == 'colour="blue"', within_s=100)


def test_a_new_image_restarts_only_its_container(api, ours):
    before = ours(pod("renewed", container(), container(SLEEP, "other")))

    api.patch(
        pod_path("renewed"),
        {"spec": {"containers": [{"name": "main", "image": "podyard.local/absent:2"}]}},
        kind=STRATEGIC,
    )
    api.until_event("renewed", "Normal Killing Container main definition changed")
    api.patch(
        pod_path("renewed"),
        {"spec": {"containers": [{"name": "main", "image": IMAGE}]}},
        kind=STRATEGIC,
    )
    after = api.until_pod(
        "renewed", lambda p: is_ready(p) and statuses(p)["main"]["restartCount"] == 1
    )

    assert (
        statuses(after)["other"]["containerID"]
        == statuses(before)["other"]["containerID"]
    )
    assert after["status"]["podIP"] == before["status"]["podIP"]


# --- networks


def test_pods_reach_each_other_the_node_and_their_own_host_port(
    api, ours, sh, instance
):
    serve = "mkdir /www; echo page > /www/index.html; httpd -f -p 80 -h /www"
    served = ours(
        pod(
            "serves",
            container(serve, ports=[{"containerPort": 80, "hostPort": 38080}]),
            terminationGracePeriodSeconds=1,
        )
    )
    ours(pod("asks-around"))
    ip, host_ip = served["status"]["podIP"], served["status"]["hostIP"]

    assert sh("asks-around", f"timeout 10 wget -qO- http://{ip}/") == "page\n"
    assert (
        sh("asks-around", f"timeout 10 wget -qO- http://{host_ip}:38080/") == "page\n"
    )
    for where in (f"{ip}:80", f"{host_ip}:38080", "127.0.0.1:38080"):
        with urllib.request.urlopen(f"http://{where}/", timeout=10) as page:
            assert page.read() == b"page\n"
    assert sh("serves", f"timeout 10 wget -qO- http://{ip}/") == "page\n"


def test_a_pod_on_the_hosts_network_has_its_address_and_name(api, ours, sh):
    seen = ours(
        pod(
            "on-host",
            container(),
            hostNetwork=True,
            hostPID=True,
            hostIPC=True,
            dnsPolicy="Default",
        )
    )
    node = api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]

    assert seen["status"]["podIP"] == seen["status"]["hostIP"]
    assert sh("on-host", "hostname").strip() == node
    assert "host network" in sh("on-host", "head -1 /etc/hosts")
    assert int(sh("on-host", "echo $$")) != 1
    assert "python" in sh("on-host", "ps -o args").lower()


#: A program in a Pod, with what every Pod is given: variables and mounted files.
ASK = """
import json, os, ssl, sys, urllib.error, urllib.request
ca, token = sys.argv[1:3]
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
tls = ssl.create_default_context(cadata=ca)
for path, body in json.loads(sys.argv[3]):
    request = urllib.request.Request(
        f"https://{host}:{port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, context=tls, timeout=20) as answer:
            print(json.dumps([answer.status, json.load(answer)]))
    except urllib.error.HTTPError as error:
        print(json.dumps([error.code, json.load(error)]))
"""


def test_a_pod_reaches_the_api_as_its_service_account_and_may_do_nothing_there(
    api, ours
):
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    questions = [
        ("/api/v1/namespaces/default/secrets", None),
        ("/version", None),
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews", review),
    ]
    # The demo image has no program for today's TLS; the host's Python has.
    own = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f'chroot /host "$PYTHON" -c "$ASK" '
        f'"$(cat {own}/ca.crt)" "$(cat {own}/token)" "$QUESTIONS"'
    )
    ours(
        pod(
            "asks-the-api",
            container(
                script,
                env=[
                    {"name": "PYTHON", "value": sys.executable},
                    {"name": "ASK", "value": ASK},
                    {"name": "QUESTIONS", "value": json.dumps(questions)},
                ],
                volumeMounts=mounts(host="/host"),
            ),
            restartPolicy="Never",
            volumes=[{"name": "host", "hostPath": {"path": "/"}}],
        ),
        ready=False,
    )
    api.until_pod("asks-the-api", has_ended)

    log = api.log("asks-the-api")
    answers = [json.loads(line) for line in log.splitlines() if line[:1] == "["]
    assert [code for code, _ in answers] == [403, 200, 201], log
    (_, refusal), (_, version), (_, reviewed) = answers
    user = reviewed["status"]["userInfo"]
    assert 'cannot list resource "secrets"' in refusal["message"]
    assert version["gitVersion"].startswith("v1.36")
    assert user["username"] == "system:serviceaccount:default:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["asks-the-api"]


def test_a_mounted_token_is_good_for_the_api_until_its_pod_is_gone(
    api, ours, sh, instance
):
    ours(pod("lends"))
    token = sh("lends", "cat /var/run/secrets/kubernetes.io/serviceaccount/token")
    namespace_file = sh(
        "lends", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"
    )

    with contextlib.closing(Api(instance.kubeconfig, token=token)) as borrowed:
        assert borrowed.ask("GET", "/version").status == 200
        forbidden = borrowed.ask("GET", "/api/v1/pods")
        api.delete(pod_path("lends"), gracePeriodSeconds=0)
        until(lambda: borrowed.ask("GET", "/version").status == 401)

    assert namespace_file == "default"
    assert forbidden.status == 403
    assert "system:serviceaccount:default:default" in forbidden.document["message"]


# --- the other houses


def test_a_pod_that_fits_nowhere_is_placed_once_a_node_is_labelled(api, ours):
    name = api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    ours(pod("choosy", nodeSelector={"colour": "red"}), ready=False)
    unschedulable = "False Unschedulable"
    api.until_pod("choosy", lambda p: condition(p, "PodScheduled") == unschedulable)
    told = api.until_event("choosy", "Warning FailedScheduling")

    api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"colour": "red"}}})
    api.until_pod("choosy", is_ready)
    api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"colour": None}}})

    assert (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        in told
    )


def test_a_namespace_goes_with_all_that_is_in_it(api):
    api.create(namespace("short-lived"))
    until(
        lambda: (
            api.ask("GET", f"{NAMESPACES}/short-lived/serviceaccounts/default").status
            == 200
        )
    )
    api.create(
        pod("inside", namespace="short-lived"), config_map("inside", "short-lived")
    )
    api.until_pod("inside", is_ready, namespace="short-lived")

    api.delete(f"{NAMESPACES}/short-lived")
    refused = api.ask(
        "POST",
        f"{NAMESPACES}/short-lived/configmaps",
        config_map("late", "short-lived"),
    )
    until(lambda: api.is_gone(f"{NAMESPACES}/short-lived"))

    assert refused.status in {403, 404}
    assert api.is_gone(pod_path("inside", "short-lived"))
    assert api.is_gone(f"{NAMESPACES}/short-lived/configmaps/inside")


def test_what_an_object_owns_goes_with_it(api):
    owner = api.create(config_map("owner"))
    owned = pod("owned")
    owned["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
    ]
    api.create(owned)
    api.until_pod("owned", is_ready)

    api.delete(f"{NAMESPACES}/default/configmaps/owner")

    until(lambda: api.is_gone(pod_path("owned")))


def test_a_pod_of_an_unknown_runtime_class_is_refused(api):
    answer = api.ask(
        "POST", f"{NAMESPACES}/default/pods", pod("x", runtimeClassName="none")
    )

    assert answer.status == 403
    assert 'pod rejected: RuntimeClass "none" not found' in answer.document["message"]


def test_a_runtime_class_chooses_the_handler_and_adds_its_overhead(api, ours, sh):
    api.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "second"},
            "handler": "second",
            "overhead": {"podFixed": {"memory": "8Mi"}},
        }
    )
    node = api.must("GET", "/api/v1/nodes")["items"][0]
    try:
        seen = ours(pod("elsewhere", runtimeClassName="second"))
        assert seen["spec"]["overhead"] == {"memory": "8Mi"}
        assert sh("elsewhere", "echo here") == "here\n"
        assert "second" in {
            entry["name"] for entry in node["status"]["runtimeHandlers"]
        }
    finally:
        api.delete("/apis/node.k8s.io/v1/runtimeclasses/second")


def test_crun_runs_pods_where_it_is_installed(api, ours, sh):
    if find_program("crun") is None:
        pytest.skip("needs crun")
    api.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "crun"},
            "handler": "crun",
        }
    )
    try:
        ours(pod("by-crun", runtimeClassName="crun"))
        assert sh("by-crun", "echo here") == "here\n"
    finally:
        api.delete("/apis/node.k8s.io/v1/runtimeclasses/crun")


def test_a_class_whose_handler_is_missing_ends_its_pod_with_an_event(api, ours):
    api.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "nowhere"},
            "handler": "no-such-handler",
        }
    )
    try:
        ours(pod("unhandled", runtimeClassName="nowhere"), ready=False)
        api.until_pod("unhandled", lambda p: phase(p) == "Failed")
        assert any("no-such-handler" in event for event in api.events("unhandled"))
    finally:
        api.delete("/apis/node.k8s.io/v1/runtimeclasses/nowhere")


# --- static Pods


def test_a_static_pod_runs_beside_a_broken_manifest_and_has_a_mirror(api, static_dir):
    node = api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    mirror = f"still-{node}"
    (static_dir / "broken.yaml").write_text("kind: [Pod")
    (static_dir / "invalid.json").write_text(json.dumps(pod("Bad_Name")))
    (static_dir / "still.yaml").write_text(
        yaml.safe_dump(pod("still", container(f"echo one; {SLEEP}")))
    )

    first = until(
        lambda: (a := api.ask("GET", pod_path(mirror))).status == 200 and a.document
    )
    api.until_log(mirror, "one")
    (static_dir / "still.yaml").write_text(
        yaml.safe_dump(pod("still", container(f"echo two; {SLEEP}")))
    )
    api.until_log(mirror, "two")
    api.delete(pod_path(mirror))
    back = until(
        lambda: (a := api.ask("GET", pod_path(mirror))).status == 200 and a.document
    )
    for file in static_dir.iterdir():
        file.unlink()
    until(lambda: api.is_gone(pod_path(mirror)))

    assert first["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    assert first["metadata"]["annotations"]["kubernetes.io/config.mirror"]
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Node"
    assert back["spec"]["nodeName"] == node


# --- the node


def test_the_node_tells_what_it_is_and_keeps_its_lease(api):
    node = api.must("GET", "/api/v1/nodes")["items"][0]
    name = node["metadata"]["name"]
    lease = api.must(
        "GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
    )

    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
    }
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= set(
        node["status"]["capacity"]
    )
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith(
        "containerd://"
    )
    assert {a["type"] for a in node["status"]["addresses"]} >= {
        "InternalIP",
        "Hostname",
    }
    assert lease["spec"]["holderIdentity"] == name
    assert datetime.fromisoformat(lease["spec"]["renewTime"])


@pytest.mark.parametrize("path", ["metrics", "stats/summary", "pods", "healthz"])
def test_the_nodes_own_endpoints_are_reached_through_the_api(api, path):
    name = api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]

    assert api.ask("GET", f"/api/v1/nodes/{name}/proxy/{path}").status == 200
