"""Selectors: label selectors as text and as objects, field selectors as text.

Source: apimachinery ``labels``, ``fields`` and ``apis/meta/v1`` (v1.36), and
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid
from podyard.api.go_text import quote
from podyard.api.syntax import check_label_value, check_qualified_name
from podyard.lib.values import dataclass


class SelectorError(ValueError):
    """The selector makes no sense; the message is upstream's."""


class Operator(StrEnum):
    """What a requirement asks, spelled as selectors print it."""

    IN = "in"
    NOT_IN = "notin"
    EQUALS = "="
    DOUBLE_EQUALS = "=="
    NOT_EQUALS = "!="
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = "gt"
    LESS_THAN = "lt"


_SET: Final = {Operator.IN, Operator.NOT_IN}
_EXACT: Final = {Operator.EQUALS, Operator.DOUBLE_EQUALS, Operator.NOT_EQUALS}
_PRESENCE: Final = {Operator.EXISTS, Operator.DOES_NOT_EXIST}
_NUMERIC: Final = {Operator.GREATER_THAN, Operator.LESS_THAN}
_BY_OBJECT_NAME: Final = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.DOES_NOT_EXIST,
    "Gt": Operator.GREATER_THAN,
    "Lt": Operator.LESS_THAN,
}
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label.

    Attributes:
        key: the label.
        operator: what is asked.
        values: what it is compared with; empty for presence, one for ``Gt``, ``Lt``.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether the labels fulfil this."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN | Operator.EQUALS | Operator.DOUBLE_EQUALS:
                return value is not None and value in self.values
            case Operator.NOT_IN | Operator.NOT_EQUALS:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GREATER_THAN | Operator.LESS_THAN:
                return value is not None and self._compares(value)

    def _compares(self, value: str) -> bool:
        if len(self.values) != 1:
            return False
        left, right = parse_int64(value), parse_int64(self.values[0])
        if left is None or right is None:
            return False
        return left > right if self.operator is Operator.GREATER_THAN else left < right

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.value} ({values})"
            case Operator.GREATER_THAN:
                return f"{self.key}>{values}"
            case Operator.LESS_THAN:
                return f"{self.key}<{values}"
            case _:
                return f"{self.key}{self.operator.value}{values}"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold.

    Attributes:
        requirements: none of them means everything matches.
        nothing: match no object at all (an absent LabelSelector).
    """

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether everything matches."""
        return not self.nothing and not self.requirements

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Say whether an object with these labels is selected."""
        if self.nothing:
            return False
        known = labels or {}
        return all(requirement.matches(known) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING: Final = Selector()
NOTHING: Final = Selector(nothing=True)


def parse_int64(text: str) -> int | None:
    """Return a decimal number that fits 64 bits, or ``None``."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def new_requirement(key: str, operator: Operator, values: Iterable[str]) -> Requirement:
    """Return a checked requirement.

    Raises:
        SelectorError: the key, a value or their number breaks a rule.
    """
    chosen = tuple(values)
    faults = list(_requirement_faults(key, operator, chosen))
    if faults:
        texts = [str(fault) for fault in faults]
        raise SelectorError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    return Requirement(key, operator, chosen)


def _requirement_faults(
    key: str, operator: Operator, values: tuple[str, ...]
) -> Iterable[FieldError]:
    texts = check_qualified_name(key)
    if texts:
        yield invalid("key", key, "; ".join(texts))
    count_fault = ""
    if operator in _SET and not values:
        count_fault = "for 'in', 'notin' operators, values set can't be empty"
    elif operator in _EXACT and len(values) != 1:
        count_fault = "exact-match compatibility requires one single value"
    elif operator in _PRESENCE and values:
        count_fault = "values set must be empty for exists and does not exist"
    elif operator in _NUMERIC and len(values) != 1:
        count_fault = "for 'Gt', 'Lt' operators, exactly one value is required"
    if count_fault:
        yield invalid("values", list(values), count_fault)
    if operator in _NUMERIC:
        for index, value in enumerate(values):
            if parse_int64(value) is None:
                yield invalid(
                    f"values[{index}]",
                    value,
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                )
    for index, value in enumerate(values):
        texts = check_label_value(value)
        if texts:
            yield invalid(f"values[{index}][{key}]", value, "; ".join(texts))


