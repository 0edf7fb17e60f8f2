"""Create, read, update, patch, delete: what a client may rely on."""

import asyncio
import gc
import tracemalloc

import pytest

from podyard.lib.yaml_json import load_yaml
from support.api_server import CONFIG_MAPS, PODS, Running, config_map, pod

pytestmark = pytest.mark.integration

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


async def test_a_new_object_is_filled_in_by_the_server(api: Running):
    made = await api.make(PODS, {"metadata": {"name": "a"}, "spec": pod("a")["spec"]})

    assert (made["apiVersion"], made["kind"]) == ("v1", "Pod")
    assert made["metadata"]["namespace"] == "default"
    assert made["metadata"]["generation"] == 1
    assert len(made["metadata"]["uid"]) == 36
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert made["metadata"]["resourceVersion"].isdigit()
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


async def test_a_generated_name_has_five_letters_more(api: Running):
    body = {"metadata": {"generateName": "x-"}}
    names = {(await api.make(CONFIG_MAPS, body))["metadata"]["name"] for _ in "abc"}

    assert len(names) == 3
    assert all(name.startswith("x-") and len(name) == 7 for name in names)


async def test_the_second_of_a_name_is_refused(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))

    again = await api.ask("POST", CONFIG_MAPS, config_map("a"))

    assert again.status == 409
    assert again.json["reason"] == "AlreadyExists"
    assert again.json["message"] == 'configmaps "a" already exists'


async def test_what_is_not_there_is_told_by_name(api: Running):
    for method in ("GET", "DELETE"):
        answer = await api.ask(method, f"{CONFIG_MAPS}/b")
        assert answer.status == 404
        assert answer.json == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'configmaps "b" not found',
            "reason": "NotFound",
            "code": 404,
            "details": {"name": "b", "kind": "configmaps"},
        }


async def test_an_update_needs_the_revision_it_has_seen(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a", x="1"))
    newer = made | {"data": {"x": "2"}}
    first = await api.ask("PUT", f"{CONFIG_MAPS}/a", newer)

    stale = await api.ask("PUT", f"{CONFIG_MAPS}/a", newer | {"data": {"x": "3"}})

    assert first.status == 200
    assert stale.status == 409
    assert stale.json["reason"] == "Conflict"
    assert "the object has been modified" in stale.json["message"]


async def test_an_update_without_a_revision_overwrites(api: Running):
    await api.make(CONFIG_MAPS, config_map("a", x="1"))

    answer = await api.ask("PUT", f"{CONFIG_MAPS}/a", config_map("a", x="2"))

    assert answer.json["data"] == {"x": "2"}


async def test_a_lease_may_not_be_updated_blindly(api: Running):
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await api.make(leases, {"metadata": {"name": "l"}})

    answer = await api.ask("PUT", f"{leases}/l", {"metadata": {"name": "l"}})

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "metadata.resourceVersion"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param(
            "/apis/node.k8s.io/v1/runtimeclasses/x",
            {"handler": "runc"},
            201,
            id="class",
        ),
        pytest.param(
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/x",
            {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 1}},
            201,
            id="lease",
        ),
        pytest.param(
            "/api/v1/namespaces/default/services/x",
            {"spec": {"ports": [{"port": 80}]}},
            201,
            id="service",
        ),
        pytest.param(f"{CONFIG_MAPS}/x", {"data": {"a": "b"}}, 404, id="config-map"),
        pytest.param(
            "/apis/scheduling.k8s.io/v1/priorityclasses/x",
            {"value": 1},
            404,
            id="priority-class",
        ),
    ],
)
async def test_some_kinds_are_made_by_an_update(
    api: Running, path: str, body: dict[str, object], status: int
):
    answer = await api.ask("PUT", path, {"metadata": {"name": "x"}, **body})

    assert answer.status == status, answer.body
    if "services" in path:
        assert answer.json["spec"]["clusterIP"].startswith("10.96.")


