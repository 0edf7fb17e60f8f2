import json

import pytest

from podyard.api.openapi import OpenApiDocuments
from podyard.lib.parts import load_parts
from podyard.server import resources
from podyard.server.resource import Resource
from support.definitions import load_definitions

DOCUMENTS = OpenApiDocuments(load_definitions(), "v1.36.0")
SERVED = load_parts(resources, Resource)


@pytest.mark.parametrize(
    "resource", SERVED, ids=[part.kind.qualified_resource for part in SERVED]
)
def test_what_is_served_below_an_object_is_what_clients_are_told(
    resource: Resource,
) -> None:
    kind = resource.kind
    root = kind.path("{namespace}", "{name}") + "/"
    document = DOCUMENTS.v3(kind.path().rpartition("/")[0].removeprefix("/"))
    assert document is not None

    told = {
        path.removeprefix(root)
        for path in json.loads(document.body)["paths"]
        if path.startswith(root) and "/" not in path.removeprefix(root)
    }
    # a namespace's path is also the root of all that is in it
    told = {name for name in told if not name.startswith("{")}

    assert {part.name for part in resource.subresources} <= told
