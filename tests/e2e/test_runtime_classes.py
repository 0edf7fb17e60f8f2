"""RuntimeClasses with real handlers: another runc, crun, and some that do not work.

The wrapped runc is a program of its own that changes what it runs in a way its
containers can see: a variable that neither the image nor the Pod has.
"""

import os
import re
import shutil
from pathlib import Path

import orjson
import pytest
import yaml

from podyard.api.documents import Document
from podyard.app.host import find_program
from support.api import Api, is_ready, phase, pod_path, state_of, statuses
from support.instance import RunningPodyard, running_podyard
from support.kubectl import find_kubectls
from support.manifests import container, pod

PODS = "/api/v1/namespaces/default/pods"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
CRUN = find_program("crun")

WRAPPER = """#!/bin/sh
# A runc whose containers have the variable OCI_RUNTIME.
bundle=
last=
for word; do
  [ "$last" = --bundle ] && bundle=$word
  last=$word
done
[ -z "$bundle" ] || sed -i 's/"env":\\[/"env":["OCI_RUNTIME=tuned",/' "$bundle/config.json"
exec {runc} "$@"
"""
STATIC = """
apiVersion: v1
kind: Pod
metadata: {name: static}
spec:
  runtimeClassName: never-made
  containers: [{name: main, image: "podyard.local/busybox:1.35"}]
"""


def write_config(home: Path, *handlers: Document, semantics: str) -> tuple[str, ...]:
    """Write the instance's config; return the arguments that name it."""
    config = {
        "semantics": semantics,
        "staticPodPath": str(home / "static"),
        "runtimes": list(handlers),
    }
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    return ("--config", str(home / "config.yaml"))


def tuned(home: Path) -> Document:
    options = {"Root": str(home / "tuned-state"), "NoNewKeyring": True}
    return {"name": "tuned", "binary": str(home / "tuned-runc"), "options": options}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("classes")
    (home / "static").mkdir()
    (home / "static/pod.yaml").write_text(STATIC)
    runc = find_program("runc")
    assert runc is not None
    shutil.copy(runc, home / "my-runc")
    (home / "tuned-runc").write_text(WRAPPER.replace("{runc}", str(home / "my-runc")))
    (home / "tuned-runc").chmod(0o755)
    return home


@pytest.fixture(scope="module")
def instance(home):
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    arguments = write_config(
        home,
        tuned(home),
        {"name": "vanishing", "binary": str(home / "my-runc")},
        {"name": "broken", "binary": "/bin/false"},
        {"name": "gone", "binary": "/nowhere/runc"},
        semantics="documented",
    )
    name = f"classes-{os.getpid()}"
    with running_podyard(name, home / "data", *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def api(instance: RunningPodyard):
    client = Api(instance.kubeconfig)
    yield client
    client.close()


@pytest.fixture(scope="module", autouse=True)
def classes(api: Api) -> None:
    """A class a handler, of the same name."""
    for name in ("tuned", "crun", "vanishing", "broken", "gone", "later", "docker"):
        api.create(runtime_class(name))


def runtime_class(name: str, handler: str = "", **fields: Document) -> Document:
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler or name,
        **fields,
    }


def exec_(instance: RunningPodyard, name: str, script: str) -> str:
    kubectl = find_kubectls()[-1]
    command = ("exec", name, "--", "sh", "-c", script)
    return kubectl.text(instance.kubeconfig, *command)


def runs(api: Api, name: str) -> Document:
    return api.until_pod(name, is_ready, within_s=30)


def end_main(instance: RunningPodyard, name: str) -> None:
    """Have the container's only process end, so that it has to start again."""
    kubectl = find_kubectls()[-1]
    kubectl.run(
        instance.kubeconfig, "exec", name, "--", "kill", "-TERM", "1", check=False
    )


def cannot_start(seen: Document) -> bool:
    """Say whether a container waits: for its class, or to be tried again."""
    return state_of(seen, "main") in {
        "waiting CreateContainerConfigError",
        "waiting CreateContainerError",
        "waiting CrashLoopBackOff",
    }


