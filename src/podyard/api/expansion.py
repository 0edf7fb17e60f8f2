"""``$(VAR)`` in variables, commands and subPathExpr.

Single pass: values are never expanded again. Source: the API documentation of
``env[].value`` and ``command``, and upstream's expansion package (v1.36).
"""

import re
from collections.abc import Iterable, Mapping

_REFERENCE = re.compile(r"\$(?:\(([^)]*)\)|(\()|(.))", re.DOTALL)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace each ``$(NAME)`` by its value.

    ``$$`` gives one ``$`` and starts nothing; an unknown name and a ``$(`` without
    end stay as written.
    """
    if "$" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        name, _, other = match.groups()
        if name is not None:
            return env.get(name, match[0])
        return "$" if other == "$" else match[0]

    return _REFERENCE.sub(replace, text)


def expand_all(texts: Iterable[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Expand every text of a command line."""
    return tuple(expand(text, env) for text in texts)


def expand_strictly(text: str, env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Expand where an absent or empty variable is a fault (subPathExpr).

    Returns:
        The text, and the names without value in order of appearance.
    """
    missing: list[str] = []

    class _Noting(dict[str, str]):
        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            value = env.get(key, "")
            if not value and key not in missing:
                missing.append(key)
            return value or default

    return expand(text, _Noting()), tuple(missing)
