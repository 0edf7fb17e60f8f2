"""Checks documents against the definitions of their kinds, as strict Go would.

A document is walked once: fields of the wrong JSON type are faults, unknown fields
are named and left out, and what Go would write differently is written so (nulls and
empty fields go, quantities and times take their canonical form). Beside it: the
patch metadata of every field.

Nothing is read here; ``Schemas`` is handed the built definitions.

Source: Kubernetes v1.36 OpenAPI definitions; message texts of sigs.k8s.io/json and
apimachinery ``runtime``.
"""

import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONDecoder
from typing import Any, Final, TypeAlias

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request
from podyard.api.field_schema import FieldSchema, LazyFields
from podyard.api.protobuf import message_fields
from podyard.api.quantity import QuantityError, canonical
from podyard.lib.values import dataclass

Definition: TypeAlias = Mapping[str, Any]

_API = "io.k8s.api."
_MACHINERY = "io.k8s.apimachinery.pkg."
_GVK = "x-kubernetes-group-version-kind"
#: What may stand in for anything: its inside is nobody's business.
_ANYTHING: Final = frozenset(
    {
        f"{_MACHINERY}apis.meta.v1.FieldsV1",
        f"{_MACHINERY}runtime.RawExtension",
    }
)
#: Upstream names no more unknown and duplicate fields than these.
_MAX_STRICT_FAULTS: Final = 100
_INT32: Final = 1 << 31
_INT64: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        document: the document without unknown, null and empty fields.
        faults: what Go could not decode; any is a 400, and the first is the one
            that upstream tells.
        unknown: ``unknown field "spec.x"``, in the order met.
    """

    document: Document
    faults: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class UnknownKindError(LookupError):
    """No definition of this kind is at hand."""


# --- errors -------------------------------------------------------------------


def cannot_handle(api_version: str, kind: str, why: str) -> ApiError:
    """400: the body is no object of this kind.

    Args:
        api_version: of the body, as ``apps/v1``.
        kind: of the body.
        why: the decoder's words.
    """
    version = api_version.rpartition("/")[2]
    return bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: {why}'
    )


def strict_decoding_error(
    api_version: str, kind: str, problems: Iterable[str]
) -> ApiError:
    """400: strict decoding met unknown or duplicate fields.

    Args:
        api_version: of the body.
        kind: of the body.
        problems: as ``unknown field "spec.x"``; all are told.
    """
    why = f"strict decoding error: {', '.join(problems)}"
    return cannot_handle(api_version, kind, why)


# --- duplicate fields ---------------------------------------------------------


def duplicate_fields(body: bytes | str) -> tuple[str, ...]:
    """Name the fields that a JSON text gives twice, as strict decoding does.

    The fast decoder keeps the last of them in silence, so this is a second look.

    Args:
        body: JSON that the fast decoder took.

    Returns:
        ``duplicate field "spec.x"``, sorted by where they stand in the document.
    """
    doubled: dict[int, list[str]] = {}
    # held so that no other object gets the id of one that was dropped
    keep: list[dict[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            times = Counter(key for key, _ in pairs)
            doubled[id(made)] = [key for key in made if times[key] > 1]
            keep.append(made)
        return made

    text = body if isinstance(body, str) else body.decode()
    document = JSONDecoder(object_pairs_hook=note).decode(text)
    if not doubled:
        return ()
    found: list[str] = []
    _name_duplicates(document, (), doubled, found)
    return tuple(f'duplicate field "{path}"' for path in found[:_MAX_STRICT_FAULTS])


def _name_duplicates(
    value: Any,
    path: tuple[str | int, ...],
    doubled: Mapping[int, list[str]],
    found: list[str],
) -> None:
    if isinstance(value, dict):
        again = doubled.get(id(value), ())
        found.extend(_spell_path((*path, key)) for key in again)
        for key, item in value.items():
            _name_duplicates(item, (*path, key), doubled, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _name_duplicates(item, (*path, index), doubled, found)


# --- the walk -----------------------------------------------------------------


class _MapKey(str):
    """A key of a map: part of a field's path, but no Go struct field."""

    __slots__ = ()


_PathPart: TypeAlias = str | int


