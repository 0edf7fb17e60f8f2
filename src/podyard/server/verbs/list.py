"""LIST: a snapshot of one revision, whole or in pages."""

from podyard.api.documents import Document
from podyard.api.errors import ApiError, expired
from podyard.lib.values import dataclass
from podyard.server.call import Call, Reply
from podyard.server.context import ServerContext
from podyard.server.registry import Registry, prefix_of, too_large_rev
from podyard.server.resource import Resource
from podyard.server.verbs.answers import encode_rows, include_of
from podyard.server.verbs.options import (
    INCONSISTENT,
    ListOptions,
    encode_continue,
    expired_continue,
    parse_list_options,
)
from podyard.store.backend import CompactedError, FutureRevisionError, Page, Row

#: How many rows are looked at together where a selector leaves some out.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a list.

    Attributes:
        rows: what was asked for.
        rev: the revision of the snapshot.
        token: goes on behind them, empty at the end.
        remaining: how many follow, ``None`` where nobody knows.
    """

    rows: tuple[Row, ...]
    rev: int
    token: str = ""
    remaining: int | None = None

    def metadata(self) -> Document:
        """Return the ``ListMeta``."""
        document: Document = {"resourceVersion": str(self.rev)}
        if self.token:
            document["continue"] = self.token
        if self.token and self.remaining is not None:
            document["remainingItemCount"] = self.remaining
        return document


async def list_objects(context: ServerContext, call: Call) -> Reply:
    """Answer the objects of a namespace or of the cluster.

    Raises:
        ApiError: 400 or 422 for options, 410 compacted, 504 too new.
    """
    options = parse_list_options(call.info, call.resource, is_watch=False)
    found = await find_rows(context, call.resource, call.info.namespace, options)
    form, include = call.form, include_of(call)
    body = encode_rows(
        context.registry,
        call.resource,
        found.rows,
        found.metadata(),
        form=form,
        include=include,
        now=call.now,
    )
    return Reply(body)


async def find_rows(
    context: ServerContext, resource: Resource, namespace: str, options: ListOptions
) -> Found:
    """Return the rows that options ask for.

    Raises:
        ApiError: 410 compacted, 504 too new.
    """
    registry = context.registry
    rev = await _snapshot_rev(registry, options)
    if options.selection.name is not None:
        by_name = await _by_name(registry, resource, namespace, options, rev)
        if by_name is not None:
            return by_name
    try:
        return await _read(registry, resource, namespace, options, rev)
    except CompactedError as error:
        raise _compacted(options, error) from error
    except FutureRevisionError as error:
        raise too_large_rev(error.rev, error.current_rev) from error


async def _snapshot_rev(registry: Registry, options: ListOptions) -> int | None:
    """Return the revision to look at; ``None`` is the newest."""
    if options.page_rev is not None:
        return None if options.page_rev == INCONSISTENT else options.page_rev
    if options.rev:
        await registry.wait_for_rev(options.rev)
        if options.exact:
            return options.rev
    return None


async def _by_name(
    registry: Registry,
    resource: Resource,
    namespace: str,
    options: ListOptions,
    rev: int | None,
) -> Found | None:
    """Read the one key a selector allows; ``None`` where it takes a scan."""
    name, kind = options.selection.name, resource.kind
    if rev is not None or not name or (kind.namespaced and not namespace):
        return None
    row = await registry.store.get(kind.key(namespace, name))
    now_rev = registry.store.current_rev
    rows = () if row is None else (row,)
    return Found(_select(registry, resource, rows, options), now_rev)


async def _read(
    registry: Registry,
    resource: Resource,
    namespace: str,
    options: ListOptions,
    rev: int | None,
) -> Found:
    prefix = prefix_of(resource.kind, namespace)
    after = options.start_after
    start = f"{prefix}{after}" if after else ""
    if options.selection.is_all:
        page = await registry.store.list(
            prefix, rev=rev, start_after=start, limit=options.limit
        )
        return Found(page.rows, page.rev, _token(page, prefix), page.remaining)
    return await _read_selected(registry, resource, prefix, options, rev=rev, at=start)


async def _read_selected(
    registry: Registry,
    resource: Resource,
    prefix: str,
    options: ListOptions,
    *,
    rev: int | None,
    at: str,
) -> Found:
    """Read on until enough rows match."""
    wanted, found = options.limit, []
    while True:
        page = await registry.store.list(
            prefix, rev=rev, start_after=at, limit=_CHUNK if wanted else 0
        )
        rev = page.rev
        for row in page.rows:
            at = row.key
            if _select(registry, resource, (row,), options):
                found.append(row)
            if wanted and len(found) == wanted:
                is_last = row is page.rows[-1] and not page.more
                token = "" if is_last else encode_continue(rev, at[len(prefix) :])
                return Found(tuple(found), rev, token)
        if not page.more:
            return Found(tuple(found), rev)


def _select(
    registry: Registry,
    resource: Resource,
    rows: tuple[Row, ...],
    options: ListOptions,
) -> tuple[Row, ...]:
    return tuple(
        row
        for row in rows
        if options.selection.matches(registry.facts(resource, row.value, row.rev))
    )


def _token(page: Page, prefix: str) -> str:
    if not page.more or not page.rows:
        return ""
    return encode_continue(page.rev, page.rows[-1].key[len(prefix) :])


def _compacted(options: ListOptions, error: CompactedError) -> ApiError:
    if options.page_rev is not None:
        return expired_continue(options.start_after)
    return expired(
        f"The resourceVersion for the provided list is too old: {error.rev} "
        f"({error.compact_rev})"
    )
