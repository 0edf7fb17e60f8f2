"""Server-side apply: PATCH with ``application/apply-patch+yaml``.

Owners are kept from the first apply on; until then a write leaves no trace, and the
first apply finds everything owned by whoever was before it.
"""

from typing import Any, Final

from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    bad_request,
    conflict,
    forbidden_field,
    invalid_object,
    required,
)
from podyard.api.field_ownership import (
    APPLY,
    Manager,
    Owners,
    Path,
    apply_config,
    first_owners,
    flatten,
    ignore,
    read_owners,
    remove_paths,
    write_owners,
)
from podyard.api.field_schema import FieldSchema
from podyard.lib.yaml_json import YamlError, load_yaml
from podyard.server.body import (
    check_depth,
    check_gvk,
    is_dry_run,
    report,
    validation_of,
)
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_row
from podyard.server.verbs.writing import (
    Change,
    change_object,
    create_object,
    metadata_of,
    now_text,
)

APPLY_PATCH: Final = "application/apply-patch+yaml"
_OPTIONS: Final = "PatchOptions"
#: What an apply through a subresource may not own.
_HIDDEN: Final[dict[str, tuple[Path, ...]]] = {
    "": (("f:status",),),
    "status": (("f:spec",), ("f:metadata",)),
}


def check_apply_options(call: Call) -> None:
    """Refuse options that do not go with the patch type.

    Raises:
        ApiError: 422.
    """
    if not call.info.param("fieldManager"):
        error = required("fieldManager", "is required for apply patch")
        raise invalid_object("meta.k8s.io", _OPTIONS, "", [error])


def refuse_force(call: Call) -> None:
    """Refuse ``force`` for every other patch.

    Raises:
        ApiError: 422.
    """
    if call.info.param("force"):
        error = forbidden_field("force", "may not be specified for non-apply patch")
        raise invalid_object("meta.k8s.io", _OPTIONS, "", [error])


async def apply(context: ServerContext, call: Call) -> Reply:
    """Apply the body to an object, which is made where it is missing.

    Raises:
        ApiError: 400, 403, 404, 409, 415 or 422.
    """
    check_apply_options(call)
    dry_run = is_dry_run(call, _OPTIONS)
    config = _read_config(context, call)
    change = Change(
        lambda live: _applied(context, call, live, config),
        subresource=call.info.subresource,
        dry_run=dry_run,
        tracked=False,
    )
    try:
        return answer_row(context, call, await change_object(context, call, change))
    except ApiError as error:
        if error.code != 404 or call.info.subresource:
            raise
    metadata = metadata_of(config)
    if metadata.get("resourceVersion") or metadata.get("uid"):
        kind = call.resource.kind
        why = "uid mismatch: the provided object specified a uid or resourceVersion, "
        raise conflict(
            kind.group, kind.resource, call.info.name, f"{why}and no object was found"
        )
    row = await create_object(
        context,
        call,
        config,
        dry_run=dry_run,
        managed=write_owners(_new_owners(context, call, config)),
    )
    return answer_row(context, call, row, status=201)


def _read_config(context: ServerContext, call: Call) -> Document:
    kind = call.resource.kind
    try:
        document, doubled = load_yaml(call.body)
    except YamlError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
    if not isinstance(document, dict):
        raise bad_request("error decoding YAML: the body is no object")
    check_depth(document)
    for field in ("apiVersion", "kind"):
        if not document.get(field):
            raise bad_request(f"{field} must be set")
    check_gvk(document, kind.api_version, kind.kind)
    validation = validation_of(call, _OPTIONS)
    checked = context.schemas.decode(kind.api_version, kind.kind, document)
    problems = (
        *checked.unknown,
        *(f'key "{key}" already set in map' for key in doubled),
    )
    if problems:
        report(call, validation, kind.api_version, kind.kind, problems)
    config = checked.document
    config["apiVersion"], config["kind"] = kind.api_version, kind.kind
    metadata = metadata_of(config)
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    metadata.setdefault("name", call.info.name)
    if kind.namespaced:
        metadata.setdefault("namespace", call.info.namespace)
    return config


def _schema(context: ServerContext, call: Call) -> FieldSchema:
    kind = call.resource.kind
    return context.schemas.patch_schema(kind.api_version, kind.kind)


def _manager(call: Call) -> Manager:
    return Manager(
        call.info.param("fieldManager"),
        APPLY,
        call.resource.kind.api_version,
        call.info.subresource,
    )


def _new_owners(context: ServerContext, call: Call, config: Document) -> Owners:
    schema, manager = _schema(context, call), _manager(call)
    wanted = _visible(call, config, schema)
    return apply_config(
        {},
        wanted,
        owners={},
        manager=manager,
        schema=schema,
        force=False,
        now=now_text(call.now),
    ).owners


def _visible(call: Call, config: Document, schema: FieldSchema) -> Document:
    """Return what of the body this endpoint takes."""
    hidden = _HIDDEN.get(call.info.subresource, ())
    if not hidden:
        return config
    paths = frozenset(flatten(config, schema))
    gone = paths - ignore(paths, hidden)
    kept: Document = remove_paths(config, gone, schema)
    return kept


def _applied(
    context: ServerContext, call: Call, live: Document, config: Document
) -> Document:
    schema, manager = _schema(context, call), _manager(call)
    entries: list[Any] = live["metadata"].pop("managedFields", None) or []
    owners: Owners = read_owners(entries) or first_owners(live, schema, manager)
    wanted = _visible(call, config, schema)
    applied = apply_config(
        live,
        wanted,
        owners=owners,
        manager=manager,
        schema=schema,
        force=call.info.flag("force"),
        now=now_text(call.now),
    )
    result = applied.document
    metadata = dict(result.get("metadata") or {})
    for field in ("uid", "resourceVersion"):
        if metadata_of(config).get(field):
            metadata[field] = config["metadata"][field]
    metadata["managedFields"] = write_owners(applied.owners)
    return {**result, "metadata": metadata}
