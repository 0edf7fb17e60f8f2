import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.schema import (
    Checked,
    UnknownKindError,
    duplicate_fields,
    parse_json,
    strict_decoding_error,
)
from podyard.api.scheme import KINDS, Kind
from support.definitions import load_schemas

SCHEMAS = load_schemas()


def pod(**spec: Any) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "a", "image": "busybox"}], **spec},
    }


def container(**fields: Any) -> Document:
    return pod(containers=[{"name": "a", "image": "busybox", **fields}])


def check(document: Document) -> Checked:
    return SCHEMAS.check(document["apiVersion"], document["kind"], document)


def test_a_right_document_comes_back_as_it_is() -> None:
    document = pod(restartPolicy="Never", nodeSelector={"disk": "ssd"})

    checked = check(document)

    assert checked.document == document
    assert checked.faults == ()
    assert checked.unknown == ()


def test_the_document_handed_in_is_not_changed() -> None:
    document = container(
        nonsense=1, resources={"limits": {"cpu": 1}}, args=None, tty=False
    )
    before = copy.deepcopy(document)

    check(document)

    assert document == before


@pytest.mark.parametrize(
    ("document", "unknown"),
    [
        pytest.param(pod(x=1), "spec.x", id="struct"),
        pytest.param({**pod(), "x": 1}, "x", id="top"),
        pytest.param(container(x=1), "spec.containers[0].x", id="list"),
        pytest.param(
            container(env=[{"name": "A"}, {"name": "B", "valve": "1"}]),
            "spec.containers[0].env[1].valve",
            id="list-in-list",
        ),
        pytest.param(
            pod(overhead={"cpu": "1"}, securityContext={"runasuser": 0}),
            "spec.securityContext.runasuser",
            id="case-matters",
        ),
    ],
)
def test_an_unknown_field_is_named_and_left_out(
    document: Document, unknown: str
) -> None:
    checked = check(document)

    assert checked.unknown == (f'unknown field "{unknown}"',)
    assert checked.faults == ()
    assert check(checked.document).unknown == ()


def test_unknown_fields_are_named_in_the_order_of_the_document() -> None:
    document = pod(b=1, a=2)
    document["z"] = 3

    assert check(document).unknown == (
        'unknown field "spec.b"',
        'unknown field "spec.a"',
        'unknown field "z"',
    )


def test_no_more_than_a_hundred_unknown_fields_are_named() -> None:
    document = pod(**{f"x{number}": 1 for number in range(200)})

    assert len(check(document).unknown) == 100


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        pytest.param(
            pod(containers="a"),
            "json: cannot unmarshal string into Go struct field "
            "PodSpec.spec.containers of type []v1.Container",
            id="list",
        ),
        pytest.param(
            {**pod(), "spec": []},
            "json: cannot unmarshal array into Go struct field "
            "Pod.spec of type v1.PodSpec",
            id="struct",
        ),
        pytest.param(
            pod(hostNetwork="yes"),
            "json: cannot unmarshal string into Go struct field "
            "PodSpec.spec.hostNetwork of type bool",
            id="boolean",
        ),
        pytest.param(
            pod(restartPolicy=True),
            "json: cannot unmarshal bool into Go struct field "
            "PodSpec.spec.restartPolicy of type v1.RestartPolicy",
            id="named-string",
        ),
        pytest.param(
            pod(nodeSelector={"gpu": 1}),
            "json: cannot unmarshal number into Go struct field "
            "PodSpec.spec.nodeSelector of type string",
            id="map-value",
        ),
        pytest.param(
            container(args=["sleep", 1]),
            "json: cannot unmarshal number into Go struct field "
            "Container.spec.containers.args of type string",
            id="list-entry",
        ),
        pytest.param(
            container(ports=[{"containerPort": 80.5}]),
            "json: cannot unmarshal number 80.5 into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
            id="fraction",
        ),
        pytest.param(
            container(ports=[{"containerPort": 1 << 40}]),
            "json: cannot unmarshal number 1099511627776 into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
            id="too-large-for-int32",
        ),
        pytest.param(
            container(ports=[{"containerPort": "80"}]),
            "json: cannot unmarshal string into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
            id="number-as-text",
        ),
        pytest.param(
            container(livenessProbe={"httpGet": {"port": {}}}),
            "json: cannot unmarshal object into Go struct field "
            "HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
            id="int-or-string",
        ),
        pytest.param(
            pod(volumes=[None, "x"]),
            "json: cannot unmarshal string into Go struct field "
            "PodSpec.spec.volumes of type v1.Volume",
            id="entry-of-a-list-of-structs",
        ),
        pytest.param(
            container(resources={"limits": {"cpu": "many"}}),
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            id="quantity",
        ),
        pytest.param(
            container(resources={"limits": {"cpu": False}}),
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            id="quantity-is-no-boolean",
        ),
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"creationTimestamp": "yesterday"},
            },
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": '
            'cannot parse "yesterday" as "2006"',
            id="time",
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "Secret", "data": {"a": "no base64!"}},
            "illegal base64 data at input byte 2",
            id="bytes",
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "Secret", "data": {"a": "YWJj="}},
            "illegal base64 data at input byte 4",
            id="bytes-padded-too-much",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_told_as_go_tells_it(
    document: Document, fault: str
) -> None:
    assert check(document).faults == (fault,)


