"""What create, update, patch and delete share: the way from a document to a row.

Order of a write: defaults, mutating admission, the kind's own preparation,
validation, validating admission, the store. Source: apiserver
``registry/rest/{create,update}.go`` and ``registry/generic/registry/store.go``.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from podyard.api.core_v1 import format_time
from podyard.api.defaults import default_object, prepare_object
from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    FieldError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_object,
    not_found,
)
from podyard.api.field_ownership import (
    UPDATE,
    Manager,
    read_owners,
    track_update,
    write_owners,
)
from podyard.api.names import generate_name
from podyard.api.scheme import SERVICE
from podyard.api.validation import (
    object_warnings,
    validate_create,
    validate_ephemeral_containers_update,
    validate_status_update,
    validate_update,
)
from podyard.lib.values import dataclass
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.call import Call
from podyard.server.context import ServerContext
from podyard.server.resource import Resource
from podyard.store.backend import (
    AlreadyExistsError,
    ConflictError,
    MissingError,
    Row,
)

#: How often a generated name is tried.
_NAME_TRIES: Final = 8
#: How often a write is made again when the object changed meanwhile.
_CONFLICT_TRIES: Final = 10
#: Metadata only the server writes.
_SERVER_METADATA: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "resourceVersion",
)


def metadata_of(document: Document) -> dict[str, Any]:
    """Return an object's metadata, made where it has none.

    Raises:
        ApiError: 400, it is no object.
    """
    metadata = document.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    return metadata


def new_uid(context: ServerContext) -> str:
    """Return a random UUID."""
    return str(uuid.UUID(bytes=context.random_bytes(16), version=4))


def now_text(now: datetime) -> str:
    """Return a time as metadata has it: whole seconds, UTC."""
    return format_time(now.astimezone(UTC))


def check_namespace(call: Call, document: Document) -> None:
    """Make the body's namespace the path's.

    Raises:
        ApiError: 400, they differ.
    """
    metadata = metadata_of(document)
    wanted = call.info.namespace if call.resource.kind.namespaced else ""
    given = metadata.get("namespace") or ""
    if given and given != wanted:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent "
            "on the request"
        )
    if wanted:
        metadata["namespace"] = wanted
    else:
        metadata.pop("namespace", None)


# --- create -----------------------------------------------------------------------


async def create_object(
    context: ServerContext,
    call: Call,
    document: Document,
    *,
    dry_run: bool,
    managed: list[Document] | None = None,
) -> Row:
    """Store a new object, from defaults to the row.

    Args:
        context: the doors.
        call: the request.
        document: the object, checked against its schema; it is changed.
        dry_run: nothing is stored.
        managed: its ``managedFields``, where it was applied.

    Raises:
        ApiError: 400, 403, 409 or 422.
    """
    resource = call.resource
    metadata = metadata_of(document)
    check_namespace(call, document)
    if metadata.get("resourceVersion"):
        raise ApiError(
            500, "", "resourceVersion should not be set on objects to be created"
        )
    default_object(resource.kind, document)
    request = AdmissionRequest(
        operation=Operation.CREATE,
        kind=resource.kind,
        namespace=call.info.namespace,
        name=metadata.get("name") or "",
        user=call.user,
        object=document,
        dry_run=dry_run,
        warnings=call.warnings,
    )
    await context.admission.mutate(request)
    document = request.object if request.object is not None else document
    default_object(resource.kind, document)
    _prepare_new(context, call, document)
    if managed:
        metadata_of(document)["managedFields"] = managed
    generated = not metadata_of(document).get("name")
    for attempt in range(_NAME_TRIES):
        if generated:
            _generate_name(context, document)
            default_object(resource.kind, document)
        if not attempt:
            _validate_new(context, resource, document)
            call.warnings.extend(object_warnings(resource.kind, document))
            request.object = document
            request.name = metadata_of(document).get("name") or ""
            await context.admission.validate(request)
        try:
            return await _store_new(context, resource, document, dry_run=dry_run)
        except AlreadyExistsError as error:
            name = metadata_of(document)["name"]
            if not generated or attempt == _NAME_TRIES - 1:
                kind = resource.kind
                raise already_exists(kind.group, kind.resource, name) from error
    raise AssertionError("the loop above always returns or raises")


def _generate_name(context: ServerContext, document: Document) -> None:
    metadata = metadata_of(document)
    prefix = metadata.get("generateName")
    if prefix and isinstance(prefix, str):
        metadata["name"] = generate_name(prefix, context.random_bytes(5))


def _prepare_new(context: ServerContext, call: Call, document: Document) -> None:
    strategy, metadata = call.resource.strategy, metadata_of(document)
    for field in (*_SERVER_METADATA, "managedFields"):
        metadata.pop(field, None)
    metadata["uid"] = new_uid(context)
    metadata["creationTimestamp"] = now_text(call.now)
    if strategy.has_generation:
        metadata["generation"] = 1
    if strategy.has_status and not strategy.status_on_create:
        document.pop("status", None)
    strategy.prepare_create(document)
    prepare_object(call.resource.kind, document)


def _validate_new(
    context: ServerContext, resource: Resource, document: Document
) -> None:
    errors = validate_create(resource.kind, document, context.gates)
    if errors:
        raise _invalid(resource, document, errors)


def _invalid(
    resource: Resource, document: Document, errors: tuple[FieldError, ...]
) -> ApiError:
    metadata = document.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or ""
    return invalid_object(resource.kind.group, resource.kind.kind, str(name), errors)


async def _store_new(
    context: ServerContext, resource: Resource, document: Document, *, dry_run: bool
) -> Row:
    metadata = metadata_of(document)
    key = resource.kind.key(metadata.get("namespace") or "", metadata["name"])
    store = context.registry.store
    with _addresses(context, resource, document, None, dry_run=dry_run):
        value = context.registry.encode(resource, document)
        if dry_run:
            existing = await store.get(key)
            if existing is not None:
                raise AlreadyExistsError(key, existing.rev)
            return Row(key, 0, 0, value)
        return await store.create(key, value)


@contextmanager
def _addresses(
    context: ServerContext,
    resource: Resource,
    new: Document,
    old: Document | None,
    *,
    dry_run: bool,
) -> Iterator[None]:
    """Hold a Service's addresses while it is stored; others pass."""
    if resource.kind != SERVICE:
        yield
        return
    allocation = context.addresses.allocate(new, old)
    try:
        yield
    except BaseException:
        context.addresses.rollback(allocation)
        raise
    if dry_run:
        context.addresses.rollback(allocation)
    else:
        context.addresses.commit(allocation)


