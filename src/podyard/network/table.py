"""One nftables table as a value, and the text that loads it or changes it.

A change names only what differs, so what the kernel learned since (who is stuck to
which endpoint) stays, and nothing is unhooked for a moment. Each text is one
transaction. Source: nft(8).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final

from podyard.lib.values import dataclass

#: What nft may take in one statement; longer element lists are split.
_ELEMENTS: Final = 500


@dataclass(frozen=True, slots=True)
class Collection:
    """A map to verdicts, or a set.

    Attributes:
        kind: ``map`` or ``set``.
        type: the type of its keys, and after a colon of its values.
        elements: key → verdict; of a set → nothing.
    """

    kind: str
    type: str
    elements: Mapping[str, str] = field(default_factory=dict)

    def statement(self, key: str) -> str:
        """Return an element as nft reads it."""
        value = self.elements[key]
        return f"{key} : {value}" if value else key


@dataclass(frozen=True, slots=True)
class Table:
    """A table of family inet.

    Attributes:
        name: its name.
        collections: maps and sets of ours by name.
        learned: names of sets that the kernel fills, and their type and flags.
        chains: rules by chain; a chain may only name those before it.
    """

    name: str
    collections: Mapping[str, Collection]
    learned: Mapping[str, str]
    chains: Mapping[str, tuple[str, ...]]


def replace_table(table: Table) -> str:
    """Return the text that puts a table in the place of whatever has its name."""
    lines = [
        f"table inet {table.name}",
        f"delete table inet {table.name}",
        f"table inet {table.name} {{",
    ]
    lines += [f"  set {name} {{ {body} }}" for name, body in table.learned.items()]
    for name, collection in table.collections.items():
        lines.append(f"  {collection.kind} {name} {{")
        lines.append(f"    type {collection.type};")
        if collection.elements:
            body = ", ".join(map(collection.statement, collection.elements))
            lines.append(f"    elements = {{ {body} }}")
        lines.append("  }")
    for name, rules in table.chains.items():
        lines += [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
    lines.append("}")
    return "\n".join(lines) + "\n"


def change_table(old: Table, new: Table) -> str:
    """Return the text that makes a loaded table another one; empty for none.

    Both have the same collections and base chains; elements, other chains and
    learned sets may differ.
    """
    at = f"inet {new.name}"
    gone = [name for name in old.chains if name not in new.chains]
    added = [name for name in new.chains if name not in old.chains]
    changed = [
        name
        for name, rules in new.chains.items()
        if name in old.chains and old.chains[name] != rules
    ]
    lines = [
        f"add set {at} {name} {{ {body} }}"
        for name, body in new.learned.items()
        if name not in old.learned
    ]
    lines += [f"add chain {at} {name}" for name in added]
    lines += [f"flush chain {at} {name}" for name in changed]
    for name in (*added, *changed):
        lines += [f"add rule {at} {name} {rule}" for rule in _plain(new.chains[name])]
    for name, collection in new.collections.items():
        lines += _change_elements(f"{at} {name}", old.collections[name], collection)
    lines += [f"flush chain {at} {name}" for name in gone]
    lines += [f"delete chain {at} {name}" for name in gone]
    lines += [f"delete set {at} {name}" for name in old.learned.keys() - new.learned]
    return "\n".join(lines) + "\n" if lines else ""


def _plain(rules: Iterable[str]) -> Iterator[str]:
    """Yield the rules of a chain, without what hooks it."""
    return (rule for rule in rules if not rule.startswith("type "))


def _change_elements(at: str, old: Collection, new: Collection) -> Iterator[str]:
    gone = [
        key for key, value in old.elements.items() if new.elements.get(key) != value
    ]
    added = [
        key for key, value in new.elements.items() if old.elements.get(key) != value
    ]
    for some in _split(gone):
        yield f"delete element {at} {{ {', '.join(some)} }}"
    for some in _split(added):
        yield f"add element {at} {{ {', '.join(map(new.statement, some))} }}"


def _split(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _ELEMENTS):
        yield keys[start : start + _ELEMENTS]