async def test_an_update_of_another_name_is_refused(api: Running):
    answer = await api.ask("PUT", f"{CONFIG_MAPS}/x", {"metadata": {"name": "y"}})

    assert answer.status == 400
    assert answer.json["message"] == (
        "the name of the object (y) does not match the name on the URL (x)"
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/api/v1/namespaces/default", 200, id="object"),
        pytest.param(CONFIG_MAPS, 200, id="list"),
        pytest.param(f"{CONFIG_MAPS}/absent", 404, id="status"),
        pytest.param("/api", 200, id="discovery"),
    ],
)
async def test_who_wants_yaml_gets_it(api: Running, path: str, status: int):
    answer = await api.ask("GET", path, Accept="application/yaml")
    as_json = await api.ask("GET", path, Accept="application/json, application/yaml")

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/yaml"
    assert load_yaml(answer.body)[0] == as_json.json


async def test_a_write_that_changes_nothing_makes_no_revision(api: Running):
    made = await api.make(CONFIG_MAPS, config_map("a", x="1"))

    put = await api.ask("PUT", f"{CONFIG_MAPS}/a", made)
    patched = await api.ask(
        "PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": "1"}}, content_type=MERGE
    )

    rev = made["metadata"]["resourceVersion"]
    assert put.json["metadata"]["resourceVersion"] == rev
    assert patched.json["metadata"]["resourceVersion"] == rev


async def test_a_dry_run_says_what_would_be_and_stores_nothing(api: Running):
    made = await api.ask("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))
    there = await api.ask("GET", f"{CONFIG_MAPS}/a")
    wrong = await api.ask("POST", f"{CONFIG_MAPS}?dryRun=Some", config_map("a"))
    await api.make(CONFIG_MAPS, config_map("b"))
    gone = await api.ask("DELETE", f"{CONFIG_MAPS}/b", {"dryRun": ["All"]})

    assert made.status == 201
    assert made.json["metadata"]["uid"]
    assert there.status == 404
    assert wrong.status == 422
    assert gone.status == 200
    assert (await api.ask("GET", f"{CONFIG_MAPS}/b")).status == 200


@pytest.mark.parametrize(
    ("media", "body", "labels"),
    [
        pytest.param(
            MERGE, {"metadata": {"labels": {"b": "2"}}}, {"app": "p", "b": "2"}
        ),
        pytest.param(
            STRATEGIC, {"metadata": {"labels": {"app": None, "b": "2"}}}, {"b": "2"}
        ),
        pytest.param(
            JSON_PATCH,
            [{"op": "replace", "path": "/metadata/labels/app", "value": "z"}],
            {"app": "z"},
        ),
    ],
    ids=["merge", "strategic", "json"],
)
async def test_a_patch_changes_what_it_names(api: Running, media, body, labels):
    await api.make(PODS, pod("p"))

    answer = await api.ask("PATCH", f"{PODS}/p", body, content_type=media)

    assert answer.status == 200, answer.body
    assert answer.json["metadata"]["labels"] == labels


async def test_a_json_patch_whose_test_fails_is_invalid(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))
    body = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]

    answer = await api.ask("PATCH", f"{CONFIG_MAPS}/a", body, content_type=JSON_PATCH)

    assert answer.status == 422


async def test_a_patch_that_names_an_old_revision_conflicts(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))
    body = {"metadata": {"resourceVersion": "1"}, "data": {"x": "1"}}

    answer = await api.ask("PATCH", f"{CONFIG_MAPS}/a", body, content_type=MERGE)

    assert answer.status == 409


async def test_patches_made_at_once_are_all_kept(api: Running):
    await api.make(CONFIG_MAPS, config_map("a"))

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                api.ask(
                    "PATCH",
                    f"{CONFIG_MAPS}/a",
                    {"data": {f"k{i}": "x"}},
                    content_type=MERGE,
                )
            )
            for i in range(8)
        ]

    assert {task.result().status for task in tasks} == {200}
    stored = await api.ask("GET", f"{CONFIG_MAPS}/a")
    assert len(stored.json["data"]) == 8


async def test_spec_and_status_have_a_door_each(api: Running):
    await api.make(PODS, pod("p"))

    main = await api.ask(
        "PATCH", f"{PODS}/p", {"status": {"phase": "Failed"}}, content_type=MERGE
    )
    status = await api.ask(
        "PATCH",
        f"{PODS}/p/status",
        {
            "status": {"phase": "Running", "podIP": "10.0.0.9"},
            "spec": {"nodeName": "n"},
        },
        content_type=MERGE,
    )

    assert main.json["status"]["phase"] == "Pending"
    assert status.json["status"]["phase"] == "Running"
    assert status.json["status"]["podIPs"] == [{"ip": "10.0.0.9"}]
    assert "nodeName" not in status.json["spec"]
    assert status.json["metadata"]["generation"] == 1


