"""Which credentials fit an image."""

import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.runtime import ImageAuth
from podyard.node.credentials.decide import (
    Credential,
    CredentialParseError,
    Keyring,
    auth_hash,
    decide_credentials,
    decode_auth,
    is_default_registry,
    match_glob,
    normalize_key,
    parse_config_json,
    parse_dockercfg,
    parse_secret,
    urls_match,
    urls_match_as_documented,
)

DOMAIN_CASES = [
    ("*.kubernetes.io", "prefix.kubernetes.io", True),
    ("prefix.*.io", "prefix.kubernetes.io", True),
    ("prefix.kubernetes.*", "prefix.kubernetes.io", True),
    ("*-good.kubernetes.io", "prefix-good.kubernetes.io", True),
    ("*.kubernetes.io/blah", "prefix.kubernetes.io/blah", True),
    ("prefix.*.io/foo", "prefix.kubernetes.io/foo/bar", True),
    ("*.kubernetes.io:1111/blah", "prefix.kubernetes.io:1111/blah", True),
    ("prefix.*.io:1111/foo", "prefix.kubernetes.io:1111/foo/bar", True),
    ("*.kubernetes.io", "kubernetes.io", False),
    ("*.*.kubernetes.io", "prefix.kubernetes.io", False),
    ("*.*.kubernetes.io", "kubernetes.io", False),
    ("*kubernetes.io", "a.kubernetes.io", False),
    ("*kubernetes.io", "kubernetes.io", True),
    ("*.*.*.kubernetes.io", "a.b.c.kubernetes.io", True),
    ("kubernetes.io", "kubernetes.com", False),
    ("k*.io", "quay.io", False),
    ("*.kubernetes.io:1234/blah", "prefix.kubernetes.io:1111/blah", False),
    ("prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar", False),
    ("bar.example.com/pong", "bar.example.com/pongz", True),
    ("[::1]:5000/x", "[::1]:5000/x/y", True),
]


@pytest.mark.parametrize(("glob", "target", "expected"), DOMAIN_CASES)
def test_keys_match_as_the_kubelet_has_it(glob, target, expected):
    assert urls_match(glob, target) is expected


@pytest.mark.parametrize(
    ("image", "upstream", "documented"),
    [
        ("my-registry.io/images", True, True),
        ("my-registry.io/images/my-image", True, True),
        ("my-registry.io/images/another-image", True, True),
        ("sub.my-registry.io/images/my-image", False, True),
        ("a.sub.my-registry.io/images/my-image", False, True),
        ("my-registry.io/other", False, False),
        ("my-registry.io:5000/images", False, False),
        ("my-registry.com/images", False, False),
    ],
)
def test_the_pages_example_matches_as_the_page_says(image, upstream, documented):
    key = "*my-registry.io/images"

    assert urls_match(key, image) is upstream
    assert urls_match_as_documented(key, image) is documented


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[!a]", "b", False),
        ("[!a]", "!", True),
        (r"\*", "*", True),
        (r"\*", "x", False),
        ("[\\-]", "-", True),
        ("[", "[", False),
        ("[]", "", False),
        ("[]a]", "]", False),
        ("[a", "a", False),
        ("[-]", "-", False),
        ("[a-]", "a", False),
        ("a\\", "a", False),
        ("A", "a", False),
        ("[z-a]", "m", False),
    ],
)
def test_globs_are_those_of_go(pattern, name, expected):
    assert match_glob(pattern, name) is expected


@given(st.text(alphabet="abc*?[]^-\\./", max_size=12), st.text(max_size=12))
def test_no_glob_crashes(pattern, name):
    assert match_glob(pattern, name) in {True, False}


@given(st.text(alphabet="abcxyz.-", max_size=20))
def test_text_without_special_characters_matches_only_itself(text):
    assert match_glob(text, text)
    assert not match_glob(text, text + "x")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("https://index.docker.io/v1/", "index.docker.io"),
        ("quay.io", "quay.io"),
        ("https://quay.io/v1/", "quay.io"),
        ("https://x/v1", "x/v1"),
        ("https://x/v2/team", "x/team"),
        ("http://x:5000/a/b", "x:5000/a/b"),
        ("*.x.io", "*.x.io"),
        ("x.io/?q", "x.io"),
        ("x.io:abc", None),
        ("a\\b.io", None),
        ("[::1", None),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_keys_are_normalized(key, expected):
    assert normalize_key(key) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("foo/bar", True),
        ("docker.io/foo/bar", True),
        ("index.docker.io/foo/bar", True),
        ("foo", True),
        ("", False),
        ("registry.tld/foo/bar", False),
        ("registry:5000/foo/bar", False),
        ("myhostdocker.io/foo/bar", False),
    ],
)
def test_what_is_docker_hubs(image, expected):
    assert is_default_registry(image) is expected


def ring(*keys):
    return Keyring(
        Credential(ImageAuth(username=f"u{n}", password="p"), key, f"o{n}")
        for n, key in enumerate(keys)
    )


