import re

import pytest

from podyard.api.openapi import OpenApiDocuments
from podyard.server.build import parse_request
from podyard.server.site import Site
from support.definitions import load_definitions

SITE = Site(OpenApiDocuments(load_definitions(), "v1.36.0"), {}, lambda: b"")
#: RFC 7231's media type, which Go's parser insists on: no "@" in a subtype.
MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;.*)?")


@pytest.mark.parametrize(
    "asked",
    [
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        "application/json",
    ],
)
def test_openapi_v2_comes_with_a_media_type_that_every_client_can_parse(asked):
    reply = SITE.answer(parse_request("GET", "/openapi/v2"), {"Accept": asked})

    assert reply is not None
    assert MEDIA_TYPE.fullmatch(reply.content_type)
