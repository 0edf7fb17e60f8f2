"""The first walk, with every kubectl there is.

All versions do what needs a stream; the oldest, one in the middle and the newest do
all the rest as well.
"""

import hashlib
import json
import os
import re
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from support.api import until
from support.kubectl import ROOT, Kubectl, find_kubectls
from support.manifests import SLEEP, config_map, container, pod
from support.terminal import Running, running

KUBECTLS = find_kubectls()
ENDS = {kubectl.version for kubectl in (*KUBECTLS[:1], *KUBECTLS[-1:])}
FULL = [kubectl for kubectl in KUBECTLS if kubectl.version in ENDS | {(1, 27)}]

#: Serves a page, says something every so often, and ends when told to.
MAIN = """
trap 'exit 0' TERM
mkdir /www && echo 'a page' > /www/index.html && httpd -p 8080 -h /www
echo started
i=0
while :; do i=$((i+1)); echo "tick $i"; sleep 1 & wait $!; done
"""
#: Says what it is told.
ECHO = 'while read -r line; do echo "got $line"; done; sleep 3600'
#: Fails the first time.
TWICE = f"""
if [ -e /mark/1 ]; then echo 'second life'; {SLEEP}; fi
echo 'first life'; touch /mark/1; exit 3
"""


@dataclass(frozen=True)
class Walk:
    """One kubectl in a namespace of its own, where the Pod ``walker`` runs."""

    kubectl: Kubectl
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, **options):
        return self.kubectl.run(
            self.kubeconfig, "-n", self.namespace, *arguments, **options
        )

    def text(self, *arguments: str, **options) -> str:
        return self.run(*arguments, **options).stdout.decode()

    def json(self, *arguments: str):
        return json.loads(self.text(*arguments, "-o", "json"))

    def start(
        self, *arguments: str, tty: bool = False
    ) -> AbstractContextManager[Running]:
        command = [self.kubectl.path, "-n", self.namespace, *arguments]
        return running(command, self.kubectl.environment(self.kubeconfig), tty=tty)


def walker(namespace: str):
    return pod(
        "walker",
        container(MAIN),
        container(ECHO, "echo", stdin=True),
        container(
            TWICE, "twice", volumeMounts=[{"name": "mark", "mountPath": "/mark"}]
        ),
        namespace=namespace,
        labels={"app": "walker"},
        volumes=[{"name": "mark", "emptyDir": {}}],
        terminationGracePeriodSeconds=1,
    )


@pytest.fixture(scope="module")
def walks(instance):
    """Makes a walk once for each kubectl."""
    made: dict[tuple[int, int], Walk] = {}

    def make(kubectl: Kubectl) -> Walk:
        if kubectl.version not in made:
            namespace = "walk-" + "-".join(map(str, kubectl.version))
            walk = Walk(kubectl, instance.kubeconfig, namespace)
            walk.run("create", "namespace", namespace)
            walk.run("apply", "-f", "-", input=json.dumps(walker(namespace)))
            walk.run("wait", "--for=condition=Ready", "pod/walker", "--timeout=60s")
            made[kubectl.version] = walk
        return made[kubectl.version]

    yield make
    for walk in made.values():
        walk.run("delete", "namespace", walk.namespace, "--wait=false")


@pytest.fixture(scope="module", params=KUBECTLS, ids=lambda kubectl: kubectl.id)
def any_walk(request, walks: Callable[[Kubectl], Walk]) -> Walk:
    return walks(request.param)


@pytest.fixture(scope="module", params=FULL, ids=lambda kubectl: kubectl.id)
def walk(request, walks: Callable[[Kubectl], Walk]) -> Walk:
    return walks(request.param)


def test_at_least_one_kubectl_is_exercised():
    assert KUBECTLS, "no kubectl was found; scripts/setup test unpacks one"


# --- streams, with every version


def test_exec_runs_a_command_and_shows_both_outputs(any_walk):
    done = any_walk.run("exec", "walker", "--", "sh", "-c", "echo out; echo err >&2")

    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr


def test_exec_ends_as_its_command_did(any_walk):
    done = any_walk.run("exec", "walker", "--", "sh", "-c", "exit 42", check=False)

    assert done.returncode == 42
    assert b"42" in done.stderr


def test_exec_reads_a_file_from_standard_input_to_its_end(any_walk):
    content = os.urandom(300_000)

    done = any_walk.run("exec", "-i", "walker", "--", "cat", input=content)

    assert done.stdout == content


