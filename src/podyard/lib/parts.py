"""Parts: a module that ends in a typed constant ``PART``; one package is scanned."""

import importlib
import pkgutil
from collections.abc import Set as AbstractSet
from types import ModuleType
from typing import TypeVar

_T = TypeVar("_T")


def part_names(package: ModuleType) -> frozenset[str]:
    """Return the names of the modules in ``package``, without importing them."""
    return frozenset(info.name for info in pkgutil.iter_modules(package.__path__))


def load_parts(
    package: ModuleType, kind: type[_T], only: AbstractSet[str] | None = None
) -> tuple[_T, ...]:
    """Import each module directly in ``package`` and collect its ``PART``.

    Args:
        package: where they are.
        kind: what each ``PART`` is.
        only: the modules to import; all of them where it is ``None``.

    Returns:
        The parts, sorted by module name.

    Raises:
        TypeError: a module has no ``PART``, or one of another kind.
    """
    parts: list[_T] = []
    for name in sorted(part_names(package)):
        if only is not None and name not in only:
            continue
        module = importlib.import_module(f"{package.__name__}.{name}")
        part = getattr(module, "PART", None)
        if not isinstance(part, kind):
            msg = f"{module.__name__} must end in PART: Final = {kind.__name__}(...)"
            raise TypeError(msg)
        parts.append(part)
    return tuple(parts)