def _spell_path(path: Iterable[_PathPart]) -> str:
    """Spell a path as strict decoding does: ``spec.containers[0].image``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


class _Walk:
    """One walk through one document: where it is, and what it found."""

    __slots__ = ("fatal", "faults", "path", "unknown")

    def __init__(self) -> None:
        self.path: list[_PathPart] = []
        self.faults: list[str] = []
        self.fatal: list[str] = []
        self.unknown: list[str] = []

    def mismatch(self, owner: str, value: Any, go_type: str) -> None:
        """Note a value of the wrong JSON type."""
        said = _json_word(value, go_type)
        steps = (p for p in self.path if type(p) is str)
        field = ".".join(steps)
        where = f"Go struct field {owner}.{field}" if field else "Go value"
        self.faults.append(
            f"json: cannot unmarshal {said} into {where} of type {go_type}"
        )

    def refuse(self, why: str) -> None:
        """Note a value its own type refused; Go stops at the first of these."""
        self.fatal.append(why)

    def miss(self, name: str) -> None:
        """Note an unknown field."""
        if len(self.unknown) < _MAX_STRICT_FAULTS:
            path = _spell_path((*self.path, name))
            self.unknown.append(f'unknown field "{path}"')


def _json_word(value: Any, go_type: str) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        # a number that does not fit is shown
        return f"number {value}" if go_type.startswith("int") else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


#: Walks a value of the right JSON type and returns it as it is to be kept.
_Walker: TypeAlias = Callable[[Any, _Walk], Any]


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place for a value: the JSON type it takes, and how to go on.

    Attributes:
        expect: the Python type, or ``None`` where ``walk`` looks itself.
        walk: the rest of the way, or ``None`` where the type is all there is.
        zero: what a null becomes inside a list or map.
        go_type: as messages spell it.
    """

    expect: type | None
    walk: _Walker | None
    zero: Callable[[], Any]
    go_type: str


def _walk_list(owner: str, slot: _Slot) -> _Walker:
    expect, walk, zero, go_type = slot.expect, slot.walk, slot.zero, slot.go_type

    def walk_plain(value: list[Any], state: _Walk) -> list[Any]:
        for item in value:
            if type(item) is not expect:
                return repair(value, state)
        return value

    def repair(value: list[Any], state: _Walk) -> list[Any]:
        kept = []
        for item in value:
            if item is None:
                kept.append(zero())
            elif type(item) is expect:
                kept.append(item)
            else:
                state.mismatch(owner, item, go_type)
        return kept

    def walk_deep(value: list[Any], state: _Walk) -> list[Any]:
        path = state.path
        path.append(0)
        kept = []
        for index, item in enumerate(value):
            if item is None:
                kept.append(zero())
            elif expect is None or type(item) is expect:
                path[-1] = index
                kept.append(walk(item, state))  # type: ignore[misc]
            else:
                state.mismatch(owner, item, go_type)
        path.pop()
        return kept

    return walk_plain if walk is None else walk_deep


def _walk_map(owner: str, slot: _Slot) -> _Walker:
    expect, walk, zero, go_type = slot.expect, slot.walk, slot.zero, slot.go_type

    def walk_plain(value: dict[str, Any], state: _Walk) -> dict[str, Any]:
        for item in value.values():
            if type(item) is not expect:
                return repair(value, state)
        return value

    def repair(value: dict[str, Any], state: _Walk) -> dict[str, Any]:
        kept = {}
        for key, item in value.items():
            if item is None:
                kept[key] = zero()
            elif type(item) is expect:
                kept[key] = item
            else:
                state.mismatch(owner, item, go_type)
        return kept

    def walk_deep(value: dict[str, Any], state: _Walk) -> dict[str, Any]:
        path = state.path
        kept = {}
        for key, item in value.items():
            if item is None:
                kept[key] = zero()
            elif expect is None or type(item) is expect:
                path.append(_MapKey(key))
                kept[key] = walk(item, state)  # type: ignore[misc]
                path.pop()
            else:
                state.mismatch(owner, item, go_type)
        return kept

    return walk_plain if walk is None else walk_deep


#: One field of a struct: expected type, walker, whether zero stays, Go type.
_FieldRow: TypeAlias = tuple[type | None, _Walker | None, bool, str]


