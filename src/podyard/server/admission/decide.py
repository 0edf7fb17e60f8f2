"""In which order admission plugins run."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


class PluginOrderError(Exception):
    """The plugins' ``after`` names go round in a circle."""


def order_plugins(
    plugins: Iterable[_T],
    *,
    name: Callable[[_T], str],
    after: Callable[[_T], Sequence[str]],
) -> tuple[_T, ...]:
    """Sort plugins so that each stands after those it names.

    Among plugins that are free to stand next, the alphabetically first does. Names
    in ``after`` that are not among the plugins count for nothing.

    Raises:
        PluginOrderError: there is no such order.
    """
    waiting = {name(plugin): plugin for plugin in plugins}
    present = frozenset(waiting)
    done: dict[str, _T] = {}
    while waiting:
        free = sorted(
            key
            for key, plugin in waiting.items()
            if all(other in done for other in after(plugin) if other in present)
        )
        if not free:
            circle = ", ".join(sorted(waiting))
            raise PluginOrderError(f"no order satisfies every 'after' of: {circle}")
        done[free[0]] = waiting.pop(free[0])
    return tuple(done.values())
