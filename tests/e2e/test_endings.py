"""Every way a container can be ended: which of them deliver PreStop, and which not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from podyard.api.documents import Document
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
from support.instance import RunningPodyard, running_podyard
from support.kubectl import find_kubectls
from support.manifests import SLEEP, container, pod

POLICY = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


class Marks:
    """What PreStop hooks leave behind: a file for each container that ran one."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def hooked(
        self,
        name: str,
        *,
        script: str = SLEEP,
        spec: Document | None = None,
        **c: object,
    ) -> Document:
        """Return a Pod whose hook leaves a mark."""
        hook = {"exec": {"command": ["sh", "-c", f"echo it >> /marks/{name}"]}}
        main = container(
            script,
            lifecycle={"preStop": hook},
            volumeMounts=[{"name": "marks", "mountPath": "/marks"}],
            **c,
        )
        marks = {"name": "marks", "hostPath": {"path": str(self.home)}}
        return pod(
            name,
            main,
            labels={"app": name},
            **{"volumes": [marks], "terminationGracePeriodSeconds": 3, **(spec or {})},
        )

    def count(self, name: str) -> int:
        file = self.home / name
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> Marks:
    return Marks(tmp_path_factory.mktemp("marks"))


@pytest.fixture
def start(api: Api):
    """Creates Pods, waits until they are Ready, and removes them at the end."""
    names: list[str] = []

    def make(document: Document, *, ready: bool = True) -> Document:
        name = document["metadata"]["name"]
        names.append(name)
        made = api.create(document)
        return api.until_pod(name, is_ready) if ready else made

    yield make
    for name in names:
        api.delete(pod_path(name), gracePeriodSeconds=0)


def until_gone(api: Api, name: str) -> None:
    until(lambda: api.is_gone(pod_path(name)))


# --- ways that deliver it


def test_a_delete_runs_it(api: Api, marks: Marks, start: Callable) -> None:
    start(marks.hooked("deleted"))

    api.delete(pod_path("deleted"))

    until_gone(api, "deleted")
    assert marks.count("deleted") == 1


def test_a_forced_delete_leaves_it_a_second(
    api: Api, marks: Marks, start: Callable
) -> None:
    start(marks.hooked("forced"))

    api.delete(pod_path("forced"), gracePeriodSeconds=0)

    assert api.is_gone(pod_path("forced"))
    until(lambda: marks.count("forced"))


def test_an_eviction_runs_it_once_the_budget_allows(
    api: Api, marks: Marks, start: Callable
) -> None:
    start(marks.hooked("evicted"))
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "evicted"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "evicted"}}},
    }
    api.must("POST", POLICY, budget)
    until(
        lambda: (
            api.must("GET", f"{POLICY}/evicted").get("status", {}).get("currentHealthy")
        )
    )
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "evicted"},
    }
    path = pod_path("evicted") + "/eviction"

    refused = api.ask("POST", path, eviction)
    api.delete(f"{POLICY}/evicted")
    api.must("POST", path, eviction)

    assert refused.status == 429
    assert refused.document["details"]["causes"][0]["message"] == (
        "The disruption budget evicted needs 1 healthy pods and has 1 currently"
    )
    assert condition(api.pod("evicted"), "DisruptionTarget") == (
        "True EvictionByEvictionAPI"
    )
    until_gone(api, "evicted")
    assert marks.count("evicted") == 1


def test_preemption_runs_it(api: Api, marks: Marks, start: Callable) -> None:
    for name, value in (("low", 1), ("high", 1000)):
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )
    ports = [{"containerPort": 1, "hostPort": 39871}]
    start(marks.hooked("preempted", spec={"priorityClassName": "low"}, ports=ports))

    start(pod("preempting", container(ports=ports), priorityClassName="high"))

    event = api.until_event("preempted", "Normal Preempted")
    assert event.startswith("Normal Preempted Preempted by pod ")
    assert marks.count("preempted") == 1
    assert api.is_gone(pod_path("preempted"))
    for name in ("low", "high"):
        api.delete(f"{CLASSES}/{name}")


def test_a_critical_pod_given_to_the_node_runs_it(
    api: Api, marks: Marks, start: Callable
) -> None:
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    cores = int(node["status"]["allocatable"]["cpu"])
    resources = {"requests": {"cpu": f"{cores * 700}m"}}
    start(marks.hooked("displaced", resources=resources))
    document = pod("critical", container(resources=resources))
    document["spec"] |= {
        "nodeName": node["metadata"]["name"],
        "priorityClassName": "system-node-critical",
    }

    start(document)

    ended = api.pod("displaced")["status"]
    message = "Preempted in order to admit critical pod"
    assert (ended["phase"], ended["reason"], ended["message"]) == (
        "Failed",
        "Preempting",
        message,
    )
    assert api.until_event("displaced", "Warning Preempting").endswith(message)
    assert marks.count("displaced") == 1


