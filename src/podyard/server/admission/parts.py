"""What an admission plugin is, and what it is given.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from podyard.api.documents import Document
from podyard.api.identity import User
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass

#: The alphabet of generated names: no vowels, nothing easily mistaken.
NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def random_suffix() -> str:
    """Return five random characters, as in every generated name."""
    return "".join(secrets.choice(NAME_ALPHABET) for _ in range(5))


class Operation(StrEnum):
    """What a request does to its object."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way to the store.

    Attributes:
        operation: what is done.
        kind: the kind the path names.
        subresource: ``status``, ``binding`` …; empty for the object itself.
        namespace: empty for cluster-scoped kinds.
        name: empty while a name is still to be generated, and for a collection.
        object: the document to be stored, after defaulting: plugins change it in
            place while mutating. For a subresource with a kind of its own (Binding,
            TokenRequest, Eviction) that document. ``None`` for a delete.
        old_object: the stored document for an update or delete; do not change it.
        options: the request's options document (DeleteOptions, PodExecOptions …).
        user: who asks.
        dry_run: nothing will be stored; plugins do nothing beyond the object.
        warnings: texts for the client's Warning headers; plugins append.
        suffix: makes the random part of a generated name.
        node_token_audiences: for whom nodes may have ServiceAccount tokens beyond
            what volumes of their Pods ask for.
    """

    operation: Operation
    kind: Kind
    namespace: str
    name: str
    user: User
    object: Document | None = None
    old_object: Document | None = None
    subresource: str = ""
    options: Document = field(default_factory=dict)
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    suffix: Callable[[], str] = random_suffix
    node_token_audiences: frozenset[str] = frozenset()


class Lookup(Protocol):
    """The objects a plugin may have to see; always as they are stored now."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it is absent."""

    async def list(self, kind: Kind, namespace: str) -> Sequence[Document]:
        """Return the objects of a namespace, or of all where it is empty."""


#: One half of a plugin. It refuses by raising ``podyard.api.errors.ApiError``.
AdmissionStep: TypeAlias = Callable[[AdmissionRequest, Lookup], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AdmissionPlugin:
    """One plugin.

    Attributes:
        name: as in ``--enable-admission-plugins``.
        after: the plugins that must come before it where they are enabled.
        mutate: may change ``request.object``; runs before validation.
        validate: may only refuse; runs after every mutation and the kind's own rules.
        default: whether it is enabled when nothing is said.
    """

    name: str
    after: tuple[str, ...] = ()
    mutate: AdmissionStep | None = None
    validate: AdmissionStep | None = None
    default: bool = True
