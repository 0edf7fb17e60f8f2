"""YAML that means JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.lib.yaml_json import YamlError, dump_yaml, load_all_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 0644", {"a": 420}),
        ("a: 0o644", {"a": 420}),
        ("a: 0x1F", {"a": 31}),
        ("a: -12", {"a": -12}),
        ("a: 08", {"a": "08"}),
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 1.2.3", {"a": "1.2.3"}),
        ("a: ~", {"a": None}),
        ("1: x", {"1": "x"}),
        ("b: &x {a: 1}\nc: {<<: *x, d: 2}", {"b": {"a": 1}, "c": {"a": 1, "d": 2}}),
        ("", None),
    ],
)
def test_values_are_what_json_would_hold(text, value):
    assert load_yaml(text) == (value, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "line 1"),
        ("[" * 5000, "deeper than"),
        ("&a [*a]", "itself"),
        ("a: !!python/object:os.system x", "constructor"),
        ("? [a]\n: b", "unhashable"),
        ("a: 1\n---\nb: 2", "single document"),
        ("\x00", "yaml"),
    ],
)
def test_what_is_no_json_is_refused(text, said):
    with pytest.raises(YamlError, match=said):
        load_yaml(text)


def test_doubled_keys_are_told_of_json_too():
    assert load_yaml('{"a": 1, "b": {"c": 1, "c": 2}}') == (
        {"a": 1, "b": {"c": 2}},
        ("c",),
    )


def test_doubled_keys_are_told():
    assert load_yaml("a: 1\nb: {c: 1, c: 2}\na: 3")[1] == ("a", "c")


def test_empty_documents_are_left_out():
    assert [value for value, _ in load_all_yaml("---\na: 1\n---\n---\nb: 2")] == [
        {"a": 1},
        {"b": 2},
    ]


PLAIN = st.characters(
    min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["C", "Z"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(PLAIN, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(PLAIN, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_what_is_written_is_read_again(value):
    assert load_yaml(dump_yaml(json.dumps(value).encode()))[0] == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"b": [], "a": {"c": None}}, "a:\n  c: null\nb: []\n", id="order"),
        pytest.param("2026-01-01T00:00:00Z", "'2026-01-01T00:00:00Z'\n", id="time"),
        pytest.param("0E0", "'0E0'\n", id="a-number-in-go"),
        pytest.param("1e3", "'1e3'\n", id="another-number-in-go"),
        pytest.param("yes", "'yes'\n", id="a-boolean-of-old"),
        pytest.param({"t": "a b " * 60}, f"t: '{'a b ' * 60}'\n", id="long"),
    ],
)
def test_text_stays_text(value, text):
    assert dump_yaml(json.dumps(value).encode()).decode() == text


@given(JSON)
def test_json_text_is_read_as_it_is(value):
    assert load_yaml(json.dumps({"a": value}))[0] == {"a": value}
