"""The Python clients people use: create, read, watch, change, delete."""

import asyncio
import threading

import kr8s.asyncio
import kubernetes
import lightkube
import pytest
from kr8s.asyncio.objects import ConfigMap as Kr8sConfigMap
from kr8s.asyncio.objects import Pod as Kr8sPod
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap as LightConfigMap
from lightkube.resources.core_v1 import Pod as LightPod

from support.api_server import Running

pytestmark = [
    pytest.mark.integration,
    # the clients' own loose ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


async def test_the_official_client(api: Running):
    def cycle() -> list[str]:
        configuration = kubernetes.client.Configuration(host=api.url)
        with kubernetes.client.ApiClient(configuration) as client:
            core = kubernetes.client.CoreV1Api(client)
            body = {
                "metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "image": "registry/i:1"}]},
            }
            core.create_namespaced_pod("default", body)
            seen: list[str] = []
            watch = kubernetes.watch.Watch()
            changer = threading.Thread(target=_label, args=(core,))
            for event in watch.stream(
                core.list_namespaced_pod, "default", timeout_seconds=10
            ):
                seen.append(event["type"])
                if event["type"] == "ADDED":
                    changer.start()
                elif event["type"] == "MODIFIED":
                    core.delete_namespaced_pod("p", "default", grace_period_seconds=0)
                else:
                    watch.stop()
            changer.join()
            assert core.list_namespaced_pod("default").items == []
            assert kubernetes.client.VersionApi(client).get_code().major == "1"
            dynamic = kubernetes.dynamic.DynamicClient(client)
            kind = dynamic.resources.get(api_version="v1", kind="ConfigMap")
            kind.create({"metadata": {"name": "c"}, "data": {"a": "1"}}, "default")
            assert kind.get("c", "default").data.a == "1"
            return seen

    assert await asyncio.to_thread(cycle) == ["ADDED", "MODIFIED", "DELETED"]


def _label(core) -> None:
    core.patch_namespaced_pod("p", "default", {"metadata": {"labels": {"a": "b"}}})


async def test_kr8s(api: Running):
    client = await kr8s.asyncio.api(
        url=api.url, kubeconfig=str(api.kubeconfig), namespace="default"
    )
    made = await Kr8sConfigMap(
        {"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "1"}},
        api=client,
    )
    await made.create()
    await made.patch({"data": {"b": "2"}})
    seen = []
    async with asyncio.timeout(10):
        async for kind, item in client.watch("configmaps", namespace="default"):
            seen.append((kind, item.name))
            if kind == "ADDED":
                await made.delete()
            else:
                break
    pod = await Kr8sPod(
        {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "registry/i:1"}]},
        },
        api=client,
    )
    await pod.create()
    listed = [item.name async for item in client.get("pods", namespace="default")]

    assert seen == [("ADDED", "c"), ("DELETED", "c")]
    assert listed == ["p"]
    assert pod.status.phase == "Pending"


async def test_lightkube(api: Running):
    config = lightkube.KubeConfig.from_file(str(api.kubeconfig))
    client = lightkube.AsyncClient(config=config, namespace="default")
    pod = LightPod(
        metadata=ObjectMeta(name="p"),
        spec=PodSpec(containers=[Container(name="c", image="registry/i:1")]),
    )
    try:
        await client.create(pod)
        await client.patch(LightPod, "p", {"metadata": {"labels": {"a": "b"}}})
        for i in range(3):
            await client.create(LightConfigMap(metadata=ObjectMeta(name=f"c{i}")))
        names = [
            item.metadata.name
            async for item in client.list(LightConfigMap, chunk_size=2)
        ]
        seen = []
        async with asyncio.timeout(10):
            async for kind, item in client.watch(LightPod):
                seen.append((kind, item.metadata.labels))
                if kind == "DELETED":
                    break
                await client.delete(LightPod, "p")
        with pytest.raises(lightkube.ApiError) as failure:
            await client.get(LightPod, "p")
    finally:
        await client.close()

    assert names == ["c0", "c1", "c2"]
    assert seen == [("ADDED", {"a": "b"}), ("DELETED", {"a": "b"})]
    assert failure.value.status.code == 404