def test_exec_in_a_terminal_has_its_size_and_hears_what_is_typed(any_walk):
    script = (
        'until [ "$(stty size)" = "37 101" ]; do sleep 0.05; done; '
        'tty; read -r word; echo "heard $word"; exit 3'
    )
    with any_walk.start(
        "exec", "-it", "walker", "--", "sh", "-c", script, tty=True
    ) as shell:
        shell.until("/dev/pts/")
        shell.type("hello\r")
        shell.until("heard hello")

        assert shell.wait() == 3


def test_cp_goes_both_ways_and_changes_no_byte(any_walk, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "there").write_bytes(content)

    any_walk.run("cp", str(tmp_path / "there"), "walker:/tmp/copied")
    inside = any_walk.text("exec", "walker", "--", "sha256sum", "/tmp/copied")
    any_walk.run("cp", "walker:/tmp/copied", str(tmp_path / "back"))

    assert inside.split()[0] == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "back").read_bytes() == content


def test_port_forward_carries_http_several_times(any_walk):
    with any_walk.start("port-forward", "pod/walker", ":8080") as forward:
        said = forward.until("Forwarding from 127.0.0.1:")
        said = forward.until("-> 8080")
        port = re.search(r"127\.0\.0\.1:(\d+)", said)[1]
        pages = []
        for _ in range(3):
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/", timeout=20
            ) as page:
                pages.append(page.read())

    assert pages == [b"a page\n"] * 3


def test_port_forward_to_a_closed_port_says_so_and_goes_on(any_walk):
    with any_walk.start("port-forward", "pod/walker", ":9999") as forward:
        said = forward.until("-> 9999")
        port = re.search(r"127\.0\.0\.1:(\d+)", said)[1]
        with pytest.raises(OSError, match=r"reset|closed|Remote|refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20)

        assert "refused" in forward.until("refused")


def test_attach_shows_what_is_said_from_then_on(any_walk):
    with any_walk.start("attach", "walker", "-c", "main") as attached:
        attached.until("tick ")


def test_attach_with_stdin_reaches_the_program(any_walk):
    word = f"word-{any_walk.kubectl.id}"
    with any_walk.start("attach", "-i", "walker", "-c", "echo", tty=True) as attached:
        attached.until("If you don't see")
        attached.type(f"{word}\n")
        attached.until(f"got {word}")


def test_logs_follow_while_the_program_speaks(any_walk):
    with any_walk.start("logs", "-f", "walker", "-c", "main", "--tail=1") as log:
        first = re.search(r"tick (\d+)", log.until("tick "))
        log.until(f"tick {int(first[1]) + 2}\n")


# --- the rest, with three versions


def test_apply_runs_the_examples_while_get_watches(walk):
    with walk.start("get", "pods", "-o", "wide", "-w") as watch:
        created = walk.text("apply", "-f", str(ROOT / "examples"))
        walk.run("wait", "--for=condition=Ready", "pod/hello", "--timeout=60s")
        watch.until("Running")
        seen = watch.said.decode()
    wide = walk.text("get", "pod", "hello", "-o", "wide")
    again = walk.text("apply", "-f", str(ROOT / "examples"))
    log = walk.text("logs", "hello")
    walk.run("delete", "-f", str(ROOT / "examples"))

    assert created == "pod/hello created\n"
    assert again == "pod/hello unchanged\n"
    assert re.search(r"hello +0/1 +(Pending|ContainerCreating)", seen)
    header, row = wide.splitlines()
    assert header.split()[:7] == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
    ]
    assert re.match(r"hello +1/1 +Running +0 +\d+s +\d+\.\d+\.\d+\.\d+ +\S+ ", row)
    assert log.startswith(f"Hello from hello, a Pod in {walk.namespace} on hello")
    assert walk.text("get", "pod", "hello", "--ignore-not-found") == ""


def test_describe_tells_the_story_of_a_pod(walk):
    said = walk.text("describe", "pod", "walker")

    for line in (
        r"Node: +\S+/\d",
        r"Status: +Running",
        r"IP: +\d+\.",
        r"Container ID: +containerd://[0-9a-f]{64}",
        r"Last State: +Terminated\n +Reason: +Error\n +Exit Code: +3",
        r"Restart Count: +1",
        r"Ready +True",
        r"QoS Class: +BestEffort",
        r"Normal +Scheduled .*default-scheduler +Successfully assigned",
        r"Normal +Pulled .*kubelet +Container image",
        r"Normal +Created .*kubelet",
        r"Normal +Started .*kubelet",
    ):
        assert re.search(line, said), f"{line}\n{said}"