def probe(script: str) -> Document:
    return {
        "exec": {"command": ["sh", "-c", script]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }


@pytest.mark.parametrize("kind", ["livenessProbe", "startupProbe"])
def test_a_failed_probe_runs_it(
    api: Api, marks: Marks, start: Callable, kind: str
) -> None:
    name = f"failed-{kind.lower()}"
    start(marks.hooked(name, **{kind: probe("false")}), ready=False)

    api.until_pod(name, lambda p: statuses(p).get("main", {}).get("restartCount"))

    assert marks.count(name) >= 1


def test_a_failed_post_start_runs_it(api: Api, marks: Marks, start: Callable) -> None:
    document = marks.hooked("false-start", spec={"restartPolicy": "Never"})
    failing = {"exec": {"command": ["sh", "-c", "echo told; exit 3"]}}
    document["spec"]["containers"][0]["lifecycle"]["postStart"] = failing
    start(document, ready=False)

    api.until_pod("false-start", has_ended)

    assert marks.count("false-start") == 1
    assert "Warning FailedPostStartHook PostStartHook failed" in (
        api.events("false-start")
    )
    assert "Normal Killing FailedPostStartHook" in api.events("false-start")


def test_a_sidecar_that_outlives_the_others_runs_it(
    api: Api, marks: Marks, start: Callable
) -> None:
    document = marks.hooked("sidecar", spec={"restartPolicy": "Never"})
    proxy = document["spec"]["containers"].pop()
    document["spec"]["initContainers"] = [
        {**proxy, "name": "proxy", "restartPolicy": "Always"}
    ]
    document["spec"]["containers"] = [container("sleep 1")]
    start(document, ready=False)

    ended = api.until_pod("sidecar", has_ended)

    assert phase(ended) == "Succeeded"
    assert marks.count("sidecar") == 1


def test_a_sandbox_that_died_is_replaced_and_its_containers_run_it(
    api: Api, marks: Marks, start: Callable
) -> None:
    made = start(marks.hooked("resandboxed"))
    uid = made["metadata"]["uid"]
    (pause,) = (
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and _is_pause_of(process, uid)
    )

    os.kill(pause, signal.SIGKILL)

    api.until_pod(
        "resandboxed",
        lambda p: is_ready(p) and statuses(p)["main"]["restartCount"] == 1,
    )
    assert marks.count("resandboxed") == 1


def _is_pause_of(process: Path, uid: str) -> bool:
    try:
        return (
            f"pod{uid}" in (process / "cgroup").read_text()
            and (process / "comm").read_text().strip() == "catatonit"
        )
    except OSError:  # it has ended meanwhile
        return False


def test_a_deadline_runs_it(api: Api, marks: Marks, start: Callable) -> None:
    start(marks.hooked("late", spec={"activeDeadlineSeconds": 3}), ready=False)

    ended = api.until_pod("late", has_ended)

    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert marks.count("late") == 1


def test_another_image_runs_it(api: Api, marks: Marks, start: Callable) -> None:
    start(marks.hooked("changed"))
    other = {"containers": [{"name": "main", "image": "podyard.local/absent:1"}]}

    api.patch(
        pod_path("changed"),
        {"spec": other},
        kind=STRATEGIC,
    )

    api.until_event("changed", "Normal Killing Container main definition changed")
    until(lambda: marks.count("changed"))
    assert marks.count("changed") == 1


def test_a_full_volume_ends_a_pod_and_runs_it(
    api: Api, marks: Marks, start: Callable
) -> None:
    document = marks.hooked(
        "full", script=f"dd if=/dev/zero of=/full/x bs=1024 count=2048; {SLEEP}"
    )
    document["spec"]["volumes"].append(
        {"name": "full", "emptyDir": {"sizeLimit": "1Mi"}}
    )
    main = document["spec"]["containers"][0]
    main["volumeMounts"].append({"name": "full", "mountPath": "/full"})
    start(document, ready=False)

    ended = api.until_pod("full", has_ended)

    message = 'Usage of EmptyDir volume "full" exceeds the limit "1Mi". '
    status = ended["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == message
    assert api.until_event("full", "Warning Evicted") == f"Warning Evicted {message}"
    assert marks.count("full") == 1


def test_kubectl_drains_a_node(
    instance, api: Api, marks: Marks, start: Callable
) -> None:
    start(marks.hooked("drained"))
    node = api.pod("drained")["spec"]["nodeName"]
    kubectl = find_kubectls()[-1]

    try:
        said = kubectl.text(
            instance.kubeconfig,
            *("drain", node, "--pod-selector=app=drained", "--force"),
            "--ignore-daemonsets",
        )
    finally:
        kubectl.text(instance.kubeconfig, "uncordon", node)

    assert "pod/drained evicted" in said
    assert marks.count("drained") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run")
def test_a_node_short_of_memory_runs_it(tmp_path: Path, marks: Marks) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "evictionSoft: {memory.available: '100%'}\n"
        "evictionSoftGracePeriod: {memory.available: 1s}\n"
        "evictionMaxPodGracePeriod: 3\n"
    )
    with running_podyard(
        f"short-{os.getpid()}", tmp_path / "data", "--config", str(config)
    ) as short:
        api = Api(short.kubeconfig)
        node = api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
        requests = {"requests": {"cpu": "1m"}}
        api.create(
            marks.hooked("squeezed", resources=requests, spec={"nodeName": node})
        )

        ended = api.until_pod("squeezed", has_ended)
        refused = api.create(pod("refused", nodeName=node)) and api.until_pod(
            "refused", has_ended
        )

        status = ended["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
        assert status["message"].startswith("The node was low on resource: memory. ")
        assert status["message"].endswith(" ")
        assert condition(ended, "DisruptionTarget") == "True TerminationByKubelet"
        assert marks.count("squeezed") == 1
        assert (refused["status"]["reason"], refused["status"]["message"]) == (
            "Evicted",
            "Pod was rejected: The node had condition: [MemoryPressure]. ",
        )
        pressed = api.must("GET", f"/api/v1/nodes/{node}")
        assert condition(pressed, "MemoryPressure").startswith("True")
        until(
            lambda: any(
                taint["key"] == "node.kubernetes.io/memory-pressure"
                for taint in api.must("GET", f"/api/v1/nodes/{node}")["spec"].get(
                    "taints", ()
                )
            )
        )
        api.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run")
def test_down_runs_it_by_priority_and_up_brings_back_what_is_not_done(
    tmp_path: Path, marks: Marks
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "shutdownGracePeriodByPodPriority:\n"
        "- {priority: 0, shutdownGracePeriodSeconds: 3}\n"
        "- {priority: 1000, shutdownGracePeriodSeconds: 4}\n"
    )
    instance = RunningPodyard(f"order-{os.getpid()}", tmp_path / "data")
    try:
        instance.up("--config", str(config))
        api = Api(instance.kubeconfig)
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1000,
            }
        )
        for name, spec in (("last", {"priorityClassName": "high"}), ("first", {})):
            document = marks.hooked(name, spec=spec)
            main = document["spec"]["containers"][0]
            command = main["lifecycle"]["preStop"]["exec"]["command"]
            command[-1] += f"; echo {name} >> /marks/order; sleep 1"
            api.create(document)
        done = container("trap 'exit 0' TERM; while :; do sleep 0.1; done")
        api.create(pod("done", done, restartPolicy="Never"))
        for name in ("last", "first", "done"):
            api.until_pod(name, is_ready)
        api.close()

        instance.cli("down")

        assert (marks.home / "order").read_text().split() == ["first", "last"]

        instance.up("--config", str(config))
        api = Api(instance.kubeconfig)
        for name in ("last", "first"):
            status = statuses(api.until_pod(name, is_ready))["main"]
            assert status["restartCount"] == 1
            assert status["lastState"]["terminated"]["reason"] == "Completed"
        ended = api.must("GET", pod_path("done"))
        assert phase(ended) == "Succeeded"
        assert statuses(ended)["main"]["restartCount"] == 0
        assert state_of(ended) == "terminated Completed 0"
        api.close()
    finally:
        instance.cli("down", "--grace", "1s", "--purge", check=False)


