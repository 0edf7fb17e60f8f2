"""Who owns whom: the garbage collector's picture, and what it says to do. Pure.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
kubernetes ``pkg/controller/garbagecollector`` (v1.36).
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, TypeAlias

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner reference.

    Attributes:
        api_version: the owner's.
        kind: the owner's.
        name: the owner's.
        uid: the owner's.
        blocks: ``blockOwnerDeletion``: a foreground deletion waits for the dependant.
    """

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool


@dataclass(frozen=True, slots=True)
class Item:
    """An object, as much as the garbage collector has to know.

    Attributes:
        kind: its kind.
        namespace: empty for cluster-scoped kinds.
        name: its name.
        uid: its uid.
        owners: its owner references.
        is_deleting: it has a deletionTimestamp.
        finalizers: what keeps it.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    owners: tuple[Owner, ...]
    is_deleting: bool
    finalizers: tuple[str, ...]

    @property
    def is_foreground(self) -> bool:
        """Whether it waits for its dependants to go first."""
        return self.is_deleting and FOREGROUND in self.finalizers

    @property
    def is_orphaning(self) -> bool:
        """Whether it waits for its dependants to be let go."""
        return self.is_deleting and ORPHAN in self.finalizers


def item_of(kind: Kind, document: Document) -> Item:
    """Return what the garbage collector has to know of an object."""
    metadata = document["metadata"]
    owners = tuple(
        Owner(
            str(reference.get("apiVersion") or ""),
            str(reference.get("kind") or ""),
            str(reference.get("name") or ""),
            str(reference.get("uid") or ""),
            bool(reference.get("blockOwnerDeletion")),
        )
        for reference in metadata.get("ownerReferences") or ()
    )
    return Item(
        kind,
        str(metadata.get("namespace") or ""),
        str(metadata["name"]),
        str(metadata["uid"]),
        owners,
        bool(metadata.get("deletionTimestamp")),
        tuple(metadata.get("finalizers") or ()),
    )


class OwnerGraph:
    """All objects and their owner references."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._dependants: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def get(self, uid: str) -> Item | None:
        """Return an object, if it is there."""
        return self._items.get(uid)

    def put(self, item: Item) -> Item | None:
        """Take a new or changed object; return what it was before."""
        before = self._items.get(item.uid)
        if before is not None:
            self._unlink(before)
        self._items[item.uid] = item
        for owner in item.owners:
            self._dependants.setdefault(owner.uid, set()).add(item.uid)
        return before

    def remove(self, uid: str) -> None:
        """Forget an object."""
        item = self._items.pop(uid, None)
        if item is not None:
            self._unlink(item)

    def _unlink(self, item: Item) -> None:
        for owner in item.owners:
            dependants = self._dependants.get(owner.uid)
            if dependants is not None:
                dependants.discard(item.uid)
                if not dependants:
                    del self._dependants[owner.uid]

    def dependants(self, uid: str) -> tuple[Item, ...]:
        """Return the objects that name ``uid`` as an owner."""
        return tuple(self._items[key] for key in self._dependants.get(uid, ()))

    def blocking(self, uid: str) -> tuple[Item, ...]:
        """Return the dependants that a foreground deletion waits for."""
        return tuple(
            item
            for item in self.dependants(uid)
            if any(owner.uid == uid and owner.blocks for owner in item.owners)
        )


class OwnerState(Enum):
    """How an owner stands."""

    SOLID = "solid"
    #: It is gone.
    ABSENT = "absent"
    #: It is being deleted and waits for this dependant.
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Keep:
    """The object stays as it is."""


@dataclass(frozen=True, slots=True)
class DropReferences:
    """The object stays, without these owners.

    Attributes:
        uids: of the owners to let go.
    """

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is garbage.

    Attributes:
        propagation: what becomes of its own dependants.
    """

    propagation: str


Fate: TypeAlias = Keep | DropReferences | Delete


def decide_fate(
    item: Item, owners: Iterable[tuple[Owner, OwnerState]], *, has_dependants: bool
) -> Fate:
    """Say what becomes of an object, given how its owners stand."""
    states = list(owners)
    if item.is_deleting or not states:
        return Keep()
    weak = {owner.uid for owner, state in states if state is not OwnerState.SOLID}
    if not weak:
        return Keep()
    if any(state is OwnerState.SOLID for _, state in states):
        return DropReferences(frozenset(weak))
    if has_dependants and any(state is OwnerState.WAITING for _, state in states):
        # The owner waits for this object, so this one waits for its own dependants.
        return Delete("Foreground")
    if ORPHAN in item.finalizers:
        return Delete("Orphan")
    return Delete("Foreground" if FOREGROUND in item.finalizers else "Background")
