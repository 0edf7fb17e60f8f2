"""Real kubectl, every version at hand, against the API server alone."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from support.api_server import PODS, Running, pod
from support.kubectl import Kubectl, find_kubectls

pytestmark = pytest.mark.integration

MERGE = "application/merge-patch+json"
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  initContainers: [{name: prepare, image: "registry/i:1"}]
  containers: [{name: c, image: "registry/i:1", ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
KUBECTLS = find_kubectls()
#: The whole table of commands is run by the oldest and the newest.
THOROUGH = sorted({0, len(KUBECTLS) - 1})

Run = Callable[..., Awaitable[str]]


def test_there_is_a_kubectl_to_test_with():
    assert KUBECTLS


@pytest.fixture(params=KUBECTLS, ids=lambda kubectl: kubectl.id)
def each(request: pytest.FixtureRequest, api: Running) -> Run:
    return _runner(request.param, api)


@pytest.fixture(
    params=[KUBECTLS[i] for i in THOROUGH] if KUBECTLS else [],
    ids=lambda kubectl: kubectl.id,
)
def kubectl(request: pytest.FixtureRequest, api: Running) -> Run:
    return _runner(request.param, api)


def _runner(binary: Kubectl, api: Running) -> Run:
    async def run(*arguments: str, **options) -> str:
        done = await asyncio.to_thread(
            binary.run, api.kubeconfig, *arguments, **options
        )
        return done.stdout.decode() + done.stderr.decode()

    return run


async def test_every_version_applies_reads_and_deletes(each: Run):
    created = await each("apply", "-f", "-", input=MANIFEST)
    again = await each("apply", "-f", "-", input=MANIFEST)
    changed = MANIFEST.replace("app: web}}", "app: web, tier: front}}")
    applied = await each("apply", "-f", "-", input=changed)
    listed = await each("get", "pods,services", "-o", "wide")
    described = await each("describe", "pod", "web")
    deleted = await each("delete", "pod", "web")

    assert "pod/web created" in created
    assert "service/web created" in created
    assert "pod/web unchanged" in again
    assert "pod/web configured" in applied
    assert "Pending" in listed
    assert "80/TCP" in listed
    assert "tier=front" in described
    assert "deleted" in deleted


async def test_every_version_creates_small_objects(each: Run, request):
    await each("create", "configmap", "c", "--from-literal=a=1")
    await each("create", "secret", "generic", "s", "--from-literal=a=1")
    await each("create", "namespace", "n")
    await each("create", "serviceaccount", "a")
    await each("create", "deployment", "d", "--image=registry/i:1")
    await each("create", "job", "j", "--image=registry/i:1")
    schedule = "--schedule=*/5 * * * *"
    has_cron_jobs = "1.20" not in request.node.name  # it knows the beta alone
    if has_cron_jobs:
        await each("create", "cronjob", "cj", "--image=registry/i:1", schedule)

    found = json.loads(await each("get", "configmap", "c", "-o", "json"))
    everything = await each("get", "all", "-A")

    assert found["data"] == {"a": "1"}
    assert "deployment.apps/d" in everything
    assert ("cronjob.batch/cj" in everything) == has_cron_jobs
    assert "namespace/n" in await each("get", "ns", "n", "-o", "name")


async def test_objects_are_changed_in_every_way(kubectl: Run):
    await kubectl("create", "deployment", "d", "--image=registry/i:1")

    await kubectl("label", "deployment", "d", "tier=front")
    await kubectl("annotate", "deployment", "d", "note=x")
    await kubectl("scale", "deployment", "d", "--replicas=3")
    await kubectl("scale", "deployment", "d", "--current-replicas=3", "--replicas=4")
    await kubectl("set", "image", "deployment/d", "*=registry/i:2")
    await kubectl("patch", "deployment", "d", "-p", '{"spec":{"paused":true}}')
    await kubectl(
        "patch", "deployment", "d", "--type=merge", "-p", '{"spec":{"paused":null}}'
    )
    test = '[{"op":"test","path":"/spec/replicas","value":4}]'
    await kubectl("patch", "deployment", "d", "--type=json", "-p", test)
    await kubectl("rollout", "restart", "deployment/d")
    edited = await kubectl("get", "deployment", "d", "-o", "json")
    edited = edited.replace('"tier": "front"', '"tier": "back"')
    await kubectl("replace", "-f", "-", input=edited)
    found = json.loads(await kubectl("get", "deploy", "d", "-o", "json"))

    assert found["metadata"]["labels"]["tier"] == "back"
    assert found["metadata"]["annotations"]["note"] == "x"
    assert found["spec"]["replicas"] == 4
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/i:2"


async def test_a_dry_run_and_a_diff_store_nothing(kubectl: Run):
    await kubectl("apply", "-f", "-", input=MANIFEST)
    changed = MANIFEST.replace("app: web}}", "app: web, tier: front}}")

    dry = await kubectl("apply", "--dry-run=server", "-f", "-", input=changed)
    diff = await kubectl("diff", "-f", "-", input=changed, check=False)
    found = json.loads(await kubectl("get", "pod", "web", "-o", "json"))

    assert "configured (server dry run)" in dry
    assert "tier: front" in diff
    assert found["metadata"]["labels"] == {"app": "web"}


async def test_mistakes_are_told_in_the_words_people_know(kubectl: Run):
    await kubectl("create", "configmap", "c")

    missing = await kubectl("get", "pod", "nobody", check=False)
    twice = await kubectl("create", "configmap", "c", check=False)
    typo = MANIFEST.replace("image:", "imagine:", 1)
    unknown = await kubectl("apply", "-f", "-", input=typo, check=False)
    invalid = await kubectl("run", "UPPER", "--image=i", check=False)

    assert missing == 'Error from server (NotFound): pods "nobody" not found\n'
    assert 'configmaps "c" already exists' in twice
    assert "imagine" in unknown
    assert 'The Pod "UPPER" is invalid' in invalid


@pytest.mark.parametrize("version", ["v1", "example.com/v1"])
async def test_a_kind_nobody_knows_is_told_in_the_words_people_know(
    each: Run, version: str
):
    ponds = f"apiVersion: {version}\nkind: Pond\nmetadata: {{name: x}}"

    applied = await each("apply", "-f", "-", input=ponds, check=False)
    listed = await each("get", "ponds", check=False)
    definitions = await each("get", "customresourcedefinitions", check=False)

    assert f'no matches for kind "Pond" in version "{version}"' in applied
    assert listed == 'error: the server doesn\'t have a resource type "ponds"\n'
    assert "doesn't have a resource type" in definitions


async def test_chunks_selectors_and_columns(kubectl: Run, api: Running):
    for i in range(5):
        await api.make(PODS, pod(f"p{i}"))

    chunked = await kubectl("get", "pods", "--chunk-size=2", "-o", "name")
    selected = await kubectl("get", "pods", "-l", "app in (p1,p2)", "-o", "name")
    fields = await kubectl(
        "get", "pods", "--field-selector=metadata.name!=p0,status.phase=Pending"
    )
    columns = await kubectl("get", "pods", "-o", "custom-columns=N:.metadata.name")

    assert chunked.splitlines() == [f"pod/p{i}" for i in range(5)]
    assert selected.splitlines() == ["pod/p1", "pod/p2"]
    assert len(fields.splitlines()) == 5
    assert columns.splitlines()[0] == "N"


async def test_waiting_ends_when_the_condition_comes(kubectl: Run, api: Running):
    await api.make(PODS, pod("p"))

    async def become_ready() -> None:
        await asyncio.sleep(0.3)
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await api.ask(
            "PATCH", f"{PODS}/p/status", {"status": status}, content_type=MERGE
        )

    async with asyncio.TaskGroup() as group:
        group.create_task(become_ready())
        said = await kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=20s")

    assert "condition met" in said


async def test_explain_tells_upstreams_text(kubectl: Run):
    said = await kubectl("explain", "pod.spec.containers.lifecycle")

    assert "postStart" in said
    assert "PostStart is called immediately after a container is created" in said


async def test_events_are_found_by_their_object(kubectl: Run, api: Running):
    made = await api.make(PODS, pod("p"))
    about = {
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": made["metadata"]["uid"],
    }
    await api.make(
        "/api/v1/namespaces/default/events",
        {
            "metadata": {"name": "p.1"},
            "involvedObject": about,
            "reason": "Scheduled",
            "message": "Assigned it",
            "type": "Normal",
            "source": {"component": "scheduler"},
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "count": 1,
        },
    )

    listed = await kubectl("get", "events")
    described = await kubectl("describe", "pod", "p")

    assert listed.splitlines()[0].split()[:4] == ["LAST", "SEEN", "TYPE", "REASON"]
    assert "pod/p" in listed
    assert "Assigned it" in described


async def test_versions_resources_and_taints(kubectl: Run, api: Running):
    await api.make("/api/v1/nodes", {"metadata": {"name": "n1"}})

    version = await kubectl("version")
    resources = await kubectl("api-resources", "--verbs=list", "-o", "name")
    await kubectl("taint", "node", "n1", "k=v:NoSchedule")
    await kubectl("cordon", "n1")
    nodes = await kubectl("get", "nodes")
    await kubectl("drain", "n1", "--ignore-daemonsets")

    assert "v1.36" in version or '"36"' in version
    assert "deployments.apps" in resources.splitlines()
    assert "Unknown,SchedulingDisabled" in nodes


async def test_exposing_and_replacing_by_force(kubectl: Run):
    await kubectl("run", "p", "--image=registry/i:1", "--port=80")
    await kubectl("expose", "pod", "p", "--port=80")
    manifest = await kubectl("get", "pod", "p", "-o", "json")
    before = json.loads(manifest)["metadata"]["uid"]

    await kubectl("replace", "--force", "-f", "-", input=manifest)
    after = json.loads(await kubectl("get", "pod", "p", "-o", "json"))
    await kubectl("delete", "pods", "--all", "--force", "--grace-period=0")

    assert after["metadata"]["uid"] != before
    assert "No resources found" in await kubectl("get", "pods")
