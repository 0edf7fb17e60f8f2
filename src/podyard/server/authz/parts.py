"""What an authorizer is, and what it is given.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import Protocol, TypeAlias

from podyard.api.documents import Document
from podyard.api.identity import User
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass
from podyard.server.build import RequestInfo


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may go on; no other authorizer is asked.

    Attributes:
        reason: why, for the review kinds.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """The request may not go on, whatever another authorizer would say.

    Attributes:
        reason: why, for the message.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoOpinion:
    """Ask the next authorizer.

    Attributes:
        reason: why, for the message if nobody allows it.
    """

    reason: str = ""


Decision: TypeAlias = Allow | Deny | NoOpinion


class Lookup(Protocol):
    """The objects an authorizer may have to see."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it is absent."""

    async def list(self, kind: Kind, namespace: str) -> Sequence[Document]:
        """Return the objects of a namespace, or of all where it is empty."""


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """Verbs on resources, as ``kubectl auth can-i --list`` prints them.

    ``*`` stands for everything in each of them.
    """

    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathRule:
    """Verbs on paths that are no resources; a trailing ``*`` is a prefix match."""

    verbs: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a user may do, as far as one authorizer can list it.

    Attributes:
        resources: rules for resources.
        paths: rules for other paths.
        incomplete: why the list is not all, empty where it is.
    """

    resources: tuple[ResourceRule, ...] = ()
    paths: tuple[PathRule, ...] = ()
    incomplete: str = ""


#: Decides one request.
Authorize: TypeAlias = Callable[[User, RequestInfo], Awaitable[Decision]]
#: Lists what a user may do in a namespace.
ListRules: TypeAlias = Callable[[User, str], Awaitable[Rules]]


@dataclass(frozen=True, slots=True)
class Mode:
    """An authorizer at work.

    Attributes:
        authorize: decides one request.
        list_rules: lists what a user may do, for SelfSubjectRulesReview.
    """

    authorize: Authorize
    list_rules: ListRules


@dataclass(frozen=True, slots=True)
class AuthorizationContext:
    """What authorizers are made with.

    Attributes:
        lookup: what they see of the store.
    """

    lookup: Lookup


@dataclass(frozen=True, slots=True)
class Authorizer:
    """One authorization mode.

    Attributes:
        name: the mode's name.
        order: modes are asked from low to high.
        make: builds it.
    """

    name: str
    order: int
    make: Callable[[AuthorizationContext], Mode] = field(repr=False)