def selector_from_labels(labels: Mapping[str, str] | None) -> Selector:
    """Return the selector of a plain map, as Services and old controllers have it."""
    pairs = sorted((labels or {}).items())
    return Selector(tuple(Requirement(k, Operator.EQUALS, (v,)) for k, v in pairs))


def selector_from_object(selector: Document | None) -> Selector:
    """Return the selector of a ``LabelSelector`` object.

    An absent one selects nothing, an empty one everything.

    Raises:
        SelectorError: an operator, key or value breaks a rule.
    """
    if selector is None:
        return NOTHING
    requirements = [
        new_requirement(key, Operator.EQUALS, (value,))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    expressions = selector.get("matchExpressions") or ()
    requirements += map(requirement_from_expression, expressions)
    return Selector(tuple(requirements))


def requirement_from_expression(expression: Document) -> Requirement:
    """Return the requirement of one ``matchExpressions`` entry (no ``Gt``, ``Lt``).

    Raises:
        SelectorError: its operator, key or values break a rule.
    """
    name = expression.get("operator") or ""
    operator = _BY_OBJECT_NAME.get(name)
    if operator is None or operator in _NUMERIC:
        raise SelectorError(f"{quote(name)} is not a valid label selector operator")
    return new_requirement(
        expression.get("key") or "", operator, expression.get("values") or ()
    )


def node_requirement_from_expression(expression: Document) -> Requirement:
    """Return the requirement of one node selector expression (with ``Gt``, ``Lt``).

    Raises:
        SelectorError: its operator, key or values break a rule.
    """
    name = expression.get("operator") or ""
    operator = _BY_OBJECT_NAME.get(name)
    if operator is None:
        raise SelectorError(f"{quote(name)} is not a valid node selector operator")
    return new_requirement(
        expression.get("key") or "", operator, expression.get("values") or ()
    )


def parse_selector(text: str) -> Selector:
    """Parse ``a=b,c in (d,e),!f``; nothing but spaces selects everything.

    Requirements are ordered by key, as upstream orders them.

    Raises:
        SelectorError: the text is no selector; the message is upstream's.
    """
    requirements = _Parser(_lex(text)).parse()
    ordered = sorted(requirements, key=lambda requirement: requirement.key)
    return Selector(tuple(ordered))


# --- the text form --------------------------------------------------------------

_TOKENS = re.compile(r"[ \t\r\n]*([=!<>(),]+|[^=!<>(), \t\r\n]+)")
_SYMBOLS: Final = ("!=", "==", "!", "=", "(", ")", ",", ">", "<")
_BINARY: Final = ("=", "!=", "==", "in", "notin", ">", "<")
_OPERATORS: Final = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.EQUALS,
    "==": Operator.DOUBLE_EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}
_END: Final = ""


def _lex(text: str) -> list[str]:
    tokens: list[str] = []
    for chunk in _TOKENS.findall(text):
        if chunk[0] in "=!<>(),":
            tokens += _split_symbols(chunk)
        else:
            tokens.append(chunk)
    return tokens


def _split_symbols(chunk: str) -> list[str]:
    symbols: list[str] = []
    while chunk:
        symbol = next(known for known in _SYMBOLS if chunk.startswith(known))
        symbols.append(symbol)
        chunk = chunk[len(symbol) :]
    return symbols


def _is_identifier(token: str) -> bool:
    return token not in _SYMBOLS and token != _END


