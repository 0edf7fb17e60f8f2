"""Server-side apply: who sends a field owns it."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from support.api_server import CONFIG_MAPS, PODS, Answer, Running, config_map, pod
from support.kubectl import Kubectl, find_kubectls

pytestmark = pytest.mark.integration

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
OTHER = ("--server-side", "--field-manager=other")
KUBECTLS = find_kubectls()


async def apply(
    api: Running, path: str, body: object, manager: str = "m", *, force: bool = False
) -> Answer:
    query = f"fieldManager={manager}&force={str(force).lower()}"
    return await api.ask("PATCH", f"{path}?{query}", body, content_type=APPLY)


def deployment(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "containers": [
                        {
                            "name": "c",
                            "image": "i:1",
                            "ports": [{"containerPort": 80}],
                        }
                    ]
                },
            },
            **spec,
        },
    }


async def test_an_absent_object_is_made_and_owned(api: Running):
    made = await apply(api, f"{DEPLOYMENTS}/d", deployment(replicas=2))
    again = await apply(api, f"{DEPLOYMENTS}/d", deployment(replicas=2))

    (entry,) = made.json["metadata"]["managedFields"]
    assert made.status == 201, made.body
    assert (entry["manager"], entry["operation"]) == ("m", "Apply")
    fields = entry["fieldsV1"]["f:spec"]
    assert fields["f:replicas"] == {}
    containers = fields["f:template"]["f:spec"]["f:containers"]
    assert containers['k:{"name":"c"}']["f:ports"] == {
        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
    }
    assert again.status == 200
    assert again.json["metadata"] == made.json["metadata"]


async def test_changing_what_another_owns_is_a_conflict_unless_forced(api: Running):
    await apply(api, f"{DEPLOYMENTS}/d", deployment(replicas=2), "first")

    refused = await apply(api, f"{DEPLOYMENTS}/d", deployment(replicas=3), "second")
    forced = await apply(
        api, f"{DEPLOYMENTS}/d", deployment(replicas=3), "second", force=True
    )

    assert refused.status == 409
    assert refused.json["message"] == (
        'Apply failed with 1 conflict: conflict with "first": .spec.replicas'
    )
    assert refused.json["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "first"',
            "field": ".spec.replicas",
        }
    ]
    assert forced.json["spec"]["replicas"] == 3
    owners = {e["manager"]: e for e in forced.json["metadata"]["managedFields"]}
    assert "f:replicas" not in owners["first"]["fieldsV1"]["f:spec"]
    assert "f:replicas" in owners["second"]["fieldsV1"]["f:spec"]


async def test_what_is_no_longer_sent_goes_unless_another_wants_it(api: Running):
    body = config_map("a", mine="1", shared="2")
    await apply(api, f"{CONFIG_MAPS}/a", body, "first")
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", shared="2"), "second")

    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", other="3"), "first")

    assert answer.json["data"] == {"shared": "2", "other": "3"}


async def test_list_entries_are_merged_by_their_keys(api: Running):
    await apply(api, f"{DEPLOYMENTS}/d", deployment(), "first")
    sidecar = deployment()
    containers = sidecar["spec"]["template"]["spec"]["containers"]
    containers[:] = [{"name": "sidecar", "image": "s:1"}]

    both = await apply(api, f"{DEPLOYMENTS}/d", sidecar, "second")
    containers[:] = []
    left = await apply(api, f"{DEPLOYMENTS}/d", sidecar, "second")

    def names(answer: Answer) -> list[str]:
        spec = answer.json["spec"]["template"]["spec"]
        return [container["name"] for container in spec["containers"]]

    assert names(both) == ["c", "sidecar"]
    assert names(left) == ["c"]


async def test_a_plain_write_takes_over_what_it_changes(api: Running):
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", x="1", y="1"), "first")
    await api.ask(
        "PATCH",
        f"{CONFIG_MAPS}/a?fieldManager=hand",
        {"data": {"x": "2"}},
        content_type=MERGE,
    )

    refused = await apply(
        api, f"{CONFIG_MAPS}/a", config_map("a", x="3", y="1"), "first"
    )

    assert refused.status == 409
    assert 'conflict with "hand" using v1 at ' in refused.json["message"]


async def test_what_was_there_before_belongs_to_nobody_in_particular(api: Running):
    await api.make(CONFIG_MAPS, config_map("a", x="1"))

    same = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", x="1"), "m")
    other = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", x="2"), "m")

    assert same.status == 200
    assert other.status == 409
    assert "before-first-apply" in other.json["message"]


async def test_status_is_applied_through_its_own_door(api: Running):
    await api.make(PODS, pod("p"))
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "status": {"phase": "Running", "conditions": [{"type": "X", "status": "True"}]},
    }

    answer = await apply(api, f"{PODS}/p/status", body, "agent")

    assert answer.json["status"]["phase"] == "Running", answer.body
    entries = answer.json["metadata"]["managedFields"]
    (mine,) = [entry for entry in entries if entry["manager"] == "agent"]
    assert mine["subresource"] == "status"
    assert list(mine["fieldsV1"]) == ["f:status"]


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("", config_map("a"), 422, "is required for apply patch"),
        ("fieldManager=m", {"metadata": {"name": "a"}}, 400, "apiVersion must be set"),
        ("fieldManager=m", config_map("b"), 400, "does not match the name on the URL"),
        (
            "fieldManager=m",
            {**config_map("a"), "metadata": {"managedFields": [{"manager": "x"}]}},
            400,
            "managedFields must be nil",
        ),
    ],
    ids=["manager", "version", "name", "managed"],
)
async def test_a_bad_apply_is_told(api: Running, query, body, status, said):
    await api.make(CONFIG_MAPS, config_map("a"))

    answer = await api.ask(
        "PATCH", f"{CONFIG_MAPS}/a?{query}", body, content_type=APPLY
    )

    assert answer.status == status, answer.body
    assert said in answer.json["message"]


Run = Callable[..., Awaitable[str]]


def applier(api: Running, kubectl: Kubectl) -> Run:
    async def run(manifest: object, *options: str, check: bool = True) -> str:
        done = await asyncio.to_thread(
            kubectl.run,
            api.kubeconfig,
            "apply",
            *(options or ("--server-side",)),
            "-f",
            "-",
            input=json.dumps(manifest),
            check=check,
        )
        return done.stdout.decode() + done.stderr.decode()

    return run


async def test_kubectl_applies_on_the_server(api: Running):
    run = applier(api, KUBECTLS[-1])

    made = await run(deployment(replicas=1))
    changed = await run(deployment(replicas=2))
    refused = await run(deployment(replicas=3), *OTHER, check=False)
    forced = await run(deployment(replicas=3), *OTHER, "--force-conflicts")

    assert "serverside-applied" in made
    assert "serverside-applied" in changed
    assert 'conflict with "kubectl": .spec.replicas' in refused
    assert "serverside-applied" in forced


@pytest.mark.parametrize("kubectl", KUBECTLS, ids=lambda kubectl: kubectl.id)
async def test_kubectl_goes_over_from_its_own_side_to_the_server(
    api: Running, kubectl: Kubectl
):
    run = applier(api, kubectl)
    web = pod("web")
    web["metadata"] |= {"labels": {"app": "web", "old": "yes"}}
    await run(web, "--server-side=false")
    # What others have added stays, and what the file no longer says goes.
    await api.ask(
        "PATCH",
        f"{PODS}/web",
        {"metadata": {"labels": {"added": "yes"}}},
        content_type=MERGE,
    )
    web["metadata"]["labels"] = {"app": "web"}

    first = await run(web, "--server-side")
    again = await run(web, "--server-side")

    assert "serverside-applied" in first
    assert "Warning" not in first + again
    found = (await api.ask("GET", f"{PODS}/web")).json
    assert found["spec"]["restartPolicy"] == "Always"
    labels = found["metadata"]["labels"]
    # Old kubectl leaves what it owned on its own side.
    old = {"old": "yes"} if kubectl.version < (1, 26) else {}
    assert labels == {"app": "web", "added": "yes", **old}
