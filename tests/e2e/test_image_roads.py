"""Every road to a private image that the Images page names, and what goes wrong there."""

import asyncio
import base64
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from podyard.api.documents import Document
from podyard.testing.fake_registry import FakeRegistry, Kind, On
from support.api import STRATEGIC, Api, pod_path, until
from support.instance import RunningPodyard, podyard, running_podyard
from support.pulled_pods import (
    FAILING,
    is_running,
    private_pod,
    runnable_image,
    waiting_of,
    waits_with,
)
from support.registry import Server, needs_registry, pusher, real_registry, small_image

pytestmark = needs_registry

PASSWORD = "canary-Tr0ub4dor"
USERS = {"ada": PASSWORD}
PLUGIN = """#!/bin/sh
cat > "{directory}/request-$1"
echo '{{"kind": "CredentialProviderResponse", "cacheKeyType": "Image",
"apiVersion": "credentialprovider.kubelet.k8s.io/v1",
"auth": {{"{host}": {{"username": "ada", "password": "{password}"}}}}}}'
"""

#: A credential helper, as Docker has them.
HELPER = """#!/bin/sh
[ "$1" = get ] && [ "$(cat)" = {host} ] || exit 1
echo '{{"Username": "ada", "Secret": "{password}"}}'
"""


@dataclass(frozen=True)
class World:
    """A Podyard with every road, a registry that asks for a password, and a mirror."""

    instance: RunningPodyard
    api: Api
    registry: Server
    mirror: Server
    root_dir: Path
    tmp: Path

    @property
    def config_json(self) -> Path:
        return self.root_dir / "config.json"

    def auths(self, password: str = PASSWORD) -> Document:
        pair = base64.b64encode(f"ada:{password}".encode()).decode()
        return {"auths": {self.registry.host: {"auth": pair}}}

    async def push(self, repository: str, marker: str = "") -> str:
        async with pusher(self.registry) as push:
            image = runnable_image(f"{repository}:v1", marker or repository)
            return (await push.image(repository, "v1", image)).name

    def put_secret(
        self, name: str, *, namespace: str = "default", legacy: bool = False
    ):
        document = self.auths()["auths"] if legacy else self.auths()
        key = ".dockercfg" if legacy else ".dockerconfigjson"
        self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": f"kubernetes.io/{key[1:]}",
                "metadata": {"name": name, "namespace": namespace},
                "data": {key: base64.b64encode(json.dumps(document).encode()).decode()},
            },
            namespace=namespace,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("roads")
    root_dir = tmp / "root"
    root_dir.mkdir()
    with (
        real_registry(tmp / "registry", users=USERS) as registry,
        real_registry(tmp / "mirror") as mirror,
        pytest.MonkeyPatch.context() as patch,
    ):
        config = write_config(tmp, registry.host, mirror.url)
        helper = tmp / "helpers/docker-credential-of-test"
        helper.parent.mkdir()
        helper.write_text(HELPER.format(host=registry.host, password=PASSWORD))
        helper.chmod(0o755)
        patch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
        with running_podyard(
            f"roads-{os.getpid()}",
            tmp / "data",
            *("--root-dir", str(root_dir), "--config", str(config)),
        ) as instance:
            api = Api(instance.kubeconfig)
            try:
                yield World(instance, api, registry, mirror, root_dir, tmp)
            finally:
                api.close()


def ends_early(world: World, name: str, image: str) -> None:
    """Check that it was the news that ended a Pod's back-off, not the time."""
    world.api.until_event(
        name,
        f'Normal BackOff Back-off pulling image "{image}" ended early: its registry '
        "credentials have changed",
    )
    world.api.until_pod(name, is_running)


