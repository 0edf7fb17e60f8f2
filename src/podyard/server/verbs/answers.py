"""Objects as answers: whole, as a table, or their metadata alone."""

from collections.abc import Sequence
from datetime import datetime

import orjson

from podyard.api.documents import Document
from podyard.api.errors import bad_request
from podyard.server.call import Call, Form, Reply
from podyard.server.context import ServerContext
from podyard.server.registry import Registry, join_items
from podyard.server.resource import Resource
from podyard.server.table import build_row, build_table, partial_metadata
from podyard.store.backend import Row

_INCLUDES = ("None", "Metadata", "Object")


def include_of(call: Call) -> str:
    """Return what goes along with a table's cells.

    Raises:
        ApiError: 400, something else was asked.
    """
    text = call.info.param("includeObject") or "Metadata"
    if text not in _INCLUDES:
        raise bad_request(f'unrecognized includeObject value: "{text}"')
    return text


def answer_row(
    context: ServerContext,
    call: Call,
    row: Row,
    *,
    status: int = 200,
) -> Reply:
    """Return one stored object in the form the client wants."""
    registry, resource = context.registry, call.resource
    form = call.form
    if form is Form.OBJECT:
        return Reply(registry.splice(resource, row.value, row.rev), status)
    document = registry.decode(resource, row.value, row.rev)
    if form is Form.METADATA:
        return Reply(orjson.dumps(partial_metadata(document)), status)
    table = build_table(
        [build_row(resource, document, call.now, include=include_of(call))],
        columns=resource.columns,
        list_metadata={"resourceVersion": str(row.rev)},
    )
    return Reply(orjson.dumps(table), status)


def answer_document(document: Document, *, status: int = 200) -> Reply:
    """Return a document that is no stored object."""
    return Reply(orjson.dumps(document), status)


def encode_list(
    registry: Registry,
    resource: Resource,
    rows: Sequence[Row],
    list_metadata: Document,
) -> bytes:
    """Return a List; items are spliced, not decoded."""
    kind = resource.kind
    head = orjson.dumps(
        {
            "kind": kind.list_kind,
            "apiVersion": kind.api_version,
            "metadata": list_metadata,
        }
    )
    items = join_items(registry.splice(resource, row.value, row.rev) for row in rows)
    return b'%b,"items":[%b]}' % (head[:-1], items)


def encode_rows(
    registry: Registry,
    resource: Resource,
    rows: Sequence[Row],
    list_metadata: Document,
    *,
    form: Form,
    include: str,
    now: datetime,
) -> bytes:
    """Return rows as a List, a Table or a PartialObjectMetadataList."""
    if form is Form.OBJECT:
        return encode_list(registry, resource, rows, list_metadata)
    documents = (registry.decode(resource, row.value, row.rev) for row in rows)
    if form is Form.TABLE:
        built = [build_row(resource, d, now, include=include) for d in documents]
        return orjson.dumps(
            build_table(built, columns=resource.columns, list_metadata=list_metadata)
        )
    return orjson.dumps(
        {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": list_metadata,
            "items": [partial_metadata(document) for document in documents],
        }
    )
