"""Whom a registry may send credentials to, and what its answers mean."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.runtime import ImageAuth
from podyard.registry.decide import (
    AskAnonymously,
    CannotAsk,
    FetchToken,
    FollowRedirect,
    GiveUp,
    MaySend,
    MustNotSend,
    NoPlatform,
    RefuseRedirect,
    RegistryTrust,
    TryAgain,
    UseBasic,
    UseToken,
    choose_platform,
    decide_redirect,
    decide_retry,
    judge_realm,
    plan_auth,
    same_owner,
)
from podyard.registry.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Content,
    ImageIndex,
    ImageManifest,
    ManifestError,
    Platform,
    digest_like,
    is_digest,
    normalize_platform,
    parse_manifest,
    platform_of_machine,
    runnable_platforms,
)
from podyard.registry.words import (
    Challenge,
    cut,
    parse_challenges,
    parse_origin,
    parse_retry_after,
    parse_token,
    registry_words,
    show_url,
)

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], (), id="nothing-asked"),
        pytest.param(
            ['Basic realm="a registry"'],
            (Challenge("basic", {"realm": "a registry"}),),
            id="basic",
        ),
        pytest.param(
            [
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
            ],
            (
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                ),
            ),
            id="bearer-with-a-comma-inside-quotes",
        ),
        pytest.param(
            ['BEARER Realm = "https://a/t" , SERVICE=plain'],
            (Challenge("bearer", {"realm": "https://a/t", "service": "plain"}),),
            id="case-and-spaces-do-not-matter",
        ),
        pytest.param(
            ['Basic realm="x", Bearer realm="https://a/t",service="s"'],
            (
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "https://a/t", "service": "s"}),
            ),
            id="two-in-one-header",
        ),
        pytest.param(
            ['Bearer realm="https://a/t"', 'Basic realm="x"'],
            (
                Challenge("bearer", {"realm": "https://a/t"}),
                Challenge("basic", {"realm": "x"}),
            ),
            id="two-headers",
        ),
        pytest.param(
            [r'Basic realm="say \"hi\" \\ there"'],
            (Challenge("basic", {"realm": r'say "hi" \ there'}),),
            id="escapes",
        ),
        pytest.param(
            ["Bearer realm=https://a.example/t,service=s"],
            (Challenge("bearer", {"realm": "https://a.example/t", "service": "s"}),),
            id="realm-without-quotes",
        ),
        pytest.param(["Negotiate"], (Challenge("negotiate"),), id="no-parameters"),
        pytest.param(
            ['Bearer realm="first",realm="second"'],
            (Challenge("bearer", {"realm": "first"}),),
            id="the-first-of-two-counts",
        ),
        pytest.param(["", " , ,"], (), id="empty"),
    ],
)
def test_challenges_are_read_as_the_rfc_has_them(
    headers: list[str], expected: tuple[Challenge, ...]
) -> None:
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(), max_size=3))
def test_no_challenge_header_breaks_the_parser(headers: list[str]) -> None:
    parse_challenges(headers)


REGISTRY = "https://registry.example.com"


@pytest.mark.parametrize(
    ("registry", "realm", "allowed", "insecure", "may"),
    [
        pytest.param(
            REGISTRY,
            "https://registry.example.com/token",
            (),
            False,
            True,
            id="own-host",
        ),
        pytest.param(
            REGISTRY,
            "https://registry.example.com:8443/t",
            (),
            False,
            True,
            id="own-host-other-port",
        ),
        pytest.param(
            REGISTRY,
            "https://REGISTRY.example.com./t",
            (),
            False,
            True,
            id="own-host-spelled-differently",
        ),
        pytest.param(
            REGISTRY, "https://auth.example.com/t", (), False, True, id="same-domain"
        ),
        pytest.param(
            REGISTRY, "https://example.com/t", (), False, True, id="the-domain-itself"
        ),
        pytest.param(
            REGISTRY,
            "https://a.b.example.com/t",
            (),
            False,
            True,
            id="deep-in-the-domain",
        ),
        pytest.param(
            REGISTRY,
            "http://registry.example.com/t",
            (),
            False,
            False,
            id="own-host-without-tls",
        ),
        pytest.param(
            REGISTRY,
            "http://auth.example.com/t",
            (),
            False,
            False,
            id="same-domain-without-tls",
        ),
        pytest.param(
            REGISTRY,
            "https://evil.example.org/t",
            (),
            False,
            False,
            id="another-domain",
        ),
        pytest.param(
            REGISTRY,
            "https://example.com.evil.org/t",
            (),
            False,
            False,
            id="domain-as-prefix",
        ),
        pytest.param(
            REGISTRY,
            "https://evilexample.com/t",
            (),
            False,
            False,
            id="domain-as-end-of-a-label",
        ),
        pytest.param(
            REGISTRY,
            "https://registry.example.com@evil.org/t",
            (),
            False,
            False,
            id="host-as-user-name",
        ),
        pytest.param(
            REGISTRY,
            "https://evil.org\\@registry.example.com/t",
            (),
            False,
            False,
            id="backslash",
        ),
        pytest.param(REGISTRY, "/token", (), False, False, id="no-url"),
        pytest.param(
            REGISTRY, "ftp://registry.example.com/t", (), False, False, id="no-http"
        ),
        pytest.param(
            REGISTRY,
            "https://registry.example.com:99999/t",
            (),
            False,
            False,
            id="bad-port",
        ),
        pytest.param(
            "https://registry-1.docker.io",
            "https://auth.docker.io/token",
            (),
            False,
            True,
            id="docker-hub",
        ),
        pytest.param(
            "https://registry.gitlab.com",
            "https://gitlab.com/jwt/auth",
            (),
            False,
            True,
            id="gitlab",
        ),
        pytest.param(
            "https://ghcr.io", "https://ghcr.io/token", (), False, True, id="ghcr"
        ),
        pytest.param(
            "https://ghcr.io",
            "https://auth.ghcr.io/token",
            (),
            False,
            True,
            id="below-the-registry",
        ),
        pytest.param(
            "https://ghcr.io",
            "https://evil.io/token",
            (),
            False,
            False,
            id="one-label-is-no-domain",
        ),
        pytest.param(
            "https://reg.co.uk",
            "https://evil.co.uk/t",
            (),
            False,
            False,
            id="names-are-sold-there",
        ),
        pytest.param(
            "https://a.reg.co.uk",
            "https://auth.reg.co.uk/t",
            (),
            False,
            True,
            id="below-a-sold-name",
        ),
        pytest.param(
            "https://mine.azurecr.io",
            "https://yours.azurecr.io/t",
            (),
            False,
            False,
            id="names-are-lent-there",
        ),
        pytest.param(
            "https://10.0.0.5:5000",
            "https://10.0.0.5/t",
            (),
            False,
            True,
            id="same-address",
        ),
        pytest.param(
            "https://10.0.0.5:5000",
            "https://10.0.0.6/t",
            (),
            False,
            False,
            id="another-address",
        ),
        pytest.param(
            "https://10.0.0.5:5000",
            "https://0.0.5/t",
            (),
            False,
            False,
            id="end-of-an-address",
        ),
        pytest.param(
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5001/t",
            (),
            False,
            True,
            id="loopback-may-be-plain",
        ),
        pytest.param(
            "http://localhost:5000",
            "http://localhost:5001/t",
            (),
            False,
            True,
            id="localhost-may-be-plain",
        ),
        pytest.param(
            "http://127.0.0.1:5000",
            "http://10.0.0.1:5001/t",
            (),
            False,
            False,
            id="loopback-sends-elsewhere",
        ),
        pytest.param(
            "http://10.0.0.5:5000",
            "http://10.0.0.5:5001/t",
            (),
            True,
            True,
            id="insecure-may-be-plain",
        ),
        pytest.param(
            "http://10.0.0.5:5000",
            "http://10.0.0.9:5001/t",
            (),
            True,
            False,
            id="insecure-is-no-leave-for-others",
        ),
        pytest.param(
            REGISTRY,
            "https://id.corp.net/t",
            ("id.corp.net",),
            False,
            True,
            id="allowed-host",
        ),
        pytest.param(
            REGISTRY,
            "https://id.corp.net:8443/t",
            ("id.corp.net:8443",),
            False,
            True,
            id="allowed-host-and-port",
        ),
        pytest.param(
            REGISTRY,
            "https://id.corp.net/t",
            ("id.corp.net:443",),
            False,
            True,
            id="allowed-with-the-usual-port",
        ),
        pytest.param(
            REGISTRY,
            "http://id.corp.net/t",
            ("id.corp.net",),
            False,
            False,
            id="allowed-host-still-needs-tls",
        ),
        pytest.param(
            REGISTRY,
            "http://id.corp.net/t",
            ("http://id.corp.net",),
            False,
            True,
            id="allowed-origin-may-be-plain",
        ),
        pytest.param(
            REGISTRY,
            "https://evil.org/t",
            ("id.corp.net",),
            False,
            False,
            id="another-than-the-allowed",
        ),
    ],
)
def test_realms_get_credentials_only_where_they_belong(
    registry: str, realm: str, allowed: tuple[str, ...], insecure: bool, may: bool
) -> None:
    verdict = judge_realm(
        realm, parse_origin(registry), allowed=allowed, insecure=insecure
    )

    assert isinstance(verdict, MaySend if may else MustNotSend)


def test_a_refused_realm_is_named_with_what_would_allow_it() -> None:
    verdict = judge_realm("https://evil.org:1/t?x=secret", parse_origin(REGISTRY))

    assert verdict == MustNotSend(
        'the registry https://registry.example.com names the token realm "https://evil.org:1/t", '
        "which is neither its own host nor of its domain, so it gets no credentials; "
        'allow it with token-realms: ["evil.org:1"] of that registry'
    )


@given(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True))
def test_every_host_owns_itself(host: str) -> None:
    assert same_owner(host, host)


@given(
    st.from_regex(r"[a-z]{1,5}(\.[a-z]{2,5}){1,3}", fullmatch=True),
    st.from_regex(r"[a-z]{1,5}(\.[a-z]{2,5}){1,3}", fullmatch=True),
)
def test_hosts_of_one_owner_share_their_last_two_labels(one: str, two: str) -> None:
    if same_owner(one, two):
        assert one.split(".")[-2:] == two.split(".")[-2:]


BASIC = [Challenge("basic", {"realm": "r"})]
BEARER = [
    Challenge("bearer", {"realm": "https://auth.example.com/token", "service": "reg"})
]
USER = ImageAuth(username="ada", password="pw")


def plan(
    challenges: list[Challenge],
    credential: ImageAuth | None,
    registry: str = REGISTRY,
    *,
    insecure: bool = False,
) -> object:
    return plan_auth(
        challenges,
        credential,
        registry=parse_origin(registry),
        scope="repository:a:pull",
        trust=RegistryTrust(insecure=insecure),
    )


def test_basic_sends_the_password_over_tls() -> None:
    assert plan(BASIC, USER) == UseBasic("ada", "pw")


def test_basic_without_credentials_asks_no_further() -> None:
    assert plan(BASIC, None) == AskAnonymously()


def test_an_empty_credential_is_none() -> None:
    assert plan(BASIC, ImageAuth()) == AskAnonymously()


def test_basic_without_tls_gets_no_password() -> None:
    found = plan(BASIC, USER, "http://10.0.0.5:5000")

    assert isinstance(found, CannotAsk)
    assert "without TLS" in found.message


@pytest.mark.parametrize(
    ("registry", "insecure"),
    [("http://127.0.0.1:5000", False), ("http://10.0.0.5:5000", True)],
    ids=["loopback", "insecure"],
)
def test_basic_without_tls_is_for_loopback_and_insecure(
    registry: str, insecure: bool
) -> None:
    assert plan(BASIC, USER, registry, insecure=insecure) == UseBasic("ada", "pw")


def test_basic_cannot_take_a_token() -> None:
    assert isinstance(plan(BASIC, ImageAuth(identity_token="t")), CannotAsk)


def test_bearer_gets_a_token_with_the_password() -> None:
    assert plan(BEARER, USER) == FetchToken(
        "https://auth.example.com/token?service=reg&scope=repository%3Aa%3Apull&account=ada",
        "ada",
        "pw",
    )


def test_bearer_without_credentials_gets_an_anonymous_token() -> None:
    found = plan(BEARER, None)

    assert isinstance(found, FetchToken)
    assert not found.with_credentials


def test_an_identity_token_is_posted() -> None:
    found = plan(BEARER, ImageAuth(identity_token="idt"))

    assert isinstance(found, FetchToken)
    assert found.url == "https://auth.example.com/token"
    assert found.form == {
        "grant_type": "refresh_token",
        "service": "reg",
        "client_id": "podyard",
        "refresh_token": "idt",
        "scope": "repository:a:pull",
    }


def test_dockers_token_user_means_an_identity_token() -> None:
    found = plan(BEARER, ImageAuth(username="<token>", password="idt"))

    assert isinstance(found, FetchToken)
    assert found.form is not None
    assert found.form["refresh_token"] == "idt"


def test_a_registry_token_is_sent_as_it_is() -> None:
    assert plan(BEARER, ImageAuth(registry_token="t")) == UseToken("t")


def test_bearer_wins_over_basic() -> None:
    assert isinstance(plan([*BASIC, *BEARER], USER), FetchToken)


def test_a_foreign_realm_gets_nothing() -> None:
    challenges = [Challenge("bearer", {"realm": "https://evil.org/t"})]

    found = plan(challenges, USER)

    assert isinstance(found, CannotAsk)
    assert found.foreign_realm
    assert "evil.org" in found.message


def test_a_foreign_realm_may_give_an_anonymous_token() -> None:
    challenges = [Challenge("bearer", {"realm": "https://elsewhere.org/t"})]

    assert isinstance(plan(challenges, None), FetchToken)


def test_an_unknown_scheme_is_named() -> None:
    found = plan([Challenge("negotiate")], USER)

    assert isinstance(found, CannotAsk)
    assert "negotiate" in found.message


def test_no_repr_shows_a_secret() -> None:
    secret = "s3cr3t"
    shown = repr(
        [
            UseBasic("u", secret),
            UseToken(secret),
            FetchToken("https://a", "u", secret, {"refresh_token": secret}),
            parse_token(json.dumps({"token": secret}).encode()),
        ]
    )

    assert "s3cr3t" not in shown


@pytest.mark.parametrize(
    ("body", "value", "lives_s"),
    [
        (b'{"token":"t"}', "t", 60.0),
        (b'{"access_token":"t","expires_in":300}', "t", 300.0),
        (b'{"token":"t","expires_in":"soon"}', "t", 60.0),
        (b'{"token":"t","expires_in":0}', "t", 60.0),
    ],
    ids=["short", "oauth2", "odd-span", "no-span"],
)
def test_tokens_are_read(body: bytes, value: str, lives_s: float) -> None:
    token = parse_token(body)

    assert (token.value, token.lives_s) == (value, lives_s)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token":1}', b'{"token":"a\\r\\nX: y"}', b"<html>"],
    ids=["empty", "list", "none", "number", "header-in-it", "page"],
)
def test_what_is_no_token_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"token|JSON"):
        parse_token(body)


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        pytest.param(
            "https://a/v2/x",
            "/v2/y",
            FollowRedirect("https://a/v2/y", True),
            id="relative",
        ),
        pytest.param(
            "https://a/v2/x",
            "https://a:443/y",
            FollowRedirect("https://a:443/y", True),
            id="same-origin",
        ),
        pytest.param(
            "https://a/v2/x",
            "https://a:8443/y",
            FollowRedirect("https://a:8443/y", False),
            id="other-port",
        ),
        pytest.param(
            "https://a/v2/x",
            "https://b/y",
            FollowRedirect("https://b/y", False),
            id="other-host",
        ),
        pytest.param(
            "https://a/v2/x",
            "https://sub.a/y",
            FollowRedirect("https://sub.a/y", False),
            id="sub-domain",
        ),
        pytest.param(
            "http://a/v2/x",
            "https://a/y",
            FollowRedirect("https://a/y", False),
            id="to-tls",
        ),
        pytest.param(
            "https://a/v2/x",
            "//b/y",
            FollowRedirect("https://b/y", False),
            id="without-scheme",
        ),
    ],
)
def test_credentials_stay_with_scheme_host_and_port(
    url: str, location: str, expected: FollowRedirect
) -> None:
    assert decide_redirect(url, location) == expected


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://a/x", ""),
        ("https://a/x", "http://a/y"),
        ("https://a/x", "ftp://a/y"),
        ("https://a/x", "https://user:pw@a/y"),
        ("https://a/x", "file:///etc/shadow"),
        ("https://a/x", "https://[bad/y"),
    ],
    ids=["nowhere", "downgrade", "ftp", "user-name", "file", "malformed"],
)
def test_bad_redirects_are_refused(url: str, location: str) -> None:
    found = decide_redirect(url, location)

    assert isinstance(found, RefuseRedirect)
    assert "pw" not in found.message


def test_leaving_tls_is_for_insecure_registries() -> None:
    assert decide_redirect("https://a/x", "http://a/y", insecure=True) == (
        FollowRedirect("http://a/y", keep_credentials=False)
    )


@pytest.mark.parametrize(
    ("status", "attempt", "retry_after", "waited_s", "expected"),
    [
        pytest.param(200, 1, "", 0, GiveUp(), id="good"),
        pytest.param(404, 1, "", 0, GiveUp(), id="not-found"),
        pytest.param(429, 1, "", 0, TryAgain(1), id="busy"),
        pytest.param(429, 3, "", 3, TryAgain(4), id="busy-doubles"),
        pytest.param(429, 1, "7", 0, TryAgain(7), id="busy-for-so-long"),
        pytest.param(
            429, 1, "Wed, 01 Jul 2026 12:00:09 GMT", 0, TryAgain(9), id="busy-until"
        ),
        pytest.param(
            429,
            1,
            "Wed, 01 Jul 2026 11:00:00 GMT",
            0,
            TryAgain(0),
            id="busy-until-past",
        ),
        pytest.param(429, 1, "3600", 0, GiveUp(3600), id="too-long"),
        pytest.param(429, 2, "40", 40, GiveUp(40), id="too-long-in-all"),
        pytest.param(429, 5, "", 15, GiveUp(), id="too-often"),
        pytest.param(500, 1, "", 0, TryAgain(0.2), id="failed-once"),
        pytest.param(503, 1, "5", 0, TryAgain(5), id="unavailable-for-so-long"),
        pytest.param(500, 2, "", 0, GiveUp(), id="failed-twice"),
        pytest.param(503, 1, "900", 0, GiveUp(900), id="unavailable-too-long"),
        pytest.param(501, 1, "", 0, GiveUp(), id="not-implemented"),
    ],
)
def test_retries(
    status: int,
    attempt: int,
    retry_after: str,
    waited_s: float,
    expected: TryAgain | GiveUp,
) -> None:
    decision = decide_retry(
        status, attempt=attempt, retry_after=retry_after, waited_s=waited_s, now=NOW
    )

    assert decision == expected


@given(st.text())
def test_no_retry_after_breaks_the_parser(text: str) -> None:
    seconds = parse_retry_after(text, now=NOW)

    assert seconds is None or seconds >= 0


@given(
    st.integers(1, 10_000), st.floats(0, 1e6), st.sampled_from(["", "1", "59", "61"])
)
def test_waits_never_add_up_to_more_than_a_minute(
    attempt: int, waited_s: float, retry_after: str
) -> None:
    decision = decide_retry(
        429, attempt=attempt, retry_after=retry_after, waited_s=waited_s, now=NOW
    )

    if isinstance(decision, TryAgain):
        assert waited_s + decision.in_s <= 60


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (DIGEST, True),
        ("sha512:" + "0" * 128, True),
        ("sha384:" + "0" * 96, True),
        ("sha256:" + "a" * 63, False),
        ("sha256:" + "A" * 64, False),
        ("md5:" + "a" * 32, False),
        ("a" * 64, False),
        ("", False),
        ("sha256:../../etc/passwd", False),
    ],
)
def test_digest_syntax(text: str, good: bool) -> None:
    assert is_digest(text) is good


def test_a_digest_is_computed_by_the_algorithm_of_another() -> None:
    assert digest_like(b"", DIGEST).startswith("sha256:e3b0c442")
    assert len(digest_like(b"", "sha512:" + "0" * 128)) == 7 + 128


def manifest(**extra: object) -> bytes:
    body: dict[str, object] = {
        "schemaVersion": 2,
        "config": {"digest": DIGEST, "size": 3},
        "layers": [{"digest": OTHER, "size": 4}],
    }
    return json.dumps(body | extra).encode()


def index(*entries: dict[str, object], **extra: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "manifests": list(entries), **extra}
    ).encode()


def entry(
    architecture: str, variant: str = "", digest: str = DIGEST
) -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture}
    if variant:
        platform["variant"] = variant
    return {"digest": digest, "size": 9, "platform": platform}


def test_a_manifest_is_read_with_its_size() -> None:
    found = parse_manifest(manifest(mediaType=OCI_MANIFEST), OCI_MANIFEST)

    assert found == ImageManifest(
        OCI_MANIFEST, Content("", DIGEST, 3), (Content("", OTHER, 4),)
    )
    assert isinstance(found, ImageManifest)
    assert found.size == 7


def test_a_media_type_may_stand_in_the_header_alone() -> None:
    assert isinstance(parse_manifest(manifest(), DOCKER_MANIFEST), ImageManifest)
    assert isinstance(
        parse_manifest(index(), f"{OCI_INDEX}; charset=utf-8"), ImageIndex
    )


def test_a_media_type_may_stand_in_the_body_alone() -> None:
    found = parse_manifest(manifest(mediaType=DOCKER_MANIFEST), "application/json")

    assert found.media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("data", "content_type", "says"),
    [
        pytest.param(b"<html>", OCI_MANIFEST, "not JSON", id="page"),
        pytest.param(b"[]", OCI_MANIFEST, "not a JSON object", id="list"),
        pytest.param(b"[" * 100_000, OCI_MANIFEST, "not JSON", id="deep"),
        pytest.param(
            manifest(mediaType=OCI_INDEX),
            OCI_MANIFEST,
            "calls itself",
            id="header-and-body-disagree",
        ),
        pytest.param(
            manifest(),
            OCI_INDEX,
            "not what it was sent as",
            id="manifest-sent-as-index",
        ),
        pytest.param(
            index(),
            OCI_MANIFEST,
            "not what it was sent as",
            id="index-sent-as-manifest",
        ),
        pytest.param(manifest(manifests=[]), OCI_MANIFEST, "at once", id="both"),
        pytest.param(index(layers=[]), OCI_INDEX, "at once", id="index-with-layers"),
        pytest.param(
            index(fsLayers=[]), DOCKER_LIST, "at once", id="index-with-old-layers"
        ),
        pytest.param(
            b'{"schemaVersion":1,"fsLayers":[]}', "", "schema 1", id="schema-1"
        ),
        pytest.param(
            b"{}",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
            id="schema-1-by-type",
        ),
        pytest.param(
            b'{"schemaVersion":2}', OCI_MANIFEST, "something else", id="neither"
        ),
        pytest.param(
            manifest(mediaType=7), OCI_MANIFEST, "not a string", id="odd-type"
        ),
        pytest.param(manifest(layers={}), OCI_MANIFEST, "not a list", id="odd-layers"),
        pytest.param(
            manifest(layers=[1]), OCI_MANIFEST, "not an object", id="odd-layer"
        ),
        pytest.param(
            manifest(config=None), OCI_MANIFEST, "not an object", id="no-config"
        ),
        pytest.param(
            manifest(config={"digest": "sha256:x", "size": 1}),
            OCI_MANIFEST,
            "no digest",
            id="bad-digest",
        ),
        pytest.param(
            manifest(config={"digest": DIGEST, "size": -1}),
            OCI_MANIFEST,
            "no size",
            id="bad-size",
        ),
        pytest.param(
            manifest(config={"digest": DIGEST, "size": True}),
            OCI_MANIFEST,
            "no size",
            id="size-is-true",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(
    data: bytes, content_type: str, says: str
) -> None:
    with pytest.raises(ManifestError, match=says):
        parse_manifest(data, content_type)


@given(st.binary(max_size=200), st.sampled_from([OCI_INDEX, OCI_MANIFEST, ""]))
def test_no_bytes_break_the_manifest_parser(data: bytes, content_type: str) -> None:
    with suppress(ManifestError):
        parse_manifest(data, content_type)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
        ("ppc64le", "linux/ppc64le"),
    ],
)
def test_machines_have_platforms(machine: str, expected: str) -> None:
    assert str(platform_of_machine(machine)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Platform("linux", "arm64", "v8"), Platform("linux", "arm64")),
        (Platform("linux", "aarch64", "8"), Platform("linux", "arm64")),
        (Platform("Linux", "x86_64"), Platform("linux", "amd64")),
        (Platform("linux", "amd64", "v1"), Platform("linux", "amd64")),
        (Platform("linux", "arm"), Platform("linux", "arm", "v7")),
        (Platform("linux", "arm", "6"), Platform("linux", "arm", "v6")),
        (Platform("linux", "armel"), Platform("linux", "arm", "v6")),
        (Platform("linux", "armhf"), Platform("linux", "arm", "v7")),
    ],
    ids=str,
)
def test_platforms_are_compared_in_one_spelling(
    given: Platform, expected: Platform
) -> None:
    assert normalize_platform(given) == expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Platform("linux", "amd64"), "amd64 386"),
        (Platform("linux", "amd64", "v3"), "amd64/v3 amd64/v2 amd64 386"),
        (Platform("linux", "arm64"), "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            Platform("linux", "arm64", "v8.1"),
            "arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        (Platform("linux", "arm", "v6"), "arm/v6 arm/v5"),
        (Platform("linux", "arm"), "arm/v7 arm/v6 arm/v5"),
        (Platform("linux", "s390x"), "s390x"),
    ],
    ids=str,
)
def test_a_node_runs_its_own_platform_and_older_ones(
    node: Platform, expected: str
) -> None:
    assert [str(p).removeprefix("linux/") for p in runnable_platforms(node)] == (
        expected.split()
    )


def choose(node: str, *entries: dict[str, object]) -> Content | NoPlatform:
    found = parse_manifest(index(*entries), OCI_INDEX)
    assert isinstance(found, ImageIndex)
    return choose_platform(found, platform_of_machine(node))


def test_the_best_platform_is_chosen_whatever_the_order() -> None:
    chosen = choose(
        "x86_64", entry("386"), entry("arm64"), entry("amd64", digest=OTHER)
    )

    assert isinstance(chosen, Content)
    assert chosen.digest == OTHER


def test_an_older_platform_will_do() -> None:
    chosen = choose("armv7l", entry("arm", "v5"), entry("arm", "v6", OTHER))

    assert isinstance(chosen, Content)
    assert chosen.digest == OTHER


def test_an_image_without_platform_is_the_last_resort() -> None:
    bare: dict[str, object] = {"digest": OTHER, "size": 1}

    fits = choose("x86_64", bare, entry("amd64"))
    assert isinstance(fits, Content)
    assert fits.digest == DIGEST
    last = choose("s390x", bare, entry("amd64"))
    assert isinstance(last, Content)
    assert last.digest == OTHER


def test_where_nothing_fits_both_sides_are_listed() -> None:
    found = choose("x86_64", entry("arm64", "v8"), entry("s390x"), entry("arm", "v7"))

    assert isinstance(found, NoPlatform)
    assert found.message == (
        "no image of the index fits this node (linux/amd64); on offer: linux/arm64, "
        "linux/s390x, linux/arm/v7"
    )


def test_attestations_are_no_images() -> None:
    attestation = entry("unknown") | {
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"}
    }

    found = choose("x86_64", attestation)

    assert isinstance(found, NoPlatform)
    assert found.message.endswith("on offer: none")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (
            b'{"errors":[{"code":"DENIED","message":"no"}]}',
            "application/json",
            "DENIED: no",
        ),
        (b'{"errors":[{"code":"A"},{"message":"b"}]}', "application/json", "A; b"),
        (
            b'{"details":"incorrect username or password"}',
            "application/json",
            "incorrect username or password",
        ),
        (b'{"error":"e","error_description":"longer"}', "application/json", "longer"),
        (b'{"errors":"odd"}', "application/json", ""),
        (b"404 page not found\n", "text/plain; charset=utf-8", "404 page not found"),
        (b"<html>", "text/html", ""),
        (b"\x00\xff", "application/octet-stream", ""),
        (b"", "", ""),
    ],
)
def test_the_registrys_own_words(body: bytes, content_type: str, expected: str) -> None:
    assert registry_words(body, content_type) == expected


def test_words_are_one_line_and_not_too_long() -> None:
    words = registry_words(
        json.dumps({"errors": [{"message": "a\n\x1b[31m" + "x" * 1000}]}).encode(), ""
    )

    assert len(words) == 256
    assert "\n" not in words
    assert "\x1b" not in words


@given(st.text(max_size=600))
def test_cut_text_is_always_printable(text: str) -> None:
    shown = cut(text)

    assert shown.isprintable()
    assert len(shown) <= 256


def test_shown_urls_have_neither_user_nor_query() -> None:
    shown = show_url("https://user:pw@h:1/p?token=t#f")

    assert shown == "https://h:1/p"
