import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podyard.api.documents import Document
from podyard.api.protobuf import (
    MAGIC,
    MAX_DEPTH,
    ProtobufError,
    decode_protobuf,
    knows_kind,
    message_fields,
)
from podyard.api.protobuf_table import MESSAGES
from podyard.api.scheme import KINDS, Kind
from support.definitions import load_schemas

GOLDEN = Path(__file__).parents[2] / "golden" / "protobuf"
BODIES = sorted(GOLDEN.glob("*.bin"))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def chunk(number: int, payload: bytes | str) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def envelope(api_version: str, kind: str, raw: bytes, **extra: bytes) -> bytes:
    meta = chunk(1, api_version) + chunk(2, kind)
    return MAGIC + chunk(1, meta) + chunk(2, raw) + b"".join(extra.values())


def decode(api_version: str, kind: str, raw: bytes) -> Document:
    document = decode_protobuf(envelope(api_version, kind, raw))
    assert document.pop("apiVersion") == api_version
    assert document.pop("kind") == kind
    return document


@pytest.mark.parametrize("body", BODIES, ids=[body.stem for body in BODIES])
def test_what_kubectl_sends_is_what_it_would_have_said_in_json(body: Path) -> None:
    expected = json.loads(body.with_suffix(".json").read_text())

    assert decode_protobuf(body.read_bytes()) == expected


@pytest.mark.parametrize("body", BODIES, ids=[body.stem for body in BODIES])
def test_a_decoded_body_fits_its_schema(body: Path) -> None:
    document = decode_protobuf(body.read_bytes())

    checked = load_schemas().check(document["apiVersion"], document["kind"], document)

    assert checked.faults == ()
    assert checked.unknown == ()


def test_there_are_recorded_bodies() -> None:
    assert len(BODIES) >= 12


@pytest.mark.parametrize("kind", KINDS, ids=[kind.qualified_resource for kind in KINDS])
def test_every_served_kind_and_its_list_can_be_decoded(kind: Kind) -> None:
    assert knows_kind(kind.api_version, kind.kind)
    assert knows_kind(kind.api_version, kind.list_kind)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("autoscaling/v1", "Scale"),
        ("policy/v1", "Eviction"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("authentication.k8s.io/v1", "TokenReview"),
        ("authorization.k8s.io/v1", "LocalSubjectAccessReview"),
        ("v1", "Binding"),
        ("v1", "DeleteOptions"),
        ("apps/v1", "DeleteOptions"),
    ],
)
def test_kinds_that_are_never_stored_can_be_decoded(
    api_version: str, kind: str
) -> None:
    assert knows_kind(api_version, kind)


def test_each_field_of_the_table_is_in_the_schema() -> None:
    """The table and the definitions are of one release; only the alpha differs."""
    schemas = load_schemas()
    missing = set()
    for package, text in MESSAGES.items():
        lead = (
            "io.k8s.api." if package != "meta.v1" else "io.k8s.apimachinery.pkg.apis."
        )
        for line in text.strip().splitlines():
            name = line.partition(":")[0]
            definition = schemas.definitions.get(f"{lead}{package}.{name}")
            if definition is not None:
                fields = message_fields(f"{package}.{name}")
                properties = definition.get("properties", {})
                missing |= {f"{name}.{f}" for f in fields if f not in properties}

    assert missing == set()