def test_a_value_its_type_refuses_is_told_before_a_wrong_json_type() -> None:
    document = container(args=[1], resources={"limits": {"cpu": "many"}})

    first, second = check(document).faults

    assert first.startswith("quantities must match")
    assert second.startswith("json: cannot unmarshal number")


def test_no_object_at_all_is_a_fault() -> None:
    nothing: Any = ["no", "pod"]

    checked = SCHEMAS.check("v1", "Pod", nothing)

    assert checked.faults == (
        "json: cannot unmarshal array into Go value of type v1.Pod",
    )


def test_decoding_refuses_a_fault_as_a_bad_request() -> None:
    with pytest.raises(ApiError) as caught:
        SCHEMAS.decode("v1", "Pod", pod(containers="a"))

    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal '
        "string into Go struct field PodSpec.spec.containers of type []v1.Container"
    )


def test_strict_decoding_names_every_problem() -> None:
    error = strict_decoding_error(
        "apps/v1",
        "Deployment",
        ['unknown field "spec.x"', 'duplicate field "spec.replicas"'],
    )

    assert error.code == 400
    assert error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict '
        'decoding error: unknown field "spec.x", duplicate field "spec.replicas"'
    )


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        pytest.param({"cpu": 1}, {"cpu": "1"}, id="integer"),
        pytest.param({"cpu": 0.5}, {"cpu": "500m"}, id="fraction"),
        pytest.param({"cpu": "0.5"}, {"cpu": "500m"}, id="text-is-canonical-too"),
        pytest.param({"memory": "1024Mi"}, {"memory": "1Gi"}, id="binary"),
        pytest.param({"cpu": None}, {"cpu": "0"}, id="null-is-nothing"),
    ],
)
def test_quantities_are_kept_as_canonical_text(given_: Any, kept: Any) -> None:
    checked = check(container(resources={"limits": given_}))

    assert checked.faults == ()
    resources = checked.document["spec"]["containers"][0]["resources"]
    assert resources == {"limits": kept}


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        pytest.param({"tty": False}, {}, id="false"),
        pytest.param({"image": ""}, {"image": ""}, id="empty-string"),
        pytest.param({"args": []}, {}, id="empty-list"),
        pytest.param({"args": None}, {}, id="null"),
        pytest.param({"restartPolicy": ""}, {"restartPolicy": ""}, id="pointer"),
        pytest.param({"resources": {}}, {"resources": {}}, id="struct"),
        pytest.param(
            {"ports": [{"containerPort": 0, "hostPort": 0}]},
            {"ports": [{"containerPort": 0}]},
            id="required-number-stays",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 0, "privileged": False}},
            {"securityContext": {"runAsUser": 0, "privileged": False}},
            id="pointers-to-zero",
        ),
        pytest.param({"args": ["a", None]}, {"args": ["a", ""]}, id="null-entry"),
    ],
)
def test_what_go_would_not_write_is_dropped(given_: Any, kept: Any) -> None:
    fields = {"name": "a", **given_}
    document = pod(containers=[fields])

    checked = check(document)

    expected = {"name": "a", **kept}
    if expected.get("image") == "":
        del expected["image"]
    assert checked.document["spec"]["containers"] == [expected]


