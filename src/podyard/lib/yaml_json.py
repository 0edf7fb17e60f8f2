"""YAML that means JSON: what YAML files hold, read without surprises.

Dates stay text, there are no sexagesimal numbers, keys become strings, and a small
text cannot grow into a large document by aliases or nesting.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import yaml

#: How deep a document may nest.
MAX_DEPTH: Final = 200
#: How many values a document may have once its aliases are written out.
MAX_VALUES: Final = 1_000_000

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"

try:
    _Base: Any = yaml.CSafeLoader
except AttributeError:  # PyYAML was built without libyaml
    _Base = yaml.SafeLoader


try:
    _DumperBase: Any = yaml.CSafeDumper
except AttributeError:
    _DumperBase = yaml.SafeDumper


class YamlError(ValueError):
    """The text is no YAML that could be JSON; the message says where and why."""


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader with JSON's types; it notes duplicate keys."""

    duplicates: list[str]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str) or key_node.tag == _MERGE_TAG:
                continue
            if key in seen:
                self.duplicates.append(key)
            seen.add(key)
        result: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return result


_DROPPED: Final = {
    "tag:yaml.org,2002:timestamp",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in rules if tag not in _DROPPED]
    for first, rules in _Base.yaml_implicit_resolvers.items()
}
_INT: Final = re.compile(
    r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"
)
_FLOAT: Final = re.compile(
    r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+)$"
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class _Dumper(_DumperBase):  # type: ignore[misc]
    """The safe dumper; it quotes whatever some reader of YAML takes for no text."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *_DumperBase.yaml_implicit_resolvers.get(first, ()),
        *_Loader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {
        *_DumperBase.yaml_implicit_resolvers,
        *_Loader.yaml_implicit_resolvers,
    }
}


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    if text.startswith("0o"):
        return sign * int(text[2:] or "0", 8)
    if text[:2] in {"0x", "0b"}:
        return sign * int(text, 0)
    if len(text) > 1 and text.startswith("0"):
        return sign * int(text, 8)
    return sign * int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _construct_binary(loader: Any, node: Any) -> str:
    text: str = loader.construct_scalar(node)
    return "".join(text.split())


_Loader.add_constructor("tag:yaml.org,2002:binary", _construct_binary)


def load_yaml(text: str | bytes) -> tuple[Any, tuple[str, ...]]:
    """Return the one document of a text, and the keys that stood twice in a map.

    Raises:
        YamlError: it is no YAML, has several documents, or is a bomb.
    """
    documents = list(load_all_yaml(text))
    if len(documents) > 1:
        raise YamlError("expected a single document in the stream, but found another")
    return documents[0] if documents else (None, ())


def load_all_yaml(text: str | bytes) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Iterate over all documents of a text, empty ones left out.

    Raises:
        YamlError: it is no YAML, or is a bomb.
    """
    as_json = _try_json(text)
    if as_json is not None:
        yield as_json
        return
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            while loader.check_data():
                loader.duplicates = []
                value = loader.get_data()
                _check_size(value)
                if value is not None:
                    yield _to_json(value), tuple(loader.duplicates)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise YamlError(_describe(error)) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(str(error)) from error


def dump_yaml(text: bytes) -> bytes:
    """Return a JSON text as YAML, keys in order, as Go's libraries write it."""
    made: bytes = yaml.dump(
        json.loads(text),
        Dumper=_Dumper,
        encoding="utf-8",
        allow_unicode=True,
        default_flow_style=False,
        width=1_000_000,
    )
    return made


def _try_json(text: str | bytes) -> tuple[Any, tuple[str, ...]] | None:
    """Read JSON as JSON: libyaml is slow, and refuses pairs of surrogate escapes."""
    if text.lstrip()[:1] not in {b"{", "{"}:
        return None
    doubled: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            times = Counter(key for key, _ in pairs)
            doubled.extend(key for key in made if times[key] > 1)
        return made

    try:
        return json.loads(text, object_pairs_hook=note), tuple(doubled)
    except (ValueError, RecursionError):
        return None


def _describe(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"yaml: line {mark.line + 1}: {problem}" if mark else f"yaml: {problem}"


def _check_depth(text: str | bytes) -> None:
    """Walk the events, which needs no recursion, before anything recursive does."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlError(f"the document nests deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(value: Any) -> None:
    """Count what the aliases stand for; a shared part is measured once."""
    sizes: dict[int, int] = {}
    open_parts: set[int] = set()

    def measure(part: Any) -> int:
        if not isinstance(part, dict | list):
            return 1
        known = sizes.get(id(part))
        if known is not None:
            return known
        if id(part) in open_parts:
            raise YamlError("an alias contains itself")
        open_parts.add(id(part))
        below = part.values() if isinstance(part, dict) else part
        size = 1 + sum(measure(item) for item in below)
        open_parts.discard(id(part))
        sizes[id(part)] = size
        return size

    if measure(value) > MAX_VALUES:
        raise YamlError("the document contains excessive aliasing")


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise YamlError(f"a value of type {type(value).__name__} has no place in JSON")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    if key is None:
        return "null"
    raise YamlError(f"a key of type {type(key).__name__} has no place in JSON")
