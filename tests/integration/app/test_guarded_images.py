"""What stands between the agent and the runtime's pulls."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from podyard.api.runtime import ImageAuth
from podyard.app.config import Config
from podyard.app.guarded_images import GuardedImages
from podyard.cri.services import CRIError
from podyard.testing.fake_registry import (
    BasicAuth,
    FakeRegistry,
    Kind,
    On,
    TokenAuth,
)
from support.containerd import RunningContainerd, connect, running_containerd
from support.registry import Server, needs_registry, pusher, real_registry, small_image

pytestmark = [pytest.mark.integration, needs_registry]

PASSWORD = "tr0ub4dor&3"
AUTH = ImageAuth(username="ada", password=PASSWORD)


@dataclass
class StandingClock:
    """Time that only moves when told."""

    at_s: float = 0.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    users = {"ada": PASSWORD}
    with real_registry(tmp_path_factory.mktemp("registry"), users=users) as server:
        yield server


@pytest.fixture
async def images(containerd: RunningContainerd) -> AsyncIterator[GuardedImages]:
    async with connect(containerd) as services:
        yield GuardedImages(services.images, Config())


async def test_the_platform_of_this_machine_is_chosen(
    images: GuardedImages, registry: Server
) -> None:
    both = {
        "s390x": small_image("app:z", architecture="s390x"),
        "amd64": small_image("app:a", architecture="amd64"),
        "arm64": small_image("app:b", architecture="arm64"),
    }
    async with pusher(registry) as push:
        pushed = await push.index("team/multi", "1", both)

    ref = await images.pull_image(pushed.name, auth=AUTH)

    assert ref.startswith("sha256:")


async def test_no_fitting_platform_lists_the_nodes_and_those_on_offer(
    images: GuardedImages, registry: Server
) -> None:
    others = {
        "s390x": small_image("app:z", architecture="s390x"),
        "ppc64le": small_image("app:p", architecture="ppc64le"),
    }
    async with pusher(registry) as push:
        pushed = await push.index("team/foreign", "1", others)

    with pytest.raises(CRIError) as caught:
        await images.pull_image(pushed.name, auth=AUTH)

    assert caught.value.code == "NOT_FOUND"
    assert "no match for platform in manifest" in caught.value.message
    assert "no image of the index fits this node (linux/" in caught.value.message
    assert "on offer: linux/s390x, linux/ppc64le" in caught.value.message
    assert PASSWORD not in caught.value.message


async def test_other_failures_keep_the_runtimes_own_words(
    images: GuardedImages, registry: Server
) -> None:
    with pytest.raises(CRIError) as caught:
        await images.pull_image(f"{registry.host}/team/absent:1", auth=AUTH)

    assert caught.value.message.endswith("not found")


async def test_a_realm_that_was_good_a_moment_ago_is_not_asked_for_again(
    containerd: RunningContainerd,
) -> None:
    clock = StandingClock()
    auth = TokenAuth({"ada": PASSWORD})
    async with connect(containerd) as services, FakeRegistry(auth=auth) as fake:
        images = GuardedImages(services.images, Config(), clock=clock)
        name = f"{fake.host}/team/app:1"
        counts = []
        for at_s in (0, 59, 61):
            clock.at_s = at_s
            before = len(fake.seen)
            with pytest.raises(CRIError):
                await images.pull_image(name, auth=AUTH)
            counts.append(len(fake.seen) - before)

    assert counts[1] == counts[0] - 1
    assert counts[2] == counts[0]


async def test_a_foreign_realm_is_named_and_gets_nothing(
    containerd: RunningContainerd,
) -> None:
    async with connect(containerd) as services, FakeRegistry() as thief:
        auth = TokenAuth(
            {"ada": PASSWORD}, realm=f"http://localhost:{thief.host[-5:]}/token"
        )
        async with FakeRegistry(auth=auth) as fake:
            images = GuardedImages(services.images, Config())

            for _ in range(2):
                with pytest.raises(CRIError, match="localhost"):
                    await images.pull_image(f"{fake.host}/team/app:1", auth=AUTH)

        assert thief.seen == []


async def test_a_registry_that_fails_gets_no_credentials_until_it_names_its_realm(
    containerd: RunningContainerd,
) -> None:
    async with (
        connect(containerd) as services,
        FakeRegistry(address="127.0.0.2") as thief,
        FakeRegistry() as fake,
    ):
        images = GuardedImages(services.images, Config())
        fake.fault(On.ANY, Kind.REALM, location=f"{thief.url}/token")
        # Met by the check, by the runtime, and by the check once more.
        fake.fault(On.ANY, Kind.STATUS, status=503, times=2)

        with pytest.raises(CRIError, match=r"127\.0\.0\.2"):
            await images.pull_image(f"{fake.host}/team/app:1", auth=AUTH)

        assert not any(fake.credentials_seen())
        assert not any(thief.credentials_seen())


async def test_a_registry_that_fails_for_a_moment_holds_no_pull_up(
    containerd: RunningContainerd,
) -> None:
    async with connect(containerd) as services, FakeRegistry() as fake:
        async with pusher(Server(fake.host)) as push:
            image = small_image("app:moment", content=b"moment")
            pushed = await push.image("team/app", "1", image)
        fake.auth = BasicAuth({"ada": PASSWORD})
        fake.fault(On.MANIFEST, Kind.STATUS, status=503, times=2)

        ref = await GuardedImages(services.images, Config()).pull_image(
            pushed.name, auth=AUTH
        )

        assert ref.startswith("sha256:")


async def test_a_registry_tells_the_digest_of_what_cannot_be_pulled(
    containerd: RunningContainerd,
) -> None:
    async with connect(containerd) as services, FakeRegistry() as fake:
        async with pusher(Server(fake.host)) as push:
            pushed = await push.image("team/app", "1", small_image("app:digest"))
        fake.auth = BasicAuth({"ada": PASSWORD})
        images = GuardedImages(services.images, Config())

        told = await images.remote_digest(pushed.name, AUTH)
        refused = await images.remote_digest(pushed.name, None)
        fake.fault(On.MANIFEST, Kind.HANG)
        async with asyncio.timeout(20):
            silent = await images.remote_digest(pushed.name, AUTH)
        fake.heal()

    assert (told, refused, silent) == (pushed.digest, "", "")


async def test_the_check_of_the_realm_waits_for_no_busy_registry(
    containerd: RunningContainerd,
) -> None:
    async with connect(containerd) as services, FakeRegistry() as fake:
        headers = {"Retry-After": "50"}
        fake.fault(On.ANY, Kind.STATUS, status=429, headers=headers)
        images = GuardedImages(services.images, Config())

        async with asyncio.timeout(40):
            with pytest.raises(CRIError, match="429 Too Many Requests"):
                await images.pull_image(f"{fake.host}/team/app:1", auth=AUTH)

        assert not any(fake.credentials_seen())
