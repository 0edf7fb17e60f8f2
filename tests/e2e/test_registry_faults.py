"""Pods whose registry fails in every way it can, until it does no more.

All of them walk side by side: each has a registry of its own with one fault, is seen to
fail, and runs once the fault is gone.
"""

import asyncio
import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import yaml

from podyard.api.documents import Document
from podyard.testing.fake_registry import (
    Auth,
    BasicAuth,
    FakeRegistry,
    Kind,
    On,
    Seen,
    TokenAuth,
)
from support.api import Api, pod_path, until
from support.instance import RunningPodyard, running_podyard
from support.pulled_pods import (
    FAILING,
    is_running,
    private_pod,
    runnable_image,
    waiting_of,
)
from support.registry import Server, pusher

PASSWORD = "canary-f4ult-w4lk"
USERS = {"ada": PASSWORD}
BASIC, TOKEN = BasicAuth(USERS), TokenAuth(USERS)
STALLED = r"no byte has come from the registry for 3s \(imagePullProgressTimeout\)"


@dataclass(frozen=True)
class Fault:
    """A way to fail.

    Attributes:
        lay: does it to a registry; also given an open and a closed one elsewhere.
        error: what the pull's error says, as a pattern.
        auth: what the registry asks for.
        dies: the registry ends amid the blob.
    """

    lay: Callable[[FakeRegistry, FakeRegistry, FakeRegistry], object]
    error: str
    auth: Auth = field(default_factory=lambda: BASIC)
    dies: bool = False


def laid(on: On, kind: Kind, error: str, auth: Auth = BASIC, **details) -> Fault:
    return Fault(lambda mine, _, __: mine.fault(on, kind, **details), error, auth)


def status(code: int, error: str, **details) -> Fault:
    return laid(On.MANIFEST, Kind.STATUS, error, status=code, **details)


FAULTS = {
    "401": status(401, "401 Unauthorized"),
    "401-of-the-token-server": laid(
        On.TOKEN, Kind.STATUS, "failed to authorize: .*401", TOKEN, status=401
    ),
    "403": status(403, "403 Forbidden"),
    "404": status(404, r"rpc error: code = NotFound desc = .*: not found"),
    "429": status(429, "429 Too Many Requests", headers={"Retry-After": "1"}),
    "500": status(500, "500 Internal Server Error"),
    "hanging-manifest": laid(On.MANIFEST, Kind.HANG, STALLED),
    "hanging-blob": laid(On.BLOB, Kind.HANG, STALLED, TOKEN),
    "truncated-blob": laid(On.BLOB, Kind.TRUNCATE, "unexpected EOF"),
    "wrong-blob": laid(On.BLOB, Kind.WRONG_BYTES, "unexpected commit digest"),
    "wrong-manifest": laid(On.MANIFEST, Kind.WRONG_BYTES, "unexpected commit digest"),
    "lying-digest": laid(On.MANIFEST, Kind.LYING_DIGEST, "not found"),
    "cut-off-blob": laid(On.BLOB, Kind.DISCONNECT, "EOF"),
    "web-page": laid(On.MANIFEST, Kind.WEB_PAGE, "text/html"),
    "redirected-to-who-asks": Fault(
        lambda mine, _, closed: mine.fault(On.BLOB, Kind.REDIRECT, location=closed.url),
        "401 Unauthorized",
        TOKEN,
    ),
    "foreign-realm": Fault(
        lambda mine, elsewhere, _: mine.fault(
            On.ANY, Kind.REALM, location=f"{elsewhere.url}/token"
        ),
        r'names the token realm "http://127\.0\.0\.2:\d+/token", which is neither its '
        r"own host nor of its domain, so it gets no credentials",
    ),
    "dies-amid-a-blob": Fault(
        lambda mine, _, __: mine.fault(On.BLOB, Kind.TRICKLE),
        "unexpected EOF|connection re",
        TOKEN,
        dies=True,
    ),
}
#: Blobs elsewhere are no fault: the Pod runs at once.
REDIRECTED = "redirected"


@dataclass
class Walk:
    """What was seen on the way.

    Attributes:
        images: by fault, what the Pod wants.
        digests: by fault, the digest of its image.
        failing: by fault, the Pod while it failed.
        events: by fault, what was told until then.
        here: names of the images on the node then.
        running: by fault, the Pod at the end.
        elsewhere: requests to the hosts that should see no password.
        told: everything that was told, in status, events, records and logs.
    """

    images: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    failing: dict[str, Document] = field(default_factory=dict)
    events: dict[str, list[str]] = field(default_factory=dict)
    here: list[str] = field(default_factory=list)
    running: dict[str, Document] = field(default_factory=dict)
    elsewhere: list[Seen] = field(default_factory=list)
    told: str = ""


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    tmp = tmp_path_factory.mktemp("faults")
    settings = {
        "imagePullProgressTimeout": "3s",
        "maxParallelImagePulls": 2 * len(FAULTS),
        "registryPullQPS": 0,
    }
    (tmp / "config.yaml").write_text(yaml.safe_dump(settings))
    arguments = ("--root-dir", str(tmp), "--config", str(tmp / "config.yaml"))
    name = f"faults-{os.getpid()}"
    with running_podyard(name, tmp / "data", *arguments) as instance:
        api = Api(instance.kubeconfig)
        try:
            yield asyncio.run(walk_through(instance, api))
        finally:
            api.close()


