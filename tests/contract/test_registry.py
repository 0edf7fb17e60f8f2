"""What our client and its tests rely on, for the fake and Debian's real registry."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.api.image_ref import ImageRef, parse_image_ref
from podyard.api.runtime import ImageAuth
from podyard.lib.clock import SystemClock
from podyard.registry.client import RegistryClient
from podyard.registry.decide import choose_platform
from podyard.registry.errors import (
    NotFoundError,
    UnauthorizedError,
    UnreachableError,
)
from podyard.registry.manifests import (
    Content,
    ImageIndex,
    ImageManifest,
    Platform,
    digest_like,
)
from podyard.testing.fake_registry import BasicAuth, FakeRegistry
from support.registry import (
    Pushed,
    Pusher,
    Server,
    needs_registry,
    pusher,
    real_registry,
    small_image,
)

pytestmark = pytest.mark.contract

USERS = {"ada": "colon:in:it", "grace": "hopper"}
ADA = ImageAuth(username="ada", password="colon:in:it")
BOTH = ["fake", pytest.param("docker-registry", marks=needs_registry)]


@dataclass
class Site:
    server: Server
    push: Pusher
    client: RegistryClient

    def ref(self, name: str) -> ImageRef:
        return parse_image_ref(f"{self.server.host}/{name}")


async def _site(
    kind: str, tmp_path: Path, users: dict[str, str]
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        if kind == "fake":
            fake = await stack.enter_async_context(
                FakeRegistry(auth=BasicAuth(users) if users else None)
            )
            server = Server(fake.host, users)
        else:
            server = stack.enter_context(real_registry(tmp_path / "r", users=users))
        push = await stack.enter_async_context(pusher(server))
        client = await stack.enter_async_context(RegistryClient(clock=SystemClock()))
        yield Site(server, push, client)


@pytest.fixture(params=BOTH)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async for made in _site(request.param, tmp_path, {}):
        yield made


@pytest.fixture(params=BOTH)
async def private(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Site]:
    async for made in _site(request.param, tmp_path, USERS):
        yield made


async def test_head_tells_the_digest_of_what_was_pushed(site: Site) -> None:
    pushed = await site.push.image("team/app", "v1", small_image("app:v1"))

    head = await site.client.head_manifest(site.ref("team/app:v1"))

    assert head.digest == pushed.digest
    assert head.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert head.size > 0


async def test_a_manifest_is_got_by_tag_and_by_digest_alike(site: Site) -> None:
    pushed = await site.push.image("app", "v1", small_image("app:v1"))

    by_tag = await site.client.get_manifest(site.ref("app:v1"))
    by_digest = await site.client.get_manifest(site.ref(f"app@{pushed.digest}"))

    assert by_tag.data == by_digest.data
    assert by_tag.head.digest == pushed.digest
    assert isinstance(by_tag.content, ImageManifest)
    assert len(by_tag.content.layers) == 1


async def test_a_digest_wins_over_a_tag_beside_it(site: Site) -> None:
    old = await site.push.image("app", "v1", small_image("app:v1", content=b"old"))
    await site.push.image("app", "v1", small_image("app:v1", content=b"new"))

    head = await site.client.head_manifest(site.ref(f"app:v1@{old.digest}"))

    assert head.digest == old.digest


async def test_a_moved_tag_resolves_to_the_new_image(site: Site) -> None:
    await site.push.image("app", "v1", small_image("app:v1", content=b"old"))
    new = await site.push.image("app", "v1", small_image("app:v1", content=b"new"))

    assert (await site.client.head_manifest(site.ref("app:v1"))).digest == new.digest


async def test_an_index_offers_its_platforms_and_one_is_chosen(site: Site) -> None:
    images = {
        arch: small_image("app:v1", architecture=arch) for arch in ("arm64", "amd64")
    }
    pushed = await site.push.index("app", "v1", images)

    fetched = await site.client.get_manifest(site.ref("app:v1"))

    assert fetched.head.digest == pushed.digest
    assert isinstance(fetched.content, ImageIndex)
    chosen = choose_platform(fetched.content, Platform("linux", "arm64"))
    assert isinstance(chosen, Content)
    assert chosen.platform == Platform("linux", "arm64")


async def test_the_config_blob_is_got_by_its_digest(site: Site) -> None:
    await site.push.image("app", "v1", small_image("app:v1"))
    ref = site.ref("app:v1")
    manifest = (await site.client.get_manifest(ref)).content
    assert isinstance(manifest, ImageManifest)

    config = await site.client.get_blob(ref, manifest.config)

    assert digest_like(config, manifest.config.digest) == manifest.config.digest


@pytest.mark.parametrize("name", ["app:v2", "nothing/here:v1"])
async def test_an_unknown_name_is_not_found_in_the_registrys_words(
    site: Site, name: str
) -> None:
    await site.push.image("app", "v1", small_image("app:v1"))

    with pytest.raises(NotFoundError) as caught:
        await site.client.get_manifest(site.ref(name))

    assert caught.value.status == 404
    assert "UNKNOWN" in caught.value.words


@pytest.mark.parametrize("kind", BOTH)
async def test_what_was_pushed_is_there_again_after_a_death(
    kind: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(RegistryClient(clock=SystemClock()))
        if kind == "fake":
            fake = await stack.enter_async_context(FakeRegistry())
            server = Server(fake.host)
            pushed = await _push(server)
            await fake.stop()
            with pytest.raises(UnreachableError):
                await client.head_manifest(parse_image_ref(pushed.name))
            await fake.start()
        else:
            with real_registry(tmp_path / "r") as server:
                pushed = await _push(server)
            with pytest.raises(UnreachableError):
                await client.head_manifest(parse_image_ref(pushed.name))
            port = int(server.host.rpartition(":")[2])
            stack.enter_context(real_registry(tmp_path / "r", port=port))

        head = await client.head_manifest(parse_image_ref(pushed.name))

    assert head.digest == pushed.digest


async def _push(server: Server) -> Pushed:
    async with pusher(server) as push:
        return await push.image("app", "v1", small_image("app:v1"))


async def test_without_credentials_a_private_image_is_refused(private: Site) -> None:
    await private.push.image("app", "v1", small_image("app:v1"))

    with pytest.raises(UnauthorizedError) as caught:
        await private.client.head_manifest(private.ref("app:v1"))

    assert caught.value.status == 401
    assert "there are none" in str(caught.value)


async def test_the_right_password_opens_a_private_image(private: Site) -> None:
    pushed = await private.push.image("app", "v1", small_image("app:v1"))

    head = await private.client.head_manifest(private.ref("app:v1"), ADA)

    assert head.digest == pushed.digest


async def test_a_wrong_password_is_refused_and_not_told(private: Site) -> None:
    await private.push.image("app", "v1", small_image("app:v1"))
    wrong = ImageAuth(username="ada", password="hunter2-wrong")

    with pytest.raises(UnauthorizedError) as caught:
        await private.client.get_manifest(private.ref("app:v1"), wrong)

    assert "refused the credentials" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_login_accepts_right_credentials_and_refuses_wrong(
    private: Site,
) -> None:
    assert await private.client.log_in(private.server.host, ADA)

    with pytest.raises(UnauthorizedError):
        await private.client.log_in(
            private.server.host, ImageAuth(username="ada", password="no")
        )


async def test_login_tells_of_a_registry_that_asks_for_nothing(site: Site) -> None:
    assert not await site.client.log_in(site.server.host, ADA)
