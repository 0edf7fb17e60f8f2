"""Parts: a module that ends in a typed constant ``PART``; one package is scanned."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

_T = TypeVar("_T")


def load_parts(package: ModuleType, kind: type[_T]) -> tuple[_T, ...]:
    """Import each module directly in ``package`` and collect its ``PART``.

    Returns:
        The parts, sorted by module name.

    Raises:
        TypeError: a module has no ``PART``, or one of another kind.
    """
    parts: list[_T] = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        part = getattr(module, "PART", None)
        if not isinstance(part, kind):
            msg = f"{module.__name__} must end in PART: Final = {kind.__name__}(...)"
            raise TypeError(msg)
        parts.append(part)
    return tuple(parts)
