"""Credentials of a Pod: its Secrets first, then the node's own files."""

import base64

import orjson
import pytest

from podyard.api.core_v1 import Pod
from podyard.client.referenced import ReferencedObjectError
from podyard.node.credentials.manager import (
    CredentialManager,
    find_node_files,
    load_credential_sources,
)
from podyard.node.credentials.parts import SourceContext

pytestmark = pytest.mark.integration

IMAGE = "reg.io/team/app"


def entry(user):
    return {"auth": base64.b64encode(f"{user}:hunter2".encode()).decode()}


class Objects:
    def __init__(self):
        self.found = {}
        self.fault = ""

    async def get(self, kind, namespace, name):
        if self.fault:
            raise ReferencedObjectError(self.fault)
        return self.found.get(name)

    def put(self, name, content, kind="kubernetes.io/dockerconfigjson"):
        key = "." + kind.partition("/")[2]
        raw = content if isinstance(content, bytes) else orjson.dumps(content)
        data = {key: base64.b64encode(raw).decode()}
        self.found[name] = {
            "metadata": {"name": name, "uid": f"uid-{name}"},
            "type": kind,
            "data": data,
        }


@pytest.fixture
def objects():
    return Objects()


@pytest.fixture
def files(tmp_path):
    return find_node_files(
        root_dir=tmp_path / "root",
        working_dir=tmp_path / "cwd",
        home=tmp_path / "home",
        top=tmp_path / "top",
    )


@pytest.fixture
def manager(objects, files):
    return CredentialManager(SourceContext(objects, files))


def make_pod(*secrets):
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "containers": [],
                "imagePullSecrets": [{"name": name} for name in secrets],
            },
        }
    )


async def users(manager, *secrets, image=IMAGE):
    found = await manager.look_up(make_pod(*secrets), image)
    assert "hunter2" not in repr(found)
    return [c.auth.username for c in found.credentials]


async def problems(manager, *secrets):
    found = await manager.look_up(make_pod(*secrets), IMAGE)
    assert {p.reason for p in found.problems} <= {"FailedToRetrieveImagePullSecret"}
    return [p.message for p in found.problems]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))


def test_our_credential_sources_and_their_order():
    sources = sorted(load_credential_sources(), key=lambda source: source.rank)

    assert [source.name for source in sources] == [
        "pull-secrets",
        "docker-config",
        "exec-plugin",
    ]


async def test_both_types_of_secrets_make_one_keyring(objects, manager):
    objects.put("new", {"auths": {"reg.io": entry("plain")}})
    objects.put("old", {"reg.io/team": entry("team")}, "kubernetes.io/dockercfg")

    assert await users(manager, "new", "old", "") == ["team", "plain"]
    found = await manager.look_up(make_pod("new"), IMAGE)
    assert found.credentials[0].secret == ("ns", "new", "uid-new")
    assert str(found.credentials[0]) == 'imagePullSecret "new", key "reg.io"'


async def test_each_bad_secret_is_named_and_spoils_no_other(objects, manager):
    objects.put("good", {"auths": {"reg.io": entry("good")}})
    objects.put("opaque", {}, "Opaque/opaque")
    objects.put("broken", b"{hunter2")
    objects.put("auth", {"auths": {"reg.io": {"auth": "hunter2"}}})
    objects.found["empty"] = {"type": "kubernetes.io/dockercfg", "data": {}}
    names = ("gone", "opaque", "broken", "auth", "empty", "lost", "good")

    assert await users(manager, *names) == ["good"]
    assert await problems(manager, *names) == [
        (
            "Unable to retrieve some image pull secrets (gone, lost); attempting to pull "
            "the image may not succeed."
        ),
        (
            'Image pull secret "opaque" is not used: its type is "Opaque/opaque", not '
            "kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
        ),
        'Image pull secret "broken" is not used: it is not valid JSON',
        (
            'Image pull secret "auth" is not used: unable to parse auth field, must be '
            "formatted as base64(username:password)"
        ),
        'Image pull secret "empty" is not used: it has no .dockercfg',
    ]


async def test_a_secret_that_cannot_be_read_counts_as_missing(objects, manager):
    objects.fault = "forbidden"

    assert await problems(manager, "a", "b") == [
        (
            "Unable to retrieve some image pull secrets (a, b); attempting to pull the "
            "image may not succeed."
        )
    ]


async def test_the_nodes_files_come_after_the_pods_secrets(objects, manager, files):
    objects.put("s", {"auths": {"reg.io": entry("secret")}})
    write(files.config_json[0], {"auths": {"reg.io/team": entry("node")}})

    assert await users(manager, "s") == ["secret", "node"]
    assert await users(manager) == ["node"]


def test_the_eight_places_of_the_page(tmp_path, files):
    places = [str(p.relative_to(tmp_path)) for p in files.config_json + files.dockercfg]

    assert places == [
        "root/config.json",
        "cwd/config.json",
        "home/.docker/config.json",
        "top/.docker/config.json",
        "root/.dockercfg",
        "cwd/.dockercfg",
        "home/.dockercfg",
        "top/.dockercfg",
    ]


@pytest.mark.parametrize("index", range(8))
async def test_each_place_counts(manager, files, index):
    path = (files.config_json + files.dockercfg)[index]
    auths = {"reg.io": entry("node")}
    write(path, auths if path.name == ".dockercfg" else {"auths": auths})

    assert await users(manager) == ["node"]


async def test_the_first_valid_file_counts_alone(manager, files):
    write(files.config_json[0], b"not json")
    write(files.config_json[1], {"auths": {"reg.io": entry("cwd")}})
    write(files.config_json[2], {"auths": {"reg.io": entry("home")}})
    write(files.dockercfg[0], {"reg.io": entry("legacy")})

    assert await users(manager) == ["cwd"]


async def test_files_are_read_anew_when_they_change(manager, files):
    assert await users(manager) == []
    for user in ("one", "other"):
        write(files.config_json[0], {"auths": {"reg.io": entry(user)}})
        assert await users(manager) == [user]

    files.config_json[0].unlink()
    assert await users(manager) == []


@pytest.mark.parametrize(
    ("semantics", "expected"), [("documented", ["u"]), ("upstream", [])]
)
async def test_globs_follow_the_semantics(objects, files, semantics, expected):
    manager = CredentialManager(SourceContext(objects, files), semantics=semantics)
    write(files.config_json[0], {"auths": {"*my-registry.io/images": entry("u")}})

    found = await users(manager, image="a.sub.my-registry.io/images/my-image")

    assert found == expected