async def walk_through(instance: RunningPodyard, api: Api) -> Walk:
    """Lay the faults, see every Pod fail, heal, and see every Pod run."""
    walk = Walk()
    async with AsyncExitStack() as stack:
        registries: dict[str, FakeRegistry] = {}
        for name in (*FAULTS, REDIRECTED):
            registries[name] = await stack.enter_async_context(FakeRegistry())
            await fill(registries[name], name, walk)
        # Another host than 127.0.0.1, that gives everybody what they ask for.
        elsewhere = await stack.enter_async_context(
            FakeRegistry(address="127.0.0.2", auth=None)
        )
        await fill(elsewhere, REDIRECTED)
        elsewhere.seen.clear()
        closed = await stack.enter_async_context(
            FakeRegistry(address="127.0.0.2", auth=BASIC)
        )
        for name, fault in FAULTS.items():
            fault.lay(registries[name], elsewhere, closed)
            registries[name].auth = fault.auth
        registries[REDIRECTED].fault(On.BLOB, Kind.REDIRECT, location=elsewhere.url)
        registries[REDIRECTED].auth = BASIC

        await asyncio.to_thread(create_pods, api, registries, walk)
        for name, fault in FAULTS.items():
            if fault.dies:
                await asyncio.to_thread(until_blob_is_asked, registries[name])
                await registries[name].stop()
        await asyncio.to_thread(see_failing, instance, api, walk)
        for name, fault in FAULTS.items():
            registries[name].heal()
            if fault.dies:
                await registries[name].start()
        await asyncio.to_thread(see_running, instance, api, walk)
        walk.elsewhere = elsewhere.seen + closed.seen
    return walk


async def fill(registry: FakeRegistry, name: str, walk: Walk | None = None) -> None:
    """Have an image of that fault alone in a registry."""
    image = runnable_image("app:v1", name)
    async with pusher(Server(registry.host)) as push:
        pushed = await push.image("team/app", "v1", image)
    if walk is not None:
        walk.images[name] = pushed.name
        walk.digests[name] = pushed.digest


def create_pods(api: Api, registries: dict[str, FakeRegistry], walk: Walk) -> None:
    pair = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    auths = {registry.host: {"auth": pair} for registry in registries.values()}
    content = json.dumps({"auths": auths}).encode()
    api.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "all"},
            "data": {".dockerconfigjson": base64.b64encode(content).decode()},
        }
    )
    for name, image in walk.images.items():
        api.create(private_pod(name, image, imagePullSecrets=[{"name": "all"}]))


def until_blob_is_asked(registry: FakeRegistry) -> None:
    until(lambda: any("/blobs/" in seen.path for seen in tuple(registry.seen)))


def see_failing(instance: RunningPodyard, api: Api, walk: Walk) -> None:
    for name in FAULTS:
        walk.failing[name] = api.until_pod(name, FAILING)
        api.until_event(name, "Warning Failed Error: ErrImagePull")
        walk.events[name] = api.events(name)
    listed = json.loads(instance.cli("image", "ls", "-o", "json").stdout)
    walk.here = [tag for image in listed for tag in image["repoTags"]]


def see_running(instance: RunningPodyard, api: Api, walk: Walk) -> None:
    for name in walk.images:
        walk.running[name] = api.until_pod(name, is_running)
        explained = api.must("GET", f"{pod_path(name)}/explain")
        walk.told += json.dumps([walk.running[name], explained, api.events(name)])
    walk.told += instance.cli("explain", "pull", "foreign-realm").stdout
    logs = instance.data_dir.rglob("*.log")
    walk.told += "".join(log.read_text(errors="replace") for log in logs)


@pytest.mark.parametrize("name", FAULTS)
def test_the_reason_and_the_events_are_those_of_kubernetes(walk: Walk, name: str):
    image, events = walk.images[name], walk.events[name]
    waiting = waiting_of(walk.failing[name])

    begin = f'Warning Failed Failed to pull image "{image}": '
    errors = [event[len(begin) :] for event in events if event.startswith(begin)]

    assert f'Normal Pulling Pulling image "{image}"' in events
    assert errors, events
    assert re.search(FAULTS[name].error, errors[-1], re.DOTALL), errors
    assert waiting in [
        {"reason": "ErrImagePull", "message": errors[-1]},
        {
            "reason": "ImagePullBackOff",
            "message": f'Back-off pulling image "{image}": ErrImagePull: {errors[-1]}',
        },
    ]
    if waiting["reason"] == "ImagePullBackOff":
        assert f'Normal BackOff Back-off pulling image "{image}"' in events
    assert walk.failing[name]["status"]["phase"] == "Pending"


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_runs_of_an_image_that_is_not_whole(walk: Walk, name: str):
    (failing,) = walk.failing[name]["status"]["containerStatuses"]

    assert walk.images[name] not in walk.here
    assert not failing.get("containerID")
    assert not failing.get("imageID")


@pytest.mark.parametrize("name", [*FAULTS, REDIRECTED])
def test_the_pod_runs_the_very_image_once_the_fault_is_gone(walk: Walk, name: str):
    (running,) = walk.running[name]["status"]["containerStatuses"]

    assert running["imageID"].endswith(f"/team/app@{walk.digests[name]}")
    assert running["restartCount"] == 0


def test_blobs_from_elsewhere_are_taken_and_cost_no_password(walk: Walk):
    asked = [seen for seen in walk.elsewhere if "/blobs/" in seen.path]

    assert asked
    assert {seen.authorization for seen in walk.elsewhere} == {""}
    assert {seen.body for seen in walk.elsewhere} == {""}


def test_a_foreign_realm_is_never_asked(walk: Walk):
    assert not [seen for seen in walk.elsewhere if seen.path.startswith("/token")]


def test_no_password_is_told_anywhere(walk: Walk):
    pair = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()

    assert "ErrImagePull" in walk.told
    assert PASSWORD not in walk.told
    assert pair not in walk.told
