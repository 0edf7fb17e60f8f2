"""GET of one object."""

from podyard.api.errors import not_found
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_row
from podyard.server.verbs.options import parse_rev


async def get_object(context: ServerContext, call: Call) -> Reply:
    """Answer one object, not older than the resourceVersion the client names.

    Raises:
        ApiError: 404 there is none, 504 the revision has not happened.
    """
    registry, info = context.registry, call.info
    rev_text = info.param("resourceVersion")
    if rev_text:
        rev = parse_rev(rev_text)
        if rev:
            await registry.wait_for_rev(rev)
    kind = call.resource.kind
    row = await registry.store.get(kind.key(info.namespace, info.name))
    if row is None:
        raise not_found(kind.group, kind.resource, info.name)
    return answer_row(context, call, row)
