"""Private images on a real runtime and a real registry, by every road we have."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from podyard.api.core_v1 import Pod
from podyard.api.runtime import ImageAuth
from podyard.containerd.archives import OCI_MANIFEST, architecture
from podyard.lib.clock import SystemClock
from podyard.node.credentials.manager import CredentialManager, find_node_files
from podyard.node.credentials.parts import ProviderPlugins, SourceContext
from podyard.node.credentials.providers.decide import parse_providers
from podyard.node.credentials.providers.programs import ProgramError, run_program
from podyard.node.images.access.build import build_intent
from podyard.node.images.access.records import ImageAccess
from podyard.node.images.decide import DiskUsage, GcSettings
from podyard.node.images.gc import ImageGc
from podyard.node.images.manager import ImageManager
from podyard.node.images.parts import ImageError
from podyard.node.images.pulls import ImageSettings
from podyard.testing.fake_registry import FakeRegistry, TokenAuth
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
    directory: Path

    async def push(self, name):
        async with pusher(self.server) as push:
            image = small_image(name, content=name.encode())
            return (await push.image(f"team/{name}", "1", image)).name

    async def ensure(
        self,
        image,
        *,
        secrets=(),
        policy="Always",
        uid="u",
        namespace="ns",
        account="",
    ):
        container = {"name": "c", "image": image, "imagePullPolicy": policy}
        pod = Pod.of(
            {
                "metadata": {"name": "p", "namespace": namespace, "uid": uid},
                "spec": {
                    "containers": [container],
                    "serviceAccountName": account,
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

    def put_secret(self, name, document, *, legacy=False):
        key = ".dockercfg" if legacy else ".dockerconfigjson"
        kind = f"kubernetes.io/{key[1:]}"
        if legacy:
            document = document["auths"]
        raw = base64.b64encode(orjson.dumps(document)).decode()
        self.objects.found[name] = {
            "metadata": {"name": name, "uid": name},
            "type": kind,
            "data": {key: raw},
        }

    async def restarted(self):
        """Return it as after a restart of the agent."""
        return await make_bench(
            self.services, self.objects, self.heard, self.server, self.directory
        )

    def write_program(self, name, text):
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    async def with_plugin(self, script, **entry):
        """Return it with a credential provider plugin."""
        self.write_program("plugin", script)
        provider = {
            "name": "plugin",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": [self.server.host],
            "defaultCacheDuration": "1h",
        } | entry
        document = {
            "apiVersion": "kubelet.config.k8s.io/v1",
            "kind": "CredentialProviderConfig",
            "providers": [provider],
        }
        plugins = ProviderPlugins(
            parse_providers([("f", document)]), self.directory / "bin"
        )
        return await make_bench(
            self.services,
            self.objects,
            self.heard,
            self.server,
            self.directory,
            plugins=plugins,
            tokens=Tokens(),
        )


class Tokens:
    async def get_token(self, pod, audience):
        return f"token-of-{pod.spec.service_account_name}-for-{audience}"


async def make_bench(services, objects, heard, server, directory, **context):
    files = find_node_files(
        root_dir=directory, working_dir=directory, home=None, top=directory
    )
    access = ImageAccess(directory / "image_manager", SystemClock())
    await access.load(await services.images.list_images())
    environment = {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "HOME": str(directory),
    }
    manager = ImageManager(
        services.images,
        CredentialManager(
            SourceContext(objects, files, environment=environment, **context)
        ),
        heard,
        SystemClock(),
        settings=ImageSettings(serialize_image_pulls=False, registry_pull_qps=0),
        access=access,
    )
    config_json = files.config_json[0]
    return Bench(manager, objects, heard, server, services, config_json, directory)


@pytest.fixture
async def bench(containerd, registry, tmp_path):
    heard = Heard()
    async with connect(containerd) as services:
        yield await make_bench(services, Objects(), heard, registry, tmp_path)
    assert PASSWORD not in repr(heard.events)
    pair = base64.b64encode(f"alice:{PASSWORD}".encode())
    for file in (tmp_path / "image_manager").rglob("sha256-*"):
        kept = file.read_bytes()
        assert PASSWORD.encode() not in kept
        assert pair not in kept


async def test_an_image_pull_secret_opens_the_registry(bench):
    image = await bench.push("by-secret")
    bench.put_secret("s", bench.auths())

    ensured = await bench.ensure(image, secrets=["s"])

    assert ensured.ref.startswith("sha256:")
    assert image in ensured.image.repo_tags
    assert bench.heard.reasons() == ["Pulling", "Pulled"]


def put_layered(fake, *contents):
    """Have ``team/app:1`` be an image with a layer for each content; return those."""
    layers, diff_ids = [], []
    for content in contents:
        archive = small_image("layer:1", content=content)
        (target,) = archive.targets.values()
        manifest = read_json(archive, target.digest)
        (layer,) = manifest["layers"]
        with archive.blobs[layer["digest"]].open() as source:
            fake.put_blob(source.read())
        layers.append(layer)
        diff_ids += read_json(archive, manifest["config"]["digest"])["rootfs"][
            "diff_ids"
        ]
    config = orjson.dumps(
        {
            "os": "linux",
            "architecture": architecture(),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": fake.put_blob(config),
        "size": len(config),
    }
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor,
            "layers": layers,
        }
    )
    fake.put_manifest("team/app", "1", manifest, OCI_MANIFEST)
    return [layer["digest"] for layer in layers]


def read_json(archive, digest):
    with archive.blobs[digest].open() as source:
        return orjson.loads(source.read())


async def test_always_asks_for_the_digest_and_fetches_only_what_is_missing(bench):
    async with FakeRegistry() as fake:
        image = f"{fake.host}/team/app:1"
        put_layered(fake, b"always: first")
        first = await bench.ensure(image)

        fake.seen.clear()
        again = await bench.ensure(image)
        asked_again = [seen.path for seen in fake.seen]

        fake.seen.clear()
        old, new = put_layered(fake, b"always: first", b"always: second")
        moved = await bench.ensure(image)
        fetched = [seen.path for seen in fake.seen if "/blobs/" in seen.path]

    assert first.ref == again.ref
    assert any(path.endswith("/manifests/1") for path in asked_again)
    assert not [path for path in asked_again if "/blobs/" in path]
    assert moved.ref != first.ref
    assert [path for path in fetched if path.endswith(new)]
    assert not [path for path in fetched if path.endswith(old)]


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


async def test_a_present_image_is_only_told_of(bench):
    for n in range(3):
        await bench.ensure(BUSYBOX, policy="IfNotPresent", uid=str(n))

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


async def test_a_legacy_secret_opens_it_too(bench):
    image = await bench.push("by-dockercfg")
    bench.put_secret("old", bench.auths(), legacy=True)

    await bench.ensure(image, secrets=["old"])

    assert bench.heard.reasons() == ["Pulling", "Pulled"]


# -- who may use what is there


PRESENT = "Container image {} already present on machine and can be accessed by the pod"


def text_of(template, image):
    return template.format(f'"{image}"')


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_the_tenant_who_pulled_it_may_use_it_again(bench, policy):
    image = await bench.push(f"own-{policy.lower()}")
    bench.put_secret("s", bench.auths())
    await bench.ensure(image, secrets=["s"], uid="1")

    await bench.ensure(image, secrets=["s"], policy=policy, uid="2")

    assert bench.heard.events[-1] == ("Pulled", text_of(PRESENT, image))


async def test_another_tenant_cannot_use_it_because_it_is_there(bench):
    image = await bench.push("tenants")
    bench.put_secret("s", bench.auths())
    await bench.ensure(image, secrets=["s"], uid="a", namespace="a")

    with pytest.raises(ImageError) as caught:
        await bench.ensure(image, policy="IfNotPresent", uid="b", namespace="b")

    assert caught.value.reason == "ErrImagePull"
    assert "already present" not in repr(bench.heard.events)


async def test_never_does_not_tell_another_tenant_that_it_is_there(bench):
    image = await bench.push("tenants-never")
    bench.put_secret("s", bench.auths())
    await bench.ensure(image, secrets=["s"], uid="a", namespace="a")

    with pytest.raises(ImageError) as caught:
        await bench.ensure(image, policy="Never", uid="b", namespace="b")

    assert caught.value.reason == "ErrImageNeverPull"
    text = text_of("Container image {} is not present with pull policy of Never", image)
    assert caught.value.message == text


async def test_access_outlives_the_agent(bench):
    image = await bench.push("restart")
    bench.put_secret("s", bench.auths())
    await bench.ensure(image, secrets=["s"], uid="a")

    again = await bench.restarted()

    await again.ensure(image, secrets=["s"], policy="IfNotPresent", uid="b")
    assert bench.heard.events[-1] == ("Pulled", text_of(PRESENT, image))
    with pytest.raises(ImageError):
        await again.ensure(image, policy="Never", uid="c")


async def test_a_rotated_secret_is_verified_again(bench):
    image = await bench.push("rotated")
    bench.put_secret("s", bench.auths())
    await bench.ensure(image, secrets=["s"], uid="a")

    bench.put_secret("s", bench.auths(password="revoked"))

    with pytest.raises(ImageError) as caught:
        await bench.ensure(image, secrets=["s"], policy="IfNotPresent", uid="b")
    assert caught.value.reason == "ErrImagePull"


async def test_the_nodes_own_credentials_open_it_for_everybody(bench):
    image = await bench.push("by-node")
    bench.config_json.write_bytes(orjson.dumps(bench.auths()))
    await bench.ensure(image, uid="a")
    bench.config_json.unlink()

    await bench.ensure(image, policy="Never", uid="b", namespace="b")

    assert bench.heard.events[-1] == ("Pulled", text_of(PRESENT, image))


async def test_a_preloaded_image_is_everybodys(bench):
    await bench.ensure(BUSYBOX, policy="Never", uid="a")

    assert bench.heard.events == [("Pulled", text_of(PRESENT, BUSYBOX))]


async def test_a_pull_that_a_crash_cut_off_is_verified(bench):
    image = await bench.push("crash")
    bench.put_secret("s", bench.auths())
    await bench.services.images.pull_image(
        image, auth=ImageAuth(username="alice", password=PASSWORD)
    )
    directory = bench.directory / "image_manager" / "pulling"
    name = f"sha256-{hashlib.sha256(image.encode()).hexdigest()}"
    (directory / name).write_bytes(build_intent(image))

    again = await bench.restarted()

    with pytest.raises(ImageError):
        await again.ensure(image, policy="Never", uid="b")
    await again.ensure(image, secrets=["s"], policy="IfNotPresent", uid="c")
    assert list(directory.iterdir()) == []


# -- programs


ANSWER = """#!/bin/sh
cat > "$HOME/request"
echo asked >> "$HOME/asked"
echo '{{"kind":"CredentialProviderResponse",
"apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{kind}",
"auth":{{"{host}":{{"username":"alice","password":"{password}"}}}}}}'
echo {password} >&2
"""


def script_of(bench, *, kind="Registry", password=PASSWORD):
    return ANSWER.format(host=bench.server.host, password=password, kind=kind)


def times_asked(bench):
    return (bench.directory / "asked").read_text().count("asked")


async def test_a_credential_provider_plugin_opens_the_registry(bench):
    image, other = await bench.push("by-plugin"), await bench.push("by-plugin-too")
    node = await bench.with_plugin(script_of(bench))

    await node.ensure(image, uid="a")
    await node.ensure(other, uid="b")

    assert times_asked(bench) == 1
    request = orjson.loads((bench.directory / "request").read_bytes())
    assert request == {
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": image.rpartition(":")[0],
    }
    assert bench.heard.reasons() == ["Pulling", "Pulled"] * 2


async def test_a_plugin_is_asked_once_by_many(bench):
    images = [await bench.push(f"many-{n}") for n in range(2)]
    slow = script_of(bench).replace("echo asked", "sleep 0.5; echo asked")
    node = await bench.with_plugin(slow)

    async with asyncio.TaskGroup() as group:
        for n, image in enumerate([images[0]] * 5):
            group.create_task(node.ensure(image, uid=str(n)))

    assert times_asked(bench) == 1


async def test_a_plugin_is_asked_for_a_service_account(bench):
    image = await bench.push("by-account")
    bench.objects.found["robot"] = {
        "metadata": {"name": "robot", "uid": "7", "annotations": {"role": "r"}}
    }
    attributes = {
        "serviceAccountTokenAudience": "registry",
        "cacheType": "Token",
        "requireServiceAccount": True,
        "requiredServiceAccountAnnotationKeys": ["role"],
    }
    node = await bench.with_plugin(script_of(bench), tokenAttributes=attributes)

    await node.ensure(image, uid="a", account="robot")

    request = orjson.loads((bench.directory / "request").read_bytes())
    assert request["serviceAccountToken"] == "token-of-robot-for-registry"
    assert request["serviceAccountAnnotations"] == {"role": "r"}
    await node.ensure(image, policy="Never", uid="b", account="robot")
    with pytest.raises(ImageError):
        await node.ensure(image, policy="Never", uid="c", account="")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(
            f"#!/bin/sh\necho {PASSWORD} >&2; exit 3\n", "exit code 3", id="3"
        ),
        pytest.param(f"#!/bin/sh\necho {PASSWORD}\n", "not valid JSON", id="words"),
        pytest.param("#!/nonexistent\n", "cannot be run", id="no-interpreter"),
        pytest.param("#!/bin/sh\nkill -9 $$\n", "signal 9", id="killed"),
    ],
)
async def test_a_plugin_that_fails_is_told_of_without_a_word_of_its(bench, script, why):
    image = await bench.push("plugin-fails")
    node = await bench.with_plugin(script)

    with pytest.raises(ImageError):
        await node.ensure(image, uid="a")

    reason, message = bench.heard.events[0]
    assert reason == "CredentialProviderFailed"
    assert message.startswith('Credential provider "plugin" gave no credentials: ')
    assert why in message


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("script", "answer"),
    [
        pytest.param("wc -c", b"300000\n", id="reads-all"),
        pytest.param("sleep 0.1; wc -c", b"300000\n", id="reads-late"),
        pytest.param("exec echo hi", b"hi\n", id="reads-nothing"),
        pytest.param("exec <&-; sleep 0.1; echo hi", b"hi\n", id="closes-it"),
    ],
)
def test_a_program_reads_its_request_or_not(loop, script, answer):
    factory = pytest.importorskip(loop).new_event_loop

    async def run():
        return await run_program(
            ["sh", "-c", script], b"x" * 300_000, environment=dict(os.environ)
        )

    with asyncio.Runner(loop_factory=factory) as runner:
        answers = {runner.run(run()) for _ in range(5)}

    assert answers == {answer}


async def test_a_plugin_that_hangs_is_ended(tmp_path):
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nsleep 60 & echo $! > child; sleep 60\n")
    program.chmod(0o755)

    with pytest.raises(ProgramError, match=r"did not end within 0\.5 s"):
        await run_program(
            ["sh", "-c", f"cd {tmp_path} && exec {program}"],
            b"",
            environment={"PATH": os.environ["PATH"]},
            timeout_s=0.5,
        )

    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}/exe").exists():
            break
        await asyncio.sleep(0.02)
    assert not Path(f"/proc/{child}/exe").exists()


@pytest.mark.parametrize("field", ["credHelpers", "credsStore"])
async def test_a_credential_helper_of_the_node_file_is_asked(bench, field):
    image = await bench.push(f"by-{field.lower()}")
    answer = orjson.dumps({"Username": "alice", "Secret": PASSWORD}).decode()
    bench.write_program(
        "docker-credential-test",
        f"#!/bin/sh\ncat > $HOME/server; echo $1 > $HOME/verb; echo '{answer}'\n",
    )
    value = {bench.server.host: "test"} if field == "credHelpers" else "test"
    bench.config_json.write_bytes(orjson.dumps({field: value}))

    await bench.ensure(image)

    assert (bench.directory / "server").read_text() == bench.server.host
    assert (bench.directory / "verb").read_text() == "get\n"


async def test_a_missing_helper_is_told_of(bench):
    image = await bench.push("no-helper")
    bench.config_json.write_bytes(
        orjson.dumps({"credHelpers": {bench.server.host: "absent"}})
    )

    with pytest.raises(ImageError):
        await bench.ensure(image)

    reason, message = bench.heard.events[0]
    assert reason == "CredentialHelperFailed"
    assert message.endswith("docker-credential-absent is not in the PATH")


async def test_a_helper_named_by_a_secret_is_never_run(bench):
    image = await bench.push("secret-helper")
    bench.write_program("docker-credential-evil", "#!/bin/sh\ntouch $HOME/ran\n")
    bench.put_secret("s", {"credHelpers": {bench.server.host: "evil"}})

    with pytest.raises(ImageError):
        await bench.ensure(image, secrets=["s"])

    assert not (bench.directory / "ran").exists()


async def test_an_identity_token_of_the_node_file_is_taken(bench):
    token = "canary-identity-token"
    auth = TokenAuth({"pusher": "p"}, identity_tokens=(token,))
    async with FakeRegistry() as fake:
        async with pusher(Server(fake.host)) as push:
            image = (await push.image("team/app", "1", small_image("app:1"))).name
        fake.auth = auth
        with pytest.raises(ImageError):
            await bench.ensure(image)
        bench.config_json.write_bytes(
            orjson.dumps({"auths": {fake.host: {"identitytoken": token}}})
        )

        await bench.ensure(image)

    assert token not in repr(bench.heard.events)
