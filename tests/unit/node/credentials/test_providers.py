"""Credential provider plugins: configuration and protocol, as tables."""

import orjson
import pytest

from podyard.api.runtime import ImageAuth
from podyard.node.credentials.decide import decide_helper, parse_config_json
from podyard.node.credentials.providers.decide import (
    PLUGIN_V1,
    Account,
    Provider,
    ProviderAnswerError,
    ProviderConfigError,
    SkipProvider,
    TokenAttributes,
    build_request,
    cache_key,
    decide_account,
    parse_answer,
    parse_helper_answer,
    parse_providers,
)

SECRET = "canary-secret-value"
V1BETA1 = "credentialprovider.kubelet.k8s.io/v1beta1"


def entry(**more):
    return {
        "name": "p",
        "apiVersion": PLUGIN_V1,
        "matchImages": ["*.example.com"],
        "defaultCacheDuration": "10m",
    } | more


def config(*entries, **more):
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": list(entries),
    } | more


def token(**more):
    return {
        "serviceAccountTokenAudience": "aud",
        "cacheType": "Token",
        "requireServiceAccount": True,
    } | more


def test_a_provider_is_read_whole():
    (provider,) = parse_providers(
        [
            (
                "f",
                config(
                    entry(
                        args=["a"],
                        env=[{"name": "X", "value": SECRET}],
                        tokenAttributes=token(
                            requiredServiceAccountAnnotationKeys=["k"],
                            optionalServiceAccountAnnotationKeys=["o"],
                        ),
                    )
                ),
            )
        ]
    )

    assert provider == Provider(
        "p",
        PLUGIN_V1,
        ("*.example.com",),
        600.0,
        ("a",),
        (("X", SECRET),),
        TokenAttributes("aud", "Token", True, ("k",), ("o",)),
    )
    assert SECRET not in repr(provider)


def test_files_of_a_directory_add_up():
    found = parse_providers([("a", config(entry())), ("b", config(entry(name="q")))])

    assert [provider.name for provider in found] == ["p", "q"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param(config(), "at least 1 item in plugins is required", id="none"),
        pytest.param([], "is no map", id="list"),
        pytest.param(config(kind="Other"), "kind", id="kind"),
        pytest.param(config(apiVersion="v1"), "apiVersion", id="version"),
        pytest.param(config(extra=1), 'unknown field "extra"', id="unknown"),
        pytest.param(config(entry(extra=1)), 'unknown field "extra"', id="unknown-in"),
        pytest.param(config(entry(name="")), "name is required", id="no-name"),
        pytest.param(
            config(entry(name="a/b")), "provider name cannot contain '/'", id="slash"
        ),
        pytest.param(
            config(entry(name="a b")), "provider name cannot contain spaces", id="space"
        ),
        pytest.param(config(entry(name=".")), "provider name cannot be '.'", id="dot"),
        pytest.param(
            config(entry(name="..")), "provider name cannot be '..'", id="dots"
        ),
        pytest.param(
            config(entry(), entry()), 'duplicate provider name "p"', id="duplicate"
        ),
        pytest.param(config(entry(apiVersion="")), "Required value", id="no-version"),
        pytest.param(
            config(entry(apiVersion="v9")), "Unsupported value", id="bad-version"
        ),
        pytest.param(
            config(entry(matchImages=[])),
            "at least 1 item in matchImages is required",
            id="no-images",
        ),
        pytest.param(
            config(entry(matchImages=["host:*"])), "not a valid glob", id="bad-glob"
        ),
        pytest.param(
            config(entry(defaultCacheDuration=None)),
            "defaultCacheDuration is required",
            id="no-duration",
        ),
        pytest.param(
            config(entry(defaultCacheDuration="-1m")),
            "must be greater than or equal to 0",
            id="negative",
        ),
        pytest.param(
            config(entry(apiVersion=V1BETA1, tokenAttributes=token())),
            "tokenAttributes is only supported for",
            id="token-beta",
        ),
        pytest.param(
            config(entry(tokenAttributes=token(serviceAccountTokenAudience=""))),
            "serviceAccountTokenAudience is required",
            id="no-audience",
        ),
        pytest.param(
            config(entry(tokenAttributes=token(cacheType=""))),
            "cacheType is required to be set when tokenAttributes is specified",
            id="no-cache-type",
        ),
        pytest.param(
            config(entry(tokenAttributes=token(requireServiceAccount=None))),
            "requireServiceAccount is required",
            id="no-require",
        ),
        pytest.param(
            config(
                entry(
                    tokenAttributes=token(
                        requireServiceAccount=False,
                        requiredServiceAccountAnnotationKeys=["k"],
                    )
                )
            ),
            "requireServiceAccount cannot be false",
            id="required-without-account",
        ),
        pytest.param(
            config(
                entry(
                    tokenAttributes=token(
                        requiredServiceAccountAnnotationKeys=["k"],
                        optionalServiceAccountAnnotationKeys=["k"],
                    )
                )
            ),
            "annotation keys cannot be both required and optional",
            id="both",
        ),
    ],
)
def test_a_bad_configuration_is_refused(document, message):
    with pytest.raises(ProviderConfigError) as caught:
        parse_providers([("f", document)])

    assert message in str(caught.value)


