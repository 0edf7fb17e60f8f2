"""Compare-and-swap and compaction as tables."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.store.backend import Op
from podyard.store.decide import (
    AlreadyExists,
    Append,
    CompactTo,
    Conflict,
    Head,
    KeepAll,
    Mark,
    NotFound,
    WriteDecision,
    decide_compaction,
    decide_write,
    forget_marks,
)

HEAD = Head(rev=7, create_rev=3)


@pytest.mark.parametrize(
    ("op", "current", "expected_rev", "decision"),
    [
        pytest.param("create", None, 0, Append(0, None), id="create-new"),
        pytest.param("create", HEAD, 0, AlreadyExists(7), id="create-existing"),
        pytest.param("update", HEAD, 7, Append(7, 3), id="update-as-seen"),
        pytest.param("update", HEAD, 6, Conflict(7), id="update-stale"),
        pytest.param("update", HEAD, 8, Conflict(7), id="update-from-the-future"),
        pytest.param("update", None, 7, NotFound(), id="update-missing"),
        pytest.param("delete", HEAD, 7, Append(7, 3), id="delete-as-seen"),
        pytest.param("delete", HEAD, 0, Conflict(7), id="delete-unseen"),
        pytest.param("delete", None, 7, NotFound(), id="delete-missing"),
    ],
)
def test_write_is_appended_only_on_what_the_caller_has_seen(
    op: Op, current: Head | None, expected_rev: int, decision: WriteDecision
) -> None:
    assert decide_write(current, expected_rev=expected_rev, op=op) == decision


@pytest.mark.parametrize(
    ("marks", "current_rev", "compact_rev", "decision"),
    [
        pytest.param((), 5000, 1, KeepAll(), id="never-looked"),
        pytest.param((Mark(701, 4000),), 5000, 1, KeepAll(), id="too-young"),
        pytest.param((Mark(700, 3000),), 5000, 1, CompactTo(3000), id="old-enough"),
        pytest.param(
            (Mark(600, 2000), Mark(700, 3000), Mark(900, 4900)),
            5000,
            1,
            CompactTo(3000),
            id="newest-of-the-old",
        ),
        pytest.param(
            (Mark(0, 4500),), 5000, 1, CompactTo(4000), id="keeps-the-newest-thousand"
        ),
        pytest.param((Mark(0, 500),), 900, 1, KeepAll(), id="fewer-than-a-thousand"),
        pytest.param((Mark(0, 3000),), 5000, 3000, KeepAll(), id="done-already"),
    ],
)
def test_compaction_keeps_a_window_in_time_and_in_revisions(
    marks: tuple[Mark, ...],
    current_rev: int,
    compact_rev: int,
    decision: KeepAll | CompactTo,
) -> None:
    decided = decide_compaction(
        marks,
        now_s=1000,
        current_rev=current_rev,
        compact_rev=compact_rev,
        keep_s=300,
        keep_revs=1000,
    )

    assert decided == decision


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 9999))))
def test_forgetting_marks_never_changes_the_decision(
    pairs: list[tuple[int, int]],
) -> None:
    pairs.sort()
    marks = [Mark(float(at_s), rev) for at_s, rev in pairs]
    marks.sort(key=lambda mark: (mark.at_s, mark.rev))
    revs = sorted(mark.rev for mark in marks)
    marks = [Mark(mark.at_s, rev) for mark, rev in zip(marks, revs, strict=True)]

    def decide(looks: Sequence[Mark]) -> KeepAll | CompactTo:
        return decide_compaction(
            looks,
            now_s=1000,
            current_rev=99999,
            compact_rev=1,
            keep_s=300,
            keep_revs=10,
        )

    assert decide(forget_marks(marks, now_s=1000, keep_s=300)) == decide(marks)
