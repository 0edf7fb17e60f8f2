"""Protobuf request bodies, decoded to the documents JSON would have carried.

client-go sends the built-in kinds this way since Kubernetes 1.32 and takes no
other answer than success. The decoder is driven by a table of field numbers
(``protobuf_table``); it needs no generated code.

Source: the ``generated.proto`` files of Kubernetes v1.36, and
https://protobuf.dev/programming-guides/encoding/
"""

import base64
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, Final

import orjson

from podyard.api.documents import Document
from podyard.api.protobuf_table import MESSAGES
from podyard.lib.values import dataclass

#: The content type of these bodies.
CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"

#: What every body starts with.
MAGIC: Final = b"k8s\0"

#: Messages nest about 12 deep in real objects; more is an attack.
MAX_DEPTH: Final = 48

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Kinds that every group lends: their message is in the meta package.
_META_KINDS = frozenset({"DeleteOptions", "Status"})


class ProtobufError(ValueError):
    """The body is no Kubernetes protobuf; the message says where it breaks."""


class _Shape(Enum):
    ONE = ""
    LIST = "*"
    MAP = "{"
    INLINE = "@"


@dataclass(frozen=True, slots=True)
class _Field:
    """One row of the table.

    Attributes:
        name: in JSON.
        shape: one value, a list, a map, or a struct of the parent's fields.
        kind: a leaf's letter, or a message.
        struct: whether ``kind`` is a message that is an object in JSON.
        keep_zero: whether a zero is kept.
        where: for messages.
    """

    name: str
    shape: _Shape
    kind: str
    struct: bool
    keep_zero: bool
    where: str


def knows_kind(api_version: str, kind: str) -> bool:
    """Return whether bodies of this kind can be decoded."""
    return _message_of(api_version, kind) is not None


def message_fields(message: str) -> dict[str, tuple[bool, str]]:
    """Return, for each JSON field of a message, what Go's types say of it.

    Args:
        message: package and name, as ``core.v1.Container``.

    Returns:
        By JSON name: whether an explicit zero value is kept, and the Go type as
        error messages spell it, empty where the schema tells as much. Empty for an
        unknown message.
    """
    package, _, name = message.rpartition(".")
    lines = _table(package) if package in MESSAGES else {}
    found: dict[str, tuple[bool, str]] = {}
    for row in _rows(lines.get(name, "=")):
        words = row.split(" ")
        if words[1] == "@":
            home = words[2] if "." in words[2] else f"{package}.{words[2]}"
            found.update(message_fields(home))
        else:
            go_type = words[3] if len(words) > 3 else ""
            found[words[1]] = (words[2].endswith("!"), go_type)
    return found


def decode_protobuf(body: bytes) -> Document:
    """Decode a request body: the envelope and the object inside.

    Fields that the table does not know are skipped, as protobuf wants it. Zero
    values of fields that are no pointers are dropped: Go puts them all on the wire.

    Args:
        body: the four magic bytes and a ``runtime.Unknown``.

    Raises:
        ProtobufError: it is cut short, of an unknown kind, or otherwise broken.
    """
    return _decode_envelope(body, 0)


def _decode_envelope(body: bytes, depth: int) -> Document:
    if not body.startswith(MAGIC):
        raise ProtobufError(
            "provided data does not appear to be a protobuf message, "
            f"expected prefix {list(MAGIC)}"
        )
    envelope: Document = {}
    _fill(envelope, "runtime.Unknown", body, len(MAGIC), len(body), depth)
    encoding = envelope.get("contentEncoding", "")
    if encoding:
        raise ProtobufError(f"the content encoding {encoding!r} is not supported")
    api_version = envelope.get("typeMeta", {}).get("apiVersion", "")
    kind = envelope.get("typeMeta", {}).get("kind", "")
    message = _message_of(api_version, kind)
    if message is None:
        raise ProtobufError(
            f'no kind "{kind}" is registered for version "{api_version}" in protobuf'
        )
    document: Document = {"apiVersion": api_version, "kind": kind}
    raw: bytes = envelope.get("raw", b"")
    _fill(document, message, raw, 0, len(raw), depth + 1)
    return document


def _message_of(api_version: str, kind: str) -> str | None:
    if kind in _META_KINDS:
        return f"meta.v1.{kind}"
    group, _, version = api_version.rpartition("/")
    package = f"{(group or 'core').partition('.')[0]}.{version}"
    known = package in MESSAGES and kind in _table(package)
    return f"{package}.{kind}" if known else None


