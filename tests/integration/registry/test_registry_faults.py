"""What goes wrong with registries: the right error, bounded, and no secret leaves."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from podyard.api.image_ref import ImageRef, parse_image_ref
from podyard.api.runtime import ImageAuth
from podyard.lib.clock import SystemClock
from podyard.registry.client import RegistryClient
from podyard.registry.errors import (
    BadContentError,
    DnsError,
    ForbiddenError,
    ForeignRealmError,
    NotARegistryError,
    NotFoundError,
    RegistryError,
    ServerFailedError,
    TimedOutError,
    TlsError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
)
from podyard.registry.hosts import parse_registries
from podyard.registry.manifests import ImageManifest
from podyard.registry.transport import Exchange, Timeouts
from podyard.testing.fake_registry import (
    Auth,
    BasicAuth,
    FakeRegistry,
    Kind,
    On,
    TokenAuth,
)
from support.certificates import make_authority, make_leaf
from support.registry import Server, free_port, pusher, small_image

pytestmark = pytest.mark.integration

PASSWORD = "tr0ub4dor&3"
ADA = ImageAuth(username="ada", password=PASSWORD)
USERS = {"ada": PASSWORD}
QUICK = Timeouts(connect_s=1.0, header_s=0.5, body_s=1.0)


class World:
    """Registries, and one client that notes what it exchanged."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.exchanges: list[Exchange] = []

    async def registry(
        self, auth: Auth = None, *, tls: ssl.SSLContext | None = None
    ) -> FakeRegistry:
        return await self._stack.enter_async_context(FakeRegistry(auth=auth, tls=tls))

    async def client(
        self, *settings: dict[str, object], timeouts: Timeouts = QUICK
    ) -> RegistryClient:
        return await self._stack.enter_async_context(
            RegistryClient(
                clock=SystemClock(),
                registries=parse_registries(settings),
                timeouts=timeouts,
                on_exchange=self.exchanges.append,
            )
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(stack)


def fill(registry: FakeRegistry, name: str = "app", tag: str = "v1") -> str:
    """Have an image in a fake registry; return its digest."""
    archive = small_image(f"{name}:{tag}")
    for blob in archive.blobs.values():
        with blob.open() as source:
            registry.put_blob(source.read())
    (target,) = archive.targets.values()
    with archive.blobs[target.digest].open() as source:
        return registry.put_manifest(name, tag, source.read(), target.media_type)


def ref(registry: FakeRegistry, name: str = "app:v1") -> ImageRef:
    return parse_image_ref(f"{registry.host}/{name}")


def no_secret_in(texts: list[str]) -> None:
    import base64

    pair = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    assert not [text for text in texts if PASSWORD in text or pair in text]


# -- credentials


async def test_a_token_is_got_once_and_used_again(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    digest = fill(registry)
    client = await world.client()

    await client.head_manifest(ref(registry), ADA)
    head = await client.head_manifest(ref(registry), ADA)

    assert head.digest == digest
    assert [e.url.rpartition("/")[2] for e in world.exchanges] == [
        "v1",
        "token",
        "v1",
        "v1",
    ]


async def test_a_token_that_ended_early_is_renewed(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    digest = fill(registry)
    client = await world.client()
    await client.head_manifest(ref(registry), ADA)

    registry.forget_tokens()

    assert (await client.head_manifest(ref(registry), ADA)).digest == digest


async def test_an_identity_token_is_good_for_a_token(world: World) -> None:
    registry = await world.registry(TokenAuth({}, identity_tokens=("idt-secret",)))
    digest = fill(registry)
    client = await world.client()
    token = ImageAuth(identity_token="idt-secret")

    assert (await client.head_manifest(ref(registry), token)).digest == digest
    assert "idt-secret" not in repr(world.exchanges)


async def test_a_public_image_needs_a_token_for_nobody(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS, anonymous=True))
    digest = fill(registry)
    client = await world.client()

    assert (await client.head_manifest(ref(registry))).digest == digest


async def test_a_wrong_password_is_told_by_the_token_server(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    client = await world.client()

    with pytest.raises(UnauthorizedError, match=r"token server .* refused") as caught:
        await client.head_manifest(
            ref(registry), ImageAuth(username="ada", password="wrong")
        )

    assert caught.value.words == "UNAUTHORIZED: wrong user or password"


async def test_credentials_never_go_to_a_foreign_realm(world: World) -> None:
    thief = await world.registry(TokenAuth(USERS))
    registry = await world.registry()
    # 127.0.0.2 is another host than 127.0.0.1, and ours for the asking.
    registry.fault(
        On.ANY, Kind.REALM, location=f"http://evil.invalid:{thief.host[-5:]}/token"
    )
    client = await world.client()

    with pytest.raises(ForeignRealmError, match=r"evil\.invalid"):
        await client.head_manifest(ref(registry), ADA)
    with pytest.raises(ForeignRealmError, match=r"evil\.invalid"):
        await client.check_realm(ref(registry))

    no_secret_in(thief.credentials_seen() + registry.credentials_seen())


async def test_a_realm_that_was_allowed_is_used(world: World) -> None:
    tokens = await world.registry(TokenAuth(USERS))
    registry = await world.registry(
        TokenAuth(USERS, realm=tokens.realm.replace("127.0.0.1", "localhost"))
    )
    registry._tokens = tokens._tokens
    digest = fill(registry)
    allowed = f"http://localhost:{tokens.host.partition(':')[2]}"
    client = await world.client({"host": registry.host, "token-realms": [allowed]})

    await client.check_realm(ref(registry))
    assert (await client.head_manifest(ref(registry), ADA)).digest == digest


async def test_its_own_realm_passes_the_check(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    client = await world.client()

    await client.check_realm(ref(registry))

    no_secret_in(registry.credentials_seen())


@pytest.mark.parametrize("auth", [BasicAuth(USERS), TokenAuth(USERS)])
async def test_a_redirect_elsewhere_takes_no_credentials_along(
    world: World, auth: Auth
) -> None:
    registry, other = await world.registry(auth), await world.registry()
    digest = fill(registry)
    fill(other)
    client = await world.client()
    await client.head_manifest(ref(registry), ADA)

    registry.fault(On.MANIFEST, Kind.REDIRECT, location=other.url)

    assert (await client.head_manifest(ref(registry), ADA)).digest == digest
    assert [seen.authorization for seen in other.seen] == [""]


async def test_a_redirect_target_that_asks_gets_no_password(world: World) -> None:
    registry, thief = await world.registry(), await world.registry(BasicAuth(USERS))
    registry.fault(On.MANIFEST, Kind.REDIRECT, location=thief.url)
    client = await world.client()

    with pytest.raises(UnauthorizedError):
        await client.head_manifest(ref(registry), ADA)

    assert not any(thief.credentials_seen())


async def test_endless_redirects_end(world: World) -> None:
    registry = await world.registry()
    registry.fault(On.MANIFEST, Kind.REDIRECT, location=registry.url)
    client = await world.client()

    with pytest.raises(BadContentError, match="more than 10 times"):
        await client.head_manifest(ref(registry))


async def test_no_secret_is_in_errors_logs_or_exchanges(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    registry.fault(On.MANIFEST, Kind.STATUS, status=403)
    client = await world.client()

    with capture_logs() as logs, pytest.raises(RegistryError) as caught:
        await client.head_manifest(ref(registry), ADA)

    no_secret_in([str(caught.value), repr(logs), repr(world.exchanges)])


# -- statuses


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (418, ServerFailedError),
        (500, ServerFailedError),
        (503, ServerFailedError),
    ],
)
async def test_each_status_has_its_error_with_the_registrys_words(
    world: World, status: int, kind: type[RegistryError]
) -> None:
    registry = await world.registry()
    registry.fault(On.MANIFEST, Kind.STATUS, status=status)
    client = await world.client()

    with pytest.raises(kind) as caught:
        await client.get_manifest(ref(registry))

    assert caught.value.status == status
    if status != 401:  # without a challenge there is nothing more to tell
        assert caught.value.words == f"DENIED: scripted {status}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_failure_that_passes_is_not_noticed(world: World, status: int) -> None:
    registry = await world.registry()
    digest = fill(registry)
    registry.fault(
        On.MANIFEST,
        Kind.STATUS,
        status=status,
        times=1,
        headers={"Retry-After": "0"},
    )
    client = await world.client()

    assert (await client.head_manifest(ref(registry))).digest == digest


async def test_a_busy_registry_is_left_alone_as_long_as_it_asks(world: World) -> None:
    registry = await world.registry()
    fill(registry)
    registry.fault(
        On.MANIFEST, Kind.STATUS, status=429, times=2, headers={"Retry-After": "1"}
    )
    client = await world.client()

    began = time.perf_counter()
    await client.head_manifest(ref(registry))

    assert time.perf_counter() - began >= 2.0
    assert len(registry.seen) == 3


async def test_a_registry_busy_for_an_hour_is_told_at_once(world: World) -> None:
    registry = await world.registry()
    registry.fault(
        On.MANIFEST, Kind.STATUS, status=429, headers={"Retry-After": "3600"}
    )
    client = await world.client()

    with pytest.raises(TooManyRequestsError, match="asks to wait 3600 s") as caught:
        await client.head_manifest(ref(registry))

    assert caught.value.retry_in_s == 3600
    assert len(registry.seen) == 1


async def test_a_failing_registry_is_asked_twice_and_no_more(world: World) -> None:
    registry = await world.registry()
    registry.fault(On.MANIFEST, Kind.STATUS, status=500)
    client = await world.client()

    with pytest.raises(ServerFailedError):
        await client.head_manifest(ref(registry))

    assert len(registry.seen) == 2


async def test_head_that_is_not_allowed_becomes_a_get(world: World) -> None:
    registry = await world.registry()
    digest = fill(registry)
    registry.fault(On.MANIFEST, Kind.STATUS, status=405, times=1)
    client = await world.client()

    assert (await client.head_manifest(ref(registry))).digest == digest


# -- contents


async def test_a_web_page_is_no_registry(world: World) -> None:
    registry = await world.registry()
    registry.fault(On.ANY, Kind.WEB_PAGE)
    client = await world.client()

    with pytest.raises(NotARegistryError, match="captive portal"):
        await client.get_manifest(ref(registry))
    with pytest.raises(NotARegistryError, match="captive portal"):
        await client.head_manifest(ref(registry))
    with pytest.raises(NotARegistryError):
        await client.log_in(registry.host, ADA)


async def test_a_manifest_of_20_megabytes_is_not_read(world: World) -> None:
    registry = await world.registry()
    registry.fault(On.MANIFEST, Kind.HUGE)
    client = await world.client()

    with pytest.raises(BadContentError, match="larger than 4194304 bytes"):
        await client.get_manifest(ref(registry))


async def test_a_lying_digest_is_told(world: World) -> None:
    registry = await world.registry()
    fill(registry)
    registry.fault(On.MANIFEST, Kind.LYING_DIGEST)
    client = await world.client()

    with pytest.raises(BadContentError, match="does not have the digest it names"):
        await client.get_manifest(ref(registry))


async def test_another_manifest_than_the_asked_for_is_told(world: World) -> None:
    registry = await world.registry()
    digest = fill(registry)
    registry.fault(On.MANIFEST, Kind.WRONG_BYTES)
    client = await world.client()

    with pytest.raises(BadContentError, match=digest):
        await client.get_manifest(ref(registry, f"app@{digest}"))


async def test_a_wrong_blob_is_told(world: World) -> None:
    registry = await world.registry()
    fill(registry)
    client = await world.client()
    manifest = (await client.get_manifest(ref(registry))).content
    assert isinstance(manifest, ImageManifest)
    registry.fault(On.BLOB, Kind.WRONG_BYTES)

    with pytest.raises(BadContentError, match=manifest.config.digest):
        await client.get_blob(ref(registry), manifest.config)


async def test_a_body_cut_off_once_is_got_again(world: World) -> None:
    registry = await world.registry()
    digest = fill(registry)
    registry.fault(On.MANIFEST, Kind.TRUNCATE, times=1)
    client = await world.client()

    assert (await client.get_manifest(ref(registry))).head.digest == digest


# -- no answer


async def test_a_connection_that_always_breaks_is_told(world: World) -> None:
    registry = await world.registry()
    registry.fault(On.ANY, Kind.DISCONNECT)
    client = await world.client()

    with pytest.raises(UnreachableError, match="broke the connection off"):
        await client.get_manifest(ref(registry))


@pytest.mark.parametrize("kind", [Kind.HANG, Kind.TRICKLE])
async def test_a_registry_that_hangs_is_given_up(world: World, kind: Kind) -> None:
    registry = await world.registry()
    registry.fault(On.ANY, kind)
    client = await world.client()

    async with asyncio.timeout(30):
        with pytest.raises(TimedOutError, match="does not answer within"):
            await client.get_manifest(ref(registry))

    registry.heal()


async def test_a_closed_port_is_told(world: World) -> None:
    client = await world.client()
    host = f"127.0.0.1:{free_port()}"

    with pytest.raises(UnreachableError, match=f"{host} cannot be reached"):
        await client.head_manifest(parse_image_ref(f"{host}/app:v1"))


async def test_a_name_without_address_is_told(world: World) -> None:
    client = await world.client(timeouts=Timeouts(connect_s=5, header_s=5))

    with pytest.raises(DnsError, match=r"registry\.invalid has no address"):
        await client.head_manifest(parse_image_ref("registry.invalid/app:v1"))


# -- TLS and mirrors


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    made = make_authority()
    (tmp_path / "ca.pem").write_text(made.cert)
    leaf = make_leaf(made, "registry", "127.0.0.1")
    (tmp_path / "leaf.pem").write_text(leaf.cert + leaf.key)
    return tmp_path / "ca.pem"


def server_context(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("leaf.pem"))
    return context


async def test_a_private_authority_is_trusted_where_it_is_configured(
    world: World, authority: Path
) -> None:
    registry = await world.registry(tls=server_context(authority))
    digest = fill(registry)
    client = await world.client({"host": registry.host, "ca": str(authority)})

    assert (await client.head_manifest(ref(registry))).digest == digest


async def test_an_unknown_authority_is_told(world: World, authority: Path) -> None:
    registry = await world.registry(tls=server_context(authority))
    client = await world.client({"host": registry.host, "server": registry.url})

    with pytest.raises(TlsError, match="is not trusted"):
        await client.head_manifest(ref(registry))


async def test_an_insecure_registry_is_not_verified(
    world: World, authority: Path
) -> None:
    registry = await world.registry(tls=server_context(authority))
    digest = fill(registry)
    client = await world.client({"host": registry.host, "insecure": True})

    assert (await client.head_manifest(ref(registry))).digest == digest


async def test_an_insecure_registry_may_speak_plain_http(world: World) -> None:
    registry = await world.registry(BasicAuth(USERS))
    digest = fill(registry)
    client = await world.client({"host": registry.host, "insecure": True})

    assert (await client.head_manifest(ref(registry), ADA)).digest == digest


async def test_plain_http_where_tls_was_expected_is_told_with_the_cure(
    world: World,
) -> None:
    registry = await world.registry()
    https = registry.url.replace("http:", "https:")
    client = await world.client({"host": registry.host, "server": https})

    with pytest.raises(TlsError, match="insecure: true"):
        await client.head_manifest(ref(registry))


async def test_a_missing_authority_file_is_told(world: World) -> None:
    registry = await world.registry()
    client = await world.client({"host": registry.host, "ca": "/nonexistent.pem"})

    with pytest.raises(TlsError, match=r"authorities .* cannot be used"):
        await client.head_manifest(ref(registry))


async def test_a_mirror_is_asked_first_and_without_credentials(world: World) -> None:
    registry, mirror = await world.registry(BasicAuth(USERS)), await world.registry()
    digest = fill(mirror)
    client = await world.client({"host": registry.host, "mirrors": [mirror.url]})

    head = await client.head_manifest(ref(registry), ADA)

    assert (head.digest, head.server) == (digest, mirror.url)
    assert [seen.authorization for seen in mirror.seen] == [""]
    assert mirror.seen[0].path.endswith(f"?ns={registry.host}")
    assert registry.seen == []


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.HANG, Kind.WEB_PAGE])
async def test_a_broken_mirror_does_not_matter(world: World, kind: Kind) -> None:
    registry, mirror = await world.registry(BasicAuth(USERS)), await world.registry()
    digest = fill(registry)
    mirror.fault(On.ANY, kind, status=403)
    client = await world.client({"host": registry.host, "mirrors": [mirror.url]})

    head = await client.head_manifest(ref(registry), ADA)

    assert (head.digest, head.server) == (digest, registry.url)
    mirror.heal()


async def test_a_mirror_that_may_not_resolve_is_asked_for_digests_only(
    world: World,
) -> None:
    registry, mirror = await world.registry(), await world.registry()
    digest = fill(registry)
    fill(mirror)
    client = await world.client(
        {"host": registry.host, "mirrors": [{"url": mirror.url, "resolve": False}]}
    )

    assert (await client.head_manifest(ref(registry))).server == registry.url
    by_digest = ref(registry, f"app@{digest}")
    assert (await client.head_manifest(by_digest)).server == mirror.url


async def test_many_questions_at_once_are_all_answered(world: World) -> None:
    registry = await world.registry(TokenAuth(USERS))
    digest = fill(registry)
    client = await world.client(timeouts=Timeouts())

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(client.head_manifest(ref(registry), ADA))
            for _ in range(50)
        ]

    assert {task.result().digest for task in tasks} == {digest}


async def test_a_push_to_the_fake_checks_what_it_is_given(world: World) -> None:
    registry = await world.registry()
    async with pusher(Server(registry.host)) as push:
        with pytest.raises(AssertionError, match="MANIFEST_BLOB_UNKNOWN"):
            await push.manifest(
                "app",
                "v1",
                b'{"config":{"digest":"sha256:no"},"layers":[]}',
                "application/vnd.oci.image.manifest.v1+json",
            )
