"""Private images on a real runtime and a real registry, by every road we have."""

import asyncio
import base64
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
import pytest

from podyard.api.core_v1 import Pod
from podyard.lib.clock import SystemClock
from podyard.node.credentials.manager import CredentialManager, find_node_files
from podyard.node.credentials.parts import SourceContext
from podyard.node.images.decide import DiskUsage, GcSettings
from podyard.node.images.gc import ImageGc
from podyard.node.images.manager import ImageManager, ImageSettings
from podyard.node.images.parts import ImageError
from support.containerd import (
    BUSYBOX,
    RunningContainerd,
    connect,
    container_config,
    running_containerd,
    sandbox_config,
)
from support.registry import Server, needs_registry, pusher, real_registry, small_image

pytestmark = [pytest.mark.integration, needs_registry]

PASSWORD = "hunter2-is-a-secret"
USERS = {"pusher": "p", "alice": PASSWORD}


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("private")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real_registry(tmp_path_factory.mktemp("registry"), users=USERS) as server:
        yield server


class Objects:
    def __init__(self):
        self.found = {}

    async def get(self, kind, namespace, name):
        return self.found.get(name)


@dataclass
class Heard:
    events: list[tuple[str, str]] = field(default_factory=list)

    def event(self, document, event_type, reason, message, *, field_path=""):
        self.events.append((reason, message))

    def node_event(self, event_type, reason, message):
        self.events.append((reason, message))

    def reasons(self):
        return [reason for reason, _ in self.events]


@dataclass
class Bench:
    manager: ImageManager
    objects: Objects
    heard: Heard
    server: Server
    services: object
    config_json: object

    async def push(self, name):
        async with pusher(self.server) as push:
            image = small_image(name, content=name.encode())
            return (await push.image(f"team/{name}", "1", image)).name

    async def ensure(self, image, *, secrets=(), policy="Always", uid="u"):
        container = {"name": "c", "image": image, "imagePullPolicy": policy}
        pod = Pod.of(
            {
                "metadata": {"name": "p", "namespace": "ns", "uid": uid},
                "spec": {
                    "containers": [container],
                    "imagePullSecrets": [{"name": name} for name in secrets],
                },
            }
        )
        return await self.manager.ensure_image(
            pod, pod.spec.containers[0], sandbox_config(), ""
        )

    def auths(self, user="alice", password=PASSWORD, *, path=""):
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"auths": {f"{self.server.host}{path}": {"auth": pair}}}

    def put_secret(self, name, document):
        raw = base64.b64encode(orjson.dumps(document)).decode()
        self.objects.found[name] = {
            "metadata": {"name": name, "uid": name},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": raw},
        }


@pytest.fixture
async def bench(containerd, registry, tmp_path):
    objects, heard = Objects(), Heard()
    files = find_node_files(
        root_dir=tmp_path, working_dir=tmp_path, home=None, top=tmp_path
    )
    async with connect(containerd) as services:
        manager = ImageManager(
            services.images,
            CredentialManager(SourceContext(objects, files)),
            heard,
            SystemClock(),
            settings=ImageSettings(serialize_image_pulls=False),
        )
        yield Bench(manager, objects, heard, registry, services, files.config_json[0])
    told = repr(heard.events)
    assert PASSWORD not in told


async def test_an_image_pull_secret_opens_the_registry(bench):
    image = await bench.push("by-secret")
    bench.put_secret("s", bench.auths())

    ensured = await bench.ensure(image, secrets=["s"])

    assert ensured.ref.startswith("sha256:")
    assert image in ensured.image.repo_tags
    assert bench.heard.reasons() == ["Pulling", "Pulled"]


async def test_a_node_file_opens_it_for_every_pod_without_a_restart(bench):
    image = await bench.push("by-file")
    with pytest.raises(ImageError):
        await bench.ensure(image)

    bench.config_json.write_bytes(orjson.dumps(bench.auths(path="/team")))
    await bench.ensure(image)

    assert bench.heard.reasons() == [
        "Pulling",
        "Failed",
        "Failed",
        "BackOff",
        "Pulling",
        "Pulled",
    ]


async def test_every_credential_is_tried(bench):
    image = await bench.push("by-second")
    bench.put_secret("wrong", bench.auths(password="wrong", path="/team/by-second"))
    bench.put_secret("right", bench.auths())

    await bench.ensure(image, secrets=["wrong", "right"])

    assert bench.heard.reasons() == ["Pulling", "Pulled"]


async def test_without_credentials_the_registrys_refusal_is_shown(bench):
    image = await bench.push("refused")

    with pytest.raises(ImageError) as caught:
        await bench.ensure(image, secrets=["missing"])

    assert caught.value.reason == "ErrImagePull"
    assert "401 Unauthorized" in caught.value.message or (
        "authorization failed" in caught.value.message
    )
    assert bench.heard.events[0] == (
        "FailedToRetrieveImagePullSecret",
        (
            "Unable to retrieve some image pull secrets (missing); attempting to pull the "
            "image may not succeed."
        ),
    )


async def test_wrong_credentials_say_whose_they_are(bench):
    image = await bench.push("wrong")
    bench.put_secret("a", bench.auths(password="wrong"))
    bench.put_secret("b", bench.auths(user="nobody"))

    with pytest.raises(ImageError) as caught:
        await bench.ensure(image, secrets=["a", "b"])

    assert 'imagePullSecret "a"' in caught.value.message
    assert 'imagePullSecret "b"' in caught.value.message


async def test_a_pull_whose_pod_is_gone_is_cancelled(bench):
    image = await bench.push("cancelled")
    bench.put_secret("s", bench.auths())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.ensure(image, secrets=["s"]))
        await asyncio.sleep(0)
        task.cancel()

    assert bench.manager.pulls_in_flight == 0


async def test_a_present_image_takes_a_millisecond(bench):
    spans = []
    for n in range(30):
        began_s = time.perf_counter()
        await bench.ensure(BUSYBOX, policy="IfNotPresent", uid=str(n))
        spans.append(time.perf_counter() - began_s)

    assert statistics.median(spans) < 0.01
    assert set(bench.heard.reasons()) == {"Pulled"}


async def test_garbage_goes_and_what_containers_have_stays(bench, containerd):
    image = await bench.push("garbage")
    bench.put_secret("s", bench.auths())
    ensured = await bench.ensure(image, secrets=["s"])
    services = bench.services
    sandbox = sandbox_config(containerd.row, host_network=True)
    sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
    config = container_config(sandbox)
    await services.runtime.create_container(sandbox_id, config, sandbox)
    gc = ImageGc(
        services.images,
        services.runtime,
        bench.heard,
        SystemClock(),
        settings=GcSettings(min_age_s=0),
        disk_usage=lambda _mount: DiskUsage(1 << 40, 0),
    )

    try:
        freed = await gc.collect()
    finally:
        await services.runtime.stop_pod_sandbox(sandbox_id)
        await services.runtime.remove_pod_sandbox(sandbox_id)

    assert freed >= ensured.image.size_bytes
    assert await services.images.image_status(image) is None
    assert await services.images.image_status(BUSYBOX) is not None
    tags = [
        tag for image in await services.images.list_images() for tag in image.repo_tags
    ]
    assert any(tag.startswith("podyard.local/sandbox:") for tag in tags)
