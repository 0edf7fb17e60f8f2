"""Where two documents differ, in a form fit for an error text.

Paths are shown with their values, except where a value may be a secret.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

#: Fields whose values may hold passwords and tokens.
_SENSITIVE: Final = frozenset(
    {"env", "args", "command", "httpHeaders", "data", "stringData", "options"}
)
_MAX_LINES: Final = 20
_MAX_VALUE: Final = 120
_ABSENT: Final = object()


def show_differences(old: Any, new: Any) -> str:
    """Return the changes, one a line: ``-`` what was, ``+`` what is wanted."""
    lines: list[str] = []
    for path, before, after in _changes(old, new, ""):
        if len(lines) >= _MAX_LINES:
            lines.append("...")
            break
        hidden = not _SENSITIVE.isdisjoint(_names(path))
        if before is not _ABSENT:
            lines.append(f"- {path}: {_show(before, hidden=hidden)}")
        if after is not _ABSENT:
            lines.append(f"+ {path}: {_show(after, hidden=hidden)}")
    return "\n".join(lines)


def _names(path: str) -> list[str]:
    return [part.partition("[")[0] for part in path.split(".")]


def _show(value: Any, *, hidden: bool) -> str:
    if hidden:
        return "<value hidden>"
    text = orjson.dumps(_without_secrets(value)).decode()
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "<value hidden>" if key in _SENSITIVE else _without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _changes(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{path}.{key}" if path else key
            yield from _changes(old.get(key, _ABSENT), new.get(key, _ABSENT), where)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else _ABSENT
            after = new[index] if index < len(new) else _ABSENT
            yield from _changes(before, after, f"{path}[{index}]")
    elif old != new:
        yield path, old, new