# The envelope is no API type, so its messages are not in the derived table.
_ENVELOPE: Final = {
    "TypeMeta": "1 apiVersion s, 2 kind s",
    "Unknown": "1 typeMeta TypeMeta, 2 raw Y, 3 contentEncoding s, 4 contentType s",
    "RawExtension": "1 raw Y",
    "FieldsV1": "1 raw Y",
    "Time": "1 seconds i, 2 nanos i",
    "Quantity": "1 string s",
    "IntOrString": "1 type i, 2 intVal i, 3 strVal s",
}


@cache
def _table(package: str) -> dict[str, str]:
    if package == "runtime":
        return _ENVELOPE
    lines = (line.partition(": ") for line in MESSAGES[package].strip().split("\n"))
    return {name: row for name, _, row in lines}


def _rows(line: str) -> list[str]:
    return [] if not line or line.startswith("=") else line.split(", ")


@cache
def _fields(message: str) -> dict[int, _Field]:
    package, _, name = message.rpartition(".")
    fields: dict[int, _Field] = {}
    for row in _rows(_table(package)[name]):
        number, field, kind = row.split(" ")[:3]
        keep = kind.endswith("!")
        kind = kind.removesuffix("!")
        shape = _Shape.INLINE if field == "@" else _Shape.ONE
        if kind[0] in "*{":
            shape, kind = _Shape(kind[0]), kind[1:]
        if len(kind) > 1 and "." not in kind:
            kind = f"{package}.{kind}"
        struct = len(kind) > 1 and not _list_kind(kind)
        where = f"{name}.{field}"
        fields[int(number)] = _Field(field, shape, kind, struct, keep, where)
    return fields


@cache
def _list_kind(message: str) -> str:
    """Return what a message that is a list in JSON holds, empty for a struct."""
    package, _, name = message.rpartition(".")
    line = _table(package)[name]
    return line.removeprefix("= *") if line.startswith("=") else ""


def _fill(
    out: Document, message: str, data: bytes, pos: int, end: int, depth: int
) -> None:
    """Read one message's fields from ``data[pos:end]`` into ``out``."""
    if depth > MAX_DEPTH:
        raise ProtobufError(f"{message}: nested deeper than {MAX_DEPTH} messages")
    fields = _fields(message)
    while pos < end:
        tag = data[pos]
        if tag < 0x80:
            pos += 1
        else:
            tag, pos = _read_varint(data, pos, end)
        number, wire = tag >> 3, tag & 7
        field = fields.get(number)
        if wire == _BYTES:
            if pos < end and data[pos] < 0x80:
                stop = pos + 1 + data[pos]
                pos += 1
            else:
                length, pos = _read_varint(data, pos, end)
                stop = pos + length
            if stop > end:
                raise ProtobufError(
                    f"{message}: field {number} claims {stop - pos} bytes, "
                    f"{end - pos} are left"
                )
            if field is not None:
                _take_bytes(out, field, data, pos, stop, depth)
            pos = stop
        elif wire == _VARINT:
            value, pos = _read_varint(data, pos, end)
            if field is not None:
                _take_varint(out, field, value)
        else:
            pos = _skip(message, number, wire, pos, end)


def _skip(message: str, number: int, wire: int, pos: int, end: int) -> int:
    """Step over a field of a fixed size; no kind of ours has one."""
    size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
    if size is None or number == 0:
        raise ProtobufError(f"{message}: field {number} has wire type {wire}")
    if pos + size > end:
        raise ProtobufError(f"{message}: field {number} is cut short")
    return pos + size


def _read_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos
        shift += 7
        if shift > 63:
            raise ProtobufError("a number is longer than ten bytes")
    raise ProtobufError("the message ends inside a number")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _take_varint(out: Document, field: _Field, value: int) -> None:
    if field.kind == "i":
        number: Any = _signed(value)
    elif field.kind == "b":
        number = value != 0
    else:
        raise ProtobufError(f"{field.where}: a number where none belongs")
    if field.shape is _Shape.LIST:
        out.setdefault(field.name, []).append(number)
    elif number or field.keep_zero:
        out[field.name] = number
    else:
        out.pop(field.name, None)


def _take_bytes(
    out: Document, field: _Field, data: bytes, pos: int, stop: int, depth: int
) -> None:
    shape = field.shape
    if shape is _Shape.ONE:
        if field.struct:
            # a message sent in two parts is one message
            part = out.setdefault(field.name, {})
            _fill(part, field.kind, data, pos, stop, depth + 1)
            return
        value = _read_value(field, data, pos, stop, depth)
        if value is None or not (value or field.keep_zero):
            out.pop(field.name, None)
        else:
            out[field.name] = value
    elif shape is _Shape.LIST:
        entries: list[Any] = out.setdefault(field.name, [])
        if field.kind in "ib":
            _read_packed(entries, field, data, pos, stop)
        else:
            entries.append(_read_value(field, data, pos, stop, depth))
    elif shape is _Shape.MAP:
        key, value = _read_entry(field, data, pos, stop, depth)
        out.setdefault(field.name, {})[key] = value
    else:
        _fill(out, field.kind, data, pos, stop, depth + 1)