def provider(**more):
    (made,) = parse_providers([("f", config(entry(**more)))])
    return made


@pytest.mark.parametrize(
    ("pattern", "repository", "wanted"),
    [
        ("*.example.com", "a.example.com/x", True),
        ("*.example.com", "example.com/x", False),
        ("*.example.com", "a.b.example.com/x", False),
        ("example.com/team", "example.com/team/x", True),
        ("example.com/team", "example.com/other", False),
        ("example.com:5000", "example.com:5000/x", True),
        ("example.com", "example.com:5000/x", False),
        ("docker.io", "docker.io/library/x", True),
    ],
)
def test_which_images_a_provider_is_asked_for(pattern, repository, wanted):
    assert provider(matchImages=[pattern]).wants(repository) is wanted


def test_a_request_leaves_out_what_is_empty():
    assert orjson.loads(build_request(provider(), "r/x", account=None)) == {
        "kind": "CredentialProviderRequest",
        "apiVersion": PLUGIN_V1,
        "image": "r/x",
    }


def test_a_request_for_an_account_tells_its_annotations():
    asked = build_request(
        provider(),
        "r/x",
        token="t",
        account=Account("ns", "sa", "u", (("k", "v"),)),
    )

    assert orjson.loads(asked)["serviceAccountToken"] == "t"
    assert orjson.loads(asked)["serviceAccountAnnotations"] == {"k": "v"}


def answer(**more):
    return {
        "kind": "CredentialProviderResponse",
        "apiVersion": PLUGIN_V1,
        "cacheKeyType": "Registry",
        "auth": {"r.example.com": {"username": "u", "password": SECRET}},
    } | more


@pytest.mark.parametrize(
    ("duration", "cache_s"),
    [(None, 600.0), ("0s", 0.0), ("6h0m0s", 21600.0)],
)
def test_an_answer_says_how_long_it_is_good(duration, cache_s):
    parsed = parse_answer(orjson.dumps(answer(cacheDuration=duration)), provider())

    assert parsed.cache_s == cache_s
    assert parsed.auths == (
        ("r.example.com", ImageAuth(username="u", password=SECRET)),
    )
    assert SECRET not in repr(parsed)


def test_no_auth_is_no_credentials():
    assert parse_answer(orjson.dumps(answer(auth=None)), provider()).auths == ()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f"{SECRET}".encode(), id="not-json"),
        pytest.param(orjson.dumps([SECRET]), id="list"),
        pytest.param(orjson.dumps(answer(kind=SECRET)), id="kind"),
        pytest.param(orjson.dumps(answer(apiVersion=V1BETA1)), id="version"),
        pytest.param(orjson.dumps(answer(cacheKeyType=SECRET)), id="cache-key"),
        pytest.param(orjson.dumps(answer(cacheDuration=SECRET)), id="duration"),
        pytest.param(orjson.dumps(answer(**{SECRET: 1})), id="unknown"),
        pytest.param(orjson.dumps(answer(auth=SECRET)), id="auth"),
        pytest.param(orjson.dumps(answer(auth={"h": SECRET})), id="entry"),
        pytest.param(
            orjson.dumps(answer(auth={"h": {"username": 1, "password": SECRET}})),
            id="types",
        ),
    ],
)
def test_a_bad_answer_is_refused_without_a_word_of_it(raw):
    with pytest.raises(ProviderAnswerError) as caught:
        parse_answer(raw, provider())

    assert SECRET not in str(caught.value)


