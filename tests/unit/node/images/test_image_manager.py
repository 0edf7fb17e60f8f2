"""Images by policy, over a scripted runtime."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import ContainerState, ContainerStatus, FilesystemUsage, Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.cri.services import CRIError, CRINotFoundError
from podyard.node.credentials.decide import Credential
from podyard.node.credentials.manager import LookedUp
from podyard.node.credentials.parts import CredentialProblem
from podyard.node.images.access.build import parse_record
from podyard.node.images.access.decide import VerificationSettings
from podyard.node.images.access.records import ImageAccess
from podyard.node.images.decide import DiskUsage
from podyard.node.images.gc import ImageGc
from podyard.node.images.manager import (
    ImageManager,
    ImagePullBackOffError,
)
from podyard.node.images.parts import ImageError
from podyard.node.images.pulls import ImageSettings


class LoopClock:
    """The loop's own time, which jumps in these tests."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class FakeImageService:
    """Images in memory; pulls take a second and do as they are told."""

    images: dict[str, Image] = field(default_factory=dict)
    #: What each pull does: an error, or nothing for success.
    script: deque[CRIError | None] = field(default_factory=deque)
    pull_s: float = 1.0
    calls: list[str] = field(default_factory=list)
    auths: list[ImageAuth | None] = field(default_factory=list)
    running: int = 0
    most: int = 0
    cancelled: int = 0
    inspect_error: CRIError | None = None
    filesystems: tuple[FilesystemUsage, ...] = (FilesystemUsage("/x", 0, 0),)

    async def list_images(self):
        return tuple({i.id: i for i in self.images.values()}.values())

    async def image_status(self, image):
        self.calls.append(f"status {image}")
        if self.inspect_error:
            raise self.inspect_error
        return self.images.get(image)

    async def pull_image(self, image, *, auth, sandbox=None, handler=""):
        self.calls.append(f"pull {image}")
        self.auths.append(auth)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.pull_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        error = self.script.popleft() if self.script else None
        if error:
            raise error
        pulled = Image(f"sha256:{image}", (image,), size_bytes=42)
        self.images[image] = self.images[pulled.id] = pulled
        return pulled.id

    async def remove_image(self, image):
        self.calls.append(f"remove {image}")
        self.images = {k: v for k, v in self.images.items() if v.id != image}

    async def image_fs_info(self):
        return self.filesystems

    def pulls(self):
        return [call for call in self.calls if call.startswith("pull")]


@dataclass
class StaticCredentials:
    found: LookedUp = field(default_factory=lambda: LookedUp((), ()))
    asked: list[str] = field(default_factory=list)

    async def look_up(self, pod, repository):
        self.asked.append(repository)
        return self.found


@dataclass
class Heard:
    events: list[tuple[str, str, str]] = field(default_factory=list)

    def event(self, document, event_type, reason, message, *, field_path=""):
        assert field_path in {"spec.containers{c}", ""}
        self.events.append((event_type, reason, message))

    def node_event(self, event_type, reason, message):
        self.events.append((event_type, reason, message))


@dataclass
class Bench:
    service: FakeImageService
    credentials: StaticCredentials
    heard: Heard
    manager: ImageManager

    async def ensure(self, pod):
        return await self.manager.ensure_image(
            pod, pod.spec.containers[0], SandboxConfig("p", "ns", "u"), ""
        )


@pytest.fixture
def bench():
    return make_bench()


def make_bench(**settings):
    service, credentials, heard = FakeImageService(), StaticCredentials(), Heard()
    manager = ImageManager(
        service,
        credentials,
        heard,
        LoopClock(),
        settings=ImageSettings(**settings),
    )
    return Bench(service, credentials, heard, manager)


def make_pod(image="busybox:1", policy="IfNotPresent", uid="u"):
    container = {"name": "c", "image": image, "imagePullPolicy": policy}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": uid},
            "spec": {"containers": [container]},
        }
    )


def credential(user, origin="o"):
    return Credential(ImageAuth(username=user, password="p"), "docker.io", origin)


BOOM = CRIError("PullImage", "UNKNOWN", "boom")


