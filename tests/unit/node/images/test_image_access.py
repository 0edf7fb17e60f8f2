"""Who may use a present image: tables, and records that survive crashes."""

import asyncio
import stat
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.observed import Image
from podyard.api.runtime import ImageAuth
from podyard.node.credentials.decide import Credential
from podyard.node.images.access.build import (
    RecordError,
    build_record,
    parse_intent,
    parse_record,
)
from podyard.node.images.access.decide import (
    MAX_SECRETS,
    Access,
    MayUse,
    MustPull,
    PulledRecord,
    SecretAccess,
    VerificationSettings,
    decide_access,
    needs_verification,
    parse_allowlist,
    record_pull,
)
from podyard.node.images.access.records import ImageAccess

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPO = "r.example.com/team/app"
CANARY = "canary-password"


def secret(name="s", *, namespace="a", password=CANARY):
    return Credential(
        ImageAuth(username="u", password=password),
        "r.example.com",
        f'imagePullSecret "{name}"',
        (namespace, name, f"uid-{namespace}-{name}"),
    )


def of_account(name="sa"):
    return Credential(
        ImageAuth(username="u", password="p"), "k", "o", account=("a", name, "1")
    )


NODE = Credential(ImageAuth(username="n", password="p"), "k", "node file")


def pulled_with(*credentials, repository=REPO):
    record = None
    for credential in credentials:
        record = record_pull(record, "sha256:1", repository, credential, now=NOW)
    return record


@pytest.mark.parametrize(
    ("policy", "known", "verified"),
    [
        ("NeverVerify", True, False),
        ("NeverVerify", False, False),
        ("NeverVerifyPreloadedImages", True, True),
        ("NeverVerifyPreloadedImages", False, False),
        ("NeverVerifyAllowlistedImages", True, True),
        ("NeverVerifyAllowlistedImages", False, True),
        ("AlwaysVerify", True, True),
        ("AlwaysVerify", False, True),
    ],
)
def test_which_images_a_policy_verifies(policy, known, verified):
    settings = VerificationSettings(policy)

    assert needs_verification("i:1", settings, known=known) is verified


@pytest.mark.parametrize(
    ("pattern", "image", "listed"),
    [
        ("ubuntu", "ubuntu:tagged", True),
        ("ubuntu", "ubuntu@sha256:" + "a" * 64, True),
        ("ubuntu", "docker.io/library/ubuntu", False),
        ("docker.io/library/*", "ubuntu", False),
        ("docker.io/library/*", "docker.io/library/ubuntu:1", True),
        ("r.io:5000/x", "r.io:5000/x:1", True),
        ("r.io:5000/x", "r.io:5000/x/y", False),
        ("r.io/x/*", "r.io/x/y/z:1", True),
        ("r.io/x/*", "r.io/xy", False),
    ],
)
def test_the_allowlist_is_compared_as_written(pattern, image, listed):
    settings = VerificationSettings(
        "NeverVerifyAllowlistedImages", parse_allowlist([pattern])
    )

    assert needs_verification(image, settings, known=True) is not listed


@pytest.mark.parametrize(
    "pattern",
    ["", " a", "*", "/*", "repo/pokus*", "repo/*/x", "r/", "r:1", "r@sha256:1", "A"],
)
def test_a_bad_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="must be an image name"):
        parse_allowlist([pattern])