def write_config(tmp: Path, host: str, mirror: str) -> Path:
    programs = tmp / "plugins"
    programs.mkdir()
    version = "credentialprovider.kubelet.k8s.io/v1"
    for name in ("plain", "robot"):
        text = PLUGIN.format(directory=tmp, host=host, password=PASSWORD)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    providers: list[Document] = [
        {
            "name": "plain",
            "apiVersion": version,
            "matchImages": [f"{host}/plugin"],
            "defaultCacheDuration": "1h",
            "args": ["plain"],
        },
        {
            "name": "robot",
            "apiVersion": version,
            "matchImages": [f"{host}/robots"],
            "defaultCacheDuration": "1h",
            "args": ["robot"],
            "tokenAttributes": {
                "serviceAccountTokenAudience": "registry.example.com",
                "cacheType": "Token",
                "requireServiceAccount": True,
                "requiredServiceAccountAnnotationKeys": ["example.com/role"],
            },
        },
    ]
    plugins = {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": providers,
    }
    (tmp / "providers.yaml").write_text(yaml.safe_dump(plugins))
    config = {
        "imageCredentialProviderConfigFile": str(tmp / "providers.yaml"),
        "imageCredentialProviderBinDir": str(programs),
        "registries": [{"host": "mirrored.example.com", "mirrors": [mirror]}],
    }
    (tmp / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp / "config.yaml"


async def test_a_config_json_copied_to_the_node_ends_the_back_off_at_once(
    world,
) -> None:
    image = await world.push("nodefile")
    world.api.create(private_pod("nodefile", image))
    seen = world.api.until_pod("nodefile", waits_with("ImagePullBackOff"))
    text = f'Back-off pulling image "{image}": ErrImagePull: '
    assert waiting_of(seen)["message"].startswith(text)

    laptop = world.tmp / "laptop-config.json"
    laptop.write_text(json.dumps(world.auths()))
    shutil.copy(laptop, world.config_json)
    try:
        world.api.until_pod("nodefile", is_running)
    finally:
        world.config_json.unlink()

    events = world.api.events("nodefile")
    assert (
        f'Normal BackOff Back-off pulling image "{image}" ended early: its registry '
        "credentials have changed"
    ) in events
    assert f'Warning Failed Failed to pull image "{image}": ' in "\n".join(events)
    assert "Warning Failed Error: ErrImagePull" in events
    assert "Warning Failed Error: ImagePullBackOff" in events


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("legacy", ".dockercfg", id="dockercfg"),
        pytest.param("credHelpers", "config.json", id="a-helper-of-the-registry"),
        pytest.param("credsStore", "config.json", id="the-helper-of-all-others"),
    ],
)
async def test_the_nodes_other_files_open_the_registry(world, name, file) -> None:
    image = await world.push(f"other-{name.lower()}")
    content: Document = {
        "legacy": world.auths()["auths"],
        "credHelpers": {"credHelpers": {world.registry.host: "of-test"}},
        "credsStore": {"credsStore": "of-test"},
    }[name]
    (world.root_dir / file).write_text(json.dumps(content))
    try:
        world.api.create(private_pod(f"other-{name.lower()}", image))
        world.api.until_pod(f"other-{name.lower()}", is_running)
    finally:
        (world.root_dir / file).unlink()


@pytest.mark.parametrize("legacy", [False, True], ids=["dockerconfigjson", "dockercfg"])
async def test_a_pull_secret_made_late_ends_the_back_off_at_once(world, legacy) -> None:
    name = f"late-{'cfg' if legacy else 'json'}"
    image = await world.push(name)
    secrets = [{"name": "absent"}, {"name": name}]
    world.api.create(private_pod(name, image, imagePullSecrets=secrets))
    world.api.until_pod(name, waits_with("ImagePullBackOff"))
    world.api.until_event(
        name,
        "Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull "
        f"secrets (absent, {name}); attempting to pull the image may not succeed.",
    )

    world.put_secret(name, legacy=legacy)

    ends_early(world, name, image)


async def test_a_service_account_hands_its_pull_secret_on(world) -> None:
    image = await world.push("account")
    world.put_secret("of-account")
    world.api.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "puller"},
            "imagePullSecrets": [{"name": "of-account"}],
        }
    )

    made = world.api.create(private_pod("account", image, serviceAccountName="puller"))

    assert made["spec"]["imagePullSecrets"] == [{"name": "of-account"}]
    world.api.until_pod("account", is_running)


async def test_a_credential_provider_plugin_is_asked(world) -> None:
    image = await world.push("plugin/app")

    world.api.create(private_pod("plugin", image))

    world.api.until_pod("plugin", is_running)
    request = json.loads((world.tmp / "request-plain").read_text())
    assert request["image"] == f"{world.registry.host}/plugin/app"
    assert "serviceAccountToken" not in request


