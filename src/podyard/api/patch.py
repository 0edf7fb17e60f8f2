"""The three patches: JSON patch, JSON merge patch, strategic merge patch.

Each takes a document and a decoded patch and returns a new document; neither input
is changed.

Source: RFC 6902, RFC 7386, apimachinery ``util/strategicpatch`` (v1.36) and
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import jsonpatch
import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request
from podyard.api.field_schema import FieldSchema
from podyard.api.go_text import quote, show

#: A decoded JSON value.
Json: TypeAlias = Any

#: More operations in one JSON patch are refused.
MAX_OPERATIONS: Final = 10_000
#: What all ``copy`` operations of one JSON patch may add.
MAX_COPIED_BYTES: Final = 3 * 1024 * 1024

_OPERATIONS: Final = frozenset({"add", "remove", "replace", "move", "copy", "test"})
_DIRECTIVE: Final = "$patch"
_RETAIN_KEYS: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList"
_SET_ORDER: Final = "$setElementOrder"
_PARALLEL: Final = (f"{_DELETE_FROM}/", f"{_SET_ORDER}/")
_BAD_ORDER: Final = "invalid patch format of setElementOrder list"
_BAD_RETAIN: Final = "invalid patch format of retainKeys"
_BAD_PRIMITIVES: Final = "invalid patch format of primitive list"
_SCALARS: Final = FieldSchema()


# --- JSON merge patch -----------------------------------------------------------


def apply_merge_patch(document: Document, patch: Json) -> Document:
    """Return the document changed by a JSON merge patch; ``null`` deletes.

    Raises:
        ApiError: 400 where the patch is no object.
    """
    return _merged(_copy(document), _as_object(patch))


def _merged(target: Document, patch: Document) -> Document:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            below = target.get(key)
            target[key] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            target[key] = value
    return target


def _as_object(patch: Json) -> Document:
    if not isinstance(patch, dict):
        kinds = {list: "array", str: "string", bool: "bool"}
        kind = "null" if patch is None else kinds.get(type(patch), "number")
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of "
            "type map[string]interface {}"
        )
    return _copy(patch)


def _copy(document: Document) -> Document:
    copied: Document = orjson.loads(orjson.dumps(document))
    return copied


# --- JSON patch -----------------------------------------------------------------


def apply_json_patch(document: Document, patch: Json) -> Document:
    """Return the document changed by a JSON patch.

    Raises:
        ApiError: 400 where the patch is malformed, 413 where it is too big, 422 where
            an operation cannot be done or a ``test`` fails.
    """
    operations = _check_operations(patch)
    result: Json = _copy(document)
    copied_bytes = 0
    for operation in operations:
        try:
            if operation["op"] == "copy":
                source = jsonpatch.JsonPointer(operation["from"]).resolve(result)
                copied_bytes += len(orjson.dumps(source))
                _check_copied(copied_bytes)
            result = jsonpatch.apply_patch(result, [operation], in_place=True)
        except (
            jsonpatch.JsonPatchException,
            jsonpatch.JsonPointerException,
            TypeError,
        ) as error:
            raise _rejected(_why(operation, result, error)) from error
    if not isinstance(result, dict):
        raise _rejected("the patched document is not an object")
    return result


def _check_operations(patch: Json) -> list[Document]:
    if not isinstance(patch, list) or not all(isinstance(op, dict) for op in patch):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type "
            "jsonpatch.Patch"
        )
    if len(patch) > MAX_OPERATIONS:
        raise _too_large(
            "The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(patch)}"
        )
    for operation in patch:
        if operation.get("op") not in _OPERATIONS:
            raise _rejected(f"Unexpected kind: {operation.get('op') or 'unknown'}")
    try:
        jsonpatch.JsonPatch(patch)
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        TypeError,
    ) as error:
        raise _rejected(str(error)) from error
    operations: list[Document] = orjson.loads(orjson.dumps(patch))
    return operations


def _check_copied(copied_bytes: int) -> None:
    if copied_bytes > MAX_COPIED_BYTES:
        raise _too_large(
            "Unable to complete the copy, the accumulated size increase of copy is "
            f"{copied_bytes}, exceeding the limit {MAX_COPIED_BYTES}"
        )


def _why(operation: Document, document: Json, error: Exception) -> str:
    """Return why an operation does not apply, in the words of Go's library."""
    path = str(operation.get("path"))
    if isinstance(error, jsonpatch.JsonPatchTestFailed):
        return f"testing value {path} failed: test failed"
    parent, _, key = path.rpartition("/")
    try:
        above = jsonpatch.JsonPointer(parent).resolve(document)
    except jsonpatch.JsonPointerException:
        above = None
    match operation["op"]:
        case "add" if above is None:
            return (
                f'add operation does not apply: doc is missing path: "{path}": missing '
                "value"
            )
        case "replace":
            what = "path" if above is None else "key"
            return (
                f"replace operation does not apply: doc is missing {what}: {path}: "
                "missing value"
            )
        case "remove" if above is None:
            return (
                f'remove operation does not apply: doc is missing path: "{path}": '
                "missing value"
            )
        case "remove" if isinstance(above, dict):
            return (
                f"error in remove for path: '{path}': Unable to remove nonexistent "
                f"key: {key}: missing value"
            )
        case name:
            return f"error in {name} for path: '{path}': {error}"


