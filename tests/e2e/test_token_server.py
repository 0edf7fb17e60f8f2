"""Private images behind a token server, over TLS of a private authority."""

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from podyard.api.documents import Document
from support.api import Api, pod_path
from support.certificates import make_authority, make_leaf
from support.instance import RunningPodyard, running_podyard
from support.pulled_pods import (
    FAILING,
    is_running,
    private_pod,
    runnable_image,
    waiting_of,
)
from support.registry import (
    Server,
    free_port,
    needs_registry,
    pusher,
    real_registry,
)
from support.token_server import Account, Asked, TokenServer, token_server

pytestmark = needs_registry

ADA, GRACE = "canary-of-ada", "canary-of-grace"
IDENTITY = "canary-identity-token"
ACCOUNTS = {
    "ada": Account(ADA, ("team-a/*",), identity_token=IDENTITY),
    "grace": Account(GRACE, ("team-b/*",)),
    "": Account("", ("public/*",)),
}
CANARIES = (ADA, GRACE, IDENTITY)
NO_ACCESS = (
    "pulling from host .* failed with status code .*: 401 Unauthorized"
    "|insufficient_scope: authorization failed"
)


@dataclass(frozen=True)
class World:
    """A Podyard, a registry, and who gives out its tokens."""

    instance: RunningPodyard
    api: Api
    registry: Server
    tokens: TokenServer
    root_dir: Path
    config: Path

    def image(self, repository: str) -> str:
        return f"{self.registry.host}/{repository}:v1"

    def put_secret(self, name: str, *users: tuple[str, str]) -> Document:
        """Have a pull secret with these users; return how a Pod names it."""
        for number, (user, password) in enumerate(users):
            auths = {self.registry.host: {"username": user, "password": password}}
            content = json.dumps({"auths": auths}).encode()
            self.api.create(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": "kubernetes.io/dockerconfigjson",
                    "metadata": {"name": f"{name}-{number}"},
                    "data": {".dockerconfigjson": base64.b64encode(content).decode()},
                }
            )
        names = [{"name": f"{name}-{number}"} for number in range(len(users))]
        return {"imagePullSecrets": names} if names else {}

    def rehearse(self, *words: str) -> tuple[int, Document, str]:
        """Run ``podyard registry test``: exit code, answer and all it printed."""
        places = ("--root-dir", str(self.root_dir), "--config", str(self.config))
        done = self.instance.cli(
            *("registry", "test", *places, "-o", "json"), *words, check=False
        )
        return done.returncode, json.loads(done.stdout), done.stdout + done.stderr