@pytest.mark.parametrize(
    ("kind", "field", "given_", "kept"),
    [
        pytest.param(
            "Pod", "creationTimestamp", "2024-02-03T04:05:06Z", None, id="utc"
        ),
        pytest.param(
            "Pod",
            "creationTimestamp",
            "2024-02-03T04:05:06.789Z",
            "2024-02-03T04:05:06Z",
            id="fraction",
        ),
        pytest.param(
            "Pod",
            "deletionTimestamp",
            "2024-02-03T04:05:06+02:00",
            "2024-02-03T02:05:06Z",
            id="offset",
        ),
    ],
)
def test_times_are_kept_in_utc_and_whole_seconds(
    kind: str, field: str, given_: str, kept: str | None
) -> None:
    document = {"apiVersion": "v1", "kind": kind, "metadata": {field: given_}}

    assert check(document).document["metadata"][field] == (kept or given_)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        pytest.param("2024-02-03T04:05:06Z", "2024-02-03T04:05:06.000000Z", id="none"),
        pytest.param(
            "2024-02-03T04:05:06.1234567Z", "2024-02-03T04:05:06.123456Z", id="cut"
        ),
        pytest.param(
            "2024-02-03T04:05:06.5-01:00", "2024-02-03T05:05:06.500000Z", id="offset"
        ),
    ],
)
def test_micro_times_have_six_digits(given_: Any, kept: Any) -> None:
    document = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": {"renewTime": given_},
    }

    assert check(document).document["spec"] == {"renewTime": kept}


def test_line_breaks_in_base64_are_taken_out() -> None:
    document = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "YWJj\nZGVm\n"}}

    checked = check(document)

    assert checked.faults == ()
    assert checked.document["data"] == {"a": "YWJjZGVm"}


def test_a_raw_extension_may_hold_anything() -> None:
    data = {"any": [1, None, {"x": ""}]}
    document = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "revision": 1,
        "data": data,
    }

    assert check(document).document["data"] == data


def test_a_target_port_that_is_zero_is_absent() -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {"ports": [{"port": 80, "targetPort": 0}]},
    }

    assert check(document).document["spec"]["ports"] == [{"port": 80}]


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        pytest.param("autoscaling/v1", "Scale", id="scale"),
        pytest.param("policy/v1", "Eviction", id="eviction"),
        pytest.param("authentication.k8s.io/v1", "TokenRequest", id="token"),
        pytest.param("authorization.k8s.io/v1", "SelfSubjectAccessReview", id="review"),
        pytest.param("v1", "Binding", id="binding"),
        pytest.param("v1", "DeleteOptions", id="delete-options"),
        pytest.param("v1", "Status", id="status"),
    ],
)
def test_kinds_that_are_never_stored_can_be_checked(
    api_version: str, kind: str
) -> None:
    document = {"apiVersion": api_version, "kind": kind, "nonsense": 1}

    checked = SCHEMAS.check(api_version, kind, document)

    assert checked.unknown == ('unknown field "nonsense"',)


def test_an_unknown_kind_is_no_kind_of_ours() -> None:
    assert not SCHEMAS.has("example.com/v1", "Widget")
    with pytest.raises(UnknownKindError, match="Widget"):
        SCHEMAS.check("example.com/v1", "Widget", {})


# --- laws ---------------------------------------------------------------------

