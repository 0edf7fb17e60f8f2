"""Selectors in their text and object forms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.labels import (
    NOTHING,
    Operator,
    Requirement,
    SelectorError,
    new_requirement,
    node_requirement_from_expression,
    parse_field_selector,
    parse_selector,
    selector_from_labels,
    selector_from_object,
)

LABELS = {"app": "web", "tier": "front", "size": "10", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        (" , ", None),
        ("app=web", True),
        ("app == web", True),
        ("app=other", False),
        ("app!=other", True),
        ("missing!=x", True),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db),tier", True),
        ("missing notin (db)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("missing", False),
        ("size>9", True),
        ("size<9", False),
        ("app>9", False),
        ("empty=", True),
        ("empty in ()", True),
        ("empty in (,a)", True),
        ("in in (a)", False),
        ("empty in (a,)", True),
        ("empty in (a,,b)", True),
        ("empty in (,)", True),
        ("app=web,tier=front,!gone", True),
        ("app=web,tier=back", False),
    ],
)
def test_a_selector_text_selects(text: Any, matches: Any) -> None:
    if matches is None:
        with pytest.raises(SelectorError):
            parse_selector(text)
    else:
        assert parse_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b,", "found '', expected: identifier after ','"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        (
            "a in (=)",
            "unable to parse requirement: found '=', expected: ',', ')' or identifier",
        ),
        (
            "a in (b,=)",
            "unable to parse requirement: found '=', expected: ',', or identifier",
        ),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
        ("!!a", "unable to parse requirement: found '!', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, "),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("a>x", 'unable to parse requirement: values[0]: Invalid value: "x": for'),
        (
            "a=?",
            (
                'unable to parse requirement: values[0][a]: Invalid value: "?": a valid '
                "label must be an empty string"
            ),
        ),
        ("/a=b", 'unable to parse requirement: key: Invalid value: "/a": prefix part'),
    ],
)
def test_a_bad_selector_text_is_explained(text: Any, message: Any) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_selector(text)

    expected = message.replace("expected: in, ", "expected: =, !=, ==, in, notin")
    assert str(caught.value).startswith(expected)


def test_an_absent_selector_object_selects_nothing_and_an_empty_one_everything() -> (
    None
):
    assert selector_from_object(None) == NOTHING
    assert not selector_from_object(None).matches(LABELS)
    assert selector_from_object({}).matches(LABELS)
    assert selector_from_object({}).is_empty


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        (
            {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
            True,
        ),
        (
            {
                "matchExpressions": [
                    {"key": "app", "operator": "NotIn", "values": ["web"]}
                ]
            },
            False,
        ),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_object_selects(selector: Any, matches: Any) -> None:
    assert selector_from_object(selector).matches(LABELS) is matches


def test_a_selector_object_knows_no_numeric_operators() -> None:
    with pytest.raises(SelectorError) as caught:
        selector_from_object(
            {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}
        )

    assert str(caught.value) == '"Gt" is not a valid label selector operator'


KEYS = st.text(alphabet="abc", min_size=1, max_size=3)
MAPS = st.dictionaries(KEYS, st.text(alphabet="xyz1", max_size=3), max_size=4)


@given(MAPS, MAPS)
def test_a_map_selector_is_the_subset_relation(wanted: Any, labels: Any) -> None:
    selector = selector_from_labels(wanted)

    assert selector.matches(labels) is (wanted.items() <= labels.items())
    assert parse_selector(str(selector)).matches(labels) is selector.matches(labels)


@given(
    st.sampled_from(["in", "notin", "=", "!="]),
    KEYS,
    st.lists(st.text(alphabet="xyz1", min_size=1, max_size=3), min_size=1, max_size=3),
    MAPS,
)
def test_an_operator_and_its_negation_disagree_everywhere(
    operator: Any, key: Any, values: Any, labels: Any
) -> None:
    opposite = {"in": "notin", "notin": "in", "=": "!=", "!=": "="}[operator]
    operand = f"({','.join(values)})" if "in" in operator else values[0]

    selected = parse_selector(f"{key} {operator} {operand}").matches(labels)

    assert parse_selector(f"{key} {opposite} {operand}").matches(labels) is not selected


@given(st.text(alphabet="ab=!()<>, in", max_size=16))
def test_any_text_is_a_selector_that_prints_to_itself_or_an_error(text: Any) -> None:
    try:
        selector = parse_selector(text)
    except SelectorError:
        return
    assert str(parse_selector(str(selector))) == str(selector)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("spec.nodeName=n1", True),
        ("spec.nodeName==n1,status.phase!=Failed", True),
        ("spec.nodeName!=n1", False),
        ("spec.nodeName=", False),
        ("missing=", True),
        (r"metadata.name=a\,b\=c", True),
    ],
)
def test_a_field_selector_selects(text: Any, matches: Any) -> None:
    fields = {
        "spec.nodeName": "n1",
        "status.phase": "Running",
        "metadata.name": "a,b=c",
    }

    assert parse_field_selector(text).matches(fields) is matches


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec", "invalid selector: 'spec'; can't understand 'spec'"),
        (r"a=\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ],
)
def test_a_bad_field_selector_is_explained(text: Any, message: Any) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_field_selector(text)

    assert str(caught.value) == message


def test_a_field_selector_tells_the_exact_value_it_needs() -> None:
    selector = parse_field_selector("metadata.name=x,spec.nodeName!=y")

    assert selector.exact("metadata.name") == "x"
    assert selector.exact("spec.nodeName") is None
    assert str(selector) == "metadata.name=x,spec.nodeName!=y"


@given(st.text(max_size=10))
def test_any_field_value_survives_escaping(value: Any) -> None:
    selector = parse_field_selector("a=x").requirements[0]
    text = str(type(selector)("a", value))

    assert parse_field_selector(text).requirements[0].value == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            {"key": "a", "operator": "In"},
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            {"key": "a", "operator": "Exists", "values": ["b"]},
            'values: Invalid value: ["b"]: values set must be empty for exists and does not exist',
        ),
        (
            {"key": "a", "operator": "Gt", "values": ["1", "2"]},
            "values: Invalid value: [\"1\",\"2\"]: for 'Gt', 'Lt' operators, exactly one value is required",
        ),
        (
            {"key": "a", "operator": "Odd"},
            '"Odd" is not a valid node selector operator',
        ),
        (
            {"key": "/", "operator": "Exists"},
            'key: Invalid value: "/": prefix part must be non-empty; name part must be non-empty; ',
        ),
    ],
)
def test_a_bad_node_expression_is_explained(expression: Any, message: Any) -> None:
    with pytest.raises(SelectorError) as caught:
        node_requirement_from_expression(expression)

    assert str(caught.value).startswith(message)


def test_exact_operators_take_one_value() -> None:
    with pytest.raises(SelectorError, match="one single value"):
        new_requirement("a", Operator.EQUALS, ["b", "c"])


@pytest.mark.parametrize(
    "text", ["a", "!a", "a in (b,c)", "a notin (b)", "a>1", "a<1", "a=b", "a!=b"]
)
def test_a_selector_prints_as_it_was_written(text: Any) -> None:
    assert str(parse_selector(text)) == text


def test_an_empty_field_selector_selects_everything() -> None:
    assert parse_field_selector("").is_empty
    assert not Requirement("a", Operator.GREATER_THAN, ()).matches({"a": "1"})
    assert not Requirement("a", Operator.GREATER_THAN, ("1",)).matches({"a": "9" * 30})
