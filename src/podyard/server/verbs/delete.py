"""DELETE: at once, gracefully, or when the finalizers are done.

Source: apiserver ``registry/rest/delete.go`` and ``registry/generic/registry/
store.go`` (v1.36); kubernetes ``pkg/registry/core/pod/strategy.go``.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from podyard.api.core_v1 import parse_time
from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    bad_request,
    conflict,
    invalid,
    invalid_object,
    not_supported,
)
from podyard.lib.values import dataclass
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.body import is_dry_run, read_options
from podyard.server.call import Call, Form, Reply, success_status
from podyard.server.context import ServerContext
from podyard.server.resource import Propagation, Resource
from podyard.server.verbs.answers import answer_document, answer_row, encode_list
from podyard.server.verbs.list import find_rows
from podyard.server.verbs.options import parse_list_options
from podyard.server.verbs.writing import is_finished, now_text, remove_row
from podyard.store.backend import ConflictError, MissingError, Row

FOREGROUND_FINALIZER: Final = "foregroundDeletion"
ORPHAN_FINALIZER: Final = "orphan"
_POLICIES: Final = tuple(policy.value for policy in Propagation)
_TRIES: Final = 10
_DEFAULT_GRACE_S: Final = 30
_TERMINAL: Final = {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What a delete is asked.

    Attributes:
        grace_s: seconds the object has to end, ``None`` for its own.
        uid: a precondition, empty for none.
        resource_version: a precondition, empty for none.
        propagation: what becomes of dependants, ``None`` for the kind's default.
        dry_run: nothing is deleted.
    """

    grace_s: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: Propagation | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did.

    Attributes:
        row: the object: its last state, or marked.
        is_gone: it is removed.
    """

    row: Row
    is_gone: bool


def parse_delete_options(context: ServerContext, call: Call) -> DeleteOptions:
    """Read DeleteOptions from the body or, without one, from the query.

    Raises:
        ApiError: 400, 415 or 422.
    """
    document = read_options(call, context.schemas, "DeleteOptions")
    if not call.body:
        document = _from_query(call)
    return to_delete_options(call, document)


def to_delete_options(call: Call, document: Document) -> DeleteOptions:
    """Check a DeleteOptions document.

    Raises:
        ApiError: 422.
    """
    policy = document.get("propagationPolicy")
    orphan = document.get("orphanDependents")
    if policy is not None and orphan is not None:
        error = invalid(
            "propagationPolicy",
            policy,
            "orphanDependents and deletionPropagation cannot be both set",
        )
        raise invalid_object("meta.k8s.io", "DeleteOptions", "", [error])
    if policy is not None and policy not in _POLICIES:
        error = not_supported("propagationPolicy", policy, (*_POLICIES, "nil"))
        raise invalid_object("meta.k8s.io", "DeleteOptions", "", [error])
    propagation = Propagation(policy) if policy else None
    if orphan is not None:
        propagation = Propagation.ORPHAN if orphan else Propagation.BACKGROUND
    preconditions = document.get("preconditions") or {}
    return DeleteOptions(
        grace_s=document.get("gracePeriodSeconds"),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        propagation=propagation,
        dry_run=is_dry_run(call, "DeleteOptions", document.get("dryRun")),
    )


def _from_query(call: Call) -> Document:
    info = call.info
    document: Document = {}
    text = info.param("gracePeriodSeconds")
    if text:
        try:
            document["gracePeriodSeconds"] = int(text)
        except ValueError as error:
            message = f'strconv.ParseInt: parsing "{text}": invalid syntax'
            raise bad_request(message) from error
    if info.param("propagationPolicy"):
        document["propagationPolicy"] = info.param("propagationPolicy")
    if info.param("orphanDependents"):
        document["orphanDependents"] = info.flag("orphanDependents")
    return document


async def delete(context: ServerContext, call: Call) -> Reply:
    """Delete one object.

    Raises:
        ApiError: 400, 403, 404, 409 or 422.
    """
    options = parse_delete_options(context, call)
    deleted = await delete_object(context, call, call.info.name, options)
    if deleted.is_gone and not call.resource.strategy.returns_deleted:
        return answer_document(_status_of(call.resource, context, deleted.row))
    return answer_row(context, call, deleted.row)


def _status_of(resource: Resource, context: ServerContext, row: Row) -> Document:
    metadata = context.registry.decode(resource, row.value, row.rev)["metadata"]
    details = {"name": metadata.get("name")}
    if resource.kind.group:
        details["group"] = resource.kind.group
    details["kind"] = resource.kind.resource
    details["uid"] = metadata.get("uid")
    return success_status(details)


async def delete_collection(context: ServerContext, call: Call) -> Reply:
    """Delete every object the selectors name; answer with the List of them.

    Raises:
        ApiError: 400, 403, 409 or 422.
    """
    options = parse_delete_options(context, call)
    asked = parse_list_options(call.info, call.resource, is_watch=False)
    found = await find_rows(context, call.resource, call.info.namespace, asked)
    rows = []
    for row in found.rows:
        document = context.registry.decode(call.resource, row.value, row.rev)
        metadata = document["metadata"]
        try:
            deleted = await delete_object(
                context,
                call,
                metadata["name"],
                options,
                namespace=metadata.get("namespace") or "",
            )
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        rows.append(deleted.row)
    rev = {"resourceVersion": str(context.registry.store.current_rev)}
    if call.form is not Form.OBJECT:
        return answer_document(success_status({"kind": call.resource.kind.resource}))
    return Reply(encode_list(context.registry, call.resource, rows, rev))


async def delete_object(
    context: ServerContext,
    call: Call,
    name: str,
    options: DeleteOptions,
    *,
    namespace: str | None = None,
) -> Deleted:
    """Delete one object as far as it may go now.

    Raises:
        ApiError: 403, 404 or 409.
    """
    resource = call.resource
    where = call.info.namespace if namespace is None else namespace
    if not resource.kind.namespaced:
        where = ""
    for attempt in range(_TRIES):
        row = await context.registry.row(resource, where, name)
        document = context.registry.decode(resource, row.value, row.rev)
        check_preconditions(resource, document, options)
        await _admit(context, call, document, name, options)
        try:
            return await _delete_row(context, call, row, document, options)
        except MissingError:
            continue
        except ConflictError as error:
            if attempt == _TRIES - 1:
                kind = resource.kind
                raise conflict(kind.group, kind.resource, name) from error
    raise conflict(resource.kind.group, resource.kind.resource, name)


def check_preconditions(
    resource: Resource, document: Document, options: DeleteOptions
) -> None:
    """Check that an object is the one that was meant.

    Raises:
        ApiError: 409, it is not.
    """
    metadata, kind = document["metadata"], resource.kind
    why = ""
    if options.uid and options.uid != metadata.get("uid"):
        why = (
            f"Precondition failed: UID in precondition: {options.uid}, UID in object "
            f"meta: {metadata.get('uid')}"
        )
    rev = metadata["resourceVersion"]
    if options.resource_version and options.resource_version != rev:
        why = (
            "Precondition failed: ResourceVersion in precondition: "
            f"{options.resource_version}, ResourceVersion in object meta: {rev}"
        )
    if why:
        raise conflict(kind.group, kind.resource, metadata["name"], why)


async def _admit(
    context: ServerContext,
    call: Call,
    document: Document,
    name: str,
    options: DeleteOptions,
) -> None:
    request = AdmissionRequest(
        operation=Operation.DELETE,
        kind=call.resource.kind,
        namespace=document["metadata"].get("namespace") or "",
        name=name,
        user=call.user,
        old_object=document,
        dry_run=options.dry_run,
        warnings=call.warnings,
    )
    await context.admission.mutate(request)
    await context.admission.validate(request)


async def _delete_row(
    context: ServerContext,
    call: Call,
    row: Row,
    document: Document,
    options: DeleteOptions,
) -> Deleted:
    resource = call.resource
    marked = mark_deleted(resource, document, options, call.now)
    if marked is None:
        return Deleted(row, is_gone=False)
    if options.dry_run:
        value = context.registry.encode(resource, marked)
        dry = Row(row.key, row.rev, row.create_rev, value)
        return Deleted(dry, is_gone=is_finished(marked))
    if is_finished(marked):
        last = marked if resource.strategy.graceful else document
        gone = await remove_row(context, resource, row, last)
        return Deleted(gone, is_gone=True)
    value = context.registry.encode(resource, marked)
    kept = await context.registry.store.update(row.key, value, expected_rev=row.rev)
    return Deleted(kept, is_gone=False)


def mark_deleted(
    resource: Resource, document: Document, options: DeleteOptions, now: datetime
) -> Document | None:
    """Return the object as a delete leaves it; ``None`` where nothing changes."""
    metadata: dict[str, Any] = dict(document["metadata"])
    finalizers = _finalizers(resource, metadata, options)
    grace_s = _grace(resource, document, options)
    changed = finalizers != (metadata.get("finalizers") or [])
    deleted_at = parse_time(metadata.get("deletionTimestamp"))
    if deleted_at is None:
        metadata["deletionTimestamp"] = now_text(now + timedelta(seconds=grace_s))
        metadata["deletionGracePeriodSeconds"] = grace_s
        if metadata.get("generation"):
            metadata["generation"] += 1
        changed = True
    else:
        # A later delete may only leave less time.
        before_s = metadata.get("deletionGracePeriodSeconds") or 0
        if options.grace_s is not None and grace_s < before_s:
            earlier = deleted_at - timedelta(seconds=before_s - grace_s)
            metadata["deletionTimestamp"] = now_text(earlier)
            metadata["deletionGracePeriodSeconds"] = grace_s
            changed = True
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    marked = {**document, "metadata": metadata}
    if document.get("kind") == "Namespace":
        marked["status"] = {**(document.get("status") or {}), "phase": "Terminating"}
    return marked if changed or is_finished(marked) else None


def _grace(resource: Resource, document: Document, options: DeleteOptions) -> int:
    """Return how long the object has to end, seconds."""
    if not resource.strategy.graceful:
        return 0
    spec, status = document.get("spec") or {}, document.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in _TERMINAL:
        return 0
    grace_s = options.grace_s
    if grace_s is None:
        grace_s = spec.get("terminationGracePeriodSeconds")
    if grace_s is None:
        grace_s = _DEFAULT_GRACE_S
    return 1 if grace_s < 0 else int(grace_s)


def _finalizers(
    resource: Resource, metadata: dict[str, Any], options: DeleteOptions
) -> list[str]:
    """Return the finalizers with the garbage collector's as asked."""
    stored = metadata.get("finalizers") or []
    policy = options.propagation
    if policy is None:
        policy = resource.strategy.propagation
        if FOREGROUND_FINALIZER in stored:
            policy = Propagation.FOREGROUND
        elif ORPHAN_FINALIZER in stored:
            policy = Propagation.ORPHAN
    kept = [
        text for text in stored if text not in {FOREGROUND_FINALIZER, ORPHAN_FINALIZER}
    ]
    if policy is Propagation.FOREGROUND:
        kept.append(FOREGROUND_FINALIZER)
    elif policy is Propagation.ORPHAN:
        kept.append(ORPHAN_FINALIZER)
    return kept