@pytest.mark.parametrize(
    ("raw", "spec"),
    [
        pytest.param(number(4, 0), {"terminationGracePeriodSeconds": 0}, id="pointer"),
        pytest.param(number(11, 0), {}, id="false-that-is-no-pointer"),
        pytest.param(number(11, 1), {"hostNetwork": True}, id="true"),
        pytest.param(chunk(3, ""), {}, id="empty-string"),
        pytest.param(number(25, -5), {"priority": -5}, id="negative"),
        pytest.param(
            chunk(7, chunk(1, "a") + chunk(2, "b")),
            {"nodeSelector": {"a": "b"}},
            id="map",
        ),
        pytest.param(chunk(7, b""), {"nodeSelector": {"": ""}}, id="empty-map-entry"),
        pytest.param(
            chunk(32, chunk(1, "cpu") + chunk(2, chunk(1, "250m"))),
            {"overhead": {"cpu": "250m"}},
            id="map-of-quantities",
        ),
        pytest.param(chunk(14, b""), {"securityContext": {}}, id="empty-struct"),
        pytest.param(
            chunk(14, number(4, 1) + number(4, 70000)),
            {"securityContext": {"supplementalGroups": [1, 70000]}},
            id="numbers-one-by-one",
        ),
        pytest.param(
            chunk(14, chunk(4, varint(1) + varint(70000))),
            {"securityContext": {"supplementalGroups": [1, 70000]}},
            id="numbers-packed",
        ),
        pytest.param(
            chunk(14, number(2, 5)) + chunk(14, number(5, 6)),
            {"securityContext": {"runAsUser": 5, "fsGroup": 6}},
            id="a-struct-in-two-parts-is-one",
        ),
        pytest.param(
            chunk(1, chunk(1, "v") + chunk(2, chunk(2, b""))),
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            id="an-inlined-struct-belongs-to-its-parent",
        ),
        pytest.param(chunk(99, "new") + chunk(10, "n1"), {"nodeName": "n1"}, id="new"),
        pytest.param(
            varint(98 << 3 | 1) + bytes(8) + varint(97 << 3 | 5) + bytes(4),
            {},
            id="unknown-fixed-sizes",
        ),
        pytest.param(number(96, 1 << 60), {}, id="unknown-number"),
    ],
)
def test_fields_of_a_pod_spec(raw: bytes, spec: Document) -> None:
    assert decode("v1", "Pod", chunk(2, raw)) == {"spec": spec}


@pytest.mark.parametrize(
    ("raw", "metadata"),
    [
        pytest.param(
            chunk(8, number(1, 86400) + number(2, 500)),
            {"creationTimestamp": "1970-01-02T00:00:00Z"},
            id="time",
        ),
        pytest.param(chunk(8, b""), {}, id="zero-time-is-absent"),
        pytest.param(
            chunk(8, number(1, -1)),
            {"creationTimestamp": "1969-12-31T23:59:59Z"},
            id="before-the-epoch",
        ),
        pytest.param(
            chunk(17, chunk(7, chunk(1, '{"f:spec":{}}'))),
            {"managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            id="field-set",
        ),
        pytest.param(number(7, 0) + chunk(1, "x"), {"name": "x"}, id="generation-0"),
    ],
)
def test_fields_of_the_metadata(raw: bytes, metadata: Document) -> None:
    assert decode("v1", "Pod", chunk(1, raw)) == {"metadata": metadata}


def test_a_micro_time_has_six_digits() -> None:
    raw = chunk(2, chunk(4, number(1, 1) + number(2, 123456789)))

    document = decode("coordination.k8s.io/v1", "Lease", raw)

    assert document == {"spec": {"renewTime": "1970-01-01T00:00:01.123456Z"}}


@pytest.mark.parametrize(
    ("raw", "port"),
    [
        pytest.param(
            chunk(4, number(1, 0) + number(2, 8080)), {"targetPort": 8080}, id="int"
        ),
        pytest.param(
            chunk(4, number(1, 1) + number(2, 0) + chunk(3, "http")),
            {"targetPort": "http"},
            id="string",
        ),
        pytest.param(chunk(4, number(1, 0) + number(2, 0)), {}, id="zero-is-absent"),
    ],
)
def test_an_int_or_string(raw: bytes, port: Document) -> None:
    document = decode("v1", "Service", chunk(2, chunk(1, raw)))

    assert document == {"spec": {"ports": [port]}}


def test_a_message_that_only_wraps_a_list_is_a_list() -> None:
    extra = chunk(4, chunk(1, "scopes") + chunk(2, chunk(1, "a") + chunk(1, "b")))

    document = decode(
        "authentication.k8s.io/v1", "SelfSubjectReview", chunk(2, chunk(1, extra))
    )

    assert document == {"status": {"userInfo": {"extra": {"scopes": ["a", "b"]}}}}


def test_raw_json_inside_is_parsed() -> None:
    raw = chunk(2, chunk(1, '{"spec":{"x":[1]}}')) + number(3, 7)

    document = decode("apps/v1", "ControllerRevision", raw)

    assert document == {"data": {"spec": {"x": [1]}}, "revision": 7}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(b"", "expected prefix", id="empty"),
        pytest.param(b'{"kind":"Pod"}', "expected prefix", id="json"),
        pytest.param(MAGIC, 'no kind "" is registered', id="nothing-after-the-magic"),
        pytest.param(
            envelope("example.com/v1", "Widget", b""),
            'no kind "Widget" is registered for version "example.com/v1"',
            id="unknown-kind",
        ),
        pytest.param(
            envelope("v1", "Pod", b"", coding=chunk(3, "gzip")),
            "content encoding 'gzip'",
            id="encoded",
        ),
        pytest.param(
            MAGIC + b"\x0a\xff\xff\xff\xff\x0f", "claims", id="hostile-length"
        ),
        pytest.param(MAGIC + b"\x0a", "ends inside a number", id="no-length"),
        pytest.param(MAGIC + b"\xff" * 11, "longer than ten bytes", id="long-number"),
        pytest.param(
            envelope("v1", "Pod", chunk(2, chunk(10, b"\xff\xfe"))),
            "PodSpec.nodeName: not UTF-8",
            id="not-utf-8",
        ),
        pytest.param(
            envelope("v1", "Pod", chunk(2, number(10, 1))),
            "PodSpec.nodeName: a number where none belongs",
            id="number-for-text",
        ),
        pytest.param(
            envelope("v1", "Pod", chunk(2, chunk(11, "yes"))),
            "PodSpec.hostNetwork: bytes where a number belongs",
            id="text-for-number",
        ),
        pytest.param(envelope("v1", "Pod", b"\x0b\x0c"), "wire type 3", id="group"),
        pytest.param(
            envelope("v1", "Pod", b"\x02\x00"), "", id="field-zero-is-skipped"
        ),
        pytest.param(
            envelope("v1", "Pod", b"\x59\x00"), "is cut short", id="fixed-cut-short"
        ),
        pytest.param(
            envelope("v1", "Pod", chunk(1, chunk(8, number(1, 1 << 62)))),
            "a time out of range",
            id="time-out-of-range",
        ),
        pytest.param(
            envelope("apps/v1", "ControllerRevision", chunk(2, chunk(1, "{"))),
            "the JSON inside is broken",
            id="broken-json-inside",
        ),
        pytest.param(
            envelope("v1", "Pod", chunk(2, chunk(7, b"\x0a\x7f"))),
            "a map entry is cut short",
            id="map-entry-cut-short",
        ),
        pytest.param(
            envelope("v1", "Pod", chunk(2, chunk(7, number(1, 1)))),
            "a map entry of wire type 0",
            id="map-key-is-a-number",
        ),
    ],
)
def test_a_broken_body_says_where_it_breaks(body: bytes, why: str) -> None:
    if not why:
        assert decode_protobuf(body) == {"apiVersion": "v1", "kind": "Pod"}
        return
    with pytest.raises(ProtobufError) as caught:
        decode_protobuf(body)

    assert why in str(caught.value)