async def test_a_plugin_is_given_a_token_of_the_pods_service_account(world) -> None:
    image = await world.push("robots/app")
    world.api.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": "robot",
                "annotations": {"example.com/role": "reader", "other": "x"},
            },
        }
    )

    world.api.create(private_pod("robot", image, serviceAccountName="robot"))

    world.api.until_pod("robot", is_running)
    request = json.loads((world.tmp / "request-robot").read_text())
    assert request["serviceAccountAnnotations"] == {"example.com/role": "reader"}
    body = request["serviceAccountToken"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == ["registry.example.com"]
    assert claims["sub"] == "system:serviceaccount:default:robot"
    assert claims["kubernetes.io"]["pod"]["name"] == "robot"


async def test_a_mended_service_account_ends_the_back_off_at_once(world) -> None:
    image = await world.push("robots/late")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "plain-robot"},
    }
    world.api.create(account)
    world.api.create(private_pod("late-robot", image, serviceAccountName="plain-robot"))
    world.api.until_pod("late-robot", waits_with("ImagePullBackOff"))

    patch = {"metadata": {"annotations": {"example.com/role": "reader"}}}
    world.api.patch("/api/v1/namespaces/default/serviceaccounts/plain-robot", patch)

    ends_early(world, "late-robot", image)


async def test_a_rehearsal_asks_the_plugins_too(world) -> None:
    image = await world.push("plugin/rehearsed")
    places = (
        "--root-dir",
        str(world.root_dir),
        "--config",
        str(world.tmp / "config.yaml"),
    )

    done = world.instance.cli("registry", "test", *places, "-o", "json", image)

    (candidate,) = json.loads(done.stdout)["candidates"]
    assert candidate["source"] == 'credential provider "plain"'
    assert candidate["outcome"] == "accepted"
    assert PASSWORD not in done.stdout + done.stderr


async def test_a_mistake_in_the_plugins_file_is_told_by_every_command(world) -> None:
    (world.tmp / "broken.yaml").write_text("kind: Other")
    (world.tmp / "bad.yaml").write_text(
        f"imageCredentialProviderConfigFile: {world.tmp}/broken.yaml\n"
        f"imageCredentialProviderBinDir: {world.tmp}/plugins\n"
    )
    for command in (["up"], ["registry", "test", "r.io/x"]):
        done = podyard(
            *command,
            *("--name", "nobody", "--data-dir", str(world.tmp / "nobody")),
            *("--config", str(world.tmp / "bad.yaml")),
            check=False,
        )
        assert done.returncode in {1, 2}, done
        assert "kind: must be CredentialProviderConfig" in done.stderr


async def test_a_changed_image_does_not_wait_for_the_back_off_of_the_old_one(
    world,
) -> None:
    async with pusher(world.mirror) as push:
        good = await push.image("team/good", "v1", runnable_image("good:v1", "good"))
    world.api.create(private_pod("mended", f"{world.mirror.host}/team/absent:v1"))
    world.api.until_pod("mended", waits_with("ImagePullBackOff"))

    patch = {"spec": {"containers": [{"name": "main", "image": good.name}]}}
    world.api.patch(pod_path("mended"), patch, kind=STRATEGIC)

    # The back-off of the old image takes ten seconds.
    pulling = f'Normal Pulling Pulling image "{good.name}"'
    world.api.until_event("mended", pulling, within_s=9)
    world.api.until_pod("mended", is_running)


async def test_a_mirror_serves_what_its_registry_cannot(world) -> None:
    async with pusher(world.mirror) as push:
        await push.image("team/app", "v1", runnable_image("app:v1", "mirrored"))

    world.api.create(private_pod("mirrored", "mirrored.example.com/team/app:v1"))

    world.api.until_pod("mirrored", is_running)


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_a_tenant_cannot_use_what_another_pulled(world, policy) -> None:
    name = f"tenant-{policy.lower()}"
    image = await world.push(name)
    world.put_secret(name)
    world.api.create(private_pod(f"{name}-a", image, imagePullSecrets=[{"name": name}]))
    world.api.until_pod(f"{name}-a", is_running)

    world.api.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    world.api.create(private_pod("b", image, policy=policy, namespace=name))
    wanted = FAILING if policy == "IfNotPresent" else waits_with("ErrImageNeverPull")
    seen = world.api.until_pod("b", wanted, namespace=name)

    if policy == "Never":
        assert waiting_of(seen)["message"] == (
            f'Container image "{image}" is not present with pull policy of Never'
        )