class _Parser:
    """Recursive descent over the tokens, with upstream's complaints."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while True:
            token = self._peek()
            if token == _END:
                return requirements
            if not _is_identifier(token) and token != "!":  # noqa: S105
                raise SelectorError(
                    f"found '{token}', expected: !, identifier, or 'end of string'"
                )
            try:
                requirements.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from error
            token = self._next()
            if token == _END:
                return requirements
            if token != ",":  # noqa: S105
                raise SelectorError(
                    f"found '{token}', expected: ',' or 'end of string'"
                )
            after = self._peek()
            if not _is_identifier(after) and after != "!":
                raise SelectorError(f"found '{after}', expected: identifier after ','")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._next()
        if not _is_identifier(key):
            raise SelectorError(f"found '{key}', expected: identifier")
        texts = check_qualified_name(key)
        if texts:
            raise SelectorError(str(invalid("key", key, "; ".join(texts))))
        if absent:
            return new_requirement(key, Operator.DOES_NOT_EXIST, ())
        if self._peek() in {_END, ","}:
            return new_requirement(key, Operator.EXISTS, ())
        operator = self._operator()
        values = self._set() if operator in _SET else [self._value()]
        return new_requirement(key, operator, values)

    def _operator(self) -> Operator:
        token = self._next()
        operator = _OPERATORS.get(token)
        if operator is None:
            raise SelectorError(f"found '{token}', expected: {', '.join(_BINARY)}")
        return operator

    def _value(self) -> str:
        token = self._peek()
        if token in {_END, ","}:
            return ""
        if not _is_identifier(token):
            raise SelectorError(f"found '{token}', expected: identifier")
        return self._next()

    def _set(self) -> list[str]:
        token = self._next()
        if token != "(":  # noqa: S105
            raise SelectorError(f"found '{token}' expected: '('")
        values: set[str] = set()
        token = self._peek()
        if not _is_identifier(token) and token not in {",", ")"}:
            raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
        while True:
            token = self._next()
            if token == ")":  # noqa: S105
                return sorted(values) or [""]
            if token == ",":  # noqa: S105
                values.add("")
                if self._peek() == ")":
                    self._next()
                    return sorted(values)
                continue
            if not _is_identifier(token):
                raise SelectorError(f"found '{token}', expected: ',', or identifier")
            values.add(token)
            after = self._peek()
            if after == ",":
                self._next()
                if self._peek() in {",", ")"}:
                    values.add("")
            elif after != ")":
                raise SelectorError(f"found '{after}', expected: ',' or ')'")


# --- field selectors ------------------------------------------------------------

_TERM_OPERATORS: Final = ("!=", "==", "=")


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field.

    Attributes:
        field: the path, ``spec.nodeName``.
        value: what it is compared with.
        negated: whether it must differ.
    """

    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        escaped = (
            self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        )
        return f"{self.field}{'!=' if self.negated else '='}{escaped}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Field requirements that must all hold; none means everything matches."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether everything matches."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Say whether an object with these field values is selected."""
        return all(
            (fields.get(requirement.field, "") == requirement.value)
            != requirement.negated
            for requirement in self.requirements
        )

    def exact(self, field: str) -> str | None:
        """Return the one value a field must have, or ``None`` where any may do."""
        for requirement in self.requirements:
            if requirement.field == field and not requirement.negated:
                return requirement.value
        return None

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_field_selector(text: str) -> FieldSelector:
    r"""Parse ``spec.nodeName=n1,status.phase!=Failed``; ``\`` escapes ``, = \``.

    Raises:
        SelectorError: a term has no operator or a bad escape.
    """
    requirements = []
    for term in sorted(_split_terms(text)):
        if not term:
            continue
        requirements.append(_parse_term(term, text))
    return FieldSelector(tuple(requirements))


def _split_terms(text: str) -> list[str]:
    terms, start, escaped = [], 0, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:index])
            start = index + 1
    return [*terms, text[start:]]


def _parse_term(term: str, selector: str) -> FieldRequirement:
    for index in range(len(term)):
        for operator in _TERM_OPERATORS:
            if term.startswith(operator, index):
                value = _unescape(term[index + len(operator) :])
                return FieldRequirement(term[:index], value, operator == "!=")
    raise SelectorError(f"invalid selector: '{selector}'; can't understand '{term}'")


def _unescape(value: str) -> str:
    result, escaped = [], False
    for char in value:
        if escaped:
            if char not in "\\,=":
                raise SelectorError(
                    f"invalid field selector: invalid escape sequence: \\{char}"
                )
            escaped = False
            result.append(char)
        elif char == "\\":
            escaped = True
        elif char in ",=":
            raise SelectorError(
                f"invalid field selector: unescaped character in value: {ord(char)}"
            )
        else:
            result.append(char)
    if escaped:
        raise SelectorError("invalid field selector: invalid escape sequence: \\")
    return "".join(result)
