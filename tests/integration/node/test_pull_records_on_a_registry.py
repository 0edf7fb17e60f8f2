"""Records of pulls from a real registry: digests, order, answers, and no secret."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from podyard.api.core_v1 import Pod
from podyard.lib.clock import SystemClock
from podyard.node.credentials.manager import CredentialManager, find_node_files
from podyard.node.credentials.parts import SourceContext
from podyard.node.images.manager import ImageManager
from podyard.node.images.parts import ImageError
from podyard.store.sqlite_journal import open_node_journal
from support.containerd import (
    RunningContainerd,
    connect,
    running_containerd,
    sandbox_config,
)
from support.pods import KeptEvents
from support.registry import Server, needs_registry, pusher, real_registry, small_image

pytestmark = [pytest.mark.integration, needs_registry]

RIGHT = "canary-right-password"
WRONG = "canary-wrong-password"


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("records")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("registry")
    with real_registry(directory, users={"ada": RIGHT}) as server:
        yield server


@dataclass
class Secrets:
    """Two pull secrets of a namespace: one that works, one that does not."""

    server: Server

    async def get(self, kind, namespace, name):
        password = {"right": RIGHT, "wrong": WRONG}.get(name)
        if password is None:
            return None
        pair = base64.b64encode(f"ada:{password}".encode()).decode()
        content = orjson.dumps({"auths": {self.server.host: {"auth": pair}}})
        return {
            "metadata": {"name": name, "uid": name},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(content).decode()},
        }


def wanting(image: str, *secrets: str) -> Pod:
    container = {"name": "c", "image": image, "imagePullPolicy": "Always"}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "containers": [container],
                "imagePullSecrets": [{"name": name} for name in secrets],
            },
        }
    )


async def pull(containerd, registry, directory: Path, *pods: Pod) -> tuple[list, str]:
    """Pull for each Pod in turn; return the records, and all that was said."""
    files = find_node_files(
        root_dir=directory, working_dir=directory, home=None, top=directory
    )
    events, said = KeptEvents(), ""
    async with (
        connect(containerd) as services,
        open_node_journal(directory / "journal.db") as journal,
    ):
        manager = ImageManager(
            services.images,
            CredentialManager(SourceContext(Secrets(registry), files)),
            events,
            SystemClock(),
            journal=journal,
        )
        for pod in pods:
            try:
                await manager.ensure_image(
                    pod, pod.spec.containers[0], sandbox_config(), ""
                )
            except ImageError as error:
                said += error.message
        records = [record.body for record in await journal.list("u", kind="pull")]
    return records, f"{said}{events.all}{records}"


async def test_each_credential_is_told_with_the_answer_it_got(
    containerd, registry, tmp_path
):
    async with pusher(registry) as push:
        pushed = await push.image("team/told", "1", small_image("told", content=b"t"))
    pod = wanting(pushed.name, "wrong", "right")

    (first, second), said = await pull(containerd, registry, tmp_path, pod, pod)

    assert [(c["origin"], c["order"]) for c in first["candidates"]] == [
        ('imagePullSecret "wrong"', 1),
        ('imagePullSecret "right"', 2),
    ]
    assert [a["outcome"] for a in first["attempts"]] == ["failed", "accepted"]
    assert "401 Unauthorized" in first["attempts"][0]["error"]
    assert "localDigest" not in first
    assert first["remoteDigest"] == pushed.digest
    assert second["localDigest"] == second["remoteDigest"] == pushed.digest
    assert RIGHT not in said
    assert WRONG not in said


async def test_when_all_fail_no_password_is_in_any_text_or_file(
    containerd, registry, tmp_path
):
    image = f"{registry.host}/team/refused:1"

    (record,), said = await pull(
        containerd, registry, tmp_path, wanting(image, "wrong", "missing")
    )

    assert record["result"] == "ErrImagePull"
    assert "missing" in record["problems"][0]
    assert WRONG not in said
    for path in tmp_path.glob("journal.db*"):
        assert WRONG.encode() not in path.read_bytes()