async def test_an_index_without_our_platform_says_what_is_on_offer(world) -> None:
    async with pusher(world.mirror) as push:
        others = {"s390x": small_image("z:1", architecture="s390x")}
        pushed = await push.index("team/foreign", "v1", others)

    world.api.create(private_pod("foreign", pushed.name))
    seen = world.api.until_pod("foreign", FAILING)

    message = waiting_of(seen)["message"]
    assert "no match for platform in manifest" in message
    assert "fits this node (linux/" in message
    assert "on offer: linux/s390x" in message


async def test_another_image_makes_another_container(world) -> None:
    async with pusher(world.mirror) as push:
        first = await push.image("team/one", "v1", runnable_image("one:v1", "one"))
        second = await push.image("team/two", "v1", runnable_image("two:v1", "two"))
    world.api.create(private_pod("change", first.name))
    before = world.api.until_pod("change", is_running)

    patch = {"spec": {"containers": [{"name": "main", "image": second.name}]}}
    world.api.patch(pod_path("change"), patch, kind=STRATEGIC)

    def changed(document: Document) -> bool:
        (status,) = document["status"]["containerStatuses"]
        return status["image"] == second.name and "running" in status["state"]

    after = world.api.until_pod("change", changed)
    (old,) = before["status"]["containerStatuses"]
    (new,) = after["status"]["containerStatuses"]
    assert new["restartCount"] == 1
    assert new["containerID"] != old["containerID"]
    assert new["imageID"] != old["imageID"]


async def test_a_bad_name_is_refused_without_a_pull(world) -> None:
    world.api.create(private_pod("badname", "FAILED_IMAGE"))

    seen = world.api.until_pod("badname", waits_with("InvalidImageName"))

    text = (
        'Failed to apply default image tag "FAILED_IMAGE": couldn\'t parse image name '
        '"FAILED_IMAGE": invalid reference format: repository name '
        "(library/FAILED_IMAGE) must be lowercase"
    )
    assert waiting_of(seen)["message"] == text
    world.api.until_event("badname", f"Warning InspectFailed {text}")


@pytest.fixture
async def stuck() -> AsyncIterator[FakeRegistry]:
    """A registry whose blobs never end."""
    async with FakeRegistry() as fake:
        async with pusher(Server(fake.host)) as push:
            await push.image("team/app", "v1", runnable_image("app:v1", "stuck"))
        fake.fault(On.BLOB, Kind.TRICKLE)
        yield fake


async def test_a_pull_tells_how_far_it_is_and_ends_with_its_pod(world, stuck) -> None:
    image = f"{stuck.host}/team/app:v1"
    world.api.create(private_pod("stuck", image))

    seen = await asyncio.to_thread(
        world.api.until_pod, "stuck", lambda p: waiting_of(p).get("message")
    )
    assert waiting_of(seen)["reason"] == "ContainerCreating"
    assert waiting_of(seen)["message"].startswith(f'Pulling image "{image}": ')
    shown = (await asyncio.to_thread(world.instance.status))["pods"]
    assert [p["pulling"] for p in shown if p["name"] == "stuck"] == [
        waiting_of(seen)["message"]
    ]

    def delete() -> float:
        import time

        began_s = time.monotonic()
        world.api.delete(pod_path("stuck"))
        while not world.api.is_gone(pod_path("stuck")):
            time.sleep(0.05)
        return time.monotonic() - began_s

    assert await asyncio.to_thread(delete) < 20
    reasons = [event.split()[1] for event in world.api.events("stuck")]
    assert reasons.count("Pulling") == 1
    assert len(reasons) < 6
    requests = len(stuck.seen)
    await asyncio.sleep(2)
    assert len(stuck.seen) == requests