# --- ways that do not


@pytest.mark.parametrize(
    ("script", "state"),
    [
        pytest.param("exit 0", "terminated Completed 0", id="completed"),
        pytest.param("exit 3", "terminated Error 3", id="crashed"),
    ],
)
def test_who_ends_by_himself_needs_none(
    api: Api, marks: Marks, start: Callable, script: str, state: str
) -> None:
    name = f"by-itself-{script[-1]}"
    start(
        marks.hooked(name, script=script, spec={"restartPolicy": "Never"}), ready=False
    )

    ended = api.until_pod(name, has_ended)

    assert state_of(ended) == state
    assert marks.count(name) == 0


def test_a_reset_of_the_whole_pod_gives_none(
    api: Api, marks: Marks, start: Callable
) -> None:
    rule = {
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [42]},
    }
    document = marks.hooked("reset", spec={"restartPolicy": "Never"})
    trigger = container(
        f"test -e /marks/once || {{ touch /marks/once; exit 42; }}; {SLEEP}",
        name="trigger",
        restartPolicy="Never",
        restartPolicyRules=[rule],
        volumeMounts=[{"name": "marks", "mountPath": "/marks"}],
    )
    document["spec"]["containers"].append(trigger)
    start(document, ready=False)

    api.until_pod(
        "reset",
        lambda p: is_ready(p) and statuses(p)["main"]["restartCount"] == 1,
    )

    assert marks.count("reset") == 0


def test_who_runs_out_of_memory_gets_none(
    api: Api, marks: Marks, start: Callable
) -> None:
    document = marks.hooked(
        "greedy",
        script="exec tail /dev/zero",
        resources={"limits": {"memory": "16Mi"}},
        spec={"restartPolicy": "Never"},
    )
    start(document, ready=False)

    ended = api.until_pod("greedy", has_ended)

    assert state_of(ended).startswith("terminated ")
    assert marks.count("greedy") == 0
