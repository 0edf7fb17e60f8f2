"""Dataclasses written when they are needed: the same as the standard ones."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, field
from typing import Any, ClassVar

import pytest

from podyard.lib.values import dataclass

MAKERS = [
    pytest.param(dataclass, id="ours"),
    pytest.param(dataclasses.dataclass, id="standard"),
]


@dataclass(frozen=True, slots=True)
class Point:
    """A value that can be pickled, because its class can be found."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Point3(Point):
    """One with a field more."""

    z: int = field(default=9, kw_only=True)


def make(maker: Callable[..., Any], **options: bool) -> Any:
    @maker(**options)
    class Thing:
        """A thing."""

        kind: ClassVar[str] = "thing"
        a: int
        b: str = "b"
        c: list[int] = field(default_factory=list)
        d: int = field(default=4, init=False)
        e: int = field(default=5, kw_only=True)

        def __post_init__(self) -> None:
            self.c.append(self.a)

    return Thing


SHAPES = [
    pytest.param({"frozen": True, "slots": True}, id="frozen-slots"),
    pytest.param({"frozen": True}, id="frozen"),
    pytest.param({"slots": True}, id="slots"),
    pytest.param({"slots": True, "eq": False}, id="slots-without-eq"),
]


@pytest.mark.parametrize("options", SHAPES)
def test_everything_a_class_says_of_itself_is_what_the_standard_one_says(
    options: dict[str, bool],
) -> None:
    ours, standard = make(dataclass, **options), make(dataclasses.dataclass, **options)

    mine, theirs = ours(1, "x", e=2), standard(1, "x", e=2)

    assert repr(mine) == repr(theirs)
    assert dataclasses.asdict(mine) == dataclasses.asdict(theirs)
    assert dataclasses.asdict(dataclasses.replace(mine, a=7)) == dataclasses.asdict(
        dataclasses.replace(theirs, a=7)
    )
    assert ours.__match_args__ == standard.__match_args__
    assert getattr(ours, "__slots__", None) == getattr(standard, "__slots__", None)
    assert (ours.__hash__ is None) == (standard.__hash__ is None)
    assert (mine == ours(1, "x", e=2)) == (theirs == standard(1, "x", e=2))
    assert mine != theirs


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({}, "missing 1 required positional argument: 'a'", id="missing"),
        pytest.param({"a": 1, "z": 2}, "unexpected keyword argument 'z'", id="unknown"),
        pytest.param({"a": 1, "d": 2}, "unexpected keyword argument 'd'", id="no-init"),
    ],
)
def test_a_wrong_call_is_refused_in_the_same_words(
    maker: Callable[..., Any], arguments: dict[str, int], words: str
) -> None:
    thing = make(maker, frozen=True, slots=True)

    with pytest.raises(TypeError, match=f"__init__.*{words}"):
        thing(**arguments)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_frozen_value_can_be_changed_in_no_way(maker: Callable[..., Any]) -> None:
    thing = make(maker, frozen=True, slots=True)(1)

    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'a'"):
        thing.a = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'a'"):
        del thing.a


@pytest.mark.parametrize("maker", MAKERS)
def test_a_plain_subclass_of_a_frozen_one_may_have_more(
    maker: Callable[..., Any],
) -> None:
    class Wide(make(maker, frozen=True)):  # type: ignore[misc]
        pass

    wide = Wide(1)
    wide.more = 2

    assert wide.more == 2
    with pytest.raises(FrozenInstanceError):
        wide.a = 2


def test_equal_values_have_one_hash_and_what_is_not_compared_does_not_count() -> None:
    assert Point(1, 2, ["x"]) == Point(1, 2, ["y"])
    assert hash(Point(1, 2, ["x"])) == hash(Point(1, 2, ["y"]))
    assert Point(1, 2) != Point(2, 1)
    assert Point(1) != Point3(1)
    assert repr(Point3(1)) == "Point3(x=1, y=0, z=9)"


def test_a_value_can_be_copied_and_pickled() -> None:
    point = Point3(1, 2, ["t"], z=3)

    assert copy.copy(point) == point
    assert copy.deepcopy(point).tags == ["t"]
    assert copy.deepcopy(point).tags is not point.tags
    assert pickle.loads(pickle.dumps(point)) == point


def test_own_methods_of_a_class_stay() -> None:
    @dataclass(frozen=True, slots=True)
    class Secret:
        text: str

        def __repr__(self) -> str:
            return "Secret"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    assert repr(Secret("x")) == "Secret"
    assert Secret("x") == Secret("y")
    assert hash(Secret("x")) == 7


def test_a_value_that_holds_itself_can_be_printed() -> None:
    @dataclass(slots=True)
    class Ring:
        next: Any = None

    ring = Ring()
    ring.next = ring

    assert repr(ring).endswith("Ring(next=...)")


def test_one_without_fields_is_equal_to_any_other_of_its_class() -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        """No fields."""

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())


def test_what_is_not_a_number_is_equal_to_itself_as_in_a_tuple() -> None:
    @dataclass(frozen=True, slots=True)
    class One:
        value: float

    odd = float("nan")

    assert One(odd) == One(odd)


def test_init_var_and_own_setattr_are_refused() -> None:
    with pytest.raises(TypeError, match="InitVar"):

        @dataclass(slots=True)
        class First:
            seed: InitVar[int]

    with pytest.raises(TypeError, match="__setattr__"):

        @dataclass(frozen=True)
        class Second:
            a: int

            def __setattr__(self, name: str, value: object) -> None:
                pass


def test_methods_are_written_by_their_first_use_and_then_are_in_place() -> None:
    thing = make(dataclass, frozen=True, slots=True)
    before = thing.__init__

    thing(1)

    assert thing.__init__ is not before
    assert thing.__init__.__code__.co_varnames[:2] == ("self", "a")
    assert thing(1) == thing(1)