def test_logs_show_what_is_asked_for(walk):
    logs = partial(walk.text, "logs", "walker")

    assert logs("-c", "main").startswith("started\ntick 1\n")
    assert logs("-c", "twice") == "second life\n"
    assert logs("-c", "twice", "--previous") == "first life\n"
    assert re.fullmatch(r"tick \d+\n", logs("-c", "main", "--tail=1"))
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z started\n",
        logs("-c", "main", "--timestamps"),
    )
    assert logs("-c", "main", "--limit-bytes=4") == "star"
    assert logs("-c", "main", "--since=1h").startswith("started\n")
    assert "second life\n" in logs("--all-containers")
    assert "second life\n" in walk.text("logs", "-l", "app=walker", "-c", "twice")


def test_logs_of_a_container_that_is_not_there_say_which_there_are(walk):
    done = walk.run("logs", "walker", "-c", "nobody", check=False)

    assert done.returncode == 1
    assert b"container nobody is not valid for pod walker" in done.stderr


def test_explain_prints_what_kubernetes_documents(walk):
    said = walk.text("explain", "pod.spec.containers.lifecycle")

    assert "postStart" in said
    assert "preStop" in said
    assert "Actions that the management system should take in response" in said


def test_create_makes_config_maps_secrets_and_namespaces(walk, tmp_path):
    (tmp_path / "file").write_bytes(b"\x00\xff binary")
    other = f"{walk.namespace}-more"
    walk.run(
        "create", "configmap", "made", "--from-literal=a=1", f"--from-file={tmp_path}"
    )
    walk.run("create", "secret", "generic", "made", "--from-literal=password=hidden")
    walk.run("create", "namespace", other)

    assert walk.json("get", "configmap", "made")["data"] == {"a": "1"}
    assert list(walk.json("get", "configmap", "made")["binaryData"]) == ["file"]
    assert "hidden" not in walk.text("describe", "secret", "made")
    assert walk.json("get", "secret", "made")["data"] == {"password": "aGlkZGVu"}
    walk.run("delete", "namespace", other)
    assert walk.text("get", "namespace", other, "--ignore-not-found") == ""


def test_label_annotate_and_patch_change_an_object_in_place(walk):
    walk.run("create", "configmap", "changing", "--from-literal=a=1")
    name = "configmap/changing"

    walk.run("label", name, "colour=red")
    refused = walk.run("label", name, "colour=blue", check=False)
    walk.run("label", name, "colour=green", "--overwrite")
    walk.run("annotate", name, "note=hello")
    walk.run("patch", name, "-p", '{"data":{"strategic":"1"}}')
    walk.run("patch", name, "--type=merge", "-p", '{"data":{"merge":"1","a":null}}')
    walk.run(
        "patch",
        name,
        "--type=json",
        "-p",
        '[{"op":"add","path":"/data/json","value":"1"}]',
    )

    assert refused.returncode == 1
    changed = walk.json("get", name)
    assert changed["metadata"]["labels"] == {"colour": "green"}
    assert changed["metadata"]["annotations"] == {"note": "hello"}
    assert changed["data"] == {"strategic": "1", "merge": "1", "json": "1"}
    assert "changing" in walk.text("get", "cm", "-l", "colour in (green)")
    assert walk.text("get", "cm", "-l", "colour=red") == ""


def test_edit_and_replace_store_what_the_editor_leaves(walk, tmp_path):
    walk.run("create", "configmap", "edited", "--from-literal=word=before")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nexec sed -i s/before/after/ "$1"\n')
    editor.chmod(0o755)

    walk.run("edit", "configmap", "edited", environment={"EDITOR": str(editor)})
    assert walk.json("get", "configmap", "edited")["data"] == {"word": "after"}

    document = yaml.safe_load(walk.text("get", "configmap", "edited", "-o", "yaml"))
    document["data"] = {"word": "replaced"}
    walk.run("replace", "-f", "-", input=json.dumps(document))
    assert walk.json("get", "configmap", "edited")["data"] == {"word": "replaced"}

    done = walk.run("replace", "-f", "-", input=json.dumps(document), check=False)
    assert b"the object has been modified" in done.stderr


def test_apply_changes_only_what_its_file_says(walk):
    one = config_map("applied", walk.namespace, kept="1", dropped="1")
    two = config_map("applied", walk.namespace, kept="1", added="1")
    walk.run("apply", "-f", "-", input=json.dumps(one))
    walk.run("patch", "cm/applied", "-p", '{"data":{"foreign":"1"}}')

    differing = walk.run("diff", "-f", "-", input=json.dumps(two), check=False)
    dry = walk.text("apply", "--dry-run=server", "-f", "-", input=json.dumps(two))
    untouched = walk.json("get", "cm", "applied")["data"]
    said = walk.text("apply", "-f", "-", input=json.dumps(two))
    same = walk.run("diff", "-f", "-", input=json.dumps(two), check=False)

    assert (differing.returncode, same.returncode) == (1, 0)
    assert b"+  added:" in differing.stdout
    assert "server dry run" in dry
    assert "added" not in untouched
    assert said == "configmap/applied configured\n"
    assert sorted(walk.json("get", "cm", "applied")["data"]) == [
        "added",
        "foreign",
        "kept",
    ]