async def test_no_secret_is_left_anywhere_but_where_it_belongs(world) -> None:
    """Runs last: everything above has left its traces."""
    pair = base64.b64encode(f"ada:{PASSWORD}".encode())
    whole = base64.b64encode(json.dumps(world.auths()).encode())
    canaries = (PASSWORD.encode(), pair, whole)
    told = [json.dumps(world.api.must("GET", f"/api/v1/{kind}")) for kind in KINDS]
    pods = world.api.must("GET", "/api/v1/namespaces/default/pods")["items"]
    assert pods
    for item in pods:
        path = f"{pod_path(item['metadata']['name'])}/explain"
        told.append(json.dumps(world.api.must("GET", path)))
    for text in told:
        assert not any(canary.decode() in text for canary in canaries)
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            try:
                content = (process / what).read_bytes()
            except OSError:
                continue
            assert PASSWORD.encode() not in content
            assert pair not in content
    data = world.instance.data_dir
    kept = [path for path in data.rglob("*") if path.is_file()]
    looked_at = 0
    for path in kept:
        if path.name.startswith("store.db"):
            # Here Secrets live, and nobody else may read it.
            assert path.stat().st_mode & 0o077 == 0, path
            continue
        if {"snapshots", "blobs", "rootfs"} & set(path.parts):
            continue  # what is in images
        looked_at += 1
        content = path.read_bytes()
        assert not any(canary in content for canary in canaries), path
    assert any(path.name == "meta.db" for path in kept), "what containerd wrote down"
    assert any("image_manager" in path.parts for path in kept)
    assert any(path.name == "journal.db" for path in kept)
    assert looked_at > 5


KINDS = ("events", "pods", "nodes", "serviceaccounts")


# -- AlwaysPullImages


async def test_always_pull_images_makes_every_pod_prove_its_right(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("always")
    with (
        real_registry(tmp / "registry", users=USERS) as registry,
        running_podyard(
            f"always-{os.getpid()}",
            tmp / "data",
            *("--root-dir", str(tmp / "root")),
            *("--enable-admission-plugins", "AlwaysPullImages"),
        ) as instance,
    ):
        api = Api(instance.kubeconfig)
        world = World(instance, api, registry, registry, tmp / "root", tmp)
        try:
            image = await world.push("always")
            world.put_secret("s")
            with_secret = private_pod("with", image, imagePullSecrets=[{"name": "s"}])
            made = api.create(with_secret)
            (main,) = made["spec"]["containers"]
            assert main["imagePullPolicy"] == "Always"
            api.until_pod("with", is_running)

            never = api.create(private_pod("without", image, policy="Never"))
            assert never["spec"]["containers"][0]["imagePullPolicy"] == "Always"
            api.until_pod("without", FAILING)

            volume = {"name": "v", "image": {"reference": image}}
            mounted = private_pod("volume", image, volumes=[volume])
            mounted["spec"]["containers"][0]["volumeMounts"] = [
                {"name": "v", "mountPath": "/v"}
            ]
            made = api.create(mounted)
            assert made["spec"]["volumes"][0]["image"]["pullPolicy"] == "Always"
            api.until_event("volume", "Warning FailedMount")
            (told,) = [e for e in api.events("volume") if "FailedMount" in e][:1]
            assert "the container runtime cannot mount images as volumes" in told
        finally:
            api.close()


# -- crashes


async def test_a_crash_amid_a_pull_leaves_word_of_it_and_the_pod_runs_later(
    tmp_path_factory: pytest.TempPathFactory, stuck: FakeRegistry
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("crash")
    instance = RunningPodyard(f"crash-{os.getpid()}", tmp / "data")
    pulling = instance.data_dir / "image_manager" / "pulling"

    def crash() -> None:
        instance.up()
        api = Api(instance.kubeconfig)
        api.create(private_pod("cut-off", f"{stuck.host}/team/app:v1"))
        api.until_event("cut-off", "Normal Pulling")
        until(lambda: list(pulling.iterdir()))
        pid = instance.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}/exe").exists())
        api.close()

    def recover() -> None:
        instance.up()
        api = Api(instance.kubeconfig)
        api.until_pod("cut-off", is_running)
        until(lambda: not list(pulling.iterdir()))
        api.close()

    try:
        await asyncio.to_thread(crash)
        left = [file.read_bytes() for file in pulling.iterdir()]
        stuck.heal()
        await asyncio.to_thread(recover)
    finally:
        await asyncio.to_thread(
            instance.cli, "down", "--grace", "1s", "--purge", check=False
        )

    assert [json.loads(raw)["image"] for raw in left] == [f"{stuck.host}/team/app:v1"]
