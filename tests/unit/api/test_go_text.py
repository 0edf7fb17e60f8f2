"""Text as Go prints it."""

from typing import Any

import pytest

from podyard.api.go_text import bracketed, quote, show, string_slice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", '"plain"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("\n\t\x00", '"\\n\\t\\x00"'),
        ("ä", '"ä"'),
        ("\u200b", '"\\u200b"'),
    ],
)
def test_text_is_quoted(text: Any, expected: Any) -> None:
    assert quote(text) == expected


def test_values_are_shown() -> None:
    assert (
        show({"b": [1, True, None], "a": {"c": "d"}})
        == "map[a:map[c:d] b:[1 true <nil>]]"
    )
    assert string_slice(["a"]) == '[]string{"a"}'
    assert bracketed(["a", "b"]) == '["a" "b"]'
