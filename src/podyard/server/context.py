"""What every verb works with: the doors it goes through, made once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Protocol, TypeAlias

from podyard.api.documents import Document
from podyard.api.errors import forbidden
from podyard.api.feature_gates import DEFAULT_GATES, FeatureGates
from podyard.api.identity import User
from podyard.api.schema import Schemas
from podyard.api.scheme import Kind
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.server.admission.parts import AdmissionRequest
from podyard.server.allocation import ServiceAddresses
from podyard.server.build import RequestInfo
from podyard.server.registry import Registry


class Admission(Protocol):
    """What may change or refuse a write (``admission.chain.AdmissionChain``)."""

    async def mutate(self, request: AdmissionRequest) -> None:
        """Change ``request.object``, or raise ``ApiError``."""

    async def validate(self, request: AdmissionRequest) -> None:
        """Raise ``ApiError``, or let it pass."""


class NoAdmission:
    """Changes and refuses nothing; for tests and bare servers."""

    async def mutate(self, request: AdmissionRequest) -> None:
        """Change nothing."""

    async def validate(self, request: AdmissionRequest) -> None:
        """Let it pass."""


#: Answers a kind that is not stored: who asks, the body, the path's namespace.
ReviewHandler: TypeAlias = Callable[[User, Document, str], Awaitable[Document]]
#: Issues a ServiceAccount token: namespace, ServiceAccount, TokenRequest.
IssueToken: TypeAlias = Callable[[str, str, Document], Awaitable[Document]]


#: Lets a user do something beyond what was asked, or raises ``ApiError`` 403.
CheckAccess: TypeAlias = Callable[[User, RequestInfo], Awaitable[None]]


async def refuse_access(user: User, info: RequestInfo) -> None:
    """Let nobody do anything more.

    Raises:
        ApiError: 403.
    """
    text = f'User "{user.name}" cannot {info.verb} resource "{info.resource}"'
    raise forbidden(info.group, info.resource, info.name, text)


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The doors of the verbs.

    Attributes:
        registry: the kinds and their objects.
        schemas: the definitions of all kinds.
        admission: what may change or refuse a write.
        addresses: ClusterIPs and node ports.
        clock: tells the time.
        random_bytes: returns so many random bytes (names, uids).
        reviews: the kinds that are answered, never stored.
        issue_token: issues ServiceAccount tokens; ``None`` where nobody does.
        gates: the features that are on.
        check_access: asked where one request needs more than one permission.
    """

    registry: Registry
    schemas: Schemas
    admission: Admission
    addresses: ServiceAddresses
    clock: Clock
    random_bytes: Callable[[int], bytes]
    reviews: Mapping[Kind, ReviewHandler] = field(default_factory=dict)
    issue_token: IssueToken | None = None
    gates: FeatureGates = DEFAULT_GATES
    check_access: CheckAccess = refuse_access
