"""Variables looked up: objects, Services, and env files a container wrote."""

import os

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.scheme import CONFIG_MAP
from podyard.client.referenced import ReferencedObjectError
from podyard.node.environment.build import to_mapping
from podyard.node.environment.manager import EnvironmentManager
from podyard.node.environment.parts import EnvironmentBuildError

pytestmark = pytest.mark.integration


class Objects:
    def __init__(self):
        self.found = {}
        self.asked = []
        self.fault = ""

    async def get(self, kind, namespace, name):
        self.asked.append((kind, namespace, name))
        if self.fault:
            raise ReferencedObjectError(self.fault)
        return self.found.get((kind.kind, name))


def make_pod(*env, annotations=None):
    return Pod.of(
        {
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "uid": "u",
                "annotations": annotations or {},
            },
            "spec": {
                "containers": [{"name": "c", "env": list(env)}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        }
    )


@pytest.fixture
def objects():
    return Objects()


def make_manager(objects, tmp_path, services=()):
    return EnvironmentManager(
        objects, lambda: services, lambda uid, volume: tmp_path / uid / volume
    )


async def build(manager, pod):
    built = await manager.build(
        pod,
        pod.spec.containers[0],
        pod_ips=("10.0.0.2",),
        host_ips=("192.0.2.1",),
        node_allocatable={"cpu": "2"},
    )
    return to_mapping(built)


def from_config(name, key):
    selector = {"name": name, "key": key}
    return {"name": key.upper(), "valueFrom": {"configMapKeyRef": selector}}


async def test_each_object_is_read_once(objects, tmp_path):
    objects.found["ConfigMap", "cm"] = {"data": {"a": "1", "b": "2"}}
    pod = make_pod(from_config("cm", "a"), from_config("cm", "b"))

    assert await build(make_manager(objects, tmp_path), pod) == {"A": "1", "B": "2"}
    assert objects.asked == [(CONFIG_MAP, "ns", "cm")]


async def test_a_failed_read_is_the_containers_message(objects, tmp_path):
    objects.fault = "failed to sync configmap cache: gone"

    with pytest.raises(EnvironmentBuildError) as caught:
        await build(make_manager(objects, tmp_path), make_pod(from_config("cm", "a")))

    assert caught.value.message == "failed to sync configmap cache: gone"


async def test_services_must_be_known_but_for_static_pods(objects, tmp_path):
    manager = make_manager(objects, tmp_path, None)
    static = make_pod(annotations={"kubernetes.io/config.source": "file"})

    assert await build(manager, static) == {}
    with pytest.raises(EnvironmentBuildError, match="services have not yet been read"):
        await build(manager, make_pod())


def from_file(path="env"):
    reference = {"volumeName": "v", "path": path, "key": "K"}
    return {"name": "F", "valueFrom": {"fileKeyRef": reference}}


@pytest.fixture
def volume(tmp_path):
    directory = tmp_path / "u" / "v"
    directory.mkdir(parents=True)
    return directory


async def test_an_env_file_is_read_from_its_volume(objects, tmp_path, volume):
    (volume / "env").write_bytes(b"K='v\xc3\xa9'\n")

    built = await build(make_manager(objects, tmp_path), make_pod(from_file()))

    assert built["F"] == "vé"


@pytest.mark.parametrize("trap", ["link", "directory", "fifo", "absent"])
async def test_an_env_file_that_leads_elsewhere_is_refused(
    objects, tmp_path, volume, trap
):
    (tmp_path / "secret").write_text("K='host'")
    if trap == "link":
        (volume / "env").symlink_to("../../secret")
    elif trap == "directory":
        (volume / "env").mkdir()
    elif trap == "fifo":
        os.mkfifo(volume / "env")

    with pytest.raises(EnvironmentBuildError, match="couldn't parse env file"):
        await build(make_manager(objects, tmp_path), make_pod(from_file()))