def test_bodies_nested_in_bodies_for_ever_are_refused() -> None:
    body = envelope("apps/v1", "ControllerRevision", number(3, 1))
    for _ in range(MAX_DEPTH):
        body = envelope("apps/v1", "ControllerRevision", chunk(2, chunk(1, body)))

    with pytest.raises(ProtobufError, match="nested deeper"):
        decode_protobuf(body)


def test_an_unknown_message_has_no_fields() -> None:
    assert message_fields("example.v1.Widget") == {}
    assert message_fields("core.v1.Widget") == {}


# --- laws ---------------------------------------------------------------------


@given(noise=st.binary(max_size=200), kind=st.sampled_from(KINDS))
@settings(max_examples=300, deadline=None)
def test_noise_is_decoded_or_refused_and_nothing_else(noise: bytes, kind: Kind) -> None:
    body = envelope(kind.api_version, kind.kind, noise)

    try:
        document = decode_protobuf(body)
    except ProtobufError:
        return
    json.dumps(document)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_recording_is_decoded_or_refused(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(BODIES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))

    with contextlib.suppress(ProtobufError):
        json.dumps(decode_protobuf(bytes(body[:cut])))


@given(
    data=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=5),
    binary=st.dictionaries(st.text(max_size=8), st.binary(max_size=20), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_a_config_map_survives_the_wire(
    data: dict[str, str], binary: dict[str, bytes]
) -> None:
    raw = b"".join(chunk(2, chunk(1, k) + chunk(2, v)) for k, v in data.items())
    raw += b"".join(chunk(3, chunk(1, k) + chunk(2, v)) for k, v in binary.items())

    document = decode("v1", "ConfigMap", raw)

    assert document.get("data", {}) == data
    assert document.get("binaryData", {}) == {
        key: base64.b64encode(value).decode() for key, value in binary.items()
    }
