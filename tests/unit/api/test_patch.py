"""JSON patch, merge patch and strategic merge patch."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.errors import ApiError
from podyard.api.field_schema import FieldSchema
from podyard.api.patch import (
    apply_json_patch,
    apply_merge_patch,
    apply_strategic_merge_patch,
)

PORTS = FieldSchema(
    type="array",
    patch_strategies=("merge",),
    merge_key="containerPort",
    items=FieldSchema(type="object"),
)
CONTAINER = FieldSchema(
    type="object", properties={"ports": PORTS, "args": FieldSchema(type="array")}
)
POD = FieldSchema(
    type="object",
    properties={
        "containers": FieldSchema(
            type="array", patch_strategies=("merge",), merge_key="name", items=CONTAINER
        ),
        "finalizers": FieldSchema(type="array", patch_strategies=("merge",)),
        "args": FieldSchema(type="array"),
        "labels": FieldSchema(type="object", values=FieldSchema(type="string")),
        "strategy": FieldSchema(
            type="object",
            patch_strategies=("retainKeys",),
            properties={"type": FieldSchema(), "rollingUpdate": FieldSchema()},
        ),
        "whole": FieldSchema(type="object", patch_strategies=("replace",)),
        "keyless": FieldSchema(type="array", patch_strategies=("merge",)),
    },
)


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="scalar"),
        pytest.param({"a": 1}, {"a": None}, {}, id="null-deletes"),
        pytest.param({"a": 1}, {"b": None}, {"a": 1}, id="null-of-nothing"),
        pytest.param({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}, id="nested-null"),
        pytest.param(
            {"labels": {"a": "1", "b": "2"}},
            {"labels": {"a": None, "c": "3"}},
            {"labels": {"b": "2", "c": "3"}},
            id="maps-merge",
        ),
        pytest.param({"args": [1, 2]}, {"args": [3]}, {"args": [3]}, id="atomic-list"),
        pytest.param(
            {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]},
            {"containers": [{"name": "a", "image": "y"}]},
            {"containers": [{"name": "a", "image": "y"}, {"name": "b"}]},
            id="merge-by-key",
        ),
        pytest.param(
            {"containers": named("a")},
            {"containers": named("b")},
            {"containers": named("b", "a")},
            id="a-new-entry-comes-first",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": named("b")},
            id="delete-an-entry",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {"containers": [{"$patch": "replace"}, {"name": "c", "x": None}]},
            {"containers": named("c")},
            id="replace-a-list",
        ),
        pytest.param(
            {"labels": {"a": "1"}},
            {"labels": {"$patch": "replace", "b": "2"}},
            {"labels": {"b": "2"}},
            id="replace-a-map",
        ),
        pytest.param(
            {"labels": {"a": "1"}},
            {"labels": {"$patch": "delete"}},
            {"labels": {}},
            id="delete-a-map",
        ),
        pytest.param(
            {"labels": {"a": "1"}},
            {"labels": {"$patch": "merge", "b": "2"}},
            {"labels": {"a": "1", "b": "2"}},
            id="merge-a-map",
        ),
        pytest.param(
            {}, {"labels": {"$patch": "delete"}}, {}, id="delete-an-absent-map"
        ),
        pytest.param(
            {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]},
            {
                "containers": [
                    {
                        "name": "a",
                        "ports": [
                            {"containerPort": 80, "name": "web"},
                            {"containerPort": 81},
                        ],
                    }
                ]
            },
            {
                "containers": [
                    {
                        "name": "a",
                        "ports": [
                            {"containerPort": 80, "name": "web"},
                            {"containerPort": 81},
                        ],
                    }
                ]
            },
            id="nested-merge-by-an-integer-key",
        ),
        pytest.param(
            {"finalizers": ["a", "b"]},
            {"finalizers": ["c", "a"]},
            {"finalizers": ["c", "a", "b"]},
            id="primitive-list-merges",
        ),
        pytest.param(
            {"finalizers": ["a", "b", "c"]},
            {"$deleteFromPrimitiveList/finalizers": ["b", "z"]},
            {"finalizers": ["a", "c"]},
            id="delete-from-primitive-list",
        ),
        pytest.param(
            {"finalizers": ["a", "b", "c"]},
            {"$setElementOrder/finalizers": ["c", "a", "n"], "finalizers": ["n"]},
            {"finalizers": ["b", "c", "a", "n"]},
            id="order-of-primitives",
        ),
        pytest.param(
            {"containers": named("a", "b", "c")},
            {"$setElementOrder/containers": named("c", "a")},
            {"containers": named("b", "c", "a")},
            id="order-only",
        ),
        pytest.param(
            {"containers": [{"name": "a", "v": 1}, {"name": "server"}]},
            {
                "$setElementOrder/containers": named("n", "a"),
                "containers": [{"name": "n"}, {"name": "a", "v": 2}],
            },
            {"containers": [{"name": "n"}, {"name": "a", "v": 2}, {"name": "server"}]},
            id="order-with-changes",
        ),
        pytest.param(
            {},
            {"$setElementOrder/containers": named("a"), "containers": named("a")},
            {"containers": named("a")},
            id="order-of-a-new-list",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {
                "$setElementOrder/containers": named("b"),
                "containers": [{"name": "a", "$patch": "delete"}],
            },
            {"containers": named("b")},
            id="order-with-a-deletion",
        ),
        pytest.param(
            {}, {"$setElementOrder/containers": named("a")}, {}, id="order-of-nothing"
        ),
        pytest.param(
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"x": 1}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
            {"strategy": {"type": "Recreate"}},
            id="retain-keys",
        ),
        pytest.param(
            {"whole": {"a": 1}},
            {"whole": {"b": 2}},
            {"whole": {"b": 2}},
            id="replace-strategy",
        ),
        pytest.param({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="another-type"),
        pytest.param(
            {},
            {"x": {"$setElementOrder/y": [1], "$retainKeys": ["y"], "y": [1]}},
            {"x": {"y": [1]}},
            id="no-directive-is-stored",
        ),
    ],
)
def test_a_strategic_merge_patch_changes(before: Any, patch: Any, after: Any) -> None:
    untouched = copy.deepcopy((before, patch))

    assert apply_strategic_merge_patch(before, patch, POD) == after
    assert (before, patch) == untouched


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        (
            {"containers": [{"image": "x"}]},
            400,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            {"containers": [{"$patch": "delete"}]},
            400,
            "map: map[$patch:delete] does not",
        ),
        ({"containers": ["x"]}, 400, "list element types are not identical"),
        (
            {"containers": [{"name": "a", "$patch": "odd"}]},
            400,
            "unknown patch type: odd",
        ),
        (
            {"containers": [{"name": "a", "$patch": "merge"}]},
            400,
            "merging lists cannot yet be specified in the patch",
        ),
        ({"$patch": "odd"}, 400, "unknown patch type: odd in map: map[]"),
        (
            {"$deleteFromPrimitiveList/finalizers": "x"},
            400,
            "invalid patch format of primitive list",
        ),
        (
            {"$deleteFromPrimitiveList": ["x"]},
            400,
            "invalid patch format of primitive list",
        ),
        (
            {"$setElementOrder/containers": "x"},
            400,
            "invalid patch format of setElementOrder list",
        ),
        (
            {"$setElementOrder/containers": named("a"), "containers": named("b")},
            400,
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:",
        ),
        (
            {"strategy": {"$retainKeys": ["x"], "type": "y"}},
            400,
            "invalid patch format of retainKeys",
        ),
        ({"strategy": {"$retainKeys": "x"}}, 400, "invalid patch format of retainKeys"),
        ({"keyless": [{"a": 1}]}, 400, "cannot merge lists without merge key"),
        (
            {"lists": 1, "finalizers": [["a"]]},
            400,
            "list element types are not identical",
        ),
        ([], 400, "error decoding patch: json: cannot unmarshal array into Go value"),
        (None, 400, "error decoding patch: json: cannot unmarshal null"),
    ],
)
def test_a_bad_strategic_merge_patch_is_refused(
    patch: Any, code: Any, message: Any
) -> None:
    before = {
        "containers": named("a"),
        "finalizers": ["f"],
        "strategy": {"type": "x"},
        "keyless": [{"a": 0}],
    }

    with pytest.raises(ApiError) as caught:
        apply_strategic_merge_patch(before, patch, POD)

    assert caught.value.code == code
    assert caught.value.message.startswith(message)


def test_lists_of_lists_cannot_be_merged() -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic_merge_patch(
            {"finalizers": [["a"]]}, {"finalizers": [["b"]]}, POD
        )

    assert (caught.value.code, caught.value.message) == (
        422,
        "lists of lists are not supported",
    )


@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "replace", "path": "/a/0", "value": 9}], {"a": [9, 2]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1, 2], "b": [1, 2]}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": [1, 2]}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
    ],
)
def test_a_json_patch_changes(patch: Any, after: Any) -> None:
    before = {"a": [1, 2]}

    assert apply_json_patch(before, patch) == after
    assert before == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        pytest.param(
            {"op": "test", "path": "/a", "value": 2},
            "testing value /a failed: test failed",
            id="test",
        ),
        pytest.param(
            {"op": "add", "path": "/x/y", "value": 1},
            'add operation does not apply: doc is missing path: "/x/y": missing value',
            id="add",
        ),
        pytest.param(
            {"op": "replace", "path": "/x", "value": 1},
            "replace operation does not apply: doc is missing key: /x: missing value",
            id="replace",
        ),
        pytest.param(
            {"op": "replace", "path": "/x/y", "value": 1},
            "replace operation does not apply: doc is missing path: /x/y: missing value",
            id="replace-below-nothing",
        ),
        pytest.param(
            {"op": "remove", "path": "/x"},
            "error in remove for path: '/x': Unable to remove nonexistent key: x: "
            "missing value",
            id="remove",
        ),
        pytest.param(
            {"op": "remove", "path": "/x/y"},
            'remove operation does not apply: doc is missing path: "/x/y": missing '
            "value",
            id="remove-below-nothing",
        ),
        pytest.param({"op": "odd", "path": "/a"}, "Unexpected kind: odd", id="odd"),
    ],
)
def test_why_a_json_patch_does_not_apply(operation: Any, why: str) -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({"a": 1}, [operation])

    assert (caught.value.details or {})["causes"][0]["message"] == why


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        pytest.param([{"op": "test", "path": "/a", "value": 2}], 422, id="test-fails"),
        pytest.param([{"op": "remove", "path": "/x"}], 422, id="nothing-to-remove"),
        pytest.param([{"op": "add", "path": "/x/y", "value": 1}], 422, id="no-parent"),
        pytest.param(
            [{"op": "replace", "path": "", "value": 1}], 422, id="no-object-left"
        ),
        pytest.param([{"op": "odd", "path": "/a"}], 422, id="unknown-operation"),
        pytest.param([{"path": "/a"}], 422, id="no-operation"),
        pytest.param([{"op": "add", "path": "/b"}], 422, id="no-value"),
        pytest.param([{"op": "add", "path": "b", "value": 1}], 422, id="bad-pointer"),
        pytest.param(
            [{"op": "add", "path": 1, "value": 1}], 422, id="pointer-is-no-text"
        ),
        pytest.param({"op": "add"}, 400, id="no-list"),
        pytest.param([1], 400, id="no-object"),
        pytest.param(
            [{"op": "test", "path": "/a", "value": 1}] * 10_001, 413, id="too-many"
        ),
    ],
)
def test_a_bad_json_patch_is_refused(patch: Any, code: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({"a": 1}, patch)

    assert caught.value.code == code
    if code == 422:
        assert caught.value.reason == "Invalid"


def test_a_copy_bomb_does_not_go_off() -> None:
    bomb = [{"op": "copy", "from": "", "path": f"/{index}"} for index in range(60)]

    with pytest.raises(ApiError) as caught:
        apply_json_patch({"a": "x" * 100}, bomb)

    assert caught.value.code == 413


def test_a_merge_patch_needs_an_object() -> None:
    with pytest.raises(ApiError) as caught:
        apply_merge_patch({}, ["x"])

    assert caught.value.code == 400


KEYS = st.sampled_from("abc")
JSON = st.recursive(
    st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: (
        st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=2)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=3)
PATCHES = st.dictionaries(KEYS, JSON | st.none(), max_size=3)


@given(OBJECTS, PATCHES)
def test_merging_twice_is_merging_once(document: Any, patch: Any) -> None:
    once = apply_merge_patch(document, patch)

    assert apply_merge_patch(once, patch) == once


@given(OBJECTS)
def test_an_empty_patch_changes_nothing(document: Any) -> None:
    assert apply_merge_patch(document, {}) == document
    assert apply_json_patch(document, []) == document
    assert apply_strategic_merge_patch(document, {}, POD) == document


@given(OBJECTS, PATCHES)
def test_without_merge_keys_the_strategic_patch_is_the_merge_patch(
    document: Any, patch: Any
) -> None:
    plain = FieldSchema(type="object")

    assert apply_strategic_merge_patch(document, patch, plain) == apply_merge_patch(
        document, patch
    )


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(NAMES, NAMES)
def test_a_list_patch_keeps_every_entry_once_and_its_own_in_order(
    before: Any, change: Any
) -> None:
    result = apply_strategic_merge_patch(
        {"containers": named(*before)}, {"containers": named(*change)}, POD
    )
    names = [entry["name"] for entry in result["containers"]]

    assert sorted(names) == sorted({*before, *change})
    assert [name for name in names if name in change] == change
    again = apply_strategic_merge_patch(result, {"containers": named(*change)}, POD)
    assert again == result


@given(NAMES, NAMES)
def test_deleting_what_was_added_gives_back_the_rest(before: Any, change: Any) -> None:
    added = apply_strategic_merge_patch(
        {"finalizers": before}, {"finalizers": change}, POD
    )
    removed = apply_strategic_merge_patch(
        added, {"$deleteFromPrimitiveList/finalizers": change}, POD
    )

    assert removed["finalizers"] == [name for name in before if name not in change]