@pytest.mark.parametrize(
    ("record", "credentials", "may"),
    [
        pytest.param(None, [secret()], False, id="no-record"),
        pytest.param(PulledRecord("i", NOW), [secret()], False, id="cut-off"),
        pytest.param(
            pulled_with(secret(), repository="r/other"), [secret()], False, id="name"
        ),
        pytest.param(pulled_with(None), [], True, id="anonymous"),
        pytest.param(pulled_with(NODE), [], True, id="node"),
        pytest.param(pulled_with(secret()), [], False, id="no-credentials"),
        pytest.param(pulled_with(secret()), [secret()], True, id="same-secret"),
        pytest.param(
            pulled_with(secret()), [secret(namespace="b")], True, id="same-content"
        ),
        pytest.param(
            pulled_with(secret()),
            [secret(namespace="b", password="other")],
            False,
            id="other-tenant",
        ),
        pytest.param(
            pulled_with(secret()), [secret(password="rotated")], False, id="rotated"
        ),
        pytest.param(
            pulled_with(secret()),
            [secret("x", password="no"), secret()],
            True,
            id="any-of-several",
        ),
        pytest.param(pulled_with(of_account()), [of_account()], True, id="account"),
        pytest.param(
            pulled_with(of_account()), [of_account("other")], False, id="other-account"
        ),
        pytest.param(pulled_with(of_account()), [secret()], False, id="not-account"),
        pytest.param(pulled_with(secret()), [NODE], False, id="node-not-proven"),
    ],
)
def test_who_may_use_a_present_image(record, credentials, may):
    decided = decide_access(record, REPO, credentials, now=NOW)

    assert isinstance(decided, MayUse if may else MustPull)


def test_equal_content_elsewhere_is_remembered():
    decided = decide_access(
        pulled_with(secret()), REPO, [secret(namespace="b")], now=NOW
    )

    assert isinstance(decided, MayUse)
    assert decided.record is not None
    assert len(decided.record.access[REPO].secrets) == 2


def test_no_more_than_a_hundred_are_remembered_so():
    record = pulled_with(*(secret(f"s{n:03}") for n in range(MAX_SECRETS)))

    decided = decide_access(record, REPO, [secret("another")], now=NOW)

    assert decided == MayUse()


def test_what_is_open_stays_open():
    assert pulled_with(secret(), None, secret()).access[REPO] == Access(everybody=True)


_credentials = st.sampled_from(
    [None, NODE, secret(), secret(namespace="b", password="q"), of_account()]
)


@given(st.lists(_credentials, min_size=1, max_size=6))
def test_whoever_pulled_may_use(pulls):
    record = pulled_with(*pulls)
    wanted = [pulls[-1]] if pulls[-1] else []

    if pulls[-1] is NODE:
        wanted = []
    assert isinstance(decide_access(record, REPO, wanted, now=NOW), MayUse)


@given(st.lists(_credentials.filter(lambda c: c and (c.secret or c.account))))
def test_nobody_without_credentials_uses_what_only_secrets_opened(pulls):
    assert isinstance(decide_access(pulled_with(*pulls), REPO, [], now=NOW), MustPull)


@given(st.lists(_credentials, max_size=6))
def test_a_record_survives_the_disk_and_holds_no_secret(pulls):
    record = pulled_with(*pulls) or PulledRecord("i", NOW)

    raw = build_record(record)

    assert parse_record(raw) == record
    assert CANARY.encode() not in raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"kind": "Other"}',
        b'{"kind": "ImagePulledRecord"}',
        b'{"kind": "ImagePulledRecord", "imageRef": "i", "lastUpdatedTime": "x"}',
        (
            b'{"kind":"ImagePulledRecord","imageRef":"i","credentialMapping":{"r":1},'
            b'"lastUpdatedTime":"2026-01-01T00:00:00Z"}'
        ),
    ],
)
def test_what_is_no_record(raw):
    with pytest.raises(RecordError):
        parse_record(raw)


# -- on disk


class Clock:
    def __init__(self):
        self.at = NOW

    def now(self):
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic_s(self):
        return asyncio.get_running_loop().time()


IMAGE = Image("sha256:1", (f"{REPO}:1",))


async def opened(path, *images, **settings):
    access = ImageAccess(path, Clock(), VerificationSettings(**settings))
    await access.load(images)
    return access


async def pull(access, credential, *, ref="sha256:1"):
    async with access.pulling(f"{REPO}:1"):
        await access.pulled(f"{REPO}:1", ref, REPO, credential)


def files(path):
    return [file for file in path.rglob("*") if file.is_file()]


async def test_records_are_private_and_survive(tmp_path):
    await pull(await opened(tmp_path), secret())

    again = await opened(tmp_path, IMAGE)

    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert CANARY.encode() not in file.read_bytes()
    assert again.needs_verification("i", f"{REPO}:1", "sha256:1")
    assert await again.may_use("sha256:1", REPO, [secret()])
    assert not await again.may_use("sha256:1", REPO, [])


