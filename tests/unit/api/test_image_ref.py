"""Image names: grammar, normalization, defaults, error texts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.image_ref import (
    ImageRefError,
    apply_default_tag,
    default_pull_policy,
    parse_image_name,
    parse_image_ref,
    repository_name,
)

HEX = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("image", "repository", "tag", "digest"),
    [
        pytest.param("nginx", "docker.io/library/nginx", "latest", "", id="short"),
        pytest.param("foo/bar", "docker.io/foo/bar", "latest", "", id="user-repo"),
        pytest.param("nginx:1.27", "docker.io/library/nginx", "1.27", "", id="tag"),
        pytest.param("localhost/x", "localhost/x", "latest", "", id="localhost"),
        pytest.param(
            "localhost:5000/x", "localhost:5000/x", "latest", "", id="localhost-port"
        ),
        pytest.param("test:5000/repo", "test:5000/repo", "latest", "", id="port"),
        pytest.param(
            "reg:5000", "docker.io/library/reg", "5000", "", id="port-without-slash"
        ),
        pytest.param(
            f"x:latest@{DIGEST}",
            "docker.io/library/x",
            "latest",
            DIGEST,
            id="tag-and-digest",
        ),
        pytest.param(f"x@{DIGEST}", "docker.io/library/x", "", DIGEST, id="digest"),
        pytest.param("[::1]:5000/x", "[::1]:5000/x", "latest", "", id="ipv6"),
        pytest.param(
            "index.docker.io/nginx", "docker.io/library/nginx", "latest", "", id="index"
        ),
        pytest.param("docker.io/a/b", "docker.io/a/b", "latest", "", id="hub"),
        pytest.param("Docker/x", "Docker/x", "latest", "", id="upper-case-domain"),
        pytest.param(
            "a--b/a__b.c", "docker.io/a--b/a__b.c", "latest", "", id="separators"
        ),
        pytest.param(
            f"quay.io/{HEX}", f"quay.io/{HEX}", "latest", "", id="hex-after-a-domain"
        ),
        pytest.param(
            "x:Tag_1.0-", "docker.io/library/x", "Tag_1.0-", "", id="tag-case"
        ),
    ],
)
def test_a_name_is_normalized(
    image: Any, repository: Any, tag: Any, digest: Any
) -> None:
    ref = parse_image_name(image)

    assert (ref.repository, ref.effective_tag, ref.digest) == (repository, tag, digest)
    assert repository_name(image) == repository


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param("", "invalid reference format", id="empty"),
        pytest.param("[::1]", "invalid reference format", id="ipv6-only"),
        pytest.param("::1/x", "invalid reference format", id="bare-ipv6"),
        pytest.param("-a/x", "invalid reference format", id="leading-dash"),
        pytest.param("x/", "invalid reference format", id="trailing-slash"),
        pytest.param("nginx:", "invalid reference format", id="empty-tag"),
        pytest.param("x:a:b", "invalid reference format", id="two-tags"),
        pytest.param("http://url", "invalid reference format", id="a-url"),
        pytest.param("a..b", "invalid reference format", id="two-dots"),
        pytest.param("a___b", "invalid reference format", id="three-underscores"),
        pytest.param("a._b", "invalid reference format", id="mixed-separators"),
        pytest.param("_a", "invalid reference format", id="leading-underscore"),
        pytest.param("a_", "invalid reference format", id="trailing-underscore"),
        pytest.param("nginx\n", "invalid reference format", id="newline"),
        pytest.param(" nginx", "invalid reference format", id="space"),
        pytest.param(
            "FAILED_IMAGE",
            "invalid reference format: repository name (library/FAILED_IMAGE) "
            "must be lowercase",
            id="upper-case",
        ),
        pytest.param(
            HEX,
            f"invalid repository name ({HEX}), cannot specify 64-byte "
            "hexadecimal strings",
            id="an-image-id",
        ),
        pytest.param(
            "a/" + "b" * 254,
            "repository name must not be more than 255 characters",
            id="too-long",
        ),
        pytest.param(
            f"x@sha256:{HEX[:-1]}", "invalid checksum digest length", id="short-digest"
        ),
        pytest.param(
            f"x@md5:{HEX[:32]}", "unsupported digest algorithm", id="unknown-algorithm"
        ),
        pytest.param(
            f"x@sha256:{HEX.upper()}",
            "invalid checksum digest format",
            id="upper-case-digest",
        ),
        pytest.param("x:" + "t" * 129, "invalid reference format", id="long-tag"),
    ],
)
def test_a_bad_name_says_what_is_wrong(image: Any, message: Any) -> None:
    with pytest.raises(ImageRefError) as caught:
        parse_image_ref(image)

    assert str(caught.value) == message


def test_the_kubelets_error_names_the_image() -> None:
    with pytest.raises(ImageRefError) as caught:
        parse_image_name('a"b')

    assert str(caught.value) == (
        'couldn\'t parse image name "a\\"b": invalid reference format'
    )


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("root", "root:latest"),
        ("root:tag", "root:tag"),
        (f"root@{DIGEST}", f"root@{DIGEST}"),
        (f"root:latest@{DIGEST}", f"root:latest@{DIGEST}"),
        ("root:latest", "root:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
    ],
)
def test_the_default_tag_is_added_where_it_is_missing(
    image: Any, expected: Any
) -> None:
    assert apply_default_tag(image) == expected


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("img", "Always"),
        ("img:latest", "Always"),
        ("img:1.0", "IfNotPresent"),
        (f"img@{DIGEST}", "IfNotPresent"),
        (f"img:latest@{DIGEST}", "Always"),
        ("img:LATEST", "IfNotPresent"),
        ("img:mylatest", "IfNotPresent"),
        ("NOT an image", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: Any, policy: Any) -> None:
    assert default_pull_policy(image) == policy


@given(st.text(alphabet="abAB01._-:/@[] \n", max_size=40))
def test_a_parsed_name_parses_to_itself(image: Any) -> None:
    try:
        ref = parse_image_ref(image)
    except ImageRefError:
        return
    assert parse_image_ref(str(ref)) == ref
