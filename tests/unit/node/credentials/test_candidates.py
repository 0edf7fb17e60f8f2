"""Which credentials fit or nearly fit, told without the credentials."""

import pytest

from podyard.api.runtime import ImageAuth
from podyard.node.credentials.build import (
    Candidate,
    Match,
    build_candidates,
    explain_match,
    redact,
)
from podyard.node.credentials.decide import Credential, Keyring, decide_credentials


@pytest.mark.parametrize(
    ("key", "repository", "semantics", "verdict", "word"),
    [
        ("reg.test", "reg.test/app", "documented", "match", "fit"),
        ("https://reg.test/v2/", "reg.test/app", "documented", "match", "fit"),
        ("reg.test/team", "reg.test/app", "documented", "near", "path"),
        ("reg.test:5000", "reg.test/app", "documented", "near", "port"),
        ("*.reg.test", "a.b.reg.test/app", "documented", "match", "spans dots"),
        ("*.reg.test", "a.b.reg.test/app", "upstream", "near", "span dots"),
        ("mirror.reg.test", "www.reg.test/app", "documented", "near", "another host"),
        ("other.example", "reg.test/app", "documented", "no", "another registry"),
        ("http://[", "reg.test/app", "documented", "no", "no address"),
        (
            "https://index.docker.io/v1/",
            "docker.io/library/nginx",
            "documented",
            "match",
            "Docker Hub",
        ),
    ],
)
def test_a_match_says_why_or_how_nearly(key, repository, semantics, verdict, word):
    match = explain_match(key, repository, semantics=semantics)

    assert match.verdict == verdict
    assert word in match.why


def test_candidates_come_in_the_order_of_trying_and_the_unrelated_are_counted():
    def credential(key, origin):
        return Credential(ImageAuth(username="u", password="hidden-word"), key, origin)

    found = [
        credential("reg.test", "wide"),
        credential("other.example", "far"),
        credential("reg.test:1", "near"),
        credential("reg.test/app", "narrow"),
    ]
    chosen = decide_credentials(
        "reg.test/app", [Keyring(found)], semantics="documented"
    )

    candidates, unrelated = build_candidates(
        found, chosen, "reg.test/app", semantics="documented"
    )

    assert [(c.origin, c.order) for c in candidates] == [
        ("narrow", 1),
        ("wide", 2),
        ("near", None),
    ]
    assert unrelated == 1
    assert "hidden-word" not in repr(candidates)
    assert candidates[0] == Candidate(
        "narrow", "reg.test/app", Match("match", "host, port and path fit"), 1
    )


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param(None, "a s3cret dXNlcjpzM2NyZXQ=", id="anonymous"),
        pytest.param(
            ImageAuth(username="user", password="s3cret"), "a *** ***", id="password"
        ),
        pytest.param(
            ImageAuth(identity_token="s3cret"), "a *** dXNlcjpzM2NyZXQ=", id="token"
        ),
        pytest.param(
            ImageAuth(username="a", password="s3"),
            "a s3cret dXNlcjpzM2NyZXQ=",
            id="too-short-to-look-for",
        ),
    ],
)
def test_a_runtimes_words_are_shown_without_the_credential(auth, expected):
    assert redact("a s3cret dXNlcjpzM2NyZXQ=", auth) == expected