@pytest.mark.parametrize(
    ("keys", "image", "users"),
    [
        (("bar.io/pong", "bar.io"), "bar.io", ["u1"]),
        (("bar.io", "bar.io/pong"), "bar.io/pong", ["u1", "u0"]),
        (("bar.io/pong", "bar.io"), "bar.io/ping", ["u1"]),
        (("bar.io/pong", "bar.io"), "bar.io/pongz", ["u0", "u1"]),
        (("bar.io/pong", "bar.io"), "foo.bar.io", []),
        (("*.bar.io", "x.bar.io"), "x.bar.io/a", ["u1", "u0"]),
        (("x.io", "x.io"), "x.io/a", ["u0", "u1"]),
        (("https://index.docker.io/v1/",), "docker.io/library/jenkins", ["u0"]),
        (("https://index.docker.io/v1/",), "world.mesos.org/foo/bar", []),
        (("docker.io", "index.docker.io"), "docker.io/library/x", ["u0"]),
        (("registry-1.docker.io",), "docker.io/library/x", []),
        (("https://*.docker.io/v2/",), "prefix.docker.io/path/foo", ["u0"]),
        (("*.docker.io:1111",), "prefix.docker.io:1111/path", ["u0"]),
        (("bad\\key", "x.io"), "x.io/a", ["u1"]),
    ],
)
def test_credentials_are_tried_most_specific_first(keys, image, users):
    found = ring(*keys).look_up(image)

    assert [c.auth.username for c in found] == users


@pytest.mark.parametrize(
    ("semantics", "origins"),
    [("upstream", ["first", "second"]), ("documented", ["first", "second", "wide"])],
)
def test_what_only_the_page_matches_is_tried_last(semantics, origins):
    def credential(key, origin):
        return Credential(ImageAuth(username=origin), key, origin)

    rings = (
        Keyring([credential("*r.io", "wide"), credential("a.r.io", "first")]),
        Keyring([credential("*.r.io", "second")]),
    )

    found = decide_credentials("a.r.io/x", rings, semantics=semantics)

    assert [c.origin for c in found] == origins


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("Zm9vOmJhcg==", ("foo", "bar")),
        ("cGluZzpwb25n", ("ping", "pong")),
        (" Zm9vOmJhcg== ", ("foo", "bar")),
        ("Zm9vOmJhcg", ("foo", "bar")),
        (b64("u:p:q"), ("u", "p:q")),
    ],
)
def test_auth_is_decoded(auth, expected):
    assert decode_auth(auth) == expected


@pytest.mark.parametrize("auth", ["cGFudHM=", "pants", "a", "Zm9_OmJhcg", "====", "é"])
def test_bad_auth_is_refused_in_upstreams_words(auth):
    with pytest.raises(CredentialParseError) as caught:
        decode_auth(auth)

    assert str(caught.value) == (
        "unable to parse auth field, must be formatted as base64(username:password)"
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param(
            {"auths": {"r": {"username": "u", "password": "p"}}},
            {"r": ImageAuth("u", "p")},
            id="plain",
        ),
        pytest.param(
            {"auths": {"r": {"username": "x", "auth": b64("u:p")}}},
            {"r": ImageAuth("u", "p")},
            id="auth-wins",
        ),
        pytest.param(
            {"auths": {"r": {"identitytoken": "t", "auth": b64("u:")}}},
            {"r": ImageAuth(identity_token="t")},
            id="identity-token",
        ),
        pytest.param(
            {"auths": {"r": {"email": "a@b"}}}, {"r": ImageAuth()}, id="empty"
        ),
        pytest.param(
            {"HttpHeaders": {"x": "y"}, "auths": {}}, {}, id="headers-ignored"
        ),
    ],
)
def test_config_json_is_read(document, expected):
    assert dict(parse_config_json(orjson.dumps(document)).entries) == expected


def test_helpers_are_noted():
    raw = orjson.dumps({"credsStore": "b", "credHelpers": {"r": "a"}})

    assert parse_config_json(raw).helpers == ("a", "b")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"auths": []}',
        b'{"auths": {"r": 1}}',
        b'{"auths": {"r": {"email": false}}}',
        b'{"auths": {"r": {"auth": "hunter2"}}}',
    ],
)
def test_malformed_documents_are_refused_without_showing_them(raw):
    with pytest.raises(CredentialParseError) as caught:
        parse_config_json(raw)

    assert "hunter2" not in str(caught.value)


def test_the_legacy_form_is_the_bare_map():
    raw = orjson.dumps({"r": {"auth": b64("u:p")}})

    assert dict(parse_dockercfg(raw).entries) == {"r": ImageAuth("u", "p")}


ENTRY = {"r.io": {"auth": b64("u:p")}}


@pytest.mark.parametrize(
    ("kind", "data", "found"),
    [
        pytest.param(
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": {"auths": ENTRY}},
            True,
            id="dockerconfigjson",
        ),
        pytest.param(
            "kubernetes.io/dockercfg", {".dockercfg": ENTRY}, True, id="dockercfg"
        ),
        pytest.param("Opaque", {".dockerconfigjson": ENTRY}, False, id="other-type"),
        pytest.param(
            "kubernetes.io/dockerconfigjson", {".dockercfg": ENTRY}, False, id="key"
        ),
    ],
)
def test_secrets_count_by_type_and_key(kind, data, found):
    encoded = {k: base64.b64encode(orjson.dumps(v)).decode() for k, v in data.items()}

    parsed = parse_secret({"type": kind, "data": encoded})

    assert (parsed is not None) is found
    if parsed:
        assert parsed.entries == (("r.io", ImageAuth("u", "p")),)


def test_secrets_show_in_no_repr():
    credential = Credential(ImageAuth("u", "hunter2", "hunter2"), "r", "o")

    assert "hunter2" not in repr(credential) + str(credential)


def test_equal_credentials_have_equal_hashes():
    assert auth_hash(ImageAuth("u", "p")) == auth_hash(ImageAuth("u", "p"))
    assert auth_hash(ImageAuth("u", "p")) != auth_hash(ImageAuth("u", "q"))