def _read_packed(
    entries: list[Any], field: _Field, data: bytes, pos: int, stop: int
) -> None:
    while pos < stop:
        value, pos = _read_varint(data, pos, stop)
        entries.append(_signed(value) if field.kind == "i" else value != 0)


def _read_entry(
    field: _Field, data: bytes, pos: int, stop: int, depth: int
) -> tuple[str, Any]:
    """Read one entry of a map; a missing key or value is its zero."""
    key = ""
    value: Any = None
    while pos < stop:
        tag, pos = _read_varint(data, pos, stop)
        if tag & 7 != _BYTES:
            raise ProtobufError(f"{field.where}: a map entry of wire type {tag & 7}")
        length, pos = _read_varint(data, pos, stop)
        if pos + length > stop:
            raise ProtobufError(f"{field.where}: a map entry is cut short")
        if tag >> 3 == 1:
            key = _read_text(field, data, pos, pos + length)
        elif tag >> 3 == 2:
            value = _read_value(field, data, pos, pos + length, depth)
        pos += length
    if value is None:
        value = _read_value(field, b"", 0, 0, depth)
    return key, value


def _read_text(field: _Field, data: bytes, pos: int, stop: int) -> str:
    try:
        return data[pos:stop].decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"{field.where}: not UTF-8") from error


def _read_value(field: _Field, data: bytes, pos: int, stop: int, depth: int) -> Any:
    """Read a length-delimited value; ``None`` for one that means absent."""
    if field.struct:
        document: Document = {}
        _fill(document, field.kind, data, pos, stop, depth + 1)
        return document
    match field.kind:
        case "s":
            return _read_text(field, data, pos, stop)
        case "y":
            return base64.b64encode(data[pos:stop]).decode()
        case "Y":
            return data[pos:stop]
        case "T" | "U":
            return _read_time(field, data[pos:stop], depth)
        case "Q":
            amount = _read_leaf("Quantity", data[pos:stop], depth)
            return amount.get("string", "0")
        case "I":
            choice = _read_leaf("IntOrString", data[pos:stop], depth)
            if choice.get("type"):
                return choice.get("strVal", "")
            return choice.get("intVal", 0)
        case "F" | "R":
            return _read_json(field, data[pos:stop], depth)
        case "i" | "b":
            raise ProtobufError(f"{field.where}: bytes where a number belongs")
        case _:
            return _read_list(field, data, pos, stop, depth)


def _read_list(
    field: _Field, data: bytes, pos: int, stop: int, depth: int
) -> list[Any]:
    """Read a message that is a list in JSON: its one field repeats."""
    entry = _list_kind(field.kind)
    inner = _Field(
        field.name,
        _Shape.ONE,
        entry,
        struct=len(entry) > 1,
        keep_zero=True,
        where=field.where,
    )
    items: list[Any] = []
    while pos < stop:
        tag, pos = _read_varint(data, pos, stop)
        length, pos = _read_varint(data, pos, stop)
        if tag != (1 << 3 | _BYTES) or pos + length > stop:
            raise ProtobufError(f"{field.where}: a broken list")
        items.append(_read_value(inner, data, pos, pos + length, depth + 1))
        pos += length
    return items


def _read_leaf(name: str, data: bytes, depth: int) -> Document:
    leaf: Document = {}
    _fill(leaf, f"runtime.{name}", data, 0, len(data), depth + 1)
    return leaf


def _read_time(field: _Field, data: bytes, depth: int) -> str | None:
    """Read a time as RFC 3339; no bytes at all are Go's zero time: absent."""
    if not data:
        return None
    stamp = _read_leaf("Time", data, depth)
    try:
        moment = _EPOCH + timedelta(
            seconds=stamp.get("seconds", 0), microseconds=stamp.get("nanos", 0) // 1000
        )
    except OverflowError as error:
        raise ProtobufError(f"{field.where}: a time out of range") from error
    shape = "%Y-%m-%dT%H:%M:%S.%fZ" if field.kind == "U" else "%Y-%m-%dT%H:%M:%SZ"
    # strftime does not pad early years on every system
    return moment.strftime(shape).rjust(27 if field.kind == "U" else 20, "0")


def _read_json(field: _Field, data: bytes, depth: int) -> Any:
    """Read JSON that travels inside: field sets, and objects of any kind."""
    raw: bytes = _read_leaf("FieldsV1", data, depth).get("raw", b"")
    if not raw:
        return None
    if raw.startswith(MAGIC):
        return _decode_envelope(raw, depth + 1)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"{field.where}: the JSON inside is broken") from error
