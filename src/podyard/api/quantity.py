"""Quantities: ``100m``, ``1.5Gi``, ``12e6``, held exactly.

A quantity is a whole number of billionths; anything finer is rounded away from
zero, as upstream does ("if you want some, you should get some").

Source: apimachinery ``api/resource`` (v1.36) and
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

_NANO: Final = 10**9
#: Values written with a binary suffix are capped here.
MAX_INT64: Final = 2**63 - 1
#: A larger power of ten is refused; it could only be an attack on memory.
_MAX_EXPONENT: Final = 400

_SHAPE = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_SPLIT_RE = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)")
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {
    "n": -9,
    "u": -6,
    "m": -3,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIXES = {exponent: suffix for suffix, exponent in _BINARY.items()}


class Format(StrEnum):
    """How a quantity was written, and is written again."""

    DECIMAL_EXPONENT = "DecimalExponent"
    BINARY_SI = "BinarySI"
    DECIMAL_SI = "DecimalSI"


class QuantityError(ValueError):
    """The text is no quantity; the message is upstream's."""


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An exact amount.

    Equality and order look at the amount alone: ``1Gi == 1024Mi``.

    Attributes:
        nano: the amount in billionths.
        format: how to write it.
    """

    nano: int
    format: Format = field(default=Format.DECIMAL_SI, compare=False)

    @classmethod
    def of(cls, value: int, format_: Format = Format.DECIMAL_SI) -> "Quantity":
        """Return the quantity of a whole number."""
        return cls(value * _NANO, format_)

    @classmethod
    def of_milli(cls, milli: int) -> "Quantity":
        """Return the quantity of so many thousandths (millicores)."""
        return cls(milli * 10**6)

    @property
    def value(self) -> int:
        """The whole number, rounded away from zero: bytes, or cores."""
        return _round_away(self.nano, _NANO)

    @property
    def milli_value(self) -> int:
        """Thousandths, rounded away from zero: millicores."""
        return _round_away(self.nano, 10**6)

    def __add__(self, other: "Quantity") -> "Quantity":
        shape = self.format if self.nano else other.format
        return Quantity(self.nano + other.nano, shape)

    def __sub__(self, other: "Quantity") -> "Quantity":
        shape = self.format if self.nano else other.format
        return Quantity(self.nano - other.nano, shape)

    def __neg__(self) -> "Quantity":
        return Quantity(-self.nano, self.format)

    def __bool__(self) -> bool:
        return self.nano != 0

    def __str__(self) -> str:
        """Return the canonical text: no fraction, the largest suffix that fits."""
        if not self.nano:
            return "0"
        whole, rest = divmod(abs(self.nano), _NANO)
        if self.format is Format.BINARY_SI and not rest and whole >= 1024:
            return self._sign + _in_binary(whole)
        return self._sign + _in_decimal(abs(self.nano), self.format)

    @property
    def _sign(self) -> str:
        return "-" if self.nano < 0 else ""


ZERO: Final = Quantity(0)


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> Quantity:
    match = _SHAPE.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise QuantityError(
            f"quantities must match the regular expression '{_SPLIT_RE}'"
        )
    sign, whole, fraction, suffix = match[1], match[2], match[3] or "", match[4]
    base, exponent, format_ = _read_suffix(suffix)
    mantissa = int((whole + fraction) or "0")
    if base == 2:
        scaled = mantissa * 2**exponent * _NANO
        nano = _round_away(scaled, 10 ** len(fraction))
        nano = min(nano, MAX_INT64 * _NANO)
        if 0 < nano < _NANO:
            format_ = Format.DECIMAL_SI
    else:
        nano = _shift(mantissa, exponent - len(fraction) + 9)
    return Quantity(-nano if sign == "-" else nano, format_)


def parse_quantity(value: str | float) -> Quantity:
    """Parse a quantity as a document holds it: text, or a bare JSON number.

    Raises:
        QuantityError: it is none; the message is upstream's.
    """
    if isinstance(value, str):
        return _parse_text(value.strip() if value != "" else value)
    if isinstance(value, bool):
        raise QuantityError(
            f"quantities must match the regular expression '{_SPLIT_RE}'"
        )
    return _parse_text(repr(value))


def sum_quantities(values: Iterable[Quantity]) -> Quantity:
    """Return the sum, written like its first non-zero term."""
    total = ZERO
    for value in values:
        total += value
    return total


def to_bytes(value: str | float) -> int:
    """Return the number of bytes a document's quantity names, rounded up.

    Raises:
        QuantityError: it is no quantity.
    """
    return parse_quantity(value).value


def canonical(value: str | float) -> str:
    """Return the canonical text, as an API server stores it.

    Raises:
        QuantityError: it is no quantity.
    """
    return str(parse_quantity(value))


def _read_suffix(suffix: str) -> tuple[int, int, Format]:
    if suffix in _DECIMAL:
        return 10, _DECIMAL[suffix], Format.DECIMAL_SI
    if suffix in _BINARY:
        return 2, _BINARY[suffix], Format.BINARY_SI
    match = _EXPONENT.fullmatch(suffix)
    if match is None:
        raise QuantityError("unable to parse quantity's suffix")
    exponent = int(match[1]) if len(match[1]) < 10 else _MAX_EXPONENT + 1
    if exponent > _MAX_EXPONENT:
        raise QuantityError("unable to parse numeric part of quantity")
    return 10, max(exponent, -_MAX_EXPONENT), Format.DECIMAL_EXPONENT


def _shift(mantissa: int, places: int) -> int:
    if places >= 0:
        return mantissa * int(10**places)
    return _round_away(mantissa, 10**-places)


def _round_away(amount: int, unit: int) -> int:
    return -(-amount // unit) if amount >= 0 else amount // unit


def _in_binary(whole: int) -> str:
    exponent = 0
    while exponent < 60 and whole % 1024 == 0:
        whole //= 1024
        exponent += 10
    return f"{whole}{_BINARY_SUFFIXES.get(exponent, '')}"


def _in_decimal(nano: int, format_: Format) -> str:
    exponent = -9
    while nano % 1000 == 0 and (exponent < 18 or format_ is Format.DECIMAL_EXPONENT):
        nano //= 1000
        exponent += 3
    if format_ is Format.DECIMAL_EXPONENT:
        return f"{nano}e{exponent}" if exponent else str(nano)
    return f"{nano}{_DECIMAL_SUFFIXES[exponent]}"
