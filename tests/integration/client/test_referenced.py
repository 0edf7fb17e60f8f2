"""Objects that Pods refer to, against a server on a real socket."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from podyard.api.core_v1 import Pod
from podyard.api.scheme import CONFIG_MAP, SECRET
from podyard.client.referenced import (
    ReferencedObjectError,
    ReferencedObjects,
    pod_references,
)

pytestmark = pytest.mark.integration


def make_pod(uid="u", *, annotations=None, **spec):
    return Pod.of(
        {
            "metadata": {
                "name": "p",
                "namespace": "default",
                "uid": uid,
                "annotations": annotations or {},
            },
            "spec": {"containers": [{"name": "c"}]} | spec,
        }
    )


def refers_to(name, uid="u"):
    return make_pod(uid, volumes=[{"name": "v", "configMap": {"name": name}}])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(objects):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(objects.run())
        yield
        task.cancel()


def test_every_place_a_pod_refers_from():
    pod = make_pod(
        imagePullSecrets=[{"name": "pull"}, {"name": ""}],
        containers=[
            {
                "name": "c",
                "envFrom": [
                    {"configMapRef": {"name": "ef-cm"}},
                    {"secretRef": {"name": "ef-s"}},
                ],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "e-cm"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "e-s"}}},
                    {"name": "C", "value": "x"},
                ],
            }
        ],
        initContainers=[{"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]}],
        volumes=[
            {"name": "a", "configMap": {"name": "v-cm"}},
            {"name": "b", "secret": {"secretName": "v-s"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "p-cm"}},
                        {"secret": {"name": "p-s"}},
                        {"serviceAccountToken": {"path": "t"}},
                    ]
                },
            },
            {"name": "d", "emptyDir": {}},
        ],
    )

    found = {(kind.kind, name) for kind, _, name in pod_references(pod)}

    assert found == {
        ("Secret", "pull"),
        ("ConfigMap", "ef-cm"),
        ("Secret", "ef-s"),
        ("ConfigMap", "e-cm"),
        ("Secret", "e-s"),
        ("Secret", "init"),
        ("ConfigMap", "v-cm"),
        ("Secret", "v-s"),
        ("ConfigMap", "p-cm"),
        ("Secret", "p-s"),
    }


async def test_reads_come_from_one_watch_an_object(api, client):
    api.put("cm", data={"k": "1"})
    objects = ReferencedObjects(client)
    async with running(objects):
        objects.register_pod(refers_to("cm", "a"))
        objects.register_pod(refers_to("cm", "b"))
        await until(lambda: api.count("GET", "watch") == 1)

        before = len(api.requests)
        for _ in range(10):
            found = await objects.get(CONFIG_MAP, "default", "cm")
            assert found["data"] == {"k": "1"}

        assert len(api.requests) == before
        assert objects.pods_of(CONFIG_MAP, "default", "cm") == {"a", "b"}
        selectors = {path for _, path, _ in api.requests}
        assert all("fieldSelector=metadata.name" in path for path in selectors)


async def test_changes_are_told_and_read(api, client):
    api.put("cm", data={"k": "1"})
    objects = ReferencedObjects(client)
    told = []
    objects.on_change(lambda kind, namespace, name: told.append((kind.kind, name)))
    async with running(objects):
        objects.register_pod(refers_to("cm"))
        await until(lambda: api.count("GET", "watch") == 1)
        assert told == []

        api.put("cm", data={"k": "2"})
        await until(lambda: bool(told))

        assert told == [("ConfigMap", "cm")]
        assert (await objects.get(CONFIG_MAP, "default", "cm"))["data"] == {"k": "2"}


async def test_a_watch_outlives_its_last_pod_for_a_while(api, client):
    api.put("cm")
    objects = ReferencedObjects(client, linger_s=0.3)
    async with running(objects):
        objects.register_pod(refers_to("cm", "a"))
        await until(lambda: len(api.cuts) == 1)
        objects.unregister_pod("a")
        objects.register_pod(refers_to("cm", "b"))
        await asyncio.sleep(0.5)
        assert objects.statistics() == (1, 1)

        objects.unregister_pod("b")
        objects.unregister_pod("b")
        await until(lambda: objects.statistics() == (0, 0))
        await until(lambda: not api.cuts)

    assert api.count("GET", "watch") == 1


async def test_a_pod_that_refers_to_others_now_lets_the_former_go(api, client):
    objects = ReferencedObjects(client, linger_s=0)
    async with running(objects):
        objects.register_pod(refers_to("old"))
        objects.register_pod(refers_to("new"))
        await until(lambda: objects.statistics() == (1, 1))

    assert objects.pods_of(CONFIG_MAP, "default", "new") == {"u"}


async def test_static_pods_refer_to_nothing(client):
    objects = ReferencedObjects(client)

    objects.register_pod(
        make_pod(
            imagePullSecrets=[{"name": "s"}],
            annotations={"kubernetes.io/config.source": "file"},
        )
    )

    assert objects.statistics() == (0, 0)


def answering(document, status=200):
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status)

    return answer


async def test_the_first_read_asks_the_api(api, client):
    objects = ReferencedObjects(client)
    api.instead.append(answering({"kind": "Secret", "data": {"k": "x"}}))

    found = await objects.get(SECRET, "default", "s")

    assert found["data"] == {"k": "x"}
    assert api.requests[-1][1].endswith("/secrets/s")


async def test_not_there_is_asked_once_more_before_it_is_believed(api, client):
    objects = ReferencedObjects(client)
    async with running(objects):
        objects.register_pod(refers_to("cm"))
        await until(lambda: api.count("GET", "watch") == 1)
        absent = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "x"}
        api.instead.append(answering(absent, 404))
        assert await objects.get(CONFIG_MAP, "default", "cm") is None

        api.instead.append(answering({"kind": "ConfigMap", "data": {}}))
        assert await objects.get(CONFIG_MAP, "default", "cm") is not None


async def test_a_refusal_is_told_in_the_apis_words(api, client):
    refusal = {
        "kind": "Status",
        "code": 403,
        "reason": "Forbidden",
        "message": 'secrets "s" is forbidden: no',
    }
    api.instead.append(answering(refusal, 403))

    with pytest.raises(ReferencedObjectError) as caught:
        await ReferencedObjects(client).get(SECRET, "default", "s")

    assert caught.value.message == 'secrets "s" is forbidden: no'


async def test_what_is_known_outlives_the_api(api, client):
    api.put("cm", data={"k": "1"})
    objects = ReferencedObjects(client)
    async with running(objects):
        objects.register_pod(refers_to("cm"))
        await until(lambda: api.count("GET", "watch") == 1)
        api.instead.extend([answering({}, 503)] * 50)
        api.cut()
        await asyncio.sleep(0.1)

        assert (await objects.get(CONFIG_MAP, "default", "cm"))["data"] == {"k": "1"}
