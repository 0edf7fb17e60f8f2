"""``$(VAR)``: the grammar as a table, and the law behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.expansion import expand, expand_all, expand_strictly

ENV = {"A": "a", "B": "$(A)", "EMPTY": "", "X Y": "spaced"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="nothing-to-do"),
        pytest.param("$(A)", "a", id="reference"),
        pytest.param("x$(A)y$(A)", "xaya", id="several"),
        pytest.param("$(B)", "$(A)", id="values-are-not-expanded-again"),
        pytest.param("$(EMPTY)", "", id="empty-value"),
        pytest.param("$(NONE)", "$(NONE)", id="unknown-stays"),
        pytest.param("$()", "$()", id="empty-name-stays"),
        pytest.param("$(X Y)", "spaced", id="any-name"),
        pytest.param("$$(A)", "$(A)", id="escaped"),
        pytest.param("$$$(A)", "$a", id="escape-then-reference"),
        pytest.param("$$$$", "$$", id="two-escapes"),
        pytest.param("$(A", "$(A", id="no-end"),
        pytest.param("$(A$(A)", "$(A$(A)", id="first-parenthesis-ends"),
        pytest.param("$", "$", id="trailing-dollar"),
        pytest.param("a$", "a$", id="trailing-dollar-after-text"),
        pytest.param("$A", "$A", id="other-character-stays"),
        pytest.param("$é$(A)", "$éa", id="other-rune-stays"),
        pytest.param("$\n$(A)", "$\na", id="newline-after-dollar"),
        pytest.param("$x$(A)", "$xa", id="goes-on-after-literal"),
    ],
)
def test_expansion_follows_the_grammar(text, expected):
    assert expand(text, ENV) == expected


def test_every_word_of_a_command_is_expanded():
    assert expand_all(["$(A)", "b", "$(C)"], ENV) == ("a", "b", "$(C)")


@pytest.mark.parametrize(
    ("text", "expected", "missing"),
    [
        pytest.param("$(A)/x", "a/x", (), id="all-there"),
        pytest.param("$(EMPTY)$(C)$(C)", None, ("EMPTY", "C"), id="empty-and-absent"),
        pytest.param("$$(C)", "$(C)", (), id="escaped-is-not-missing"),
    ],
)
def test_sub_path_expressions_need_every_variable(text, expected, missing):
    result, names = expand_strictly(text, ENV)

    assert names == missing
    if expected is not None:
        assert result == expected


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_dollar_is_untouched(text):
    assert expand(text, ENV) == text


@given(st.text())
def test_doubling_every_dollar_escapes_all(text):
    assert expand(text.replace("$", "$$"), ENV) == text
