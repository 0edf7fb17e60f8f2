"""Who owns whom, and what becomes of whom."""

from typing import Any

import pytest

from podyard.api.scheme import CONFIG_MAP, POD
from podyard.controllers.owners import (
    Delete,
    DropReferences,
    Item,
    Keep,
    Owner,
    OwnerGraph,
    OwnerState,
    decide_fate,
    item_of,
)
from support.stored_objects import make

SOLID, ABSENT, WAITING = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING


def _item(name: str, *owners: str, blocks: bool = False, **metadata: Any) -> Item:
    references = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": owner,
            "uid": f"uid-{owner}",
            "blockOwnerDeletion": blocks,
        }
        for owner in owners
    ]
    document = make(
        "ConfigMap", name, "web", metadata={**metadata, "ownerReferences": references}
    )
    return item_of(CONFIG_MAP, document)


def _owners(*states: OwnerState) -> list[tuple[Owner, OwnerState]]:
    return [
        (Owner("v1", "Pod", str(index), f"uid-{index}", False), state)
        for index, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("item", "states", "dependants", "fate"),
    [
        pytest.param(_item("c"), (), False, Keep(), id="no-owner"),
        pytest.param(_item("c"), (SOLID,), False, Keep(), id="solid"),
        pytest.param(_item("c"), (ABSENT,), False, Delete("Background"), id="absent"),
        pytest.param(
            _item("c"),
            (SOLID, ABSENT),
            False,
            DropReferences(frozenset({"uid-1"})),
            id="one-of-two",
        ),
        pytest.param(
            _item("c"),
            (SOLID, WAITING),
            True,
            DropReferences(frozenset({"uid-1"})),
            id="one-solid-one-waiting",
        ),
        pytest.param(_item("c"), (WAITING,), False, Delete("Background"), id="waiting"),
        pytest.param(
            _item("c"), (WAITING,), True, Delete("Foreground"), id="waiting-and-owner"
        ),
        pytest.param(
            _item("c", finalizers=["orphan"]),
            (ABSENT,),
            True,
            Delete("Orphan"),
            id="orphans-its-own",
        ),
        pytest.param(
            _item("c", finalizers=["foregroundDeletion"]),
            (ABSENT, ABSENT),
            True,
            Delete("Foreground"),
            id="foreground-its-own",
        ),
        pytest.param(
            _item("c", deletionTimestamp="x"), (ABSENT,), False, Keep(), id="going"
        ),
    ],
)
def test_what_becomes_of_an_object(
    item: Item, states: tuple[OwnerState, ...], dependants: bool, fate: Any
) -> None:
    assert decide_fate(item, _owners(*states), has_dependants=dependants) == fate


def test_the_graph_follows_owner_references() -> None:
    graph = OwnerGraph()
    owner = item_of(POD, make("Pod", "o", "web"))
    graph.put(owner)
    graph.put(_item("a", "o", blocks=True))
    graph.put(_item("b", "o"))

    assert {item.name for item in graph.dependants("uid-o")} == {"a", "b"}
    assert {item.name for item in graph.blocking("uid-o")} == {"a"}

    graph.put(_item("a", "x"))
    graph.remove("uid-b")
    graph.remove("uid-b")

    assert graph.dependants("uid-o") == ()
    assert [item.name for item in graph.dependants("uid-x")] == ["a"]
    assert {item.name for item in graph} == {"o", "a"}


def test_finalizers_say_what_an_owner_waits_for() -> None:
    assert _item("c", deletionTimestamp="x", finalizers=["orphan"]).is_orphaning
    assert _item(
        "c", deletionTimestamp="x", finalizers=["foregroundDeletion"]
    ).is_foreground
    assert not _item("c", finalizers=["orphan", "foregroundDeletion"]).is_orphaning
