"""Eviction: a delete that asks the Pod's disruption budget first.

A budget is charged by compare-and-swap, so that two evictions at once never spend the
same allowance; then the Pod is told why it ends, and deleted with its own grace.

Source: kubernetes ``pkg/registry/core/pod/storage/eviction.go`` (v1.36);
https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

import dataclasses
from typing import Final

from podyard.api.disruption import (
    budget_in_progress,
    budgets_of,
    charge_budget,
    is_over,
    is_past_budgets,
    may_go_unready,
    with_disruption_target,
)
from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request, conflict, not_found
from podyard.api.scheme import POD, POD_DISRUPTION_BUDGET
from podyard.lib.values import dataclass
from podyard.server.body import read_object
from podyard.server.call import Answer, Call, success_status
from podyard.server.context import ServerContext
from podyard.server.verbs.answers import answer_document
from podyard.server.verbs.delete import (
    DeleteOptions,
    check_preconditions,
    delete_object,
    to_delete_options,
)
from podyard.server.verbs.subresources import admit_document
from podyard.server.verbs.writing import metadata_of
from podyard.store.backend import ConflictError, MissingError

#: How often a write is tried again that somebody else was ahead of.
_TRIES: Final = 20


async def evict(context: ServerContext, call: Call) -> Answer:
    """Delete a Pod unless its budget forbids it.

    Raises:
        ApiError: 400, 403, 404, 409, 429, or 500 where two budgets hold the Pod.
    """
    document = read_object(
        call,
        context.schemas,
        "policy/v1",
        "Eviction",
        options_kind="CreateOptions",
        also=("policy/v1beta1",),
    )
    name = metadata_of(document).get("name") or ""
    if name and name != call.info.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = to_delete_options(call, document.get("deleteOptions") or {})
    await admit_document(context, call, document, dry_run=options.dry_run)
    for attempt in range(_TRIES):
        pod = await _read(context, call)
        check_preconditions(call.resource, pod, options)
        permit = await _permit(context, call, pod, dry_run=options.dry_run)
        try:
            await _end(context, call, pod, options, permit)
        except ApiError as error:
            ours = permit.must_stay_so and not options.resource_version
            if error.code != 409 or not ours:
                raise
            if permit.budget:
                raise budget_in_progress(permit.budget) from error
            if attempt == _TRIES - 1:
                raise
        else:
            break
    return answer_document(success_status(code=201), status=201)


@dataclass(frozen=True, slots=True)
class _Permit:
    """That a Pod may go, and on what condition.

    Attributes:
        budget: the budget that holds it, empty for none.
        must_stay_so: it may go only as it was seen; it might have become ready.
    """

    budget: str = ""
    must_stay_so: bool = False


async def _read(context: ServerContext, call: Call) -> Document:
    pod = await context.registry.get(POD, call.info.namespace, call.info.name)
    if pod is None:
        raise not_found("", POD.resource, call.info.name)
    return pod


async def _permit(
    context: ServerContext, call: Call, pod: Document, *, dry_run: bool
) -> _Permit:
    if is_past_budgets(pod):
        return _Permit(must_stay_so=not is_over(pod))
    budgets = budgets_of(
        pod, await context.registry.list(POD_DISRUPTION_BUDGET, call.info.namespace)
    )
    if not budgets:
        return _Permit()
    if len(budgets) > 1:
        raise ApiError(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction "
            "subresource does not support.",
        )
    name = str(budgets[0]["metadata"]["name"])
    if may_go_unready(pod, budgets[0]):
        return _Permit(name, must_stay_so=True)
    await _charge(context, call, name, dry_run=dry_run)
    return _Permit(name)


async def _charge(
    context: ServerContext, call: Call, name: str, *, dry_run: bool
) -> None:
    """Take one disruption from a budget.

    Raises:
        ApiError: 403, 404, 429, or 504 where others were always ahead.
    """
    registry = context.registry
    resource = registry.of(POD_DISRUPTION_BUDGET)
    for _ in range(_TRIES):
        row = await registry.row(resource, call.info.namespace, name)
        budget = registry.decode(resource, row.value, row.rev)
        charged = charge_budget(budget, call.info.name, now=context.clock.now())
        if dry_run:
            return
        value = registry.encode(resource, charged)
        try:
            await registry.store.update(row.key, value, expected_rev=row.rev)
        except (ConflictError, MissingError):
            continue
        return
    message = f'couldn\'t update PodDisruptionBudget "{name}" due to conflicts'
    raise ApiError(504, "Timeout", f"Timeout: {message}", {"retryAfterSeconds": 10})


async def _end(
    context: ServerContext,
    call: Call,
    pod: Document,
    options: DeleteOptions,
    permit: _Permit,
) -> None:
    """Say why a Pod ends, then delete it.

    Raises:
        ApiError: 403, 404 or 409.
    """
    rev = pod["metadata"]["resourceVersion"]
    bound = permit.must_stay_so and not options.resource_version
    if not options.dry_run and not is_over(pod):
        rev = await _mark(context, pod, rev if bound else options.resource_version)
    if bound or (options.resource_version and not options.dry_run):
        options = dataclasses.replace(options, resource_version=rev)
    await delete_object(context, call, call.info.name, options)


async def _mark(context: ServerContext, pod: Document, expected: str) -> str:
    """Write the ``DisruptionTarget`` condition; return the new revision.

    Args:
        context: the doors.
        pod: the Pod as it was read.
        expected: the revision it must still have, empty for any.

    Raises:
        ApiError: 404 or 409.
    """
    registry, metadata = context.registry, pod["metadata"]
    resource = registry.of(POD)
    for _ in range(_TRIES):
        row = await registry.row(resource, metadata["namespace"], metadata["name"])
        current = registry.decode(resource, row.value, row.rev)
        if current["metadata"]["uid"] != metadata["uid"] or (
            expected and str(row.rev) != expected
        ):
            break
        conditions = with_disruption_target(
            current,
            reason="EvictionByEvictionAPI",
            message="Eviction API: evicting",
            now=context.clock.now(),
        )
        current["status"] = {**(current.get("status") or {}), "conditions": conditions}
        value = registry.encode(resource, current)
        try:
            kept = await registry.store.update(row.key, value, expected_rev=row.rev)
        except (ConflictError, MissingError):
            continue
        return str(kept.rev)
    raise conflict("", POD.resource, metadata["name"])
