"""Whether to pull, when again, and which images may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.observed import Image
from podyard.node.images.decide import (
    DiskUsage,
    FailedPull,
    GcSettings,
    ImageUse,
    Pull,
    RefuseNever,
    UsePresent,
    WaitForBackoff,
    bytes_to_free,
    decide_image_gc,
    decide_pull,
    join_errors,
    next_delay_s,
    too_old,
    used_ids,
)

IMAGE = Image("sha256:1")


@pytest.mark.parametrize(
    ("policy", "present", "verified", "retry_in_s", "expected"),
    [
        pytest.param("Always", None, True, 0, Pull(), id="always-pulls"),
        pytest.param("Always", IMAGE, True, 0, Pull(), id="always-pulls-present"),
        pytest.param("Always", IMAGE, True, 7, WaitForBackoff(7), id="always-waits"),
        pytest.param("IfNotPresent", None, True, 0, Pull(), id="absent-pulls"),
        pytest.param("IfNotPresent", IMAGE, True, 0, UsePresent(IMAGE), id="present"),
        pytest.param(
            "IfNotPresent", IMAGE, True, 9, UsePresent(IMAGE), id="present-never-waits"
        ),
        pytest.param("IfNotPresent", IMAGE, False, 0, Pull(), id="must-verify"),
        pytest.param(
            "IfNotPresent", None, True, 9, WaitForBackoff(9), id="absent-waits"
        ),
        pytest.param("Never", None, True, 0, RefuseNever(), id="never-refuses"),
        pytest.param("Never", None, True, 9, RefuseNever(), id="never-has-no-backoff"),
        pytest.param("Never", IMAGE, True, 0, UsePresent(IMAGE), id="never-uses"),
        pytest.param("Never", IMAGE, False, 0, RefuseNever(), id="never-unverified"),
    ],
)
def test_the_pull_policy_table(policy, present, verified, retry_in_s, expected):
    decision = decide_pull(
        policy, present=present, verified=verified, retry_in_s=retry_in_s
    )

    assert decision == expected


@given(st.sampled_from([None, IMAGE]), st.booleans(), st.floats(0, 300))
def test_never_never_pulls(present, verified, retry_in_s):
    decision = decide_pull(
        "Never", present=present, verified=verified, retry_in_s=retry_in_s
    )

    assert not isinstance(decision, Pull | WaitForBackoff)


def test_failures_back_off_from_ten_seconds_to_five_minutes():
    delays, last, now_s = [], None, 0.0
    for _ in range(7):
        last = FailedPull(now_s, next_delay_s(last, now_s), "R", "m")
        delays.append(last.delay_s)
        now_s += last.delay_s

    assert delays == [10, 20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [(100, 40), (139, 1), (140, 0), (500, 0), (701, 0)],
    ids=["at-once", "nearly", "at-the-very-end", "later", "forgotten"],
)
def test_the_back_off_ends_at_its_very_end(now_s, expected):
    assert FailedPull(100, 40, "R", "m").retry_in_s(now_s) == expected


def test_a_failure_ten_minutes_old_counts_no_more():
    old = FailedPull(0, 300, "R", "m")

    assert next_delay_s(old, 600) == 300
    assert next_delay_s(old, 601) == 10


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([("boom", "x")], "boom"),
        ([("a", "one"), ("b", "two")], "[a (one), b (two)]"),
    ],
)
def test_errors_of_several_credentials_say_whose_they_are(errors, expected):
    assert join_errors(errors) == expected


@pytest.mark.parametrize(
    ("available", "settings", "expected"),
    [
        pytest.param(50, GcSettings(), 0, id="room-enough"),
        pytest.param(16, GcSettings(), 0, id="just-below"),
        pytest.param(15, GcSettings(), 5, id="at-the-threshold"),
        pytest.param(0, GcSettings(), 20, id="full"),
        pytest.param(0, GcSettings(high_percent=100), 0, id="switched-off"),
    ],
)
def test_how_much_has_to_go(available, settings, expected):
    assert bytes_to_free(DiskUsage(100, available), settings) == expected


def test_the_longest_unused_goes_first_and_some_never():
    images = [
        Image("used"),
        Image("pinned", pinned=True),
        Image("young"),
        Image("b"),
        Image("a"),
        Image("c"),
        Image("unknown"),
        Image("ours", ("podyard.local/sandbox:1",)),
        Image("pause", ("registry.k8s.io/pause:3.6",)),
    ]
    uses = {
        "used": ImageUse(0, 0),
        "pinned": ImageUse(0),
        "ours": ImageUse(0),
        "pause": ImageUse(0),
        "young": ImageUse(950),
        "a": ImageUse(0, 10),
        "b": ImageUse(5, 20),
        "c": ImageUse(4, 20),
    }

    chosen = decide_image_gc(
        images, uses, frozenset({"used"}), settings=GcSettings(), now_s=1000
    )

    assert [image.id for image in chosen] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("use", "max_age_s", "expected"),
    [
        (ImageUse(0), 0, False),
        (ImageUse(0), 100, True),
        (ImageUse(950), 100, False),
        (ImageUse(0, 950), 100, False),
    ],
    ids=["off", "never-used", "young", "used"],
)
def test_images_unused_for_too_long(use, max_age_s, expected):
    settings = GcSettings(max_age_s=max_age_s)

    assert too_old(use, settings=settings, now_s=1000) is expected


def test_containers_name_images_by_id_tag_or_digest():
    images = [
        Image("1", ("r/a:1",)),
        Image("2", (), ("r/b@sha256:2",)),
        Image("3"),
        Image("4", ("r/d:1",)),
    ]

    assert used_ids(images, ["r/a:1", "r/b@sha256:2", "3"]) == {"1", "2", "3"}
