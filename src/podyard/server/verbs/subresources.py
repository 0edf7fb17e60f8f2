"""Subresources with a document of their own: binding, scale, token.

Source: kubernetes ``pkg/registry/core/pod/storage`` (BindingREST),
``pkg/registry/apps/*/storage`` (ScaleREST), v1.36.
"""

from collections.abc import Callable
from typing import Any, Final

from podyard.api.documents import Document
from podyard.api.errors import (
    conflict,
    invalid,
    invalid_object,
    not_found,
)
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.api.validation import validate_binding
from podyard.server import table
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.body import is_dry_run, read_object
from podyard.server.call import Answer, Call, Reply, success_status
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_document, answer_row
from podyard.server.verbs.patch import check_patched, read_patch
from podyard.server.verbs.writing import (
    Change,
    change_object,
    copy_document,
    metadata_of,
    now_text,
)
from podyard.store.backend import Row

_SCALE: Final = ("autoscaling/v1", "Scale")


async def review(context: ServerContext, call: Call) -> Answer:
    """Answer a kind that is never stored.

    Raises:
        ApiError: 400, 415 or 422.
    """
    kind = call.resource.kind
    document = read_object(
        call,
        context.schemas,
        kind.api_version,
        kind.kind,
        options_kind="CreateOptions",
    )
    answer = await context.reviews[kind](call.user, document, call.info.namespace)
    return answer_document(answer, status=201)


async def admit_document(
    context: ServerContext, call: Call, document: Document, *, dry_run: bool
) -> None:
    """Let admission change or refuse a subresource's own document.

    Raises:
        ApiError: admission refuses it.
    """
    request = AdmissionRequest(
        operation=Operation.CREATE,
        kind=call.resource.kind,
        namespace=call.info.namespace,
        name=call.info.name,
        user=call.user,
        object=document,
        subresource=call.info.subresource,
        dry_run=dry_run,
        warnings=call.warnings,
    )
    await context.admission.mutate(request)
    await context.admission.validate(request)


# --- pods -------------------------------------------------------------------------


async def bind(context: ServerContext, call: Call) -> Answer:
    """Assign a Pod to a node.

    Raises:
        ApiError: 400, 404, 409 or 422.
    """
    document = read_object(
        call, context.schemas, "v1", "Binding", options_kind="CreateOptions"
    )
    dry_run = is_dry_run(call, "CreateOptions")
    target = document.get("target") or {}
    errors = validate_binding(document)
    if errors:
        raise invalid_object("", "Binding", call.info.name, errors)
    await admit_document(context, call, document, dry_run=dry_run)
    metadata = metadata_of(document)

    def make(pod: Document) -> Document:
        return _bound(pod, target["name"], metadata, now_text(call.now))

    change = Change(make, subresource="binding", dry_run=dry_run, admitted=False)
    await change_object(context, call, change)
    return answer_document(success_status(code=201), status=201)


def _bound(pod: Document, node: str, binding: dict[str, Any], now: str) -> Document:
    metadata, spec = pod["metadata"], pod.setdefault("spec", {})
    name = metadata["name"]
    if binding.get("uid") and binding["uid"] != metadata.get("uid"):
        why = (
            f"Precondition failed: UID in precondition: {binding['uid']}, "
            f"UID in object meta: {metadata.get('uid')}"
        )
        raise conflict("", "pods/binding", name, why)
    if metadata.get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise conflict("", "pods/binding", name, why)
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise conflict("", "pods/binding", name, why)
    if spec.get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
        raise conflict("", "pods/binding", name, why)
    spec["nodeName"] = node
    if binding.get("annotations"):
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            **binding["annotations"],
        }
    status = pod.setdefault("status", {})
    kept = [
        condition
        for condition in status.get("conditions") or ()
        if condition.get("type") != "PodScheduled"
    ]
    scheduled: Document = {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": now,
    }
    if metadata.get("generation"):
        scheduled["observedGeneration"] = metadata["generation"]
    status["conditions"] = [*kept, scheduled]
    return pod


# --- scale ------------------------------------------------------------------------


