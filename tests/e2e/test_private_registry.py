"""Pods with images of private registries, on every road that the how-to names."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.containerd.archives import ImageArchive
from podyard.containerd.own_images import build_archive, busybox_image
from support.api import Api
from support.containerd import APPLETS, find_busybox
from support.instance import RunningPodyard, running_podyard
from support.manifests import container, pod
from support.registry import Server, needs_registry, pusher, real_registry

pytestmark = needs_registry

PASSWORD = "tr0ub4dor&3"
USERS = {"ada": PASSWORD}


@dataclass(frozen=True)
class World:
    """A Podyard, and a registry that lets nobody in without a password."""

    instance: RunningPodyard
    api: Api
    registry: Server
    root_dir: Path

    def log_in(self) -> None:
        subprocess.run(
            [
                *(sys.executable, "-m", "podyard", "registry", "login"),
                *("--root-dir", str(self.root_dir), "-u", "ada", "--password-stdin"),
                self.registry.host,
            ],
            input=PASSWORD.encode(),
            check=True,
            env=os.environ | {"PYTHONPATH": str(Path("src").absolute())},
        )

    def log_out(self) -> None:
        self.instance.cli(
            *("registry", "logout", "--root-dir", str(self.root_dir)),
            self.registry.host,
        )

    def name(self, image: str) -> str:
        return f"{self.registry.host}/{image}"


def private_pod(name: str, image: str, **fields: object) -> dict[str, object]:
    return pod(
        name, container("echo private image runs; sleep 3600", image=image), **fields
    )


def pull_secret(name: str, host: str, password: str) -> dict[str, object]:
    entry = {"username": "ada", "password": password}
    raw = json.dumps({"auths": {host: entry}}).encode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name},
        "data": {".dockerconfigjson": base64.b64encode(raw).decode()},
    }


def archive(name: str, *more: str) -> ImageArchive:
    applets = [*APPLETS.split(), *more]
    return build_archive(busybox_image(find_busybox(), applets, name=name))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("private")
    root_dir = tmp / "root"
    with (
        real_registry(tmp / "registry", users=USERS) as registry,
        running_podyard(
            f"reg-{os.getpid()}", tmp / "data", "--root-dir", str(root_dir)
        ) as instance,
    ):
        api = Api(instance.kubeconfig)
        try:
            yield World(instance, api, registry, root_dir)
        finally:
            api.close()


@pytest.fixture
async def image(world: World, request: pytest.FixtureRequest) -> str:
    """An image of this test alone, which no other test has brought to the node."""
    repository = request.node.name.replace("_", "-").lower()[-40:].strip("-")
    async with pusher(world.registry) as push:
        pushed = await push.image(repository, "v1", archive(f"{repository}:v1"))
    return pushed.name


def is_running(document: dict) -> bool:
    return document.get("status", {}).get("phase") == "Running"


def waits_with(reason: str):
    def look(document: dict) -> bool:
        statuses = document.get("status", {}).get("containerStatuses") or [{}]
        waiting = statuses[0].get("state", {}).get("waiting") or {}
        return waiting.get("reason") == reason

    return look


async def test_without_a_password_the_pull_fails_and_is_explained(
    world: World, image: str
) -> None:
    world.api.create(private_pod("nobody", image))

    world.api.until_pod("nobody", waits_with("ImagePullBackOff"))
    events = world.api.events("nobody")

    assert any(f'Warning Failed Failed to pull image "{image}"' in e for e in events)
    assert PASSWORD not in str(events)


async def test_the_nodes_password_is_taken_by_a_running_podyard(
    world: World, image: str
) -> None:
    world.log_in()
    try:
        world.api.create(private_pod("by-node", image))

        world.api.until_pod("by-node", is_running)
        world.api.until_log("by-node", "private image runs")
    finally:
        world.log_out()


async def test_a_pull_secret_is_taken(world: World, image: str) -> None:
    world.api.create(pull_secret("good", world.registry.host, PASSWORD))

    document = private_pod("by-secret", image)
    document["spec"]["imagePullSecrets"] = [{"name": "good"}]
    world.api.create(document)

    world.api.until_pod("by-secret", is_running)


async def test_the_image_a_person_loaded_needs_no_registry(
    world: World, tmp_path: Path
) -> None:
    from podyard.containerd.own_images import write_archive

    name = "registry.invalid/loaded:v1"
    # Other content than the private one, which is verified wherever it comes from.
    write_archive(archive(name, "yes"), tmp_path / "image.tar")
    world.instance.cli("image", "load", str(tmp_path / "image.tar"))
    document = private_pod("loaded", name)
    document["spec"]["containers"][0]["imagePullPolicy"] = "Never"

    world.api.create(document)

    world.api.until_pod("loaded", is_running)