async def test_only_what_is_wanted_counts_as_a_generation(api: Running):
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.make(path, {"metadata": {"name": "d"}, "spec": spec})

    labelled = await api.ask(
        "PATCH", f"{path}/d", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE
    )
    scaled = await api.ask(
        "PATCH", f"{path}/d/scale", {"spec": {"replicas": 3}}, content_type=MERGE
    )
    stored = await api.ask("GET", f"{path}/d")

    assert labelled.json["metadata"]["generation"] == 1
    assert (scaled.json["kind"], scaled.json["apiVersion"]) == (
        "Scale",
        "autoscaling/v1",
    )
    assert scaled.json["status"]["selector"] == "a=b"
    assert stored.json["metadata"]["generation"] == 2
    assert stored.json["spec"]["replicas"] == 3


async def test_a_scheduled_pod_ends_gracefully(api: Running):
    await api.make(PODS, pod("p", nodeName="n1"))

    marked = await api.ask("DELETE", f"{PODS}/p")
    again = await api.ask("DELETE", f"{PODS}/p")
    shorter = await api.ask("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 5})
    longer = await api.ask("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 50})
    wrong = await api.ask(
        "DELETE", f"{PODS}/p?gracePeriodSeconds=0", {"preconditions": {"uid": "x"}}
    )
    gone = await api.ask("DELETE", f"{PODS}/p?gracePeriodSeconds=0")

    assert marked.json["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked.json["metadata"]["generation"] == 2
    assert again.json["metadata"] == marked.json["metadata"]
    assert shorter.json["metadata"]["deletionGracePeriodSeconds"] == 5
    assert longer.json["metadata"]["deletionGracePeriodSeconds"] == 5
    assert wrong.status == 409
    assert gone.status == 200
    assert gone.json["kind"] == "Pod"
    assert (await api.ask("GET", f"{PODS}/p")).status == 404


async def test_finalizers_hold_an_object_until_the_last_is_gone(api: Running):
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/x"]
    await api.make(CONFIG_MAPS, body)

    marked = await api.ask("DELETE", f"{CONFIG_MAPS}/a")
    more = await api.ask(
        "PATCH",
        f"{CONFIG_MAPS}/a",
        {"metadata": {"finalizers": ["example.com/x", "example.com/y"]}},
        content_type=MERGE,
    )
    last = await api.ask(
        "PATCH",
        f"{CONFIG_MAPS}/a",
        {"metadata": {"finalizers": []}},
        content_type=MERGE,
    )

    assert marked.json["metadata"]["deletionTimestamp"]
    assert more.status == 422
    assert last.status == 200
    assert (await api.ask("GET", f"{CONFIG_MAPS}/a")).status == 404


async def test_a_collection_is_deleted_by_selector(api: Running):
    for name in ("a", "b", "c"):
        body = config_map(name)
        body["metadata"]["labels"] = {"keep": str(name == "b").lower()}
        await api.make(CONFIG_MAPS, body)

    answer = await api.ask("DELETE", f"{CONFIG_MAPS}?labelSelector=keep%3Dfalse")
    left = await api.ask("GET", CONFIG_MAPS)

    assert [item["metadata"]["name"] for item in answer.json["items"]] == ["a", "c"]
    assert [item["metadata"]["name"] for item in left.json["items"]] == ["b"]


async def test_a_pod_is_bound_once(api: Running):
    await api.make(PODS, pod("p"))
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}

    first = await api.ask("POST", f"{PODS}/p/binding", binding)
    second = await api.ask("POST", f"{PODS}/p/binding", binding)
    stored = (await api.ask("GET", f"{PODS}/p")).json

    assert first.status == 201
    assert stored["spec"]["nodeName"] == "n1"
    assert stored["metadata"]["generation"] == 1
    assert stored["status"]["conditions"][0]["type"] == "PodScheduled"
    assert second.status == 409
    assert 'pod p is already assigned to node "n1"' in second.json["message"]


@pytest.mark.parametrize("version", ["policy/v1", "policy/v1beta1"])
async def test_an_eviction_deletes_the_pod(api: Running, version: str):
    await api.make(PODS, pod("p"))
    body = {
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": {"name": "p", "namespace": "default"},
    }

    dry = await api.ask(
        "POST", f"{PODS}/p/eviction", body | {"deleteOptions": {"dryRun": ["All"]}}
    )
    still = await api.ask("GET", f"{PODS}/p")
    answer = await api.ask("POST", f"{PODS}/p/eviction", body)

    assert (dry.status, still.status) == (201, 200)
    assert answer.json["status"] == "Success"
    assert (await api.ask("GET", f"{PODS}/p")).status == 404


async def test_a_namespace_stays_until_it_is_finalized(api: Running):
    path = "/api/v1/namespaces/default"

    marked = await api.ask("DELETE", path)
    held = await api.ask("GET", path)
    finalized = await api.ask(
        "PUT", f"{path}/finalize", {"metadata": {"name": "default"}, "spec": {}}
    )

    assert marked.json["status"]["phase"] == "Terminating"
    assert held.json["spec"]["finalizers"] == ["kubernetes"]
    assert finalized.status == 200
    assert (await api.ask("GET", path)).status == 404


async def test_both_event_groups_show_one_store(api: Running):
    core = "/api/v1/namespaces/default/events"
    group = "/apis/events.k8s.io/v1/namespaces/default/events"
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    await api.make(
        core,
        {
            "metadata": {"name": "e"},
            "involvedObject": about,
            "message": "hello",
            "reason": "Started",
            "source": {"component": "kubelet"},
            "count": 2,
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:05Z",
        },
    )

    seen = (await api.ask("GET", f"{group}/e")).json

    assert seen["apiVersion"] == "events.k8s.io/v1"
    assert seen["note"] == "hello"
    assert seen["regarding"]["name"] == "p"
    assert seen["deprecatedCount"] == 2
    listed = await api.ask("GET", f"{core}?fieldSelector=involvedObject.name%3Dp")
    assert len(listed.json["items"]) == 1


async def test_services_get_addresses_without_clashes(api: Running):
    path = "/api/v1/namespaces/default/services"

    def service(name: str, **spec):
        return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}

    plain = await api.make(path, service("a", type="NodePort"))
    address = plain["spec"]["clusterIP"]
    port = plain["spec"]["ports"][0]["nodePort"]
    taken = await api.ask("POST", path, service("b", clusterIP=address))
    outside = await api.ask("POST", path, service("b", clusterIP="1.2.3.4"))
    same_port = await api.ask(
        "POST",
        path,
        {
            "metadata": {"name": "c"},
            "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]},
        },
    )
    headless = await api.make(path, service("h", clusterIP="None"))
    await api.ask("DELETE", f"{path}/a")
    reused = await api.make(path, service("b", clusterIP=address))

    assert plain["spec"]["clusterIPs"] == [address]
    assert plain["spec"]["ipFamilies"] == ["IPv4"]
    assert plain["spec"]["internalTrafficPolicy"] == "Cluster"
    assert 30000 <= port <= 32767
    assert taken.json["message"] == (
        f'Service "b" is invalid: spec.clusterIPs: Invalid value: ["{address}"]: '
        f"failed to allocate IP {address}: provided IP is already allocated"
    )
    assert outside.status == 422
    assert "not in the valid range" in outside.json["message"]
    assert "provided port is already allocated" in same_port.json["message"]
    assert headless["spec"]["clusterIPs"] == ["None"]
    assert reused["spec"]["clusterIP"] == address


async def test_an_object_that_is_kept_takes_no_more_room_than_it_has_bytes(
    api: Running,
):
    text = "x" * 100_000
    body = {"metadata": {"name": "a"}, "data": {"k": text}}
    await api.make(CONFIG_MAPS, {**body, "metadata": {"name": "first"}})
    tracemalloc.start()
    try:
        await api.make(CONFIG_MAPS, body)
        gc.collect()
        kept = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, "*/podyard/server/registry.py")]
        )
    finally:
        tracemalloc.stop()

    room = sum(trace.size for trace in kept.traces)
    assert len(text) < room < 3 * len(text)