def _rejected(why: str) -> ApiError:
    message = "the server rejected our request due to an error in our request"
    causes = [{"reason": "UnexpectedServerResponse", "message": why}]
    return ApiError(422, "Invalid", message, {"causes": causes})


def _too_large(why: str) -> ApiError:
    message = f"Request entity too large: {why}"
    return ApiError(413, "RequestEntityTooLarge", message)


# --- strategic merge patch --------------------------------------------------------


def apply_strategic_merge_patch(
    document: Document, patch: Json, schema: FieldSchema
) -> Document:
    """Return the document changed by a strategic merge patch.

    Args:
        document: what is stored.
        patch: the decoded patch, with its directives.
        schema: how the kind's fields are merged.

    Raises:
        ApiError: 400 where a directive is malformed or a merge key is missing, 422
            where lists of lists would have to be merged.
    """
    return _merge_map(_copy(document), _as_object(patch), schema)


def _merge_map(original: Document, patch: Document, schema: FieldSchema) -> Document:
    directive = patch.pop(_DIRECTIVE, "merge")
    if directive == "replace":
        return _plain_map(patch)
    if directive == "delete":
        return {}
    if directive != "merge":
        raise bad_request(
            f"unknown patch type: {show(directive)} in map: {show(patch)}"
        )
    _retain_keys(original, patch)
    _apply_orders(original, patch, schema)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            _delete_from_list(original, _strip(key, _DELETE_FROM), value)
        elif value is None:
            original.pop(key, None)
        else:
            _merge_field(original, key, value, _below(schema, key))
    return original


def _merge_field(
    original: Document, key: str, value: Json, schema: FieldSchema
) -> None:
    before = original.get(key)
    if isinstance(before, dict) and isinstance(value, dict):
        if _strategy(schema) == "replace":
            original[key] = _plain_map(value)
        else:
            original[key] = _merge_map(before, value, schema)
    elif isinstance(before, list) and isinstance(value, list):
        original[key] = _merge_list(before, value, schema)
    elif isinstance(value, dict) and _DIRECTIVE in value:
        original.pop(key, None)
    else:
        original[key] = _plain(value)


def _below(schema: FieldSchema, key: str) -> FieldSchema:
    if key in schema.properties:
        return schema.properties[key]
    return schema.values or _SCALARS


def _strategy(schema: FieldSchema) -> str:
    rest = [name for name in schema.patch_strategies if name != "retainKeys"]
    return rest[0] if rest else ""


def _plain(value: Json) -> Json:
    """Return a patch's value as data: without directives and nulls."""
    if isinstance(value, dict):
        return _plain_map(value)
    if isinstance(value, list):
        return [
            _plain(item)
            for item in value
            if not (isinstance(item, dict) and _DIRECTIVE in item)
        ]
    return value


def _plain_map(value: Document) -> Document:
    return {
        key: _plain(item)
        for key, item in value.items()
        if item is not None
        and not key.startswith(_PARALLEL)
        and key not in {_DIRECTIVE, _RETAIN_KEYS}
        and not (isinstance(item, dict) and _DIRECTIVE in item)
    }


def _strip(key: str, prefix: str) -> str:
    name = key.removeprefix(f"{prefix}/")
    if name == key:
        raise bad_request(_BAD_ORDER if prefix == _SET_ORDER else _BAD_PRIMITIVES)
    return name


