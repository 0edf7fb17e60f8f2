"""The wire form is read back by a reader of its own, from the field numbers."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podyard.api.openapi import build_v2_document
from podyard.api.openapi_wire import encode_openapi_v2
from podyard.api.scheme import KINDS
from support.definitions import load_definitions

Message = dict[int, list[Any]]


def read(data: bytes) -> Message:
    """Split a message into its fields; chunks stay bytes."""
    fields: Message = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        tag = varint()
        value: Any = varint()
        if tag & 7 == 2:
            size, value = value, data[place : place + value]
            assert len(value) == size
            place += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def text(message: Message, number: int) -> str:
    value: bytes = message.get(number, [b""])[0]
    return value.decode()


def named(message: Message, number: int) -> dict[str, bytes]:
    pairs = (read(entry) for entry in message.get(number, []))
    return {text(pair, 1): pair[2][0] for pair in pairs}


def read_any(data: bytes) -> Any:
    return json.loads(text(read(data), 2))


def read_schema(data: bytes) -> dict[str, Any]:
    message = read(data)
    schema: dict[str, Any] = {}
    for number, name in ((1, "$ref"), (2, "format"), (4, "description")):
        if number in message:
            schema[name] = text(message, number)
    if 5 in message:
        schema["default"] = read_any(message[5][0])
    if 19 in message:
        schema["required"] = [item.decode() for item in message[19]]
    if 21 in message:
        schema["additionalProperties"] = read_schema(read(message[21][0])[1][0])
    if 22 in message:
        schema["type"] = text(read(message[22][0]), 1)
    if 23 in message:
        schema["items"] = read_schema(read(message[23][0])[1][0])
    if 25 in message:
        properties = named(read(message[25][0]), 1)
        schema["properties"] = {n: read_schema(s) for n, s in properties.items()}
    for name, value in named(message, 31).items():
        schema[name] = read_any(value)
    return schema


@pytest.fixture(scope="module")
def document() -> Message:
    whole = build_v2_document(load_definitions(), release="v1.36.0")
    return read(encode_openapi_v2(whole))


def test_the_document_says_what_it_is(document: Message) -> None:
    info = read(document[2][0])

    assert text(document, 1) == "2.0"
    assert (text(info, 1), text(info, 2)) == ("Kubernetes", "v1.36.0")


def test_every_definition_survives_the_wire(document: Message) -> None:
    written = named(read(document[9][0]), 1)

    assert {name: read_schema(data) for name, data in written.items()} == (
        load_definitions()
    )


def test_every_kind_has_a_patch_that_takes_dry_run(document: Message) -> None:
    paths = named(read(document[8][0]), 2)

    for kind in KINDS:
        operation = read(read(paths[kind.path("{namespace}", "{name}")])[8][0])
        extensions = {n: read_any(v) for n, v in named(operation, 13).items()}
        assert extensions["x-kubernetes-group-version-kind"] == {
            "group": kind.group,
            "kind": kind.kind,
            "version": kind.version,
        }
        queries = [
            read(read(read(read(item)[1][0])[2][0])[3][0]) for item in operation[8]
        ]
        assert "dryRun" in {text(query, 4) for query in queries}


def test_path_parameters_are_path_parameters(document: Message) -> None:
    item = read(named(read(document[8][0]), 2)["/api/v1/nodes/{name}"])
    parameter = read(read(read(read(item[9][0])[1][0])[2][0])[4][0])

    assert text(parameter, 4) == "name"
    assert parameter[1] == [1]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param({"additionalProperties": True}, {21: [b"\x10\x01"]}, id="true"),
        pytest.param({"additionalProperties": False}, {21: [b"\x10\x00"]}, id="false"),
        pytest.param({"title": "left out"}, {}, id="a-name-of-no-table"),
    ],
)
def test_a_schema_on_the_wire(schema: Mapping[str, Any], expected: Message) -> None:
    body = encode_openapi_v2({"definitions": {"X": schema}})

    assert read(named(read(read(body)[9][0]), 1)["X"]) == expected


SCHEMA = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer"])},
        optional={"description": st.text(max_size=300), "x-any": st.text()},
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"additionalProperties": inner}),
        st.fixed_dictionaries(
            {"properties": st.dictionaries(st.text(max_size=9), inner, max_size=3)}
        ),
    ),
    max_leaves=12,
)


@given(schema=SCHEMA)
@settings(max_examples=100, deadline=None)
def test_any_schema_survives_the_wire(schema: dict[str, Any]) -> None:
    body = encode_openapi_v2({"definitions": {"X": schema}})

    assert read_schema(named(read(read(body)[9][0]), 1)["X"]) == schema