def instances(api: Api, *names: str) -> dict[str, tuple[str, int]]:
    """Return the container and its restart count of each Pod."""
    found = {}
    for name in names:
        main = statuses(api.pod(name))["main"]
        found[name] = (main["containerID"], main["restartCount"])
    return found


def without_class(api: Api, name: str) -> None:
    """Have the node meet a Pod whose class is gone: deleted before the Pod is bound."""
    api.create(runtime_class(f"{name}-class", "runc"))
    held = pod(
        name,
        runtimeClassName=f"{name}-class",
        schedulingGates=[{"name": "example.com/wait"}],
    )
    api.create(held)
    api.delete(f"{CLASSES}/{name}-class")
    api.patch(pod_path(name), {"spec": {"schedulingGates": []}})


CANNOT_START = (
    "failed to create containerd task: failed to create shim task: OCI runtime create "
    "failed: unable to retrieve OCI runtime error"
)
#: Pods that cannot run: class → what their event says before it lists the handlers.
REFUSED = {
    "docker": r'.*no runtime for "docker" is configured',
    "broken": rf".*{CANNOT_START}.*/bin/false did not terminate.*: unknown",
    "gone": rf".*{CANNOT_START}.*/nowhere/runc: no such file or directory: unknown",
}


def listed(*handlers: str) -> str:
    names = {"runc", *handlers} | ({"crun"} if CRUN else set())
    return f" (runtime handlers of this node: {', '.join(sorted(names))})"


def assert_refused(message: str, pattern: str, handlers: str) -> None:
    assert message.endswith(handlers), message
    text = message.removesuffix(handlers)
    assert re.fullmatch(f"Failed to create pod sandbox: {pattern}", text), message


DOCUMENTED = listed("tuned", "vanishing", "broken", "gone")


def test_two_classes_on_one_template(instance, api, home):
    template = pod("t", container("echo $OCI_RUNTIME; sleep 3600 & wait"))
    wanted = {"plain": None, "tuned": "tuned"} | ({"crun": "crun"} if CRUN else {})
    for name, chosen in wanted.items():
        spec = dict(template["spec"]) | ({"runtimeClassName": chosen} if chosen else {})
        api.create({**template, "metadata": {"name": name}, "spec": spec})

    for name in wanted:
        runs(api, name)

    assert api.until_log("tuned", "tuned") == "tuned\n"
    assert api.log("plain").strip() == ""
    # Its state stands where its options say, not with everyone else's.
    state = {path.name for path in (home / "tuned-state/k8s.io").iterdir()}
    of_tuned = statuses(api.pod("tuned"))["main"]["containerID"].split("//")[1]
    of_plain = statuses(api.pod("plain"))["main"]["containerID"].split("//")[1]
    assert of_tuned in state
    assert of_plain not in state
    if CRUN:
        made = {path.name for path in (instance.row.runc_root / "k8s.io").iterdir()}
        of_crun = statuses(api.pod("crun"))["main"]["containerID"].split("//")[1]
        config = orjson.loads(
            (instance.row.runc_root / "k8s.io" / of_crun / "status").read_bytes()
        )
        assert {of_crun, of_plain} <= made
        assert "cgroup-path" in config  # crun's words; runc keeps a state.json
        assert exec_(instance, "crun", "echo $((6 * 7))") == "42\n"


