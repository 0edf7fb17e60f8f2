"""Quantities: parsing, canonical text, arithmetic."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.quantity import (
    Format,
    Quantity,
    QuantityError,
    canonical,
    parse_quantity,
    sum_quantities,
    to_bytes,
)

QUANTITIES = st.builds(
    Quantity,
    st.integers(-(2**62), 2**62).map(lambda n: n * 10**6),
    st.sampled_from(Format),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0", "0", id="zero"),
        pytest.param("0Gi", "0", id="zero-loses-its-suffix"),
        pytest.param("1", "1", id="one"),
        pytest.param(1, "1", id="a-bare-integer"),
        pytest.param(0.5, "500m", id="a-bare-fraction"),
        pytest.param(True, None, id="a-bool-is-none"),
        pytest.param("0.5", "500m", id="half"),
        pytest.param(".5", "500m", id="no-leading-digit"),
        pytest.param("1.", "1", id="trailing-dot"),
        pytest.param("1.5", "1500m", id="one-and-a-half"),
        pytest.param("1000m", "1", id="thousand-milli"),
        pytest.param("100m", "100m", id="hundred-milli"),
        pytest.param("1024Mi", "1Gi", id="mebi-to-gibi"),
        pytest.param("1.5Gi", "1536Mi", id="fraction-of-gibi"),
        pytest.param("0.5Ki", "512", id="below-1024-has-no-suffix"),
        pytest.param("1000Ki", "1000Ki", id="not-divisible"),
        pytest.param("1Ki", "1Ki", id="exactly-1024"),
        pytest.param("1000k", "1M", id="kilo-to-mega"),
        pytest.param("1500k", "1500k", id="stays-kilo"),
        pytest.param("12e6", "12e6", id="exponent-stays"),
        pytest.param("1E3", "1e3", id="capital-exponent"),
        pytest.param("5E", "5E", id="exa"),
        pytest.param("1e-3", "1e-3", id="negative-exponent"),
        pytest.param("0.1n", "1n", id="rounded-up-to-a-nano"),
        pytest.param("-1.5Gi", "-1536Mi", id="negative"),
        pytest.param("+3", "3", id="plus-sign"),
        pytest.param("0.1Mi", "104857600m", id="binary-fraction-is-not-lost"),
        pytest.param("16Ei", "9223372036854775807", id="binary-is-capped"),
        pytest.param("1000E", "1000E", id="decimal-is-not"),
        pytest.param("", None, id="empty"),
        pytest.param("-", None, id="sign-only"),
        pytest.param(".", None, id="dot-only"),
        pytest.param("1 Gi", None, id="space-inside"),
        pytest.param("1gi", None, id="wrong-case"),
        pytest.param("1K", None, id="capital-k"),
        pytest.param("1Mib", None, id="trailing-letter"),
        pytest.param("1e", None, id="exponent-without-digits"),
        pytest.param("1e99999999999", None, id="absurd-exponent"),
        pytest.param("\u0661", None, id="foreign-digits"),
        pytest.param("0x10", None, id="hexadecimal"),
    ],
)
def test_a_quantity_is_written_canonically_or_refused(text: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(QuantityError):
            canonical(text)
    else:
        assert canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "abc",
            (
                "quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ),
        ),
        ("1KiB", "quantities must match"),
        ("1Kk", "unable to parse quantity's suffix"),
    ],
    ids=["no-number", "foreign-letter", "two-suffixes"],
)
def test_refusals_speak_upstreams_text(text: Any, message: Any) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("1500m", 2, 1500),
        ("-1500m", -2, -1500),
        ("1u", 1, 1),
        ("1Ki", 1024, 1024000),
    ],
)
def test_values_round_away_from_zero(text: Any, value: Any, milli: Any) -> None:
    quantity = parse_quantity(text)

    assert (quantity.value, quantity.milli_value) == (value, milli)


def test_equal_amounts_are_equal_whatever_their_form() -> None:
    assert parse_quantity("1Gi") == parse_quantity("1024Mi")
    assert parse_quantity("1") < parse_quantity("1001m")
    assert to_bytes("1Mi") == 1048576


def test_quantities_are_made_of_numbers() -> None:
    assert str(Quantity.of(2048, Format.BINARY_SI)) == "2Ki"
    assert str(-Quantity.of_milli(1500)) == "-1500m"
    assert not Quantity.of(0)
    assert canonical("0.0000001Ki") == "102400n"


def test_a_sum_is_written_like_its_first_term() -> None:
    total = sum_quantities([parse_quantity("1Gi"), parse_quantity("512Mi")])

    assert str(total) == "1536Mi"


@given(QUANTITIES)
def test_canonical_text_parses_back_to_the_same_amount(quantity: Any) -> None:
    again = parse_quantity(str(quantity))

    if quantity.format is Format.BINARY_SI:
        assert abs(again.nano) <= abs(quantity.nano)
    else:
        assert again == quantity
    assert canonical(str(quantity)) == str(again)


@given(QUANTITIES, QUANTITIES, QUANTITIES)
def test_addition_is_exact_associative_and_undone_by_subtraction(
    a: Any, b: Any, c: Any
) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b - b == a


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_quantity_error(text: Any) -> None:
    try:
        parsed = parse_quantity(text)
    except QuantityError:
        return
    assert canonical(str(parsed)) == str(parsed)