def test_an_answer_kept_for_an_account_must_not_hold_the_token():
    by_account = provider(tokenAttributes=token(cacheType="ServiceAccount"))

    with pytest.raises(ProviderAnswerError):
        parse_answer(orjson.dumps(answer()), by_account, token=SECRET)
    by_token = provider(tokenAttributes=token())
    assert parse_answer(orjson.dumps(answer()), by_token, token=SECRET).auths


@pytest.mark.parametrize(
    ("kind", "same", "other"),
    [
        ("Image", "r/a", "r/b"),
        ("Registry", "r/b", "s/a"),
        ("Global", "s/b", None),
    ],
)
def test_for_what_else_an_answer_is_good(kind, same, other):
    key = cache_key(kind, "r/a", provider())

    assert cache_key(kind, same, provider()) == key
    if other:
        assert cache_key(kind, other, provider()) != key


def test_answers_are_kept_apart_by_account_and_token_without_the_token():
    one = provider(tokenAttributes=token())
    accounts = [Account("a", "sa", "1"), Account("b", "sa", "2")]

    keys = {
        cache_key("Global", "r/a", one, account=account, token=text)
        for account in accounts
        for text in (SECRET, "other")
    }

    assert len(keys) == 4
    assert SECRET not in repr(keys)


SA = {"metadata": {"uid": "u", "annotations": {"k": "v", "o": "w", "x": "y"}}}


@pytest.mark.parametrize(
    ("more", "name", "account", "outcome"),
    [
        pytest.param({}, "", None, SkipProvider, id="required-and-none"),
        pytest.param({"requireServiceAccount": False}, "", None, None, id="none"),
        pytest.param({}, "sa", None, SkipProvider, id="missing"),
        pytest.param(
            {"requiredServiceAccountAnnotationKeys": ["absent"]},
            "sa",
            SA,
            SkipProvider,
            id="annotation-missing",
        ),
        pytest.param(
            {
                "requiredServiceAccountAnnotationKeys": ["k"],
                "optionalServiceAccountAnnotationKeys": ["o", "absent"],
            },
            "sa",
            SA,
            Account("ns", "sa", "u", (("k", "v"), ("o", "w"))),
            id="told",
        ),
    ],
)
def test_for_which_account_a_plugin_is_asked(more, name, account, outcome):
    attributes = provider(tokenAttributes=token(**more)).token

    decided = decide_account(attributes, "ns", name, account)

    if outcome is SkipProvider:
        assert isinstance(decided, SkipProvider)
    else:
        assert decided == outcome


@pytest.mark.parametrize(
    ("document", "repository", "asked"),
    [
        ({"credHelpers": {"r.io": "h"}}, "r.io/x", ("h", "r.io")),
        ({"credHelpers": {"r.io": "h"}}, "s.io/x", None),
        ({"credHelpers": {"r.io": "h"}, "credsStore": "s"}, "r.io/x", ("h", "r.io")),
        ({"credsStore": "s"}, "s.io/x", ("s", "s.io")),
        ({"credsStore": "s"}, "docker.io/x", ("s", "https://index.docker.io/v1/")),
        (
            {"credsStore": "s", "auths": {"https://r.io": {}}},
            "r.io/x",
            ("s", "https://r.io"),
        ),
        ({"auths": {"r.io": {}}}, "r.io/x", None),
    ],
)
def test_which_helper_is_asked_and_for_what(document, repository, asked):
    assert decide_helper(parse_config_json(orjson.dumps(document)), repository) == asked


@pytest.mark.parametrize(
    ("document", "auth"),
    [
        (
            {"ServerURL": "r", "Username": "u", "Secret": "s"},
            ImageAuth(username="u", password="s"),
        ),
        ({"Username": "<token>", "Secret": "s"}, ImageAuth(identity_token="s")),
    ],
)
def test_what_a_helper_answers(document, auth):
    assert parse_helper_answer(orjson.dumps(document)) == auth


@pytest.mark.parametrize("raw", [b"credentials not found", b"[]", b'{"Username": "u"}'])
def test_a_helper_that_has_nothing(raw):
    with pytest.raises(ProviderAnswerError):
        parse_helper_answer(raw)
