"""Who owns which field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.errors import ApiError
from podyard.api.field_ownership import (
    APPLY,
    UPDATE,
    Manager,
    Owned,
    apply_config,
    compare,
    flatten,
    from_fields_v1,
    merge,
    read_owners,
    remove_paths,
    show_path,
    to_fields_v1,
    track_update,
    write_owners,
)
from podyard.api.field_schema import FieldSchema

TEXT = FieldSchema(type="string")
NUMBER = FieldSchema(type="integer")
PORT = FieldSchema(
    type="object",
    properties={
        "port": NUMBER,
        "protocol": FieldSchema(type="string", default="TCP"),
        "name": TEXT,
    },
)
SCHEMA = FieldSchema(
    type="object",
    properties={
        "metadata": FieldSchema(
            type="object",
            properties={
                "name": TEXT,
                "labels": FieldSchema(type="object", values=TEXT),
                "finalizers": FieldSchema(type="array", items=TEXT, list_type="set"),
            },
        ),
        "spec": FieldSchema(
            type="object",
            properties={
                "replicas": NUMBER,
                "args": FieldSchema(type="array", items=TEXT, list_type="atomic"),
                "selector": FieldSchema(type="object", values=TEXT, map_type="atomic"),
                "ports": FieldSchema(
                    type="array",
                    items=PORT,
                    list_type="map",
                    list_map_keys=("port", "protocol"),
                ),
            },
        ),
    },
)
ME, OTHER = Manager("me", APPLY, "v1"), Manager("other", UPDATE, "v1")


def apply(live, config, owners=None, *, force=False, manager=ME):
    return apply_config(
        live,
        config,
        owners=owners or {},
        manager=manager,
        schema=SCHEMA,
        force=force,
        now="now",
    )


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        pytest.param(
            {"kind": "X", "metadata": {"name": "n", "labels": {"a": "1"}}},
            {"f:metadata": {"f:labels": {"f:a": {}}}},
            id="labels",
        ),
        pytest.param(
            {"spec": {"args": ["a"], "selector": {"x": "y"}, "replicas": 1}},
            {"f:spec": {"f:args": {}, "f:selector": {}, "f:replicas": {}}},
            id="atomic",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a/b"]}},
            {"f:metadata": {"f:finalizers": {'v:"a/b"': {}}}},
            id="set",
        ),
        pytest.param(
            {"spec": {"ports": [{"port": 1, "name": "x"}]}},
            {
                "f:spec": {
                    "f:ports": {
                        'k:{"port":1,"protocol":"TCP"}': {
                            ".": {},
                            "f:name": {},
                            "f:port": {},
                        }
                    }
                }
            },
            id="map-list-with-default",
        ),
    ],
)
def test_a_document_owns_what_it_names(document, fields):
    paths = frozenset(flatten(document, SCHEMA))

    assert to_fields_v1(paths) == fields
    assert from_fields_v1(fields) == paths


ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}', 'v:"x"'])
PATHS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=8)


@given(PATHS)
def test_fields_v1_holds_any_set(paths):
    assert from_fields_v1(to_fields_v1(paths)) == paths


@given(PATHS.filter(bool), PATHS.filter(bool))
def test_owners_come_back_as_they_were_written(mine, theirs):
    owners = {ME: Owned(mine, "t1"), OTHER: Owned(theirs, "t2")}

    assert read_owners(write_owners(owners)) == owners


NAMES = st.sampled_from(["a", "b", "c"])
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "labels": st.dictionaries(NAMES, NAMES, max_size=3),
                "finalizers": st.lists(NAMES, unique=True, max_size=3),
            },
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "replicas": st.integers(0, 3),
                "args": st.lists(NAMES, max_size=2),
                "ports": st.lists(
                    st.fixed_dictionaries(
                        {"port": st.integers(1, 3)}, optional={"name": NAMES}
                    ),
                    unique_by=lambda port: port["port"],
                    max_size=3,
                ),
            },
        ),
    },
)


@given(DOCUMENTS, DOCUMENTS)
def test_what_is_applied_is_there_and_applying_again_changes_nothing(live, config):
    first = apply(live, config)
    again = apply(first.document, config, first.owners)

    found = flatten(first.document, SCHEMA)
    for path, value in flatten(config, SCHEMA).items():
        if isinstance(value, str | int | list):  # else it is an entry, or empty
            assert found[path] == value
    assert again == first


@given(DOCUMENTS, DOCUMENTS)
def test_what_only_i_owned_and_no_longer_send_is_gone(first, second):
    made = apply({}, first)
    after = apply(made.document, second, made.owners)

    left = frozenset(flatten(after.document, SCHEMA))
    wanted = frozenset(flatten(second, SCHEMA))
    leaves = {path for path in left - wanted if not _holds_any(path, left)}
    assert all(not _is_leaf(path) for path in leaves)


def _holds_any(path, paths):
    return any(other != path and other[: len(path)] == path for other in paths)


def _is_leaf(path):
    return path[-1] != "f:labels" and len(path) > 2


@given(DOCUMENTS)
def test_comparing_with_oneself_finds_nothing(document):
    difference = compare(document, document, SCHEMA)

    assert (difference.changed, difference.removed) == (frozenset(), frozenset())


def test_equal_wishes_are_shared_and_different_ones_conflict():
    owners = {OTHER: Owned(frozenset({("f:spec", "f:replicas")}), "t")}
    live = {"spec": {"replicas": 2}}

    shared = apply(live, {"spec": {"replicas": 2}}, owners)
    with pytest.raises(ApiError) as conflict:
        apply(live, {"spec": {"replicas": 3}}, owners)
    forced = apply(live, {"spec": {"replicas": 3}}, owners, force=True)

    assert set(shared.owners) == {ME, OTHER}
    assert conflict.value.message == (
        'Apply failed with 1 conflict: conflict with "other" using v1 at t: '
        ".spec.replicas"
    )
    assert set(forced.owners) == {ME}


def test_several_conflicts_are_listed_by_manager():
    paths = frozenset({("f:spec", "f:replicas"), ("f:spec", "f:args")})
    live = {"spec": {"replicas": 2, "args": ["a"]}}

    with pytest.raises(ApiError) as conflict:
        apply(live, {"spec": {"replicas": 3, "args": ["b"]}}, {OTHER: Owned(paths)})

    assert conflict.value.message == (
        'Apply failed with 2 conflicts: conflicts with "other" using v1:\n'
        "- .spec.args\n- .spec.replicas"
    )


@pytest.mark.parametrize(
    ("live", "config", "order"),
    [
        ([1, 2], [2, 1], [2, 1]),
        ([1, 2, 3], [3], [1, 2, 3]),
        ([1, 3], [2], [1, 3, 2]),
        ([], [2, 1], [2, 1]),
    ],
)
def test_entries_stand_in_the_order_applied_and_others_stay(live, config, order):
    merged = merge(
        {"spec": {"ports": [{"port": port} for port in live]}},
        {"spec": {"ports": [{"port": port} for port in config]}},
        SCHEMA,
    )

    assert [port["port"] for port in merged["spec"]["ports"]] == order


def test_a_plain_write_owns_what_it_changes_and_frees_what_it_removes():
    mine = frozenset({("f:spec", "f:replicas"), ("f:spec", "f:args")})

    owners = track_update(
        {"spec": {"replicas": 1, "args": ["a"]}},
        {"spec": {"replicas": 2}},
        owners={ME: Owned(mine, "t")},
        manager=OTHER,
        schema=SCHEMA,
        now="now",
    )

    assert owners == {OTHER: Owned(frozenset({("f:spec", "f:replicas")}), "now")}


def test_an_entry_without_its_key_is_refused():
    with pytest.raises(ApiError) as refused:
        flatten({"spec": {"ports": [{"name": "x"}]}}, SCHEMA)

    assert 'omits key field "port"' in refused.value.message


def test_entries_and_fields_can_be_removed():
    document = {
        "spec": {"replicas": 1, "ports": [{"port": 1}, {"port": 2, "name": "x"}]}
    }
    paths = [
        ("f:spec", "f:replicas"),
        ("f:spec", "f:ports", 'k:{"port":1,"protocol":"TCP"}'),
        ("f:spec", "f:ports", 'k:{"port":2,"protocol":"TCP"}', "f:name"),
    ]

    assert remove_paths(document, paths, SCHEMA) == {"spec": {"ports": [{"port": 2}]}}


def test_paths_are_shown_as_people_read_them():
    path = ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image")

    assert show_path(path) == '.spec.containers[name="c"].image'
    assert show_path(("f:metadata", "f:finalizers", 'v:"x"')) == (
        '.metadata.finalizers[="x"]'
    )
