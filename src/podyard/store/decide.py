"""Whether a write may be appended, and how much history to forget.

Compare-and-swap as etcd's transactions do it: a create needs the key to be absent,
an update or delete needs it to stand at the revision the caller has seen.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """Where a key stands.

    Attributes:
        rev: the revision of its last write.
        create_rev: the revision it was created in.
    """

    rev: int
    create_rev: int


@dataclass(frozen=True, slots=True)
class Append:
    """Write it as the next revision.

    Attributes:
        previous_rev: the revision it supersedes, 0 for a create.
        create_rev: when the key was created; ``None`` when this write creates it.
    """

    previous_rev: int
    create_rev: int | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key has moved on.

    Attributes:
        current_rev: where it stands.
    """

    current_rev: int


@dataclass(frozen=True, slots=True)
class AlreadyExists:
    """The key to create is there.

    Attributes:
        current_rev: where it stands.
    """

    current_rev: int


@dataclass(frozen=True, slots=True)
class NotFound:
    """The key to change is not there."""


WriteDecision: TypeAlias = Append | Conflict | AlreadyExists | NotFound


def decide_write(
    current: Head | None,
    *,
    expected_rev: int,
    op: Literal["create", "update", "delete"],
) -> WriteDecision:
    """Decide one write.

    Args:
        current: where the key stands, ``None`` where it does not exist.
        expected_rev: the revision the caller has seen; not looked at for a create.
        op: what is to be done.
    """
    if op == "create":
        if current is not None:
            return AlreadyExists(current.rev)
        return Append(previous_rev=0, create_rev=None)
    if current is None:
        return NotFound()
    if current.rev != expected_rev:
        return Conflict(current.rev)
    return Append(previous_rev=current.rev, create_rev=current.create_rev)


@dataclass(frozen=True, slots=True)
class Mark:
    """Which revision was the newest at which time.

    Attributes:
        at_s: monotonic seconds.
        rev: the newest revision then.
    """

    at_s: float
    rev: int


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Nothing is old enough to forget."""


@dataclass(frozen=True, slots=True)
class CompactTo:
    """Forget history below a revision.

    Attributes:
        rev: the oldest revision to keep.
    """

    rev: int


def decide_compaction(
    marks: Sequence[Mark],
    *,
    now_s: float,
    current_rev: int,
    compact_rev: int,
    keep_s: float,
    keep_revs: int,
) -> KeepAll | CompactTo:
    """Decide how far to compact, keeping a window in time *and* in revisions.

    Args:
        marks: looks at the newest revision, oldest first.
        now_s: monotonic seconds.
        current_rev: the newest revision.
        compact_rev: how far it is compacted already.
        keep_s: history younger than this stays.
        keep_revs: so many of the newest revisions stay whatever their age.
    """
    old_enough = [mark.rev for mark in marks if now_s - mark.at_s >= keep_s]
    if not old_enough:
        return KeepAll()
    target = min(max(old_enough), current_rev - keep_revs)
    return CompactTo(target) if target > compact_rev else KeepAll()


def forget_marks(
    marks: Sequence[Mark], *, now_s: float, keep_s: float
) -> tuple[Mark, ...]:
    """Drop the marks that a newer, also old enough one makes useless."""
    old = [mark for mark in marks if now_s - mark.at_s >= keep_s]
    young = [mark for mark in marks if now_s - mark.at_s < keep_s]
    return (*old[-1:], *young)
