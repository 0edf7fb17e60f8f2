"""Rehearsals of pulls, with pull secrets of a real API and a real registry."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.app.config import Config
from podyard.app.registries import RegistriesError
from podyard.app.rehearsal import Rehearsal, Who, rehearse
from podyard.cli.registries import rehearsal_lines
from podyard.client.kubeconfig import build_kubeconfig, write_kubeconfig
from support.control_plane import Cluster, cluster
from support.registry import (
    Pushed,
    Server,
    needs_registry,
    pusher,
    real_registry,
    small_image,
)

pytestmark = [pytest.mark.integration, needs_registry]

PASSWORD = "tr0ub4dor&3"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    users = {"ada": PASSWORD}
    with real_registry(tmp_path_factory.mktemp("registry"), users=users) as server:
        yield server


@pytest.fixture
async def image(registry: Server) -> Pushed:
    async with pusher(registry) as push:
        return await push.image("team/app", "v1", small_image("app:v1"))


@pytest.fixture
async def api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Cluster, Config]]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    async with cluster(tmp_path / "cluster", houses=False) as running:
        config = Config(data_dir=tmp_path / "data", root_dir=tmp_path / "root")
        config.data_dir.mkdir()
        connection = running.plane.connection(running.pki.admin)
        document = build_kubeconfig(connection, name="podyard")
        write_kubeconfig(config.data_dir / "kubeconfig", document)
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await running.apply(account)
        yield running, config


def pull_secret(name: str, auths: Mapping[str, tuple[str, str]]) -> Document:
    entries = {
        key: {"username": user, "password": password}
        for key, (user, password) in auths.items()
    }
    raw = json.dumps({"auths": entries}).encode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": "default"},
        "data": {".dockerconfigjson": base64.b64encode(raw).decode()},
    }


async def name_secrets(running: Cluster, *names: str) -> None:
    patch: Document = {"imagePullSecrets": [{"name": name} for name in names]}
    await running.admin.patch(SERVICE_ACCOUNT, "default", patch, "default")


def told(found: Rehearsal) -> str:
    text = "\n".join(rehearsal_lines(found, who_namespace="default"))
    assert PASSWORD not in text + repr(found)
    return text


async def test_the_pull_secrets_of_the_service_account_are_tried(
    api: tuple[Cluster, Config], registry: Server, image: Pushed
) -> None:
    running, config = api
    await running.apply(pull_secret("good", {registry.host: ("ada", PASSWORD)}))
    await name_secrets(running, "good")

    found = await rehearse(config, image.name, Who("default"))

    assert found.works
    assert found.digest == image.digest
    (candidate,) = found.candidates
    assert (candidate.outcome, candidate.order) == ("accepted", 1)
    assert "good" in candidate.source
    assert "a pull works" in told(found)


async def test_the_most_specific_key_is_tried_first_and_then_the_next(
    api: tuple[Cluster, Config], registry: Server, image: Pushed
) -> None:
    running, config = api
    await running.apply(pull_secret("good", {registry.host: ("ada", PASSWORD)}))
    wrong = pull_secret("wrong", {f"{registry.host}/team": ("ada", "old")})
    await running.apply(wrong)
    await name_secrets(running, "good", "wrong")

    found = await rehearse(config, image.name, Who("default"))

    assert found.works
    outcomes = [(c.key, c.outcome) for c in found.candidates]
    assert outcomes == [
        (f"{registry.host}/team", "unauthorized"),
        (registry.host, "accepted"),
    ]


async def test_secrets_of_the_pod_come_before_the_nodes_own(
    api: tuple[Cluster, Config], registry: Server, image: Pushed
) -> None:
    running, config = api
    await running.apply(pull_secret("good", {registry.host: ("ada", PASSWORD)}))
    await name_secrets(running, "good")
    config.root_dir.mkdir()
    auths = {"auths": {registry.host: {"username": "node", "password": "x"}}}
    (config.root_dir / "config.json").write_text(json.dumps(auths))

    found = await rehearse(config, image.name, Who("default"))
    alone = await rehearse(config, image.name, Who())

    assert [c.outcome for c in found.candidates] == ["accepted", "not needed"]
    assert [c.outcome for c in alone.candidates] == ["unauthorized"]
    assert not alone.works


async def test_a_missing_secret_is_told_and_harms_nobody(
    api: tuple[Cluster, Config], registry: Server, image: Pushed
) -> None:
    running, config = api
    await running.apply(pull_secret("good", {registry.host: ("ada", PASSWORD)}))
    await name_secrets(running, "absent", "good")

    found = await rehearse(config, image.name, Who("default"))

    assert found.works
    (problem,) = found.problems
    assert "absent" in problem
    assert f"! {problem}" in told(found)


async def test_an_unknown_service_account_is_told(
    api: tuple[Cluster, Config], image: Pushed
) -> None:
    _, config = api

    with pytest.raises(RegistriesError, match='serviceaccounts "nobody" not found'):
        await rehearse(config, image.name, Who("default", "nobody"))
