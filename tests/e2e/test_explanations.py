"""``podyard explain``, ``hooks`` and ``runtime`` about real Pods; no secret gets out."""

import base64
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.api.documents import Document
from support.api import Api, is_ready, pod_path, until
from support.instance import RunningPodyard
from support.manifests import config_map, container, namespace, pod, secret

CANARY = "canary-6c1f-of-a-secret"
LOGIN = "canary-0b9e-of-a-login"
NUMBERS = itertools.count(1)
#: Says nothing of its variables, and does not go when it is asked to.
STUBBORN = "trap '' TERM; while :; do sleep 1; done"


@dataclass(frozen=True)
class Desk:
    """Somebody at the command line, in a namespace of their own."""

    api: Api
    instance: RunningPodyard
    namespace: str

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command on a Pod of the namespace; return what it prints."""
        done = self.instance.cli(*words, "-n", self.namespace, check=check)
        return done.stdout + ("" if check else done.stderr)

    def json(self, *words: str) -> Document:
        return json.loads(self.run(*words, "-o", "json"))

    def start(self, document: Document) -> None:
        """Create a Pod and wait until it is Ready."""
        self.api.create(document, namespace=self.namespace)
        self.api.until_pod(
            document["metadata"]["name"], is_ready, namespace=self.namespace
        )

    def end(self, name: str) -> None:
        """Delete a Pod and wait until it is gone."""
        path = pod_path(name, self.namespace)
        self.api.delete(path)
        until(lambda: self.api.is_gone(path), within_s=60)


@pytest.fixture
def desk(api: Api, instance: RunningPodyard) -> Desk:
    name = f"explained-{next(NUMBERS)}"
    api.create(namespace(name))
    path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until(lambda: api.ask("GET", path).status == 200)
    return Desk(api, instance, name)


def stop_of(desk: Desk, name: str) -> Document:
    """Return a stop once it is written down, which is after the Pod is gone."""

    def look() -> Document | None:
        stops = desk.json("explain", "stop", name)["stops"]
        return stops[0] if stops and "tookSeconds" in stops[0] else None

    return until(look, within_s=10)


def exec_hook(script: str) -> Document:
    return {"exec": {"command": ["sh", "-c", script]}}


def test_a_stop_is_a_timeline_also_when_the_pod_is_gone(desk: Desk):
    hooks = {"preStop": exec_hook("sleep 2")}
    document = pod(
        "slow",
        container(STUBBORN, lifecycle=hooks),
        namespace=desk.namespace,
        terminationGracePeriodSeconds=4,
    )
    desk.start(document)
    desk.end("slow")

    stop = stop_of(desk, "slow")
    text = desk.run("explain", "stop", "slow")

    assert (stop["hook"], stop["endedBy"]) == ("delivered", "SIGKILL")
    assert 2 <= stop["hookSeconds"] <= 3.5
    assert 0.5 <= stop["termSeconds"] <= 2.5
    assert stop["tookSeconds"] <= 6.5
    assert "PreStop  |####" in text
    assert "ended by SIGKILL" in text
    assert "gone; only records are left" in desk.run("explain", "pod", "slow")


def test_a_hook_that_uses_up_the_grace_is_an_event(desk: Desk):
    hooks = {"preStop": exec_hook("sleep 30")}
    desk.start(pod("greedy", container(lifecycle=hooks), namespace=desk.namespace))
    desk.end("greedy")

    stop = stop_of(desk, "greedy")

    assert (stop["hook"], stop["hookUsedGrace"]) == ("cut", True)
    event = "Warning PreStopHookUsedGracePeriod PreStop hook was cut off after"
    desk.api.until_event("greedy", event, namespace=desk.namespace)
    assert "the hook used it up" in desk.run("explain", "stop", "greedy")


def test_hooks_are_listed_with_their_output_and_know_their_delivery(desk: Desk):
    hooks = {"postStart": exec_hook('echo "I am $0, attempt $1"; echo oh >&2')}
    document = pod(
        "hooked",
        container(lifecycle=hooks),
        namespace=desk.namespace,
        annotations={"podyard.dev/hook-delivery": "arguments"},
    )
    desk.start(document)

    (hook,) = desk.json("hooks", "hooked")
    logs = desk.run("hooks", "hooked", "--logs")

    assert (hook["hook"], hook["result"], hook["attempt"]) == (
        "PostStart",
        "succeeded",
        1,
    )
    assert f"I am {hook['deliveryID']}, attempt 1" in logs
    assert "--- PostStart, attempt 1: exit code 0" in logs
    assert logs.rstrip().endswith(" oh")
    assert "PostStart   exec" in desk.run("hooks", "hooked")


def test_a_failed_hook_is_told_without_its_output_which_is_in_the_log(desk: Desk):
    hooks = {"postStart": exec_hook("echo all is lost; exit 3")}
    document = pod("broken", container(lifecycle=hooks), namespace=desk.namespace)
    desk.api.create(document, namespace=desk.namespace)
    desk.api.until_event(
        "broken", "Warning FailedPostStartHook", namespace=desk.namespace
    )

    hook = until(lambda: next(iter(desk.json("hooks", "broken")), None))

    assert (hook["result"], hook["error"]) == ("failed", "the command exited with 3")
    assert "all is lost" not in json.dumps(desk.json("explain", "pod", "broken"))
    assert "all is lost" in desk.run("hooks", "broken", "--logs")


def test_variables_name_their_sources(desk: Desk):
    desk.api.create(config_map("cm", desk.namespace, A="from the map", ONLY="1"))
    desk.api.create(secret("s", desk.namespace, word=CANARY))
    variables = [
        {"name": "A", "value": "own"},
        {
            "name": "WORD",
            "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}},
        },
        {"name": "TAKEN", "value": "<$(WORD)>"},
        {"name": "PATH", "value": "/bin"},
    ]
    document = pod(
        "env",
        container(env=variables, envFrom=[{"configMapRef": {"name": "cm"}}]),
        namespace=desk.namespace,
    )
    desk.start(document)

    text = desk.run("explain", "env", "env")
    (told,) = desk.json("explain", "env", "env", "--show-secrets")["environment"]
    shown = {one["name"]: one for one in told["variables"]}

    lines = {line.split(" ")[0]: " ".join(line.split()) for line in text.splitlines()}
    assert lines["A"] == "A own env envFrom, ConfigMap cm"
    assert lines["WORD"] == "WORD (hidden: Secret s) env, Secret s key word"
    assert lines["TAKEN"] == "TAKEN (hidden: Secret s) env, with WORD"
    assert lines["PATH"] == "PATH /bin env image"
    assert CANARY not in text
    assert shown["TAKEN"]["value"] == f"<{CANARY}>"


def test_a_failed_pull_tells_what_was_tried_and_when_it_is_tried_again(desk: Desk):
    auth = {"auths": {"127.0.0.1:9": {"username": "u", "password": LOGIN}}}
    near = {"auths": {"127.0.0.1:9/other": {"username": "u", "password": LOGIN}}}
    for name, content in (("login", auth), ("near", near)):
        raw = base64.b64encode(json.dumps(content).encode()).decode()
        login = secret(name, desk.namespace) | {
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": raw},
        }
        login.pop("stringData")
        desk.api.create(login)
    document = pod(
        "puller",
        container() | {"image": "127.0.0.1:9/team/app:1", "imagePullPolicy": "Always"},
        namespace=desk.namespace,
        imagePullSecrets=[{"name": "login"}, {"name": "near"}],
    )
    desk.api.create(document, namespace=desk.namespace)
    desk.api.until_event("puller", "Warning Failed", namespace=desk.namespace)

    def look() -> Document | None:
        pulls = desk.json("explain", "pull", "puller")["pulls"]
        return pulls[0] if pulls and pulls[0].get("result") else None

    pull = until(look)
    text = desk.run("explain", "pull", "puller")

    assert pull["result"] == "ErrImagePull"
    assert pull["retryInSeconds"] == 10
    assert [(c["origin"], c["match"]) for c in pull["candidates"]] == [
        ('imagePullSecret "login"', "match"),
        ('imagePullSecret "near"', "near"),
    ]
    assert "policy      Always is set in the Pod" in text
    assert 'tried 1     imagePullSecret "login", key "127.0.0.1:9"' in text
    assert 'not tried   imagePullSecret "near"' in text
    assert "next retry" in text


def test_a_schedule_tells_the_class_from_the_pod(desk: Desk):
    api = desk.api
    name = f"class-of-{desk.namespace}"
    api.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name},
            "handler": "runc",
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"kind": "special"}},
        }
    )
    document = pod(
        "nowhere",
        namespace=desk.namespace,
        runtimeClassName=name,
        nodeSelector={"kubernetes.io/os": "linux"},
    )
    api.create(document, namespace=desk.namespace)

    text = desk.run("explain", "schedule", "nowhere")
    found = desk.json("explain", "schedule", "nowhere")
    handlers = json.loads(desk.instance.cli("runtime", "ls", "-o", "json").stdout)

    api.delete(f"/apis/node.k8s.io/v1/runtimeclasses/{name}")
    sources = {one["text"]: one["from"] for one in found["constraints"]}
    assert sources["kind=special"].startswith(f"RuntimeClass {name}")
    assert sources["kubernetes.io/os=linux"] == "the Pod"
    assert found["requests"]["overhead"] == {"cpu": "10m"}
    assert "it has no label kind (wanted: special)" in text
    (runc,) = (one for one in handlers if one["handler"] == "runc")
    assert runc["runtimeClasses"] == [name]
    assert set(runc["nodes"].values()) == {"accepts"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        pytest.param(
            ("explain", "pod", "none"), 1, "nothing is known of", id="no-such-pod"
        ),
        pytest.param(("explain", "schedule", "none"), 1, "not found", id="not-found"),
        pytest.param(("hooks", "none", "--logs"), 1, "not found", id="no-such-log"),
        pytest.param(
            ("hooks", "none", "--logs", "-o", "json"), 2, "not as JSON", id="usage"
        ),
    ],
)
def test_what_is_not_there_is_said_so(desk: Desk, words, code, text):
    done = desk.instance.cli(*words, check=False)

    assert done.returncode == code
    assert text in done.stderr


def test_the_settings_of_other_runtimes_are_printed(tmp_path: Path, desk: Desk):
    config = tmp_path / "config.yaml"
    config.write_text("runtimes: [{name: gvisor, type: io.containerd.runsc.v1}]\n")

    done = desk.instance.cli(
        "runtime", "config", "--for", "containerd", "--config", str(config)
    )
    none = desk.instance.cli("runtime", "config", "--for", "crio", check=False)

    assert 'runtime_type = "io.containerd.runsc.v1"' in done.stdout
    assert none.returncode == 1


def test_no_secret_is_in_any_record_event_log_or_explanation(desk: Desk):
    desk.api.create(secret("s", desk.namespace, word=CANARY, OTHER=CANARY))
    raw = json.dumps({"auths": {"127.0.0.1:9": {"username": LOGIN, "password": LOGIN}}})
    login = secret("login", desk.namespace) | {
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": raw},
    }
    desk.api.create(login)
    reference = {"secretKeyRef": {"name": "s", "key": "word"}}
    full = container(
        STUBBORN,
        env=[
            {"name": "WORD", "valueFrom": reference},
            {"name": "URL", "value": "pg://u:$(WORD)@db"},
        ],
        envFrom=[{"secretRef": {"name": "s"}}],
        lifecycle={
            "postStart": exec_hook('test -n "$WORD"'),
            "preStop": exec_hook('test -n "$WORD"; exit 4'),
        },
        livenessProbe={"exec": {"command": ["true"]}, "periodSeconds": 1},
    )
    bad = container(name="bad") | {"image": "127.0.0.1:9/no:1"}
    document = pod(
        "full",
        full,
        bad,
        namespace=desk.namespace,
        imagePullSecrets=[{"name": "login"}],
    )
    desk.api.create(document, namespace=desk.namespace)
    desk.api.until_event("full", "Warning Failed", namespace=desk.namespace)
    desk.api.until_event("full", "Normal Started", namespace=desk.namespace)

    said = [desk.run("explain", what, "full") for what in ("pull", "env", "pod")]
    said += [desk.run("explain", what, "full", "-o", "json") for what in ("env", "pod")]
    said += [desk.run("explain", "schedule", "full", "-o", "json")]
    said += [desk.run("hooks", "full"), desk.run("hooks", "full", "--logs")]
    desk.end("full")
    stop_of(desk, "full")
    said += [
        desk.run("explain", what, "full", "-o", "json") for what in ("stop", "pod")
    ]
    said += desk.api.events("full", desk.namespace)
    data_dir = desk.instance.data_dir
    kept = [*data_dir.glob("journal.db*"), *data_dir.glob("*.log")]
    kept += [path for path in (data_dir / "logs").rglob("*") if path.is_file()]

    assert any("PreStop" in text for text in said)
    for text in said:
        assert CANARY not in text
        assert LOGIN not in text
    for path in kept:
        content = path.read_bytes()
        assert CANARY.encode() not in content, path
        assert LOGIN.encode() not in content, path
