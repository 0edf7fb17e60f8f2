"""Writes an OpenAPI v2 document in protobuf, as older kubectl wants it.

The messages are those of gnostic's ``openapi.v2``; the tables below hold what our
documents use of them. A name that is not in a table is left out, so a document may
always say more than the wire form carries.

Source: field numbers of gnostic ``OpenAPIv2.proto``;
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import orjson

_Writer: TypeAlias = Callable[[int, Any], bytes]
_Table: TypeAlias = Mapping[str, tuple[int, _Writer]]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")


def encode_openapi_v2(document: Mapping[str, Any]) -> bytes:
    """Return the document as an ``openapi.v2.Document`` message."""
    return _struct(_DOCUMENT, document)


# --- the wire -----------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _chunk(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _struct(table: _Table, value: Mapping[str, Any], extensions: int = 0) -> bytes:
    """Encode a message's fields; ``x-…`` go to the field ``extensions``."""
    parts = []
    for name, item in value.items():
        known = table.get(name)
        if known is not None:
            number, write = known
            parts.append(write(number, item))
        elif extensions and name.startswith("x-"):
            parts.append(_chunk(extensions, _named(name, _any(item))))
    return b"".join(parts)


# --- writers: how a value of the document becomes a field ----------------------


def _text(number: int, value: str) -> bytes:
    return _chunk(number, value.encode())


def _flag(number: int, value: bool) -> bytes:  # noqa: FBT001 - a value to encode
    return _varint(number << 3) + (b"\1" if value else b"\0")


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_text(number, value) for value in values)


def _any(value: Any) -> bytes:
    """Encode an ``Any``: its value as YAML, of which JSON is a part."""
    return _text(2, orjson.dumps(value).decode() + "\n")


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _chunk(2, value)


def _write_any(number: int, value: Any) -> bytes:
    return _chunk(number, _any(value))


def _schema(value: Mapping[str, Any]) -> bytes:
    return _struct(_SCHEMA, value, extensions=31)


def _write_schemas(number: int, value: Mapping[str, Any]) -> bytes:
    """Encode a map of schemas: one message with a list of named ones."""
    entries = (_chunk(1, _named(name, _schema(item))) for name, item in value.items())
    return _chunk(number, b"".join(entries))


def _write_additional(number: int, value: Any) -> bytes:
    inner = _flag(2, value) if isinstance(value, bool) else _chunk(1, _schema(value))
    return _chunk(number, inner)


def _write_type(number: int, value: str) -> bytes:
    return _chunk(number, _text(1, value))


def _write_items(number: int, value: Mapping[str, Any]) -> bytes:
    return _chunk(number, _chunk(1, _schema(value)))


def _write_info(number: int, value: Mapping[str, Any]) -> bytes:
    return _chunk(number, _struct(_INFO, value))


def _write_paths(number: int, value: Mapping[str, Any]) -> bytes:
    entries = (
        _chunk(2, _named(path, _struct(_PATH_ITEM, item, extensions=10)))
        for path, item in value.items()
    )
    return _chunk(number, b"".join(entries))


def _write_operation(number: int, value: Mapping[str, Any]) -> bytes:
    return _chunk(number, _struct(_OPERATION, value, extensions=13))


def _write_parameters(number: int, values: Iterable[Mapping[str, Any]]) -> bytes:
    """Encode query and path parameters: each is wrapped three times."""
    parts = []
    for value in values:
        query = value["in"] == "query"
        own = _struct(_QUERY_PARAMETER if query else _PATH_PARAMETER, value)
        not_body = _chunk(3 if query else 4, own)
        parts.append(_chunk(number, _chunk(1, _chunk(2, not_body))))
    return b"".join(parts)


def _write_responses(number: int, value: Mapping[str, Any]) -> bytes:
    entries = (
        _chunk(1, _named(code, _chunk(1, _text(1, answer["description"]))))
        for code, answer in value.items()
    )
    return _chunk(number, b"".join(entries))


# --- the tables: name in the document → field number and writer ----------------

_SCHEMA: Final[_Table] = {
    "$ref": (1, _text),
    "format": (2, _text),
    "description": (4, _text),
    "default": (5, _write_any),
    "required": (19, _texts),
    "additionalProperties": (21, _write_additional),
    "type": (22, _write_type),
    "items": (23, _write_items),
    "properties": (25, _write_schemas),
}
_INFO: Final[_Table] = {
    "title": (1, _text),
    "version": (2, _text),
}
_PATH_PARAMETER: Final[_Table] = {
    "required": (1, _flag),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (5, _text),
}
_QUERY_PARAMETER: Final[_Table] = {
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (6, _text),
    "uniqueItems": (20, _flag),
}
_OPERATION: Final[_Table] = {
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, _write_parameters),
    "responses": (9, _write_responses),
}
_PATH_ITEM: Final[_Table] = {
    **{name: (number, _write_operation) for number, name in enumerate(_METHODS, 2)},
    "parameters": (9, _write_parameters),
}
_DOCUMENT: Final[_Table] = {
    "swagger": (1, _text),
    "info": (2, _write_info),
    "paths": (8, _write_paths),
    "definitions": (9, _write_schemas),
}