def _walk_struct(owner: str, rows: Mapping[str, _FieldRow]) -> _Walker:
    find = rows.get

    def walk_struct(value: dict[str, Any], state: _Walk) -> dict[str, Any]:
        path = state.path
        kept = {}
        for name, item in value.items():
            row = find(name)
            if row is None:
                state.miss(name)
                continue
            expect, walk, keep_zero, go_type = row
            if type(item) is expect or (expect is None and item is not None):
                if walk is not None:
                    path.append(name)
                    item = walk(item, state)  # noqa: PLW2901
                    path.pop()
                if item or keep_zero:
                    kept[name] = item
            elif item is not None:
                path.append(name)
                state.mismatch(owner, item, go_type)
                path.pop()
        return kept

    return walk_struct


# --- leaves with rules of their own -------------------------------------------

_PLAIN_TIME = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
)
_ANY_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:[.,]([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_GO_TIME = "2006-01-02T15:04:05Z07:00"
_GO_MICRO_TIME = "2006-01-02T15:04:05.000000Z07:00"


def _integer_walker(owner: str, limit: int, go_type: str) -> _Walker:
    def walk_integer(value: int, state: _Walk) -> int:
        if -limit <= value < limit:
            return value
        state.mismatch(owner, value, go_type)
        return 0

    return walk_integer


def _number_walker(owner: str) -> _Walker:
    def walk_number(value: Any, state: _Walk) -> Any:
        if type(value) is int or type(value) is float:
            return value
        state.mismatch(owner, value, "float64")
        return 0

    return walk_number


def _choice_walker(owner: str) -> _Walker:
    def walk_choice(value: Any, state: _Walk) -> Any:
        if type(value) is str:
            return value
        if type(value) is int and -_INT32 <= value < _INT32:
            return value
        state.mismatch(owner, value, "int32")
        return 0

    return walk_choice


_read_quantity = lru_cache(maxsize=4096)(canonical)
_QUANTITIES: Final = frozenset({str, int, float})


def _walk_quantity(value: Any, state: _Walk) -> Any:
    try:
        if type(value) in _QUANTITIES:
            return _read_quantity(value)
        canonical(True)  # noqa: FBT003 - the words for what is no quantity at all
    except QuantityError as error:
        state.refuse(str(error))
    return "0"


def _walk_bytes(value: str, state: _Walk) -> str:
    # Go skips line breaks, and writes the text again without them
    text = value.replace("\n", "").replace("\r", "")
    if not _is_base64(text):
        state.faults.append(f"illegal base64 data at input byte {_base64_fault(text)}")
    return text


def _is_base64(text: str) -> bool:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    # an extra pad behind a whole group passes the check above
    return len(text) % 4 == 0


def _base64_fault(text: str) -> int:
    """Return where Go's decoder stops."""
    fault = re.search(r"[^A-Za-z0-9+/]", text)
    if fault is None:
        return len(text) // 4 * 4
    return fault.start()


def _time_walker(owner: str, *, micro: bool) -> _Walker:
    layout = _GO_MICRO_TIME if micro else _GO_TIME

    def walk_time(value: Any, state: _Walk) -> Any:
        if type(value) is not str:
            state.mismatch(owner, value, "string")
            return None
        if not micro and _PLAIN_TIME.fullmatch(value):
            return value
        written = _rewrite_time(value, micro=micro)
        if written is None:
            state.refuse(
                f'parsing time "{value}" as "{layout}": '
                f'cannot parse "{value}" as "2006"'
            )
        return written

    return walk_time


def _rewrite_time(text: str, *, micro: bool) -> str | None:
    """Return an RFC 3339 time in UTC, cut to the precision that is kept."""
    match = _ANY_TIME.fullmatch(text)
    if match is None:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        moment = datetime.fromisoformat(match[1] + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    spelled = moment.replace(tzinfo=None).isoformat()
    if micro:
        spelled += f".{(match[2] or '')[:6]:0<6}"
    return f"{spelled}Z"


def _nothing() -> None:
    return None


# --- compiling ----------------------------------------------------------------


def _go_name(definition: str) -> str:
    """Spell a definition as Go does: ``io.k8s.api.core.v1.Pod`` is ``v1.Pod``."""
    return ".".join(definition.split(".")[-2:])


def _message_name(definition: str) -> str:
    """Name a definition as the wire table does."""
    return (
        definition.removeprefix(_API)
        .removeprefix(f"{_MACHINERY}apis.")
        .removeprefix(_MACHINERY)
    )


class Schemas:
    """The definitions of all kinds, compiled as they are asked for.

    One instance serves a whole process; it is not meant for several threads, though
    the worst a race does is to compile a kind twice.
    """

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        """Take the definitions; nothing is compiled yet.

        Args:
            definitions: by name, as ``io.k8s.api.core.v1.Pod``; references are
                ``#/definitions/<name>``.
        """
        self.definitions = definitions
        self._names = {
            (_join(gvk["group"], gvk["version"]), gvk["kind"]): name
            for name, definition in definitions.items()
            for gvk in definition.get(_GVK, ())
        }
        self._walkers: dict[str, _Walker] = {}
        self._compiling: set[str] = set()
        self._patch_schemas: dict[str, FieldSchema] = {}

    def has(self, api_version: str, kind: str) -> bool:
        """Return whether there is a definition of this kind."""
        return (api_version, kind) in self._names

    def definition_name(self, api_version: str, kind: str) -> str:
        """Return the name of a kind's definition.

        Raises:
            UnknownKindError: there is none.
        """
        try:
            return self._names[api_version, kind]
        except KeyError:
            raise UnknownKindError(
                f'no definition of kind "{kind}" in version "{api_version}"'
            ) from None

    # -- checking

    def check(self, api_version: str, kind: str, document: Document) -> Checked:
        """Walk a document through its kind's definition.

        The document handed in is not changed; the result may share parts with it.

        Args:
            api_version: as ``apps/v1``; the document's own is not looked at.
            kind: as ``Deployment``.
            document: parsed JSON.

        Raises:
            UnknownKindError: there is no such definition.
        """
        name = self.definition_name(api_version, kind)
        state = _Walk()
        if type(document) is not dict:
            state.mismatch("", document, _go_name(name))
            return Checked({}, tuple(state.faults))
        kept = self._walker(name)(document, state)
        return Checked(kept, tuple(state.fatal + state.faults), tuple(state.unknown))

    def decode(self, api_version: str, kind: str, document: Document) -> Checked:
        """Check a document and refuse what Go could not decode.

        Returns:
            The pruned document and the unknown fields, for the caller to warn of
            or to refuse with ``strict_decoding_error``.

        Raises:
            ApiError: 400, in upstream's words.
            UnknownKindError: there is no such definition.
        """
        checked = self.check(api_version, kind, document)
        if checked.faults:
            raise cannot_handle(api_version, kind, checked.faults[0])
        return checked

    def _walker(self, name: str) -> _Walker:
        walker = self._walkers.get(name)
        if walker is None:
            self._compiling.add(name)
            try:
                walker = self._walkers[name] = self._compile(name)
            finally:
                self._compiling.discard(name)
        return walker

    def _compile(self, name: str) -> _Walker:
        definition = self.definitions[name]
        go_name = name.rpartition(".")[2]
        wire = message_fields(_message_name(name))
        rows: dict[str, _FieldRow] = {}
        for field, schema in definition.get("properties", {}).items():
            # apiVersion and kind are not on the wire, but Go shows them when set
            keep_zero, go_type = wire.get(field, (False, ""))
            slot = self._slot(go_name, schema)
            keep_zero = keep_zero or (slot.expect is dict and "$ref" in schema)
            rows[field] = (slot.expect, slot.walk, keep_zero, go_type or slot.go_type)
        return _walk_struct(go_name, rows)

    def _slot(self, owner: str, schema: Definition) -> _Slot:
        """Compile the place of one value inside the struct ``owner``."""
        reference = schema.get("$ref")
        if reference is not None:
            return self._reference_slot(owner, reference.rpartition("/")[2])
        kind = schema.get("type", "")
        if kind == "array":
            inner = self._slot(owner, schema["items"])
            walker = _walk_list(owner, inner)
            return _Slot(list, walker, _nothing, f"[]{inner.go_type}")
        if kind == "object":
            if "additionalProperties" not in schema:
                return _Slot(dict, None, dict, "map[string]interface {}")
            inner = self._slot(owner, schema["additionalProperties"])
            walker = _walk_map(owner, inner)
            return _Slot(dict, walker, _nothing, f"map[string]{inner.go_type}")
        return self._leaf_slot(owner, kind, schema.get("format", ""))

    def _leaf_slot(self, owner: str, kind: str, form: str) -> _Slot:
        if kind == "string" and form == "byte":
            return _Slot(str, _walk_bytes, str, "[]uint8")
        if kind == "string":
            return _Slot(str, None, str, "string")
        if kind == "boolean":
            return _Slot(bool, None, bool, "bool")
        if kind == "integer":
            go_type = form or "int64"
            limit = _INT32 if go_type == "int32" else _INT64
            walker = _integer_walker(owner, limit, go_type)
            return _Slot(int, walker, int, go_type)
        if kind == "number":
            return _Slot(None, _number_walker(owner), int, "float64")
        return _Slot(None, lambda value, _: value, _nothing, "interface {}")

    def _reference_slot(self, owner: str, name: str) -> _Slot:
        short = name.removeprefix(_MACHINERY)
        match short:
            case "api.resource.Quantity":
                return _Slot(None, _walk_quantity, lambda: "0", "resource.Quantity")
            case "util.intstr.IntOrString":
                walker = _choice_walker(owner)
                return _Slot(None, walker, int, "intstr.IntOrString")
            case "apis.meta.v1.Time":
                return _Slot(
                    None, _time_walker(owner, micro=False), _nothing, "v1.Time"
                )
            case "apis.meta.v1.MicroTime":
                walker = _time_walker(owner, micro=True)
                return _Slot(None, walker, _nothing, "v1.MicroTime")
            case _:
                pass
        if name in _ANYTHING:
            return _Slot(None, lambda value, _: value, dict, _go_name(name))
        return _Slot(dict, self._struct_walker(name), dict, _go_name(name))

    def _struct_walker(self, name: str) -> _Walker:
        """Return a struct's walker; one that contains itself is looked up later."""
        if name not in self._compiling:
            return self._walker(name)

        def walk_late(value: Any, state: _Walk) -> Any:
            return self._walker(name)(value, state)

        return walk_late

    # -- patch metadata

    def patch_schema(self, api_version: str, kind: str) -> FieldSchema:
        """Return how a kind is patched, field by field.

        Raises:
            UnknownKindError: there is no such definition.
        """
        return self._definition_schema(self.definition_name(api_version, kind))

    def merge_info(
        self, api_version: str, kind: str, path: Iterable[str]
    ) -> FieldSchema | None:
        """Return what is known of one field.

        Args:
            api_version: of the kind.
            kind: the kind.
            path: names only, lists are looked through: ``("spec", "containers")``.

        Returns:
            The field, or ``None`` where the kind has no such field.

        Raises:
            UnknownKindError: there is no such definition.
        """
        field = self.patch_schema(api_version, kind)
        for name in path:
            while field.items is not None:
                field = field.items
            if field.values is not None:
                field = field.values
            elif name in field.properties:
                field = field.properties[name]
            else:
                return None
        return field

    def _definition_schema(self, name: str) -> FieldSchema:
        found = self._patch_schemas.get(name)
        if found is None:
            found = self._field_schema(self.definitions[name])
            self._patch_schemas[name] = found
        return found

    def _field_schema(self, schema: Definition) -> FieldSchema:
        reference = schema.get("$ref")
        below = (
            self._definition_schema(reference.rpartition("/")[2])
            if reference is not None
            else self._own_schema(schema)
        )
        strategies = schema.get("x-kubernetes-patch-strategy", "")
        return FieldSchema(
            type=below.type,
            properties=below.properties,
            items=below.items,
            values=below.values,
            patch_strategies=tuple(strategies.split(",")) if strategies else (),
            merge_key=schema.get("x-kubernetes-patch-merge-key"),
            list_type=schema.get("x-kubernetes-list-type"),
            list_map_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
            map_type=schema.get("x-kubernetes-map-type", below.map_type),
            default=schema.get("default"),
        )

    def _own_schema(self, schema: Definition) -> FieldSchema:
        fields: Mapping[str, Definition] = schema.get("properties", {})
        items, values = schema.get("items"), schema.get("additionalProperties")
        return FieldSchema(
            type=schema.get("type", ""),
            properties=LazyFields(
                fields, lambda name: self._field_schema(fields[name])
            ),
            items=None if items is None else self._field_schema(items),
            values=None if values is None else self._field_schema(values),
        )


def _join(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version


def parse_json(body: bytes) -> Any:
    """Parse a JSON body, telling what is wrong in upstream's words.

    Raises:
        ApiError: 400, it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(
            f"couldn't get version/kind; json parse error: {error}"
        ) from error