async def test_a_present_image_costs_one_question(bench):
    bench.service.images["busybox:1"] = image = Image("sha256:1")

    ensured = await bench.ensure(make_pod())

    assert (ensured.ref, ensured.image) == ("sha256:1", image)
    assert bench.service.calls == ["status busybox:1"]
    assert bench.credentials.asked == []
    assert bench.heard.events == [
        (
            "Normal",
            "Pulled",
            (
                'Container image "busybox:1" already present on machine and can be '
                "accessed by the pod"
            ),
        )
    ]


async def test_an_absent_image_is_pulled_and_timed(bench):
    ensured = await bench.ensure(make_pod("busybox"))

    assert ensured.ref == "sha256:busybox:latest"
    assert bench.credentials.asked == ["docker.io/library/busybox"]
    assert bench.heard.events == [
        ("Normal", "Pulling", 'Pulling image "busybox"'),
        (
            "Normal",
            "Pulled",
            (
                'Successfully pulled image "busybox" in 1s (1s including waiting). '
                "Image size: 42 bytes."
            ),
        ),
    ]


async def test_always_asks_the_registry_and_not_the_node(bench):
    bench.service.images["busybox:1"] = Image("sha256:1")

    await bench.ensure(make_pod(policy="Always"))

    assert bench.service.calls[0] == "pull busybox:1"


async def test_never_refuses_what_is_absent(bench):
    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod(policy="Never"))

    text = 'Container image "busybox:1" is not present with pull policy of Never'
    assert (caught.value.reason, caught.value.message) == ("ErrImageNeverPull", text)
    assert bench.heard.events == [
        ("Warning", "ErrImageNeverPull", text),
        ("Warning", "Failed", "Error: ErrImageNeverPull"),
    ]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (
            "FAILED_IMAGE",
            (
                "invalid reference format: repository name (library/FAILED_IMAGE) must "
                "be lowercase"
            ),
        ),
        ("http://url", "invalid reference format"),
        (
            "a" * 64,
            (
                f"invalid repository name ({'a' * 64}), cannot specify 64-byte "
                "hexadecimal strings"
            ),
        ),
    ],
)
async def test_a_bad_name_asks_nobody(bench, image, why):
    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod(image))

    text = (
        f'Failed to apply default image tag "{image}": couldn\'t parse image name '
        f'"{image}": {why}'
    )
    assert (caught.value.reason, caught.value.message) == ("InvalidImageName", text)
    assert bench.service.calls == []
    assert [e[1] for e in bench.heard.events] == ["InspectFailed", "Failed"]


async def test_a_runtime_that_cannot_be_asked_is_an_inspect_error(bench):
    bench.service.inspect_error = CRIError("ImageStatus", "UNAVAILABLE", "gone")

    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod())

    assert caught.value.reason == "ImageInspectError"
    assert caught.value.message == (
        'Failed to inspect image "": rpc error: code = Unavailable desc = gone'
    )


async def test_a_failed_pull_backs_off_ten_seconds_then_tries_again(bench):
    bench.service.script.extend([BOOM, BOOM])
    pod = make_pod()

    with pytest.raises(ImageError) as first:
        await bench.ensure(pod)
    with pytest.raises(ImagePullBackOffError) as second:
        await bench.ensure(pod)
    await asyncio.sleep(second.value.retry_in_s)
    with pytest.raises(ImageError) as third:
        await bench.ensure(pod)
    with pytest.raises(ImagePullBackOffError) as fourth:
        await bench.ensure(pod)

    assert (first.value.reason, first.value.message) == ("ErrImagePull", "boom")
    assert second.value.message == (
        'Back-off pulling image "busybox:1": ErrImagePull: boom'
    )
    assert second.value.retry_in_s == pytest.approx(10)
    # Looked at again while it waits, so that it shows, and then when the wait is over.
    assert first.value.look_in_s == pytest.approx(3)
    assert second.value.look_in_s == pytest.approx(10)
    assert third.value.reason == "ErrImagePull"
    assert fourth.value.retry_in_s == pytest.approx(20)
    assert bench.heard.events[:5] == [
        ("Normal", "Pulling", 'Pulling image "busybox:1"'),
        ("Warning", "Failed", 'Failed to pull image "busybox:1": boom'),
        ("Warning", "Failed", "Error: ErrImagePull"),
        ("Normal", "BackOff", 'Back-off pulling image "busybox:1"'),
        ("Warning", "Failed", "Error: ImagePullBackOff"),
    ]
    assert bench.manager.retry_in_s("u") == pytest.approx(20)


