"""UPDATE: PUT of an object or one of its document subresources."""

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.server.body import is_dry_run, read_object
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_row
from podyard.server.verbs.writing import (
    Change,
    change_object,
    check_name,
    copy_document,
    create_object,
    metadata_of,
)


async def update(context: ServerContext, call: Call) -> Reply:
    """Replace an object, its status or its ephemeral containers by the body.

    Raises:
        ApiError: 400, 403, 404, 409, 415 or 422.
    """
    resource, info = call.resource, call.info
    document = read_object(
        call,
        context.schemas,
        resource.kind.api_version,
        resource.kind.kind,
        options_kind="UpdateOptions",
    )
    dry_run = is_dry_run(call, "UpdateOptions")
    metadata = metadata_of(document)
    metadata.setdefault("name", info.name)
    check_name(str(metadata["name"]), info.name)

    def make(_: Document) -> Document:
        return copy_document(document)

    has_rev = metadata.get("resourceVersion") not in {None, "", "0"}
    change = Change(
        make,
        subresource=info.subresource,
        dry_run=dry_run,
        retry=not has_rev,
        needs_rev=True,
    )
    try:
        row = await change_object(context, call, change)
    except ApiError as error:
        may_create = resource.strategy.create_on_update and not info.subresource
        if error.code != 404 or not may_create or has_rev or metadata.get("uid"):
            raise
        row = await create_object(context, call, document, dry_run=dry_run)
        return answer_row(context, call, row, status=201)
    return answer_row(context, call, row)
