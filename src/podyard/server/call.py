"""One request on its way, and what may come back."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from functools import lru_cache

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.lib.values import dataclass
from podyard.server.build import RequestInfo
from podyard.server.resource import Resource

#: What we answer in; clients that ask for protobuf alone understand it, too.
JSON_TYPE = "application/json"
#: What we answer in on request.
YAML_TYPE = "application/yaml"
_READABLE = (
    "application/json",
    YAML_TYPE,
    "application/vnd.kubernetes.protobuf",
)


class Form(Enum):
    """In which form objects are answered."""

    OBJECT = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@lru_cache(maxsize=512)
def parse_accept(accept: str) -> Form:
    """Return the first form of an Accept header that we can give.

    Raises:
        ApiError: 406, there is none.
    """
    if not accept:
        return Form.OBJECT
    for entry in accept.split(","):
        media, *rest = (part.strip() for part in entry.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        if media not in {*_READABLE, "*/*", "application/*"}:
            continue
        match parameters.get("as"):
            case None:
                return Form.OBJECT
            case "Table" if parameters.get("v") in {"v1", "v1beta1"}:
                if media == JSON_TYPE:
                    return Form.TABLE
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                if media == JSON_TYPE:
                    return Form.METADATA
            case _:
                continue
    kinds = ", ".join(_READABLE)
    message = f"only the following media types are accepted: {kinds}"
    raise ApiError(406, "NotAcceptable", message)


@lru_cache(maxsize=512)
def wants_yaml(accept: str) -> bool:
    """Say whether the first media type of an Accept header that we know is YAML."""
    for entry in accept.split(","):
        media = entry.partition(";")[0].strip()
        if media in {*_READABLE, "*/*", "application/*"}:
            return media == YAML_TYPE
    return False


@dataclass(slots=True)
class Call:
    """One authorized request for a kind.

    Attributes:
        info: what is asked.
        resource: the kind.
        user: who asks.
        headers: the request's headers.
        body: the whole body, empty where there is none.
        now: when it came.
        warnings: texts for Warning headers; verbs append.
    """

    info: RequestInfo
    resource: Resource
    user: User
    headers: Mapping[str, str]
    body: bytes
    now: datetime
    warnings: list[str] = field(default_factory=list)

    @property
    def form(self) -> Form:
        """The form the client wants the answer in."""
        return parse_accept(self.headers.get("Accept", ""))


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes in pieces; each is sent at once.

    Attributes:
        chunks: the pieces; closed when the client leaves or the server stops.
        content_type: of the whole.
        status: the HTTP status.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: str = JSON_TYPE
    status: int = 200


@dataclass(frozen=True, slots=True)
class NodeTarget:
    """A path on a node's own endpoint.

    Attributes:
        node: the node's name.
        host: the address to dial.
        port: the port to dial.
        path: path and query, encoded.
    """

    node: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An upgraded connection: bytes both ways between the client and a node."""

    target: NodeTarget


@dataclass(frozen=True, slots=True)
class Forward:
    """A plain GET that a node answers, streamed through."""

    target: NodeTarget


#: Everything a verb may answer with.
Answer = Reply | Stream | Tunnel | Forward


def success_status(details: Document | None = None, *, code: int = 0) -> Document:
    """Return the Status of something that worked."""
    status: Document = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
    }
    if details:
        status["details"] = details
    if code:
        status["code"] = code
    return status