# --- change -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One change to a stored object.

    Attributes:
        make: returns the new document, given a copy of the stored one; it may raise
            ``ApiError``. It is called again when the object changed meanwhile.
        subresource: ``status`` … ; empty for the object itself.
        dry_run: nothing is stored.
        retry: make it again on a conflict (patches, server-made changes).
        admitted: it goes through admission and validation.
        needs_rev: the new document must carry the resourceVersion it is based on.
        tracked: who changes a field becomes its owner, once the object was applied.
    """

    make: Callable[[Document], Document]
    subresource: str = ""
    dry_run: bool = False
    retry: bool = True
    admitted: bool = True
    needs_rev: bool = False
    tracked: bool = True


async def change_object(context: ServerContext, call: Call, change: Change) -> Row:
    """Change one stored object by compare-and-swap.

    Raises:
        ApiError: 400, 403, 404, 409 or 422.
    """
    resource, info = call.resource, call.info
    for attempt in range(_CONFLICT_TRIES):
        row = await context.registry.row(resource, info.namespace, info.name)
        told = len(call.warnings)
        try:
            return await _change_row(context, call, row, change)
        except MissingError as error:
            raise _absent(resource, info.name) from error
        except ConflictError as error:
            if not change.retry or attempt == _CONFLICT_TRIES - 1:
                raise _conflict(resource, info.name) from error
            del call.warnings[told:]
    raise AssertionError("the loop above always returns or raises")


def _absent(resource: Resource, name: str) -> ApiError:
    return not_found(resource.kind.group, resource.kind.resource, name)


def _conflict(resource: Resource, name: str, detail: str = "") -> ApiError:
    return conflict(resource.kind.group, resource.kind.resource, name, detail)


async def _change_row(
    context: ServerContext, call: Call, row: Row, change: Change
) -> Row:
    resource, registry = call.resource, context.registry
    old = registry.decode(resource, row.value, row.rev)
    new = change.make(registry.decode(resource, row.value, row.rev))
    _check_identity(call, new, old, row.rev, change)
    new = _carry_over(resource, new, old, change.subresource)
    default_object(resource.kind, new)
    if change.admitted:
        new = await _admit(context, call, new, old, change)
    # A Pod that was bound is as wanted as before (conformance: "Pods Generation").
    if change.subresource != "binding":
        _count_generation(resource, new, old)
    if change.tracked:
        _track_owners(context, call, new, old)
    return await _store_change(context, call, row, new, old, change)


async def _store_change(
    context: ServerContext,
    call: Call,
    row: Row,
    new: Document,
    old: Document,
    change: Change,
) -> Row:
    resource, registry = call.resource, context.registry
    plain = _addresses(context, resource, new, old, dry_run=change.dry_run)
    with plain:
        value = registry.encode(resource, new)
        if value == row.value or _same(new, old):
            return row
        if is_finished(new):
            if change.dry_run:
                return Row(row.key, row.rev, row.create_rev, value)
            return await remove_row(context, resource, row, new)
        if change.dry_run:
            return Row(row.key, row.rev, row.create_rev, value)
        return await registry.store.update(row.key, value, expected_rev=row.rev)


def _same(new: Document, old: Document) -> bool:
    """Say whether a write would change nothing; the order of fields does not count."""
    metadata = dict(new.get("metadata") or {})
    metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    return {**new, "metadata": metadata} == old


def is_finished(document: Document) -> bool:
    """Say whether nothing holds back a deleted object any more."""
    metadata = document.get("metadata") or {}
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if metadata.get("deletionGracePeriodSeconds"):
        return False
    if document.get("kind") == "Namespace":
        return not (document.get("spec") or {}).get("finalizers")
    return True


async def remove_row(
    context: ServerContext, resource: Resource, row: Row, last: Document
) -> Row:
    """Remove an object, telling watchers its last state.

    Raises:
        ConflictError: it changed meanwhile.
        MissingError: it is gone.
    """
    value = context.registry.encode(resource, last)
    gone = await context.registry.store.delete(
        row.key, expected_rev=row.rev, value=value
    )
    if resource.kind == SERVICE:
        context.addresses.release(last)
    return gone


def check_name(name: str, wanted: str) -> None:
    """Let an object have the name of the path.

    Raises:
        ApiError: 400, it has another.
    """
    if name != wanted:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL "
            f"({wanted})"
        )


def _check_identity(
    call: Call, new: Document, old: Document, rev: int, change: Change
) -> None:
    """Let the new document be the stored one's successor.

    Raises:
        ApiError: 400 other name or namespace, 409 other uid or revision, 422.
    """
    resource, info = call.resource, call.info
    metadata, stored = metadata_of(new), old["metadata"]
    name = str(metadata.get("name") or "")
    check_name(name, info.name)
    check_namespace(call, new)
    uid = metadata.get("uid")
    if uid and uid != stored.get("uid"):
        raise _conflict(
            resource,
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
            f"{stored.get('uid')}",
        )
    given = metadata.get("resourceVersion") or ""
    if given in {"", "0"}:
        if change.needs_rev and not resource.strategy.unconditional_update:
            error = invalid(
                "metadata.resourceVersion", 0, "must be specified for an update"
            )
            raise _invalid(resource, new, (error,))
    elif given != str(rev):
        raise _conflict(resource, name)


def _carry_over(
    resource: Resource, new: Document, old: Document, subresource: str
) -> Document:
    """Keep what this write may not touch."""
    strategy = resource.strategy
    if subresource == "status":
        kept = dict(old)
        kept["metadata"] = _status_metadata(resource, new, old)
        if "status" in new:
            kept["status"] = new["status"]
        else:
            kept.pop("status", None)
        strategy.prepare_status(kept, old)
        return kept
    if subresource == "ephemeralcontainers":
        new = _only_ephemeral(new, old)
    metadata, stored = metadata_of(new), old["metadata"]
    metadata.pop("selfLink", None)
    for field in ("uid", "creationTimestamp"):
        metadata.setdefault(field, stored.get(field))
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        if field in stored:
            metadata[field] = stored[field]
        else:
            metadata.pop(field, None)
    metadata["resourceVersion"] = stored["resourceVersion"]
    if strategy.has_status and not subresource:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    if not subresource:
        strategy.prepare_update(new, old)
    return new


def _only_ephemeral(new: Document, old: Document) -> Document:
    """Return the stored Pod with nothing but the new ephemeral containers."""
    spec = dict(old.get("spec") or {})
    wanted = (new.get("spec") or {}).get("ephemeralContainers")
    spec.pop("ephemeralContainers", None)
    if wanted:
        spec["ephemeralContainers"] = wanted
    return {**old, "metadata": dict(old["metadata"]), "spec": spec}


def _status_metadata(
    resource: Resource, new: Document, old: Document
) -> dict[str, Any]:
    metadata = dict(old["metadata"])
    wanted = metadata_of(new)
    if "managedFields" in wanted:
        metadata["managedFields"] = wanted["managedFields"]
    for field in resource.strategy.status_metadata:
        if field in wanted:
            metadata[field] = wanted[field]
        else:
            metadata.pop(field, None)
    return metadata


def _count_generation(resource: Resource, new: Document, old: Document) -> None:
    if not resource.strategy.has_generation:
        return
    if _wanted(new) != _wanted(old):
        metadata = metadata_of(new)
        metadata["generation"] = (old["metadata"].get("generation") or 0) + 1


def _track_owners(
    context: ServerContext, call: Call, new: Document, old: Document
) -> None:
    """Keep ``managedFields`` true, for objects that were applied."""
    metadata = metadata_of(new)
    stored = old["metadata"].get("managedFields")
    given = metadata.pop("managedFields", None)
    if not stored or given == [{}]:  # never applied, or the owners are reset
        return
    kind = call.resource.kind
    manager = Manager(
        _manager_name(call), UPDATE, kind.api_version, call.info.subresource
    )
    owners = track_update(
        old,
        new,
        owners=read_owners(given or stored),
        manager=manager,
        schema=context.schemas.patch_schema(kind.api_version, kind.kind),
        now=now_text(call.now),
    )
    metadata["managedFields"] = write_owners(owners)


def _manager_name(call: Call) -> str:
    named = call.info.param("fieldManager")
    return (named or call.headers.get("User-Agent", "").partition("/")[0])[:128]


def _wanted(document: Document) -> Document:
    """Return what a generation counts: all but metadata and status."""
    return {
        field: value
        for field, value in document.items()
        if field not in {"metadata", "status"}
    }


async def _admit(
    context: ServerContext, call: Call, new: Document, old: Document, change: Change
) -> Document:
    resource = call.resource
    request = AdmissionRequest(
        operation=Operation.UPDATE,
        kind=resource.kind,
        namespace=call.info.namespace,
        name=call.info.name,
        user=call.user,
        object=new,
        old_object=old,
        subresource=change.subresource,
        dry_run=change.dry_run,
        warnings=call.warnings,
    )
    await context.admission.mutate(request)
    new = request.object if request.object is not None else new
    errors = _validate_change(context, resource, new, old, change.subresource)
    if errors:
        raise _invalid(resource, new, errors)
    if not change.subresource:
        call.warnings.extend(object_warnings(resource.kind, new, old))
    request.object = new
    await context.admission.validate(request)
    return new


def _validate_change(
    context: ServerContext,
    resource: Resource,
    new: Document,
    old: Document,
    subresource: str,
) -> tuple[FieldError, ...]:
    match subresource:
        case "":
            return validate_update(resource.kind, new, old, context.gates)
        case "status":
            return validate_status_update(resource.kind, new, old, context.gates)
        case "ephemeralcontainers":
            return validate_ephemeral_containers_update(new, old, context.gates)
        case _:
            return ()


def copy_document(document: Document) -> Document:
    """Return a deep copy."""
    copied: Document = orjson.loads(orjson.dumps(document))
    return copied
