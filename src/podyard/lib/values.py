"""Values: dataclasses whose methods are written when they are first needed.

``@dataclass`` of this module says and means what that of :mod:`dataclasses` does, and
its classes are dataclasses to ``fields``, ``replace``, ``asdict`` and ``is_dataclass``.
The difference is when the work is done: the standard one compiles six methods a class
while the program is imported, most of a millisecond each, and of our four hundred
classes a start uses few. Here ``__init__`` is compiled by its first call, and what
compares, hashes and prints is shared by all.
"""

import dataclasses
import reprlib
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, InitVar
from types import MemberDescriptorType
from typing import Any, Final, TypeVar, dataclass_transform

_T = TypeVar("_T")

#: Stands for "make it with the factory" among the parameters of an ``__init__``.
_FACTORY: Final = object()
_NOT_BESIDE_FROZEN: Final = frozenset({"__setattr__", "__delattr__"})


@dataclass_transform(field_specifiers=(dataclasses.field, dataclasses.Field))
def dataclass(
    *, frozen: bool = False, slots: bool = False, eq: bool = True
) -> Callable[[type[_T]], type[_T]]:
    """Make a class a dataclass, as :func:`dataclasses.dataclass` does.

    Args:
        frozen: no field can be assigned; with ``eq``, it is hashable.
        slots: the class has ``__slots__``, and therefore is made anew.
        eq: equal when of one class and with equal fields.

    Raises:
        TypeError: as the standard one does, and for ``InitVar``, which we do not use.
    """

    def make(cls: type[_T]) -> type[_T]:
        return _make(cls, frozen=frozen, slots=slots, eq=eq)

    return make


def _make(cls: type[_T], *, frozen: bool, slots: bool, eq: bool) -> type[_T]:
    own = set(vars(cls))
    if not cls.__doc__:
        # The standard one would work out a signature to put here.
        cls.__doc__ = cls.__name__
    cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    known = vars(cls)["__dataclass_fields__"].values()
    if any(isinstance(field.type, InitVar) for field in known):
        msg = f"{cls.__name__} has an InitVar, which is not for values"
        raise TypeError(msg)
    methods: dict[str, Any] = {
        "__init__": _written_later(cls, "__init__", _init_text),
        "__repr__": _repr,
    }
    if eq:
        methods["__eq__"] = _written_later(cls, "__eq__", _eq_text)
        # As in any class that says what is equal: what may change has no hash.
        methods["__hash__"] = (
            _written_later(cls, "__hash__", _hash_text) if frozen else None
        )
    if frozen:
        methods |= _frozen(cls)
        if slots:
            # Copying and pickling must not go through __setattr__.
            methods |= {"__getstate__": _get_state, "__setstate__": _set_state}
    for name, method in methods.items():
        # ``__hash__: None`` is what Python itself puts beside an own ``__eq__``.
        if name not in own or (name == "__hash__" and vars(cls)[name] is None):
            setattr(cls, name, method)
        elif name in _NOT_BESIDE_FROZEN:
            msg = f"{cls.__name__} is frozen and has its own {name}"
            raise TypeError(msg)
    return cls


# --- writing methods ---


def _written_later(
    cls: type, name: str, write: Callable[[type, dict[str, Any]], str]
) -> Callable[..., Any]:
    """Return a method that writes the real one, takes its place, and is it."""

    def stub(self: object, *args: Any, **kwargs: Any) -> Any:
        given: dict[str, Any] = {}
        text = write(cls, given)
        exec(text, given)  # noqa: S102 - made of the names of fields alone
        method = given[name]
        method.__qualname__ = stub.__qualname__
        method.__module__ = cls.__module__
        if vars(cls).get(name) is stub:
            setattr(cls, name, method)
        return method(self, *args, **kwargs)

    stub.__name__ = name
    stub.__qualname__ = f"{cls.__qualname__}.{name}"
    stub.__module__ = cls.__module__
    return stub


def _init_text(cls: type, given: dict[str, Any]) -> str:
    given |= {"_factory": _FACTORY, "_set": object.__setattr__}
    plain: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        if field.init:
            (keywords if field.kw_only else plain).append(_parameter(field, given))
        value = _value(field, given)
        if value is not None:
            body.append(_assignment(cls, field.name, value, given))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(("self", *plain, *(("*", *keywords) if keywords else ())))
    return f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"])


def _parameter(field: Field[Any], given: dict[str, Any]) -> str:
    if field.default is not MISSING:
        given[f"_default_{field.name}"] = field.default
        return f"{field.name}=_default_{field.name}"
    if field.default_factory is not MISSING:
        return f"{field.name}=_factory"
    return field.name


def _value(field: Field[Any], given: dict[str, Any]) -> str | None:
    """Return the expression of a field's first value; ``None`` where it has none."""
    name = field.name
    if field.default_factory is not MISSING:
        given[f"_make_{name}"] = field.default_factory
        made = f"_make_{name}()"
        return f"{made} if {name} is _factory else {name}" if field.init else made
    if field.init:
        return name
    if field.default is not MISSING:
        given[f"_default_{name}"] = field.default
        return f"_default_{name}"
    return None


def _assignment(cls: type, name: str, value: str, given: dict[str, Any]) -> str:
    slot = getattr(cls, name, None)
    if isinstance(slot, MemberDescriptorType):
        # Straight into the slot: the quickest way, and no __setattr__ is asked.
        given[f"_put_{name}"] = slot.__set__
        return f"_put_{name}(self, {value})"
    return f"_set(self, {name!r}, {value})"


def _eq_text(cls: type, _given: dict[str, Any]) -> str:
    names = [field.name for field in dataclasses.fields(cls) if field.compare]
    return (
        "def __eq__(self, other):\n"
        " if other.__class__ is self.__class__:\n"
        f"  return {_tuple('self', names)} == {_tuple('other', names)}\n"
        " return NotImplemented"
    )


def _hash_text(cls: type, _given: dict[str, Any]) -> str:
    names = [
        field.name
        for field in dataclasses.fields(cls)
        if (field.compare if field.hash is None else field.hash)
    ]
    return f"def __hash__(self):\n return hash({_tuple('self', names)})"


def _tuple(of: str, names: list[str]) -> str:
    return "(" + "".join(f"{of}.{name}," for name in names) + ")"


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    shown = (
        f"{field.name}={getattr(self, field.name)!r}"
        for field in dataclasses.fields(self)
        if field.repr
    )
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


# --- freezing ---


def _frozen(cls: Any) -> dict[str, Any]:
    names = frozenset(field.name for field in dataclasses.fields(cls))

    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
