"""The four use cases of the how-to about private registries, run as they stand there."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.api import Api, until
from support.certificates import make_authority, make_leaf
from support.instance import RunningPodyard, running_podyard
from support.kubectl import Kubectl, find_kubectls
from support.pulled_pods import FAILING, runnable_image, waiting_of
from support.registry import Server, free_port, needs_registry, pusher, real_registry
from support.token_server import Account, token_server

pytestmark = [
    needs_registry,
    pytest.mark.skipif(not find_kubectls(), reason="kubectl is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/howto/private-registry.md"
PASSWORDS = {
    "ada": "canary-of-ada",
    "grace": "canary-of-grace",
    "team-a": "canary-of-team-a",
    "team-b": "canary-of-team-b",
}
MAY_PULL = {"ada": "private", "grace": "strict", "team-a": "team-a", "team-b": "team-b"}


def blocks_of(number: int) -> list[str]:
    """Return the shell commands of one use case, in order."""
    (section,) = re.findall(
        rf"^## {number}\. .*?(?=^## )", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Person:
    """Somebody at a shell, who types what the page says."""

    instance: RunningPodyard
    api: Api
    registry: Server
    kubectl: Kubectl
    home: Path

    def type(self, block: str) -> str:
        """Run a block of the page; return what it prints."""
        block = block.replace("registry.example.com", self.registry.host)
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", block],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.home,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{block}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def type_until_it_works(self, block: str) -> str:
        """Run a block again and again, as one does who waits for something."""
        last = [""]

        def attempt() -> str | None:
            try:
                return self.type(block)
            except AssertionError as error:
                last[0] = str(error)
                return None

        try:
            return until(attempt)
        except TimeoutError:
            raise AssertionError(last[0]) from None

    def _environment(self) -> dict[str, str]:
        return {
            **self.kubectl.environment(self.instance.kubeconfig),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PASSWORD": PASSWORDS["ada"],
            "STRICT_PASSWORD": PASSWORDS["grace"],
            "PRIVATE_IMAGE_NAME": f"{self.registry.host}/private/app:v1",
        }


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("howto")
    authority = make_authority()
    leaf = make_leaf(authority, "registry", "127.0.0.1")
    (tmp / "ca.pem").write_text(authority.cert)
    with real_registry(tmp / "registry") as filled:
        asyncio.run(fill(filled))
    port = free_port()
    hosts = [{"host": f"127.0.0.1:{port}", "ca": str(tmp / "ca.pem")}]
    (tmp / "config.yaml").write_text(yaml.safe_dump({"registries": hosts}))
    accounts = {
        user: Account(password, (f"{MAY_PULL[user]}/*",))
        for user, password in PASSWORDS.items()
    }
    everybody = {"": Account("", ("public/*",))}
    with (
        token_server(
            accounts | everybody, signer=make_leaf(authority, "signer"), leaf=leaf
        ) as tokens,
        real_registry(
            tmp / "registry",
            authority=authority,
            leaf=leaf,
            token_realm=tokens.realm,
            token_cert=tmp / "ca.pem",
            port=port,
        ) as registry,
        running_podyard(
            f"howto-{os.getpid()}",
            tmp / "data",
            *("--root-dir", str(tmp / "root"), "--config", str(tmp / "config.yaml")),
        ) as instance,
    ):
        kubectl = find_kubectls()[-1]
        make_home(tmp, instance, kubectl)
        api = Api(instance.kubeconfig)
        try:
            yield Person(instance, api, registry, kubectl, tmp / "home")
        finally:
            api.close()


async def fill(registry: Server) -> None:
    async with pusher(registry) as push:
        for name in ("public", *MAY_PULL.values()):
            image = runnable_image(f"{name}/app:v1", name)
            await push.image(f"{name}/app", "v1", image)


def make_home(tmp: Path, instance: RunningPodyard, kubectl: Kubectl) -> None:
    """Have programs that mean this test's instance, registry and files."""
    programs = tmp / "home/bin"
    programs.mkdir(parents=True)
    settings = {
        "PODYARD_NAME": instance.name,
        "PODYARD_DATA_DIR": str(instance.data_dir),
        "PODYARD_ROOT_DIR": str(tmp / "root"),
        "PODYARD_CONFIG": str(tmp / "config.yaml"),
        "PODYARD_PORT": "0",
        "PODYARD_NODE_PORT": "0",
        "PYTHONPATH": str(ROOT / "src"),
    }
    exports = "".join(f"export {key}='{value}'\n" for key, value in settings.items())
    texts = {
        "podyard": f'{exports}exec {sys.executable} -m podyard "$@"\n',
        "kubectl": f'exec {kubectl.path} "$@"\n',
        # ``scp FILE root@NODE:/var/lib/kubelet/config.json`` to this very machine.
        "scp": (
            'echo "$2" | grep -q "^root@[0-9.]*:/var/lib/kubelet/config.json$"\n'
            f'exec cp "$1" {tmp}/root/config.json\n'
        ),
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh -e\n{text}")
        (programs / name).chmod(0o755)
    for tenant in ("team-a", "team-b"):
        (tmp / f"home/{tenant}.password").write_text(PASSWORDS[tenant])
    (tmp / "home/.docker").mkdir()


def test_every_use_case_has_commands():
    assert [len(blocks_of(number)) for number in (1, 2, 3, 4)] == [1, 7, 4, 3]


def test_1_public_images_need_nothing(person: Person):
    (run,) = blocks_of(1)

    assert "condition met" in person.type(run)


def test_2_the_nodes_password_is_for_every_pod(person: Person):
    log_in, apply, logs, why, copy, account, from_file = blocks_of(2)
    root_file = person.instance.data_dir.parent / "root/config.json"

    assert person.registry.host in person.type(log_in)
    assert root_file.stat().st_mode & 0o777 == 0o600
    person.type(apply)
    until(lambda: "SUCCESS" in person.type_until_it_works(logs))
    assert "accepted" in person.type(why)

    # The same again with a file of Docker's.
    docker_file = person.home / ".docker/config.json"
    docker_file.write_bytes(root_file.read_bytes())
    root_file.write_text("{}")
    person.type(copy)
    assert json.loads(root_file.read_bytes()) == json.loads(docker_file.read_bytes())

    # A pull secret is as good; the node's own credential has gone meanwhile.
    root_file.write_text("{}")
    assert "condition met" in person.type(account)
    person.type(from_file)


def test_3_an_image_on_the_node_is_not_every_pods(person: Person):
    restart, run, refused, settings = blocks_of(3)

    person.type(restart)
    assert "condition met" in person.type(run)
    assert "strict/app:v1" in person.type_until_it_works(refused)
    assert "condition met" in person.type(settings)

    made = person.api.pod("refused", "strict")
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert waiting_of(made)["reason"] in {"ErrImagePull", "ImagePullBackOff"}


def test_4_tenants_have_their_own_images_alone(person: Person):
    tenants, curious, refused = blocks_of(4)

    # The login of the second use case, which the tenants' one takes back.
    person.type(blocks_of(2)[0])
    assert person.type(tenants).count("condition met") == 2
    person.type(curious)
    told = person.type_until_it_works(refused)

    assert "team-a/app:v1" in told
    assert "team-b may not" in told
    person.api.until_pod("curious", FAILING, namespace="team-b")
    assert not [password for password in PASSWORDS.values() if password in told]
