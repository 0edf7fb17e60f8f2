"""CREATE: POST to a collection."""

from podyard.server.body import is_dry_run, read_object
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_row
from podyard.server.verbs.writing import create_object


async def create(context: ServerContext, call: Call) -> Reply:
    """Store the object of the body.

    Raises:
        ApiError: 400, 403, 409, 415 or 422.
    """
    kind = call.resource.kind
    document = read_object(
        call,
        context.schemas,
        kind.api_version,
        kind.kind,
        options_kind="CreateOptions",
    )
    dry_run = is_dry_run(call, "CreateOptions")
    row = await create_object(context, call, document, dry_run=dry_run)
    return answer_row(context, call, row, status=201)