async def test_another_image_or_pod_has_its_own_back_off(bench):
    bench.service.script.append(BOOM)

    with pytest.raises(ImageError):
        await bench.ensure(make_pod())
    await bench.ensure(make_pod("busybox:2"))
    await bench.ensure(make_pod(uid="other"))

    assert len(bench.service.pulls()) == 3


async def test_changed_credentials_end_the_back_off(bench):
    bench.service.script.append(BOOM)
    with pytest.raises(ImageError):
        await bench.ensure(make_pod())

    bench.credentials.found = LookedUp((credential("new"),), ())
    ensured = await bench.ensure(make_pod())

    assert ensured.image.size_bytes == 42
    assert (
        "Normal",
        "BackOff",
        (
            'Back-off pulling image "busybox:1" ended early: its registry credentials '
            "have changed"
        ),
    ) in bench.heard.events


async def test_credentials_are_tried_in_order_until_one_works(bench):
    bench.credentials.found = LookedUp((credential("a"), credential("b")), ())
    bench.service.script.append(BOOM)

    await bench.ensure(make_pod())

    assert [auth.username for auth in bench.service.auths] == ["a", "b"]


async def test_without_credentials_the_pull_is_anonymous(bench):
    await bench.ensure(make_pod())

    assert bench.service.auths == [None]


async def test_when_all_credentials_fail_each_failure_says_whose_it_is(bench):
    bench.credentials.found = LookedUp(
        (credential("a", "first"), credential("b", "second")), ()
    )
    bench.service.script.extend([BOOM, CRINotFoundError("PullImage", "NOT_FOUND", "x")])

    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod())

    assert caught.value.message == (
        '[boom (first, key "docker.io"), '
        'rpc error: code = NotFound desc = x (second, key "docker.io")]'
    )


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (
            "RegistryUnavailable: down",
            "RegistryUnavailable",
            "image pull failed for busybox:1 because the registry is unavailable: down",
        ),
        (
            "SignatureValidationFailed",
            "SignatureValidationFailed",
            "image pull failed for busybox:1 because the signature validation failed",
        ),
    ],
)
async def test_some_errors_of_runtimes_have_reasons(bench, text, reason, message):
    bench.service.script.append(CRIError("PullImage", "UNKNOWN", text))

    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod())

    assert (caught.value.reason, caught.value.message) == (reason, message)


async def test_bad_pull_secrets_are_told_once(bench):
    problem = CredentialProblem("FailedToRetrieveImagePullSecret", "which")
    bench.credentials.found = LookedUp((), (problem,))
    bench.service.script.append(BOOM)

    for _ in range(3):
        with pytest.raises(ImageError):
            await bench.ensure(make_pod())

    told = [e for e in bench.heard.events if e[1] == problem.reason]
    assert told == [("Warning", problem.reason, "which")]


async def test_equal_pulls_are_made_once(bench):
    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(bench.ensure(make_pod(uid=f"u{n}")))

    assert len(bench.service.pulls()) == 1
    assert bench.manager.pulls_in_flight == 0


async def test_pulls_with_other_credentials_are_not_shared(bench):
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.ensure(make_pod(uid="a")))
        await asyncio.sleep(0.1)
        bench.credentials.found = LookedUp((credential("x"),), ())
        group.create_task(bench.ensure(make_pod(uid="b")))

    assert len(bench.service.pulls()) == 2


async def test_a_pull_ends_with_its_last_waiter(bench):
    async with asyncio.TaskGroup() as group:
        one = group.create_task(bench.ensure(make_pod(uid="a")))
        two = group.create_task(bench.ensure(make_pod(uid="b")))
        await asyncio.sleep(0.1)
        one.cancel()
        await asyncio.sleep(0.1)
        assert bench.service.running == 1
        two.cancel()

    assert bench.service.cancelled == 1
    assert bench.manager.pulls_in_flight == 0
    with pytest.raises(asyncio.CancelledError):
        await two


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 1),
        ({"serialize_image_pulls": False}, 6),
        ({"serialize_image_pulls": False, "max_parallel_image_pulls": 2}, 2),
    ],
    ids=["serial", "parallel", "so-many"],
)
async def test_so_many_pulls_at_once(settings, most):
    bench = make_bench(registry_pull_qps=0, **settings)

    async with asyncio.TaskGroup() as group:
        for n in range(6):
            group.create_task(bench.ensure(make_pod(f"i:{n}", uid=f"u{n}")))

    assert bench.service.most == most
    assert len(bench.service.pulls()) == 6