def test_the_node_tells_its_handlers(instance, api):
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    told = {entry["name"] for entry in node["status"]["runtimeHandlers"]}
    assert {"", "runc", "tuned", "vanishing", "broken", "gone"} <= told

    found = orjson.loads(instance.cli("runtime", "ls", "-o", "json").stdout)
    rows = {row["handler"]: row for row in found}
    assert set(rows["tuned"]["nodes"].values()) == {"accepts"}
    assert rows["tuned"]["runtimeClasses"] == ["tuned"]
    assert set(rows["docker"]["nodes"].values()) == {"refuses"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param(
            {"runtimeClassName": "none"},
            'pod rejected: RuntimeClass "none" not found',
            id="unknown-class",
        ),
        pytest.param(
            {"runtimeClassName": "sized", "nodeSelector": {"disk": "hdd"}},
            "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; "
            "pod.spec.nodeSelector[disk] = hdd",
            id="conflicting-selector",
        ),
        pytest.param(
            {"runtimeClassName": "sized", "overhead": {"cpu": "1"}},
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            id="another-overhead",
        ),
    ],
)
def test_a_pod_that_contradicts_its_class_is_refused(api, fields, message):
    sized = runtime_class(
        "sized",
        "runc",
        overhead={"podFixed": {"cpu": "250m"}},
        scheduling={"nodeSelector": {"disk": "ssd"}},
    )
    answer = api.ask("POST", CLASSES, sized)
    assert answer.status in {201, 409}

    answer = api.ask("POST", PODS, pod("x", **fields))

    assert answer.status == 403
    assert answer.document["message"] == f'pods "x" is forbidden: {message}'


def test_a_pod_whose_handler_cannot_run_fails(api):
    for name in REFUSED:
        api.create(pod(f"on-{name}", runtimeClassName=name))
    without_class(api, "orphan")

    for name, pattern in REFUSED.items():
        seen = api.until_pod(f"on-{name}", lambda seen: phase(seen) == "Failed")
        told = api.until_event(f"on-{name}", "Warning FailedCreatePodSandBox")
        message = told.removeprefix("Warning FailedCreatePodSandBox ")
        assert_refused(message, pattern, DOCUMENTED)
        assert seen["status"]["reason"] == "FailedCreatePodSandBox"
        assert seen["status"]["message"] == message
        assert state_of(seen, "main") == "waiting FailedCreatePodSandBox"

    seen = api.until_pod("orphan", lambda seen: phase(seen) == "Failed")
    assert seen["status"]["message"] == (
        'Failed to create pod sandbox: runtimeclass.node.k8s.io "orphan-class" not '
        f"found{DOCUMENTED}"
    )


def test_a_static_pod_without_its_class_fails_and_says_so(instance, api):
    name = next(p["name"] for p in instance.status()["pods"] if "static" in p["name"])

    told = api.until_event(name, "Warning FailedCreatePodSandBox")

    assert told.endswith(f'runtimeclass.node.k8s.io "never-made" not found{DOCUMENTED}')
    assert api.is_gone(pod_path(name))


def test_a_class_that_is_deleted_leaves_its_pod_but_no_new_start(instance, api):
    api.create(runtime_class("short-lived", "runc"))
    api.create(pod("survivor", runtimeClassName="short-lived"))
    runs(api, "survivor")

    api.delete(f"{CLASSES}/short-lived")
    assert exec_(instance, "survivor", "echo here") == "here\n"
    end_main(instance, "survivor")

    missing = 'runtimeclass.node.k8s.io "short-lived" not found'
    api.until_event("survivor", f"Warning Failed Error: {missing}{DOCUMENTED}")
    seen = api.until_pod("survivor", cannot_start)
    assert phase(seen) == "Running"

    api.create(runtime_class("short-lived", "runc"))
    runs(api, "survivor")


def test_overhead_counts_everywhere_but_in_the_qos_class(instance, api):
    api.create(
        runtime_class(
            "costly", "runc", overhead={"podFixed": {"cpu": "250m", "memory": "64Mi"}}
        )
    )
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    name = node["metadata"]["name"]
    kubectl = find_kubectls()[-1]
    before = allocated(kubectl.text(instance.kubeconfig, "describe", "node", name))

    amounts = {"cpu": "100m", "memory": "32Mi"}
    resources = {"requests": amounts, "limits": amounts}
    api.create(pod("paid", container(resources=resources), runtimeClassName="costly"))
    seen = runs(api, "paid")

    assert seen["status"]["qosClass"] == "Guaranteed"
    values = cgroup_values(instance, seen["metadata"]["uid"])
    assert values == {"milli": 350, "bytes": 96 * 1024**2}
    after = allocated(kubectl.text(instance.kubeconfig, "describe", "node", name))
    assert (after[0] - before[0], after[1] - before[1]) == (350, 96)