NAMES = [
    "spec",
    "metadata",
    "containers",
    "name",
    "ports",
    "labels",
    "cpu",
    "resources",
    "limits",
    "volumes",
    "env",
    "args",
    "x",
    "data",
    "status",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(document=JSON, kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_any_json_is_checked_without_an_exception(document: Any, kind: Kind) -> None:
    checked = SCHEMAS.check(kind.api_version, kind.kind, document)

    json.dumps(checked.document)


@given(document=JSON, kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_checking_what_was_kept_changes_nothing(document: Any, kind: Kind) -> None:
    first = SCHEMAS.check(kind.api_version, kind.kind, document)
    second = SCHEMAS.check(kind.api_version, kind.kind, first.document)

    assert second.unknown == ()
    if not first.faults:
        assert second.faults == ()
        assert second.document == first.document


# --- duplicates ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        pytest.param('{"a":1,"b":[{"c":1}]}', [], id="none"),
        pytest.param('{"a":1,"a":2}', ["a"], id="top"),
        pytest.param('{"a":1,"a":2,"a":3}', ["a"], id="told-once"),
        pytest.param('{"s":{"l":[{},{"x":1,"x":1}]}}', ["s.l[1].x"], id="deep"),
        pytest.param(
            '{"a":1,"b":{"c":1,"c":2},"a":2}', ["a", "b.c"], id="at-two-levels"
        ),
        pytest.param('[{"a":1,"a":2}]', ["[0].a"], id="in-a-list"),
    ],
)
def test_duplicate_fields_are_named(body: str, paths: list[str]) -> None:
    expected = tuple(f'duplicate field "{path}"' for path in paths)

    assert duplicate_fields(body.encode()) == expected


def test_broken_json_is_a_bad_request() -> None:
    with pytest.raises(ApiError, match="json parse error") as caught:
        parse_json(b'{"a":')

    assert caught.value.code == 400


# --- patch metadata -----------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "strategies", "merge_key", "list_type", "keys"),
    [
        pytest.param(
            ("v1", "Pod"),
            "spec.containers",
            ("merge",),
            "name",
            "map",
            ("name",),
            id="containers",
        ),
        pytest.param(
            ("v1", "Pod"),
            "spec.volumes",
            ("merge", "retainKeys"),
            "name",
            "map",
            ("name",),
            id="volumes-have-two-strategies",
        ),
        pytest.param(
            ("v1", "Pod"),
            "spec.containers.ports",
            ("merge",),
            "containerPort",
            "map",
            ("containerPort", "protocol"),
            id="ports-have-two-keys",
        ),
        pytest.param(
            ("v1", "Pod"), "spec.tolerations", (), None, "atomic", (), id="tolerations"
        ),
        pytest.param(
            ("v1", "Pod"), "metadata.finalizers", ("merge",), None, "set", (), id="set"
        ),
        pytest.param(
            ("apps/v1", "Deployment"),
            "spec.strategy",
            ("retainKeys",),
            None,
            None,
            (),
            id="strategy",
        ),
        pytest.param(
            ("apps/v1", "Deployment"),
            "spec.template.spec.containers.env",
            ("merge",),
            "name",
            "map",
            ("name",),
            id="through-the-template",
        ),
        pytest.param(
            ("v1", "ConfigMap"), "data", (), None, None, (), id="a-map-says-nothing"
        ),
    ],
)
def test_patch_metadata_of_a_field(
    kind: tuple[str, str],
    path: str,
    strategies: tuple[str, ...],
    merge_key: str | None,
    list_type: str | None,
    keys: tuple[str, ...],
) -> None:
    field = SCHEMAS.merge_info(kind[0], kind[1], path.split("."))

    assert field is not None
    assert field.patch_strategies == strategies
    assert field.merge_key == merge_key
    assert field.list_type == list_type
    assert field.list_map_keys == keys


def test_an_unknown_path_has_no_patch_metadata() -> None:
    assert SCHEMAS.merge_info("v1", "Pod", ("spec", "nonsense")) is None


def test_patch_schema_tells_structs_lists_and_maps_apart() -> None:
    spec = SCHEMAS.patch_schema("v1", "Pod").properties["spec"]
    containers = spec.properties["containers"]
    selector = spec.properties["nodeSelector"]

    assert spec.type == "object"
    assert containers.items is not None
    assert "image" in containers.items.properties
    assert selector.values is not None
    assert selector.values.type == "string"
    assert len(selector.properties) == 0


def test_a_key_that_may_be_absent_has_its_default() -> None:
    ports = SCHEMAS.merge_info("v1", "Pod", ("spec", "containers", "ports", "protocol"))

    assert ports is not None
    assert ports.default == "TCP"


def test_fields_are_made_once() -> None:
    kind = SCHEMAS.patch_schema("v1", "Pod")

    assert kind is SCHEMAS.patch_schema("v1", "Pod")
    assert kind.properties["spec"] is kind.properties["spec"]
    with pytest.raises(KeyError):
        kind.properties["nonsense"]