async def test_waiting_for_a_turn_counts_as_waiting():
    bench = make_bench()

    async with asyncio.TaskGroup() as group:
        for n in range(2):
            group.create_task(bench.ensure(make_pod(f"i:{n}", uid=f"u{n}")))

    assert "in 1s (2s including waiting)" in bench.heard.events[-1][2]


async def test_too_many_pulls_a_second_queue_instead_of_failing():
    bench = make_bench(
        serialize_image_pulls=False, registry_pull_qps=1, registry_burst=2
    )
    began_s = asyncio.get_running_loop().time()

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(bench.ensure(make_pod(f"i:{n}", uid=f"u{n}")))

    assert asyncio.get_running_loop().time() - began_s == pytest.approx(4, abs=0.1)
    assert len(bench.service.pulls()) == 5


async def test_image_volumes_are_pulled_by_their_own_policy(bench):
    volume = {"name": "v", "image": {"reference": "data:1", "pullPolicy": "Always"}}
    pod = Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "volumes": [volume]},
        }
    )

    ref = await bench.manager.ensure_volume_image(pod, pod.spec.volumes[0])

    assert ref == "sha256:data:1"


class Runtime:
    """Says which containers there are."""

    def __init__(self, *images):
        at = datetime(2026, 1, 1, tzinfo=UTC)
        self._listed = tuple(
            ContainerStatus("c", "c", "s", 0, ContainerState.EXITED, at, image=image)
            for image in images
        )

    async def list_containers(self, *, pod_uid=""):
        return self._listed


async def collect_twice(service, heard, available):
    usage = DiskUsage(100, available)
    gc = ImageGc(
        service, Runtime("used:1"), heard, LoopClock(), disk_usage=lambda _mount: usage
    )
    await gc.collect()
    await asyncio.sleep(121)
    return await gc.collect()


def images_of(*names):
    return {name: Image(name, (name,), size_bytes=10) for name in names}


async def test_images_go_when_the_disk_is_full_and_no_container_has_them():
    service = FakeImageService(images=images_of("used:1", "a:1", "b:1"))
    service.images["pin"] = Image("pin", size_bytes=10, pinned=True)
    heard = Heard()

    freed = await collect_twice(service, heard, available=10)

    assert freed == 10
    assert set(service.images) == {"used:1", "b:1", "pin"}


async def test_too_little_to_free_is_told():
    service = FakeImageService(images=images_of("used:1", "a:1"))
    heard = Heard()

    await collect_twice(service, heard, available=0)

    assert heard.events[-1] == (
        "Warning",
        "FreeDiskSpaceFailed",
        (
            "Failed to garbage collect required amount of images. Attempted to free 20 "
            "bytes, but only found 10 bytes eligible to free."
        ),
    )


async def test_with_room_enough_nothing_goes():
    service = FakeImageService(images=images_of("a:1"))

    assert await collect_twice(service, Heard(), available=50) == 0
    assert "a:1" in service.images


# -- who may use what is there


async def make_verifying(tmp_path, **settings):
    bench = make_bench()
    access = ImageAccess(tmp_path, LoopClock(), VerificationSettings(**settings))
    await access.load(())
    bench.manager = ImageManager(
        bench.service, bench.credentials, bench.heard, LoopClock(), access=access
    )
    return bench


def with_secret(user, namespace="ns"):
    return Credential(
        ImageAuth(username=user, password="p"),
        "docker.io",
        "imagePullSecret",
        (namespace, user, f"uid-{user}"),
    )


async def test_a_preloaded_image_is_used_without_a_look_at_credentials(tmp_path):
    bench = await make_verifying(tmp_path)
    bench.service.images["busybox:1"] = Image("sha256:1")

    await bench.ensure(make_pod())

    assert bench.credentials.asked == []
    assert bench.service.pulls() == []


