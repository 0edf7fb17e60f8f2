"""Why a credential fits an image, or how nearly."""

from datetime import UTC, datetime, timedelta

import pytest

from podyard.app.images import PullMeter, PullProgress
from podyard.cli.build import build_size
from podyard.cli.images import progress_line
from podyard.containerd.content import Ingest
from podyard.node.credentials.build import explain_match

HUB = "docker.io/library/nginx"
REG = "reg.example.com:5000/team/app"


@pytest.mark.parametrize(
    ("key", "repository", "verdict", "why"),
    [
        pytest.param("reg.example.com:5000", REG, "match", "fit", id="host"),
        pytest.param("https://reg.example.com:5000/v1/", REG, "match", "fit", id="url"),
        pytest.param("reg.example.com:5000/team", REG, "match", "fit", id="path"),
        pytest.param("*.example.com:5000", REG, "match", "fit", id="glob"),
        pytest.param(
            "https://index.docker.io/v1/", HUB, "match", "Docker Hub", id="hub"
        ),
        pytest.param("docker.io", HUB, "match", "fit", id="hub-by-name"),
        pytest.param(
            "reg.example.com",
            REG,
            "near",
            "port differs: the key has none, the image 5000",
            id="no-port",
        ),
        pytest.param("reg.example.com:443", REG, "near", "the key has 443", id="port"),
        pytest.param(
            "reg.example.com:5000/other", REG, "near", 'path "/other"', id="other-path"
        ),
        pytest.param(
            "auth.example.com:5000", REG, "near", "another host", id="sibling"
        ),
        pytest.param(
            "registry-1.docker.io", HUB, "near", "docker.io is", id="hub-host"
        ),
        pytest.param("quay.io", REG, "no", "another registry", id="stranger"),
        pytest.param("bad host", REG, "no", "no address", id="no-url"),
    ],
)
def test_each_key_is_explained(
    key: str, repository: str, verdict: str, why: str
) -> None:
    found = explain_match(key, repository, semantics="documented")

    assert found.verdict == verdict
    assert why in found.why


def test_a_glob_over_dots_depends_on_the_semantics() -> None:
    repository = "sub.my-registry.io/images/app"

    documented = explain_match("*my-registry.io", repository, semantics="documented")
    upstream = explain_match("*my-registry.io", repository, semantics="upstream")

    assert documented.verdict == "match"
    assert upstream.verdict == "near"


NOW = datetime(2026, 7, 1, tzinfo=UTC)


def ingest(ref: str, offset: int, total: int, *, age_s: float = 0) -> Ingest:
    return Ingest(ref, offset, total, NOW - timedelta(seconds=age_s))


def test_progress_adds_up_what_is_here_and_what_is_coming() -> None:
    meter = PullMeter(NOW - timedelta(seconds=1))

    first = meter.update([ingest("layer-a", 10, 100), ingest("layer-b", 0, 50)])
    second = meter.update([ingest("layer-b", 25, 50)])
    last = meter.update([])

    assert first == PullProgress(10, 150, 2)
    assert second == PullProgress(125, 150, 1)
    assert last == PullProgress(150, 150, 0)


def test_what_another_pull_began_before_does_not_count() -> None:
    meter = PullMeter(NOW - timedelta(seconds=1))

    assert meter.update([ingest("layer-x", 5, 10, age_s=60)]) == PullProgress()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (71_234_567, "71.2MB"),
        (3 * 10**12, "3TB"),
    ],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert build_size(size) == text


@pytest.mark.parametrize(
    ("done", "total", "layers", "text"),
    [
        (0, 0, 0, "pulling x …"),
        (50, 100, 2, "pulling x [############............]  50% 50B/100B, 2 layers"),
        (100, 100, 0, "pulling x [########################] 100% 100B/100B, unpacking"),
    ],
)
def test_the_progress_line(done: int, total: int, layers: int, text: str) -> None:
    line = progress_line("x", done_bytes=done, total_bytes=total, layers=layers)

    assert line == text