def test_what_may_not_change_in_a_pod_is_refused_and_the_image_may(walk):
    document = pod("frozen", namespace=walk.namespace)
    walk.run("apply", "-f", "-", input=json.dumps(document))
    document["spec"]["hostname"] = "other"
    refused = walk.run("apply", "-f", "-", input=json.dumps(document), check=False)
    walk.run("delete", "pod", "frozen", "--grace-period=0", "--force")

    assert refused.returncode == 1
    assert b"pod updates may not change fields other than" in refused.stderr


def test_events_and_lists_of_everything_are_tables(walk):
    events = walk.text("get", "events", "--sort-by=.metadata.creationTimestamp")
    everything = walk.text("get", "all", "-A")

    assert re.search(r"Normal +Scheduled +pod/walker +Successfully assigned", events)
    assert re.search(rf"{walk.namespace} +pod/walker +3/3 +Running +1", everything)
    assert re.search(r"default +service/kubernetes +ClusterIP", everything)
    assert re.search(r"\S+ +Ready +", walk.text("get", "nodes"))
    assert "walker" in walk.text("get", "pods", "--field-selector=status.phase=Running")
    assert (
        walk.text("get", "pod", "walker", "-o", "jsonpath={.status.phase}") == "Running"
    )


def test_the_cluster_tells_about_itself(walk):
    assert "v1.36" in walk.text("version")
    assert "is running at" in walk.text("cluster-info")
    assert walk.text("auth", "can-i", "create", "pods") == "yes\n"
    account = "--as=system:serviceaccount:default:default"
    refused = walk.run("auth", "can-i", "create", "pods", account, check=False)
    assert refused.stdout == b"no\n"
    resources = walk.text("api-resources")
    for name in ("pods", "deployments", "runtimeclasses", "events"):
        assert re.search(rf"^{name} ", resources, re.MULTILINE)
    assert "v1\n" in walk.text("api-versions")
    assert "Ready" in walk.text("describe", "node")
    assert walk.text("get", "--raw", "/readyz") == "ok"


def test_reviews_are_made_from_files(walk):
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    }

    answer = walk.text(
        "create", "-f", "-", "-o", "jsonpath={.status}", input=json.dumps(review)
    )

    assert json.loads(answer) == {"allowed": True}


def test_run_with_stdin_shows_the_output_and_removes_the_pod(walk):
    with walk.start(
        "run", "passing", "--rm", "-it", "--restart=Never",
        "--image=podyard.local/busybox:1.35", "--image-pull-policy=IfNotPresent",
        "--", "sh", "-c", 'read -r word; echo "heard $word"',
        tty=True,
    ) as shell:  # fmt: skip
        # Whether the prompt is seen or not is a race that kubectl itself runs.
        shell.type("hello\r")
        shell.until("heard hello")
        shell.until("deleted")
        shell.wait()

    assert walk.text("get", "pod", "passing", "--ignore-not-found") == ""


def test_debug_adds_a_container_that_sees_the_others(walk):
    if walk.kubectl.version < (1, 23):
        pytest.skip("this kubectl adds ephemeral containers in a form of its own time")
    walk.run(
        "debug", "walker", "--image=podyard.local/busybox:1.35", "-c", "helper",
        "--image-pull-policy=IfNotPresent", "--target=main",
        "--", "sh", "-c", "ps -o args; sleep 3600",
    )  # fmt: skip

    def log() -> str:
        return walk.text("logs", "walker", "-c", "helper", check=False)

    assert "httpd -p 8080" in until(lambda: "ps -o args" in log() and log())


def test_delete_waits_until_the_pod_is_gone(walk):
    walk.run(
        "apply", "-f", "-", input=json.dumps(pod("going", namespace=walk.namespace))
    )
    walk.run("wait", "--for=condition=Ready", "pod/going", "--timeout=60s")

    said = walk.text("delete", "pod", "going")

    assert said.startswith('pod "going" deleted')
    assert b"NotFound" in walk.run("get", "pod", "going", check=False).stderr
    assert walk.text("delete", "pod", "going", "--ignore-not-found") == ""


def test_wait_for_delete_and_for_what_never_comes_ends_in_time(walk):
    done = walk.run(
        "wait", "--for=condition=Never", "pod/walker", "--timeout=1s", check=False
    )

    assert done.returncode == 1
    assert b"timed out" in done.stderr
