"""What is known of one field: how it is patched, and what is below it.

``podyard.api.schema`` makes these from the built definitions; patching and field
ownership read them. A node may be built by hand, too.

Source: the ``x-kubernetes-*`` extensions of the Kubernetes OpenAPI definitions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final

from podyard.lib.values import dataclass

_NOTHING: Final[Mapping[str, "FieldSchema"]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class FieldSchema:
    """One field of a kind, or a kind itself.

    Attributes:
        type: ``object``, ``array``, ``string``, ``integer``, ``number``,
            ``boolean``, or empty where anything goes (RawExtension, FieldsV1).
        properties: the named fields of an object; empty for a map or a leaf.
        items: the schema of a list's entries, ``None`` for all but lists.
        values: the schema of a map's values, ``None`` for all but maps.
        patch_strategies: ``merge``, ``replace``, ``retainKeys``; often two of them.
        merge_key: the key by which a strategic merge patch finds a list's entry.
        list_type: ``atomic``, ``set`` or ``map``; ``None`` where it is not said.
        list_map_keys: the keys that identify an entry of a ``map`` list.
        map_type: ``atomic`` where a map or struct is owned as a whole.
        default: the value an absent key of a ``map`` list stands for.
    """

    type: str = ""
    properties: Mapping[str, "FieldSchema"] = field(default_factory=lambda: _NOTHING)
    items: "FieldSchema | None" = None
    values: "FieldSchema | None" = None
    patch_strategies: tuple[str, ...] = ()
    merge_key: str | None = None
    list_type: str | None = None
    list_map_keys: tuple[str, ...] = ()
    map_type: str | None = None
    default: Any = None


class LazyFields(Mapping[str, FieldSchema]):
    """Named fields that are made when first asked for.

    A kind has hundreds of fields and some contain themselves; a patch visits few.
    """

    __slots__ = ("_made", "_make", "_names")

    def __init__(
        self, names: Iterable[str], make: Callable[[str], FieldSchema]
    ) -> None:
        self._names = frozenset(names)
        self._make = make
        self._made: dict[str, FieldSchema] = {}

    def __getitem__(self, name: str) -> FieldSchema:
        found = self._made.get(name)
        if found is None:
            if name not in self._names:
                raise KeyError(name)
            found = self._made[name] = self._make(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
