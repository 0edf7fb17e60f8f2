"""Small readers of requests: Accept, continue tokens, discovery, event views."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.api.errors import ApiError
from podyard.server.app import load_resources
from podyard.server.call import Form, parse_accept
from podyard.server.discovery import Discovery, served_kinds
from podyard.server.resources.events_v1 import from_core, to_core
from podyard.server.verbs.options import decode_continue, encode_continue

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.OBJECT),
        ("*/*", Form.OBJECT),
        ("application/json", Form.OBJECT),
        ("application/vnd.kubernetes.protobuf,application/json", Form.OBJECT),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form.TABLE),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form.TABLE),
        ("application/json;as=Table;v=v9,application/json", Form.OBJECT),
        (
            "application/vnd.kubernetes.protobuf;as=Table;v=v1,application/json",
            Form.OBJECT,
        ),
        ("application/json;as=PartialObjectMetadataList;v=v1", Form.METADATA),
        ("text/html, */*;q=0.8", Form.OBJECT),
    ],
)
def test_the_first_form_we_can_give_is_given(accept, form):
    assert parse_accept(accept) is form


@given(st.integers(min_value=0, max_value=2**62), st.text(max_size=30))
def test_a_continue_token_comes_back_as_it_went(rev, start):
    assert decode_continue(encode_continue(rev, start)) == (start, rev)


@given(st.text(max_size=40))
def test_a_strange_token_is_refused_and_never_a_crash(text):
    refused: list[int] = []
    try:
        decode_continue(text)
    except ApiError as error:
        refused.append(error.code)

    assert refused in ([], [400])


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"message": "m", "involvedObject": {"name": "p"}, "count": 3},
        {"eventTime": "t", "reportingComponent": "c", "series": {"count": 2}},
    ],
)
def test_an_event_seen_from_the_other_group_and_back_is_the_same(event):
    stored = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, **event}

    assert to_core(from_core(stored)) == stored
    assert from_core(stored)["apiVersion"] == "events.k8s.io/v1"


@pytest.fixture
def discovery() -> Discovery:
    return Discovery(served_kinds(load_resources(), ()))


def test_discovery_is_aggregated_where_that_is_asked_for(discovery: Discovery):
    reply = discovery.answer("/apis", f"{AGGREGATED},application/json", address="")

    assert reply is not None
    assert reply.content_type.endswith(
        ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    )
    assert b'"APIGroupDiscoveryList"' in reply.body


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api", b'"versions":["v1"]'),
        ("/apis", b'"APIGroupList"'),
        ("/apis/apps", b'"preferredVersion":{"groupVersion":"apps/v1"'),
        ("/api/v1", b'"name":"pods/eviction"'),
        ("/apis/apps/v1", b'"name":"deployments/scale"'),
    ],
)
def test_the_old_form_is_there_for_who_asks_for_json(discovery, path, said):
    reply = discovery.answer(path, "application/json", address="x:1")

    assert reply is not None
    assert reply.content_type == "application/json"
    assert said in reply.body


@pytest.mark.parametrize("path", ["/apis/nothing", "/api/v2", "/apis/apps/v2", "/x"])
def test_what_is_not_there_is_not_discovered(discovery, path):
    assert discovery.answer(path, "", address="") is None