async def test_always_verify_asks_the_registry_for_a_preloaded_image(tmp_path):
    bench = await make_verifying(tmp_path, policy="AlwaysVerify")
    bench.service.images["busybox:1"] = Image("sha256:1")

    await bench.ensure(make_pod())
    await bench.ensure(make_pod(uid="v"))

    assert bench.service.pulls() == ["pull busybox:1"]


async def test_never_verify_gives_anybody_anything(tmp_path):
    bench = await make_verifying(tmp_path, policy="NeverVerify")
    bench.credentials.found = LookedUp((with_secret("a"),), ())
    await bench.ensure(make_pod())
    bench.credentials.found = LookedUp((), ())

    await bench.ensure(make_pod(policy="Never", uid="v"))

    assert bench.service.pulls() == ["pull busybox:1"]


async def test_an_unproven_pod_pulls_with_its_own_credentials_and_backs_off(tmp_path):
    bench = await make_verifying(tmp_path)
    bench.credentials.found = LookedUp((with_secret("a"),), ())
    await bench.ensure(make_pod(uid="a"))
    bench.credentials.found = LookedUp((with_secret("b"),), ())
    bench.service.script.append(BOOM)

    with pytest.raises(ImageError):
        await bench.ensure(make_pod(uid="b"))
    with pytest.raises(ImagePullBackOffError) as caught:
        await bench.ensure(make_pod(uid="b"))

    assert caught.value.message == (
        'Back-off pulling image "busybox:1": ErrImagePull: boom'
    )
    assert [auth.username for auth in bench.service.auths] == ["a", "b"]


async def test_each_pod_of_a_shared_pull_is_remembered_by_its_own_secret(tmp_path):
    bench = await make_verifying(tmp_path)

    class BySecret:
        async def look_up(self, pod, repository):
            credential = Credential(
                ImageAuth(username="same", password="p"),
                "docker.io",
                "imagePullSecret",
                (pod.namespace, pod.uid, pod.uid),
            )
            return LookedUp((credential,), ())

    bench.manager._credentials = BySecret()
    async with asyncio.TaskGroup() as group:
        for uid in ("a", "b"):
            group.create_task(bench.ensure(make_pod(uid=uid)))

    assert bench.service.pulls() == ["pull busybox:1"]
    (file,) = (tmp_path / "pulled").iterdir()
    record = parse_record(file.read_bytes())
    (access,) = record.access.values()
    assert [one.secret[2] for one in access.secrets] == ["a", "b"]


async def test_what_cannot_be_recorded_is_not_pulled(tmp_path):
    bench = await make_verifying(tmp_path)
    (tmp_path / "pulling").rmdir()

    with pytest.raises(ImageError) as caught:
        await bench.ensure(make_pod())

    assert caught.value.reason == "ErrImagePull"
    assert caught.value.message == (
        'Failed to record image pull intent for container image "busybox:1": '
        "No such file or directory"
    )
    assert bench.service.pulls() == []


async def test_records_go_with_their_images(tmp_path):
    bench = await make_verifying(tmp_path)
    await bench.ensure(make_pod())
    gc = ImageGc(
        bench.service,
        NoContainers(),
        bench.heard,
        LoopClock(),
        disk_usage=lambda _mount: DiskUsage(100, 100),
        access=bench.manager._access,
    )
    await asyncio.sleep(1)
    await gc.collect()
    kept = list((tmp_path / "pulled").iterdir())
    bench.service.images.clear()

    await gc.collect()

    assert len(kept) == 1
    assert list((tmp_path / "pulled").iterdir()) == []


async def test_fleeting_credentials_do_not_end_a_back_off(bench):
    def fleeting(password):
        auth = ImageAuth(username="u", password=password)
        credential = Credential(auth, "docker.io", "plugin", fleeting=True)
        return LookedUp((credential,), ())

    bench.service.script.append(BOOM)
    bench.credentials.found = fleeting("1")
    with pytest.raises(ImageError):
        await bench.ensure(make_pod())
    bench.credentials.found = fleeting("2")

    with pytest.raises(ImagePullBackOffError):
        await bench.ensure(make_pod())


class NoContainers:
    async def list_containers(self, *, pod_uid=""):
        return ()