async def test_an_image_nobody_pulled_is_everybodys(tmp_path):
    access = await opened(tmp_path, IMAGE)

    assert not access.needs_verification(f"{REPO}:1", f"{REPO}:1", "sha256:1")


async def test_a_cut_off_pull_is_no_preloaded_image(tmp_path):
    access = await opened(tmp_path)
    async with access.pulling(f"{REPO}:1"):
        (intent,) = files(tmp_path / "pulling")
        left = intent.read_bytes()
    intent.write_bytes(left)  # as after a crash

    again = await opened(tmp_path, IMAGE)

    assert parse_intent(left) == f"{REPO}:1"
    assert again.needs_verification(f"{REPO}:1", f"{REPO}:1", "sha256:1")
    assert not await again.may_use("sha256:1", REPO, [secret()])
    assert files(tmp_path / "pulling") == []


async def test_an_intent_without_its_image_waits_for_it(tmp_path):
    access = await opened(tmp_path)
    async with access.pulling("app"):
        (intent,) = files(tmp_path / "pulling")
        left = intent.read_bytes()
    intent.write_bytes(left)

    again = await opened(tmp_path)

    assert again.needs_verification("app", "app", "sha256:later")
    async with again.pulling("app"):
        pass
    assert files(tmp_path) == []


async def test_equal_pulls_share_their_intent(tmp_path):
    access = await opened(tmp_path)

    async with access.pulling("app"):
        async with access.pulling("app"):
            assert len(files(tmp_path / "pulling")) == 1
        assert len(files(tmp_path / "pulling")) == 1

    assert files(tmp_path) == []


async def test_a_cancelled_pull_leaves_nothing(tmp_path):
    access = await opened(tmp_path)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), access.pulling("app"):
            await asyncio.sleep(2)

    assert files(tmp_path) == []


async def test_what_is_gone_is_forgotten_and_what_is_new_is_not(tmp_path):
    access = await opened(tmp_path)
    await pull(access, secret())
    await pull(access, secret(), ref="sha256:2")
    listed_at = access._clock.now()
    await pull(access, secret(), ref="sha256:3")

    await access.prune({"sha256:2"}, before=listed_at)

    again = await opened(tmp_path)
    assert [
        ref
        for ref in ("sha256:1", "sha256:2", "sha256:3")
        if again.needs_verification("i", "other", ref)
    ] == ["sha256:2", "sha256:3"]


async def test_a_repeated_pull_keeps_its_record_from_being_forgotten(tmp_path):
    access = await opened(tmp_path)
    await pull(access, secret())
    listed_at = access._clock.now()
    await pull(access, secret())

    await access.prune(set(), before=listed_at)

    assert access.needs_verification("i", "other", "sha256:1")


async def test_a_damaged_record_makes_every_image_be_verified(tmp_path):
    await pull(await opened(tmp_path), secret())
    (file,) = files(tmp_path)
    file.write_bytes(b"{")

    again = await opened(tmp_path, IMAGE)

    assert again.needs_verification("i", "other", "sha256:9")


async def test_half_written_files_are_removed(tmp_path):
    await opened(tmp_path)
    (tmp_path / "pulled" / "sha256-00.tmp").write_bytes(b"{")
    (tmp_path / "pulled" / "README").write_bytes(b"{")

    access = await opened(tmp_path)

    assert not access.needs_verification("i", "i", "sha256:1")
    assert [file.name for file in files(tmp_path)] == ["README"]


async def test_a_record_that_cannot_be_written_leaves_the_intent(tmp_path):
    access = await opened(tmp_path)
    (tmp_path / "pulled").rmdir()
    (tmp_path / "pulled").write_bytes(b"")

    await pull(access, secret())

    assert len(files(tmp_path / "pulling")) == 1
    assert access.needs_verification("i", f"{REPO}:1", "sha256:1")
    assert not await access.may_use("sha256:1", REPO, [secret()])


def test_secret_access_is_a_hash():
    record = pulled_with(secret())

    (known,) = record.access[REPO].secrets
    assert isinstance(known, SecretAccess)
    assert len(known.credential_hash) == 64