#: Every repository has an image of its own, which no other test brings to the node.
REPOSITORIES = (
    *(f"team-a/{name}" for name in ("right", "scope", "wrong", "none", "identity")),
    *("team-a/bad-identity", "team-a/rehearsed", "team-b/second", "public/app"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    import asyncio

    tmp = tmp_path_factory.mktemp("tokens")
    root_dir = tmp / "root"
    root_dir.mkdir()
    authority, stranger = make_authority(), make_authority()
    leaf = make_leaf(authority, "registry", "127.0.0.1")
    signer = make_leaf(authority, "token signer")
    for name, pair in (("ca", authority), ("other", stranger)):
        (tmp / f"{name}.pem").write_text(pair.cert)
    with real_registry(tmp / "registry") as filled:
        asyncio.run(fill(filled))
    port = free_port()
    hosts = [
        {"host": f"127.0.0.1:{port}", "ca": str(tmp / "ca.pem")},
        {"host": f"localhost:{port}", "ca": str(tmp / "other.pem")},
    ]
    config = tmp / "config.yaml"
    config.write_text(yaml.safe_dump({"registries": hosts}))
    with (
        token_server(ACCOUNTS, signer=signer, leaf=leaf) as tokens,
        real_registry(
            tmp / "registry",
            authority=authority,
            leaf=leaf,
            token_realm=tokens.realm,
            token_cert=tmp / "ca.pem",
            port=port,
        ) as registry,
        running_podyard(
            f"tokens-{os.getpid()}",
            tmp / "data",
            *("--root-dir", str(root_dir), "--config", str(config)),
        ) as instance,
    ):
        api = Api(instance.kubeconfig)
        try:
            yield World(instance, api, registry, tokens, root_dir, config)
        finally:
            api.close()


async def fill(registry: Server) -> None:
    async with pusher(registry) as push:
        for repository in REPOSITORIES:
            image = runnable_image(f"{repository}:v1", repository)
            await push.image(repository, "v1", image)


@pytest.mark.parametrize(
    ("name", "repository", "users"),
    [
        pytest.param("right", "team-a/right", [("ada", ADA)], id="the-user-of-it"),
        pytest.param(
            "second",
            "team-b/second",
            [("ada", ADA), ("grace", GRACE)],
            id="the-second-user-tried",
        ),
        pytest.param("public", "public/app", [], id="nobody-where-all-may"),
    ],
)
def test_a_token_for_the_right_user_lets_the_image_run(
    world: World, name: str, repository: str, users: list[tuple[str, str]]
):
    asked = len(world.tokens.asked)
    secrets = world.put_secret(name, *users)

    world.api.create(private_pod(name, world.image(repository), **secrets))

    world.api.until_pod(name, is_running)
    scope = f"repository:{repository}:pull"
    granted = [one for one in world.tokens.asked[asked:] if scope in one.scopes]
    assert {one.who for one in granted if one.granted} >= {who for who, _ in users}


@pytest.mark.parametrize(
    ("name", "users", "error"),
    [
        pytest.param("none", [], NO_ACCESS, id="nobody"),
        pytest.param("scope", [("grace", GRACE)], NO_ACCESS, id="a-user-of-others"),
        pytest.param(
            "wrong",
            [("ada", "not-this")],
            "failed to authorize: failed to fetch oauth token: .*401 Unauthorized",
            id="a-wrong-password",
        ),
    ],
)
def test_without_the_right_the_reason_and_event_say_so(
    world: World, name: str, users: list[tuple[str, str]], error: str
):
    image = world.image(f"team-a/{name}")
    secrets = world.put_secret(name, *users)

    world.api.create(private_pod(name, image, **secrets))

    waiting = waiting_of(world.api.until_pod(name, FAILING))
    begin = f'Warning Failed Failed to pull image "{image}": '
    event = world.api.until_event(name, begin)
    told = event.removeprefix(begin)
    assert re.search(error, told), told
    assert waiting["message"].endswith(told)
    world.api.until_event(name, "Warning Failed Error: ErrImagePull")


def test_an_identity_token_of_the_node_is_good_for_a_token(world: World):
    asked = len(world.tokens.asked)
    entry = {"auth": base64.b64encode(b"ada:").decode(), "identitytoken": IDENTITY}
    file = world.root_dir / "config.json"
    file.write_text(json.dumps({"auths": {world.registry.host: entry}}))
    try:
        world.api.create(private_pod("identity", world.image("team-a/identity")))
        world.api.until_pod("identity", is_running)
        code, answer, _ = world.rehearse(world.image("team-a/rehearsed"))
    finally:
        file.unlink()

    scopes = ("repository:team-a/identity:pull",)
    assert Asked("ada", "refresh_token", scopes, True) in world.tokens.asked[asked:]
    (candidate,) = answer["candidates"]
    assert (code, candidate["outcome"]) == (0, "accepted")


def test_a_wrong_identity_token_is_refused(world: World):
    entry = {"identitytoken": f"{IDENTITY}-old"}
    file = world.root_dir / "config.json"
    file.write_text(json.dumps({"auths": {world.registry.host: entry}}))
    try:
        image = world.image("team-a/bad-identity")
        world.api.create(private_pod("bad-identity", image))
        waiting = waiting_of(world.api.until_pod("bad-identity", FAILING))
    finally:
        file.unlink()

    assert "failed to authorize: failed to fetch oauth token" in waiting["message"]


def test_a_rehearsal_says_what_the_token_server_answers(world: World):
    world.put_secret("rehearsal", ("ada", "no"), ("grace", GRACE), ("ada", ADA))
    world.api.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "puller"},
            "imagePullSecrets": [{"name": f"rehearsal-{n}"} for n in range(3)],
        }
    )

    code, answer, said = world.rehearse(
        *("-n", "default", "--service-account", "puller"),
        world.image("team-a/rehearsed"),
    )

    assert code == 0
    outcomes = [candidate["outcome"] for candidate in answer["candidates"]]
    assert outcomes == ["unauthorized", "unauthorized", "accepted"]
    assert not [canary for canary in CANARIES if canary in said]


def test_another_authority_is_not_trusted(world: World):
    image = world.image("team-a/right").replace("127.0.0.1", "localhost")
    secrets = world.put_secret("stranger", ("ada", ADA))
    asked = len(world.tokens.asked)

    world.api.create(private_pod("stranger", image, **secrets))

    waiting = waiting_of(world.api.until_pod("stranger", FAILING))
    assert "x509: certificate" in waiting["message"]
    assert len(world.tokens.asked) == asked


def test_no_secret_is_told_anywhere(world: World):
    """Runs last: everything above has left its traces."""
    told = ""
    for item in world.api.must("GET", "/api/v1/namespaces/default/pods")["items"]:
        path = f"{pod_path(item['metadata']['name'])}/explain"
        told += json.dumps([item, world.api.must("GET", path)])
    told += json.dumps(world.api.must("GET", "/api/v1/events"))
    for log in world.instance.data_dir.rglob("*.log"):
        told += log.read_text(errors="replace")

    assert "ErrImagePull" in told
    assert not [canary for canary in CANARIES if canary in told]