def allocated(description: str) -> tuple[int, int]:
    """Return the requests ``kubectl describe node`` adds up: milli-CPU and MiB."""
    part = description.partition("Allocated resources:")[2]
    cpu = re.search(r"^ *cpu +(\d+)(m?) ", part, re.MULTILINE)
    memory = re.search(r"^ *memory +(\d+)(Mi)? ", part, re.MULTILINE)
    assert cpu is not None
    assert memory is not None
    return int(cpu[1]) * (1 if cpu[2] else 1000), int(memory[1])


def cgroup_values(instance: RunningPodyard, uid: str) -> dict[str, int]:
    """Return what the Pod's cgroup is limited to, v1 or v2."""
    root = instance.row.cgroup_root.strip("/")

    def read(*names: str) -> list[str]:
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/*"):
            for file in names:
                pattern = f"{mount}/{root}/**/*{uid}*/{file}".lstrip("/")
                for path in Path("/").glob(pattern):
                    return path.read_text().split()
        raise AssertionError(f"no {names} of {uid}")

    quota = read("cpu.cfs_quota_us", "cpu.max")
    memory = read("memory.limit_in_bytes", "memory.max")
    return {"milli": int(quota[0]) // 100, "bytes": int(memory[0])}


def test_handlers_come_and_go_at_a_restart(instance, api, home):
    """Also: the same Pods with the semantics of the kubelet."""
    api.create(pod("lasting", runtimeClassName="vanishing"))
    runs(api, "lasting")
    lasting = ("lasting", "tuned", *(["crun"] if CRUN else []))
    before = instances(api, *lasting)
    handlers = listed("tuned", "broken", "gone", "later")

    instance.cli("down", "--keep-pods")
    arguments = write_config(
        home,
        tuned(home),
        {"name": "broken", "binary": "/bin/false"},
        {"name": "gone", "binary": "/nowhere/runc"},
        {"name": "later", "binary": str(home / "my-runc")},
        semantics="upstream",
    )
    instance.up(*arguments)
    api = Api(instance.kubeconfig)

    # Nothing that ran was touched.
    assert instances(api, *lasting) == before
    # What failed before stays so.
    assert phase(api.pod("on-docker")) == "Failed"
    assert state_of(api.pod("on-docker"), "main") == "waiting FailedCreatePodSandBox"

    api.create(pod("newcomer", runtimeClassName="later"))
    for name in REFUSED:
        api.create(pod(f"try-{name}", runtimeClassName=name))
    without_class(api, "waif")
    end_main(instance, "lasting")

    told = api.until_event("lasting", "Warning Failed Error: failed to get")
    assert told.endswith(f'no runtime for "vanishing" is configured{handlers}')
    assert phase(api.until_pod("lasting", cannot_start)) == "Running"

    runs(api, "newcomer")
    for name, pattern in REFUSED.items():
        told = api.until_event(f"try-{name}", "Warning FailedCreatePodSandBox")
        message = told.removeprefix("Warning FailedCreatePodSandBox ")
        assert_refused(message, pattern, handlers)
        seen = api.pod(f"try-{name}")
        assert phase(seen) == "Pending"
        assert state_of(seen, "main") == "waiting ContainerCreating"
    told = api.until_event("waif", "Warning FailedCreatePodSandBox")
    assert told.endswith(f'runtimeclass.node.k8s.io "waif-class" not found{handlers}')
    assert phase(api.pod("waif")) == "Pending"

    # It is tried again: with its class it runs.
    api.create(runtime_class("waif-class", "runc"))
    runs(api, "waif")
    api.close()
