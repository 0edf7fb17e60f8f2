"""Who owns which field: the sets behind server-side apply. Pure.

A field is a path of elements spelled as ``metadata.managedFields`` spells them:
``f:name`` a field or map key, ``k:{"name":"c"}`` a list's entry by its keys,
``v:"x"`` an entry of a set. A manager owns a set of such paths.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and
sigs.k8s.io/structured-merge-diff v6 (typed, fieldpath, merge).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request
from podyard.api.field_schema import FieldSchema
from podyard.lib.values import dataclass

Path: TypeAlias = tuple[str, ...]
Paths: TypeAlias = frozenset[Path]

APPLY: Final = "Apply"
UPDATE: Final = "Update"
#: Who owns what was there before anything was applied.
BEFORE_FIRST_APPLY: Final = "before-first-apply"
#: The same, where kubectl had applied on its own side.
CLIENT_SIDE_APPLY: Final = "kubectl-client-side-apply"

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_ANY: Final = FieldSchema()
#: Marks an entry of a list or map, whose own fields are below it.
_ENTRY: Final = object()
_NOBODYS: Final[Paths] = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
    }
)


@dataclass(frozen=True, slots=True)
class Manager:
    """Who owns fields, and how it came to.

    Attributes:
        name: the field manager.
        operation: ``Apply`` or ``Update``.
        api_version: in which version it spoke.
        subresource: through which subresource, or empty.
    """

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """What one manager owns.

    Attributes:
        paths: the fields.
        time: when it last changed, as metadata spells times.
    """

    paths: Paths
    time: str = ""


Owners: TypeAlias = Mapping[Manager, Owned]


# --- spelling ---------------------------------------------------------------------


def to_fields_v1(paths: Iterable[Path]) -> Document:
    """Return a set of paths as ``fieldsV1``."""
    root: Document = {}
    for path in sorted(paths, key=len):
        node = root
        for index, element in enumerate(path):
            child = node.get(element)
            if child is None:
                child = node[element] = {}
            elif not child and index < len(path) - 1 and path[: index + 1] in paths:
                child["."] = {}
            node = child
    return root


def from_fields_v1(fields: Document) -> Paths:
    """Return ``fieldsV1`` as a set of paths."""
    found: set[Path] = set()

    def walk(node: Document, path: Path) -> None:
        if not node and path:
            found.add(path)
        for element, below in node.items():
            if element == ".":
                found.add(path)
            elif isinstance(below, dict):
                walk(below, (*path, element))

    walk(fields, ())
    return frozenset(found)


def read_owners(entries: Iterable[Document]) -> dict[Manager, Owned]:
    """Return the owners in ``metadata.managedFields``; unreadable ones are left out."""
    owners: dict[Manager, Owned] = {}
    for entry in entries:
        fields = entry.get("fieldsV1")
        if not isinstance(fields, dict) or not entry.get("operation"):
            continue
        manager = Manager(
            entry.get("manager") or "",
            entry["operation"],
            entry.get("apiVersion") or "",
            entry.get("subresource") or "",
        )
        owners[manager] = Owned(from_fields_v1(fields), entry.get("time") or "")
    return owners


def write_owners(owners: Owners) -> list[Document]:
    """Return owners as ``metadata.managedFields``, in upstream's order."""
    entries = []
    ordered = sorted(
        owners.items(), key=lambda item: (item[0].operation, item[1].time, item[0].name)
    )
    for manager, owned in ordered:
        if not owned.paths:
            continue
        entry: Document = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(owned.paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def show_path(path: Path) -> str:
    """Return a path as conflicts show it: ``.spec.containers[name="c"].image``."""
    text = ""
    for element in path:
        kind, value = element[:2], element[2:]
        if kind == "f:":
            text += f".{value}"
        elif kind == "k:":
            pairs = orjson.loads(value)
            inner = ",".join(
                f"{key}={orjson.dumps(pairs[key]).decode()}" for key in sorted(pairs)
            )
            text += f"[{inner}]"
        else:
            text += f"[={value}]"
    return text


# --- what a document says ---------------------------------------------------------


def _is_atomic(schema: FieldSchema, value: Any) -> bool:
    if isinstance(value, dict):
        known = bool(schema.properties) or schema.values is not None
        return schema.map_type == "atomic" or not known
    if isinstance(value, list):
        return schema.list_type not in {"map", "set"}
    return True


def _below(schema: FieldSchema, name: str) -> FieldSchema:
    if name in schema.properties:
        return schema.properties[name]
    return schema.values or _ANY


def entry_element(schema: FieldSchema, item: Any, path: Path) -> str:
    """Return how an entry of a set or map list is spelled.

    Raises:
        ApiError: 400, a key is missing and has no default.
    """
    if schema.list_type == "set":
        return f"v:{orjson.dumps(item).decode()}"
    items = schema.items or _ANY
    keys: Document = {}
    for key in schema.list_map_keys:
        value = item.get(key) if isinstance(item, dict) else None
        if value is None:
            value = _below(items, key).default
        if value is None:
            raise bad_request(
                f"{show_path(path)}: element 0: associative list with keys has an "
                f'element that omits key field "{key}" (and doesn\'t have default '
                "value)"
            )
        keys[key] = value
    return f"k:{orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()}"


def flatten(document: Document, schema: FieldSchema) -> dict[Path, Any]:
    """Return every field that can be owned, with its value.

    Raises:
        ApiError: 400, a list's entry has no key.
    """
    return {
        path: value
        for path, value in _walk(document, schema, ())
        if path not in _NOBODYS
    }


def _walk(value: Any, schema: FieldSchema, path: Path) -> Iterator[tuple[Path, Any]]:
    if _is_atomic(schema, value):
        yield path, value
    elif isinstance(value, dict):
        if not value and path:
            yield path, _ENTRY
        for name, item in value.items():
            where = (*path, f"f:{name}")
            if name not in schema.properties and isinstance(item, dict):
                yield where, _ENTRY
            yield from _walk(item, _below(schema, name), where)
    else:
        for item in value:
            where = (*path, entry_element(schema, item, path))
            yield where, _ENTRY
            if schema.list_type == "map":
                yield from _walk(item, schema.items or _ANY, where)


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two documents.

    Attributes:
        changed: fields that are new or have another value.
        removed: fields that are gone.
    """

    changed: Paths
    removed: Paths


def compare(old: Document, new: Document, schema: FieldSchema) -> Difference:
    """Return what changed between two documents."""
    before, after = flatten(old, schema), flatten(new, schema)
    changed = {
        path
        for path, value in after.items()
        if path not in before or before[path] != value
    }
    return Difference(frozenset(changed), frozenset(before.keys() - after.keys()))


# --- merging ----------------------------------------------------------------------


def merge(live: Any, config: Any, schema: FieldSchema) -> Any:
    """Return the stored value with what is applied put over it."""
    if type(live) is not type(config) or _is_atomic(schema, config):
        return config
    if isinstance(config, dict):
        merged = dict(live)
        for name, value in config.items():
            if name in live:
                merged[name] = merge(live[name], value, _below(schema, name))
            else:
                merged[name] = value
        return merged
    return _merge_list(live, config, schema)


def _merge_list(live: list[Any], config: list[Any], schema: FieldSchema) -> list[Any]:
    """Merge entries by key: in the applied order, others stay where they stood."""
    stored = {entry_element(schema, item, ()): item for item in live}
    applied = {entry_element(schema, item, ()): item for item in config}
    left, right = list(stored), list(applied)
    result: list[Any] = []
    done: set[str] = set()
    while left or right:
        if left and (left[0] in done or left[0] not in applied):
            key = left.pop(0)
            if key not in done:
                result.append(stored[key])
                done.add(key)
            continue
        key = right.pop(0)
        if key in done:
            continue
        item = applied[key]
        if key in stored:
            item = merge(stored[key], item, schema.items or _ANY)
        result.append(item)
        done.add(key)
        if left and left[0] == key:
            left.pop(0)
    return result


def remove_paths(value: Any, paths: Iterable[Path], schema: FieldSchema) -> Any:
    """Return a document without some fields."""
    here: dict[str, list[Path]] = {}
    whole: set[str] = set()
    for path in paths:
        if len(path) == 1:
            whole.add(path[0])
        elif path:
            here.setdefault(path[0], []).append(path[1:])
    if isinstance(value, dict):
        return {
            name: remove_paths(item, here.get(f"f:{name}", ()), _below(schema, name))
            for name, item in value.items()
            if f"f:{name}" not in whole
        }
    if isinstance(value, list) and not _is_atomic(schema, value):
        kept = []
        for item in value:
            element = entry_element(schema, item, ())
            if element not in whole:
                below = here.get(element, ())
                kept.append(remove_paths(item, below, schema.items or _ANY))
        return kept
    return value


# --- apply and update -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply makes of an object.

    Attributes:
        document: the object.
        owners: who owns what now.
    """

    document: Document
    owners: Owners


def first_owners(live: Document, schema: FieldSchema, manager: Manager) -> Owners:
    """Return who owns an object that nobody has applied yet.

    Where kubectl has applied on its own side, what it sent is owned under the name it
    goes by there, so that it can take that over, and only that.
    """
    metadata = live.get("metadata") or {}
    time = metadata.get("creationTimestamp") or ""
    found = frozenset(path for path in flatten(live, schema) if path[0] != "f:status")
    sent = found & _sent(metadata, schema)
    owners = {BEFORE_FIRST_APPLY: found - sent, CLIENT_SIDE_APPLY: sent}
    return {
        Manager(name, UPDATE, manager.api_version): Owned(paths, time)
        for name, paths in owners.items()
        if paths
    }


def _sent(metadata: Document, schema: FieldSchema) -> Paths:
    """Return what kubectl has applied on its own side, the note of that included."""
    text = (metadata.get("annotations") or {}).get(_LAST_APPLIED)
    try:
        config = orjson.loads(text or "")
        paths = flatten(config, schema) if isinstance(config, dict) else {}
    except (orjson.JSONDecodeError, ApiError):
        paths = {}
    note = ("f:metadata", "f:annotations", f"f:{_LAST_APPLIED}")
    return frozenset((*paths, note))


def ignore(paths: Iterable[Path], prefixes: Iterable[Path]) -> Paths:
    """Return the paths that are not below any prefix."""
    hidden = tuple(prefixes)
    return frozenset(
        path
        for path in paths
        if not any(path[: len(prefix)] == prefix for prefix in hidden)
    )


def apply_config(
    live: Document,
    config: Document,
    *,
    owners: Owners,
    manager: Manager,
    schema: FieldSchema,
    force: bool,
    now: str,
) -> Applied:
    """Apply what a manager wants to an object.

    The manager owns what it sends. What it owned alone and no longer sends goes;
    changing what others own is a conflict, unless forced.

    Args:
        live: what is stored.
        config: what is wanted, and nothing else.
        owners: who owns what until now.
        manager: who applies.
        schema: how the kind's fields are merged.
        force: take over what others own.
        now: the time, as metadata spells it.

    Raises:
        ApiError: 400 a list's entry has no key, 409 others own what would change.
    """
    wanted = frozenset(flatten(config, schema))
    others = {who: owned for who, owned in owners.items() if who != manager}
    before = owners.get(manager, Owned(frozenset()))
    merged = merge(live, config, schema)
    dropped = before.paths - wanted
    held = {
        path[:end]
        for o in others.values()
        for path in o.paths
        for end in range(1, len(path) + 1)
    }
    pruned = remove_paths(merged, [p for p in dropped if p not in held], schema)
    difference = compare(live, pruned, schema)
    conflicts = {
        who: taken
        for who, owned in others.items()
        if (taken := owned.paths & difference.changed)
    }
    if conflicts and not force:
        raise _conflict_error(conflicts, others)
    after = _without(others, difference.changed, difference.removed)
    time = before.time if before.paths == wanted and before.time else now
    return Applied(pruned, {**after, manager: Owned(wanted, time)})


def track_update(
    old: Document,
    new: Document,
    *,
    owners: Owners,
    manager: Manager,
    schema: FieldSchema,
    now: str,
) -> Owners:
    """Return the owners after a plain write: who changes a field owns it."""
    difference = compare(old, new, schema)
    if not difference.changed and not difference.removed:
        return owners
    others = {who: owned for who, owned in owners.items() if who != manager}
    after = _without(others, difference.changed, difference.removed)
    mine = owners.get(manager, Owned(frozenset()))
    paths = (mine.paths - difference.removed) | difference.changed
    if not paths:
        return after
    time = mine.time if paths == mine.paths else now
    return {**after, manager: Owned(paths, time)}


def _without(owners: Owners, changed: Paths, removed: Paths) -> dict[Manager, Owned]:
    kept = {}
    for who, owned in owners.items():
        paths = owned.paths - changed - removed
        if paths:
            kept[who] = owned if paths == owned.paths else replace(owned, paths=paths)
    return kept


def _show_manager(manager: Manager, time: str) -> str:
    text = orjson.dumps(manager.name).decode()
    if manager.subresource:
        text += f' with subresource "{manager.subresource}"'
    if manager.operation == UPDATE:
        text += f" using {manager.api_version}"
        if time:
            text += f" at {time}"
    return text


def _conflict_error(conflicts: Mapping[Manager, Paths], owners: Owners) -> ApiError:
    causes: list[Document] = []
    groups: list[str] = []
    count = sum(len(paths) for paths in conflicts.values())
    for manager, paths in sorted(conflicts.items(), key=lambda item: item[0].name):
        who = _show_manager(manager, owners[manager].time)
        shown = sorted(show_path(path) for path in paths)
        causes.extend(
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {who}",
                "field": text,
            }
            for text in shown
        )
        if len(shown) == 1 and count == 1:
            groups.append(f"conflict with {who}: {shown[0]}")
        else:
            lines = "\n".join(f"- {text}" for text in shown)
            groups.append(f"conflicts with {who}:\n{lines}")
    plural = "" if count == 1 else "s"
    message = f"Apply failed with {count} conflict{plural}: " + "\n".join(groups)
    return ApiError(409, "Conflict", message, {"causes": causes})