def build_scale(document: Document) -> Document:
    """Return the Scale of a Deployment, ReplicaSet or StatefulSet."""
    metadata = document["metadata"]
    spec, status = table.spec(document), table.status(document)
    selector = table.show_selector(spec.get("selector"))
    return {
        "kind": _SCALE[1],
        "apiVersion": _SCALE[0],
        "metadata": {
            field: metadata[field]
            for field in (
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "creationTimestamp",
            )
            if field in metadata
        },
        "spec": {"replicas": spec.get("replicas") or 0},
        "status": {
            "replicas": status.get("replicas") or 0,
            "selector": "" if selector == table.NONE else selector,
        },
    }


def _answer_scale(context: ServerContext, call: Call, row: Row) -> Reply:
    document = context.registry.decode(call.resource, row.value, row.rev)
    return answer_document(build_scale(document))


async def get_scale(context: ServerContext, call: Call) -> Answer:
    """Answer an object's Scale.

    Raises:
        ApiError: 404.
    """
    row = await context.registry.row(call.resource, call.info.namespace, call.info.name)
    return _answer_scale(context, call, row)


async def update_scale(context: ServerContext, call: Call) -> Answer:
    """Replace an object's Scale.

    Raises:
        ApiError: 400, 404, 409, 415 or 422.
    """
    wanted = read_object(call, context.schemas, *_SCALE, options_kind="UpdateOptions")
    dry_run = is_dry_run(call, "UpdateOptions")
    return await _scale(context, call, lambda _: wanted, dry_run=dry_run)


async def patch_scale(context: ServerContext, call: Call) -> Answer:
    """Patch an object's Scale.

    Raises:
        ApiError: 400, 404, 409, 415 or 422.
    """
    apply = read_patch(context, call, *_SCALE)
    dry_run = is_dry_run(call, "PatchOptions")

    def make(scale: Document) -> Document:
        return check_patched(context, call, apply(scale), *_SCALE)

    return await _scale(context, call, make, dry_run=dry_run)


async def _scale(
    context: ServerContext,
    call: Call,
    make_scale: Callable[[Document], Document],
    *,
    dry_run: bool,
) -> Answer:
    def make(document: Document) -> Document:
        scale = make_scale(build_scale(document))
        metadata = metadata_of(scale)
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            error = invalid(
                "spec.replicas", replicas, "must be greater than or equal to 0"
            )
            raise invalid_object("autoscaling", "Scale", call.info.name, [error])
        new = copy_document(document)
        new.setdefault("spec", {})["replicas"] = replicas
        for field in ("resourceVersion", "uid"):
            if metadata.get(field):
                new["metadata"][field] = metadata[field]
        return new

    change = Change(make, subresource="scale", dry_run=dry_run)
    return _answer_scale(context, call, await change_object(context, call, change))


# --- namespaces and ServiceAccounts -----------------------------------------------


async def finalize(context: ServerContext, call: Call) -> Answer:
    """Replace a namespace's finalizers; the last one lets it go.

    Raises:
        ApiError: 400, 404, 409 or 415.
    """
    document = read_object(
        call, context.schemas, "v1", "Namespace", options_kind="UpdateOptions"
    )
    wanted = metadata_of(document)

    def make(stored: Document) -> Document:
        spec = {**(stored.get("spec") or {})}
        spec["finalizers"] = (document.get("spec") or {}).get("finalizers") or []
        if not spec["finalizers"]:
            del spec["finalizers"]
        metadata = dict(stored["metadata"])
        for field in ("name", "uid", "resourceVersion"):
            if wanted.get(field):
                metadata[field] = wanted[field]
        return {**stored, "metadata": metadata, "spec": spec}

    change = Change(
        make,
        subresource="finalize",
        dry_run=is_dry_run(call, "UpdateOptions"),
        retry=not wanted.get("resourceVersion"),
    )
    return answer_row(context, call, await change_object(context, call, change))


async def request_token(context: ServerContext, call: Call) -> Answer:
    """Issue a ServiceAccount token.

    Raises:
        ApiError: 400, 404, 409, 415 or 422.
    """
    document = read_object(
        call,
        context.schemas,
        "authentication.k8s.io/v1",
        "TokenRequest",
        options_kind="CreateOptions",
    )
    if context.issue_token is None:
        raise not_found("", f"{SERVICE_ACCOUNT.resource}/token", call.info.name)
    await admit_document(
        context, call, document, dry_run=is_dry_run(call, "CreateOptions")
    )
    token = await context.issue_token(call.info.namespace, call.info.name, document)
    return answer_document(token, status=201)
