"""In which order admission plugins run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.server.admission.decide import PluginOrderError, order_plugins


def order(after):
    names = order_plugins(after, name=lambda key: key, after=lambda key: after[key])
    return list(names)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"b": (), "a": ()}, ["a", "b"], id="free-ones-by-name"),
        pytest.param({"a": ("b",), "b": ()}, ["b", "a"], id="after-another"),
        pytest.param({"a": ("gone",)}, ["a"], id="an-absent-one-counts-for-nothing"),
        pytest.param(
            {"a": ("c",), "b": ("a",), "c": ()}, ["c", "a", "b"], id="a-chain"
        ),
    ],
)
def test_plugins_stand_after_those_they_name(after, expected):
    assert order(after) == expected


def test_a_circle_is_told_with_its_members():
    with pytest.raises(PluginOrderError, match="a, b"):
        order({"a": ("b",), "b": ("a",), "c": ()})


@given(st.permutations("abcdefg"), st.data())
def test_no_plugin_runs_before_one_it_names(line, data):
    after = {
        key: data.draw(st.lists(st.sampled_from(line[:index]), unique=True))
        if index
        else []
        for index, key in enumerate(line)
    }

    ordered = order(after)

    place = {key: index for index, key in enumerate(ordered)}
    assert all(place[other] < place[key] for key in after for other in after[key])
