"""PATCH: strategic merge, merge, JSON patch; server-side apply."""

from collections.abc import Callable
from typing import Any, Final

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request, invalid, invalid_object
from podyard.api.patch import (
    apply_json_patch,
    apply_merge_patch,
    apply_strategic_merge_patch,
)
from podyard.api.schema import parse_json
from podyard.server.body import (
    check_depth,
    is_dry_run,
    media_type,
    report,
    unsupported_media,
    validation_of,
)
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_row
from podyard.server.verbs.apply import APPLY_PATCH, refuse_force
from podyard.server.verbs.apply import apply as apply_config
from podyard.server.verbs.writing import Change, change_object

STRATEGIC: Final = "application/strategic-merge-patch+json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
PATCH_TYPES: Final = (JSON_PATCH, MERGE, STRATEGIC, APPLY_PATCH)
_OPTIONS: Final = "PatchOptions"


async def patch(context: ServerContext, call: Call) -> Reply:
    """Patch an object, its status or its ephemeral containers.

    Raises:
        ApiError: 400, 403, 404, 409, 415 or 422.
    """
    kind = call.resource.kind
    if media_type(call) == APPLY_PATCH:
        return await apply_config(context, call)
    refuse_force(call)
    apply = read_patch(context, call, kind.api_version, kind.kind)

    def make(stored: Document) -> Document:
        return check_patched(context, call, apply(stored), kind.api_version, kind.kind)

    change = Change(
        make,
        subresource=call.info.subresource,
        dry_run=is_dry_run(call, _OPTIONS),
    )
    return answer_row(context, call, await change_object(context, call, change))


def read_patch(
    context: ServerContext, call: Call, api_version: str, kind: str
) -> Callable[[Document], Document]:
    """Return the body's patch as a function.

    Raises:
        ApiError: 400 or 415.
    """
    media = media_type(call)
    if media not in PATCH_TYPES or media == APPLY_PATCH:
        raise unsupported_media(PATCH_TYPES)
    patch_document = _decode(call)
    if media == JSON_PATCH:
        return lambda stored: _object(apply_json_patch(stored, patch_document))
    if media == MERGE:
        return lambda stored: apply_merge_patch(stored, patch_document)
    schema = context.schemas.patch_schema(api_version, kind)
    return lambda stored: apply_strategic_merge_patch(stored, patch_document, schema)


def _decode(call: Call) -> Any:
    try:
        document = parse_json(call.body)
    except ApiError as error:
        raise bad_request(f"error decoding patch: {error.message}") from error
    check_depth(document)
    return document


def _object(document: Any) -> Document:
    if not isinstance(document, dict):
        raise bad_request("the patch leaves no object")
    return document


def check_patched(
    context: ServerContext, call: Call, patched: Document, api_version: str, kind: str
) -> Document:
    """Check and prune what a patch made.

    Raises:
        ApiError: 400 or 422.
    """
    validation = validation_of(call, _OPTIONS)
    checked = context.schemas.check(api_version, kind, patched)
    text = call.body.decode(errors="replace")[:1000]
    metadata = patched.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else ""
    group = api_version.rpartition("/")[0]
    if checked.faults:
        error = invalid("patch", text, checked.faults[0])
        raise invalid_object(group, kind, str(name or ""), [error])
    if checked.unknown and validation == "Strict":
        detail = f"strict decoding error: {', '.join(checked.unknown)}"
        raise invalid_object(
            group, kind, str(name or ""), [invalid("patch", text, detail)]
        )
    if checked.unknown:
        report(call, validation, api_version, kind, checked.unknown)
    result = checked.document
    for field, wanted in (("apiVersion", api_version), ("kind", kind)):
        given = result.get(field)
        if given not in {None, wanted}:
            raise bad_request(
                f"the {field} of the patched object ({given}) may not differ from "
                f"{wanted}"
            )
        result[field] = wanted
    return result