def _retain_keys(original: Document, patch: Document) -> None:
    if _RETAIN_KEYS not in patch:
        return
    kept = patch.pop(_RETAIN_KEYS)
    if not isinstance(kept, list):
        raise bad_request(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not key.startswith(_PARALLEL) and key not in kept:
            raise bad_request(_BAD_RETAIN)
    for key in original.keys() - set(map(str, kept)):
        del original[key]


def _delete_from_list(original: Document, key: str, value: Json) -> None:
    before = original.get(key)
    if not isinstance(value, list):
        raise bad_request(_BAD_PRIMITIVES)
    if isinstance(before, list):
        original[key] = [item for item in before if item not in value]


# --- lists ----------------------------------------------------------------------


def _apply_orders(original: Document, patch: Document, schema: FieldSchema) -> None:
    """Merge the lists that come with a ``$setElementOrder``, in that order."""
    for directive in [key for key in patch if key.startswith(_SET_ORDER)]:
        order = patch.pop(directive)
        key = _strip(directive, _SET_ORDER)
        before, change = original.get(key), patch.pop(key, None)
        if not _is_list(order) or not _is_list(before) or not _is_list(change):
            raise bad_request(_BAD_ORDER)
        below = _below(schema, key)
        _check_order(change or [], order, below)
        if before is None and change is None:
            continue
        merged = _plain(change) if before is None else before
        if before is not None and change is not None:
            merged = _merge_list(before, change, below)
        original[key] = _ordered(merged, order, before or [], below)


def _is_list(value: Json) -> bool:
    return value is None or isinstance(value, list)


def _check_order(change: list[Json], order: list[Json], schema: FieldSchema) -> None:
    if not change or not order:
        return
    identify = _identify(schema)
    items = [
        item for item in change if not (isinstance(item, dict) and _DIRECTIVE in item)
    ]
    wanted = [identify(item) for item in order]
    at = 0
    for item in items:
        identity = identify(item)
        if identity not in wanted[at:]:
            raise bad_request(
                f"The order in patch list:\n{show(change)}\n doesn't match "
                f"{_SET_ORDER} list:\n{show(order)}\n"
            )
        at = wanted.index(identity, at) + 1


def _identify(schema: FieldSchema) -> Callable[[Json], Json]:
    key = schema.merge_key
    if not key:
        return lambda item: item

    def merge_value(item: Json) -> Json:
        if not isinstance(item, dict):
            raise bad_request(
                f"expected a map[string]interface {{}}, but received a {_go_type(item)}"
            )
        if key not in item:
            raise bad_request(
                f"map: {show(item)} does not contain declared merge key: {key}"
            )
        return item[key]

    return merge_value


def _go_type(value: Json) -> str:
    names = {str: "string", bool: "bool", list: "[]interface {}", int: "int64"}
    return names.get(type(value), "float64")


def _merge_list(
    before: list[Json], change: list[Json], schema: FieldSchema
) -> list[Json]:
    if _strategy(schema) != "merge":
        return list(_plain(change))
    if not before and not change:
        return before
    kinds = {_kind(item) for item in [*before, *change]}
    if len(kinds) > 1:
        raise bad_request(
            f"list element types are not identical: {show([before, change])}"
        )
    if kinds == {"list"}:
        message = "lists of lists are not supported"
        raise ApiError(422, "Invalid", message)
    if kinds != {"map"}:
        merged = list(dict.fromkeys([*before, *change]))
        return _ordered(merged, change, before, schema)
    if not schema.merge_key:
        raise bad_request(
            f"cannot merge lists without merge key for {quote(schema.type)}"
        )
    return _merge_maps(before, change, schema, schema.merge_key)


def _kind(item: Json) -> str:
    if isinstance(item, dict):
        return "map"
    return "list" if isinstance(item, list) else _go_type(item)


def _merge_maps(
    before: list[Document], change: list[Document], schema: FieldSchema, key: str
) -> list[Document]:
    identify = _identify(schema)
    server = list(before)
    additions: list[Document] = []
    replace = False
    for item in change:
        directive = item.get(_DIRECTIVE)
        if directive is None:
            additions.append(item)
        elif directive == "delete":
            gone = identify(item)
            server = [kept for kept in server if kept.get(key, _SCALARS) != gone]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise bad_request("merging lists cannot yet be specified in the patch")
        else:
            raise bad_request(
                f"unknown patch type: {show(directive)} in map: {show(item)}"
            )
    if replace:
        return [_plain_map(item) for item in additions]
    merged = list(server)
    for item in additions:
        identity = identify(item)
        found = _find(merged, key, identity)
        if found is None:
            merged.append(_plain_map(item))
        else:
            below = schema.items or _SCALARS
            merged[found] = _merge_map(merged[found], dict(item), below)
    return _ordered(merged, additions, server, schema)


def _find(items: list[Document], key: str, identity: Json) -> int | None:
    for index, item in enumerate(items):
        if key in item and item[key] == identity:
            return index
    return None


def _ordered(
    merged: list[Json], order: list[Json], server: list[Json], schema: FieldSchema
) -> list[Json]:
    """Put the patch's entries in the patch's order, among the server's own."""
    identify = _identify(schema)
    wanted = _places(order, identify)
    present = _places(server, identify)
    mine = [item for item in merged if _place(wanted, identify(item)) is not None]
    theirs = [item for item in merged if _place(wanted, identify(item)) is None]
    mine.sort(key=lambda item: _place(wanted, identify(item)) or 0)
    theirs.sort(
        key=lambda item: _or_last(_place(present, identify(item)), len(present))
    )
    result: list[Json] = []
    while mine and theirs:
        left = _place(present, identify(theirs[0]))
        right = _place(present, identify(mine[0]))
        server_first = left is not None and right is not None and left < right
        result.append((theirs if server_first else mine).pop(0))
    return [*result, *theirs, *mine]


def _places(items: Iterable[Json], identify: Callable[[Json], Json]) -> list[Json]:
    return [identify(item) for item in items]


def _place(identities: list[Json], identity: Json) -> int | None:
    return identities.index(identity) if identity in identities else None


def _or_last(place: int | None, last: int) -> int:
    return last if place is None else place
