"""The order of a request: authenticate, authorize, find the verb, answer."""

import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Final, Protocol, TypeAlias

import orjson
import structlog

from podyard.api.errors import (
    ApiError,
    bad_request,
    internal,
    method_not_allowed,
    path_not_found,
)
from podyard.api.identity import User
from podyard.lib.values import dataclass
from podyard.server.authn.impersonation import parse_impersonation
from podyard.server.authn.parts import Credentials, PeerCertificate
from podyard.server.build import RequestInfo, parse_request
from podyard.server.call import Answer, Call, Reply
from podyard.server.context import ServerContext
from podyard.server.discovery import Discovery
from podyard.server.registry import store_failure
from podyard.server.resource import Resource
from podyard.server.site import Site
from podyard.server.verbs.connect import (
    attach_to,
    exec_in,
    forward_ports,
    proxy_node,
    read_log,
)
from podyard.server.verbs.create import create
from podyard.server.verbs.delete import delete, delete_collection
from podyard.server.verbs.eviction import evict
from podyard.server.verbs.explain import explain_pod, read_hook_log
from podyard.server.verbs.get import get_object
from podyard.server.verbs.list import list_objects
from podyard.server.verbs.patch import patch
from podyard.server.verbs.subresources import (
    bind,
    finalize,
    get_scale,
    patch_scale,
    request_token,
    review,
    update_scale,
)
from podyard.server.verbs.update import update
from podyard.server.verbs.watch import Watches
from podyard.store.backend import StoreError

log = structlog.get_logger()


class Authentication(Protocol):
    """Who asks (``authn.chain.AuthenticationChain``)."""

    async def authenticate(self, credentials: Credentials) -> User:
        """Return the user, or raise ``ApiError`` 401."""


class Authorization(Protocol):
    """Whether they may (``authz.chain.AuthorizationChain``)."""

    async def check(self, user: User, info: RequestInfo) -> None:
        """Let it pass, or raise ``ApiError`` 403."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as the HTTP door read it, its body still unread.

    Attributes:
        method: the HTTP method.
        path: the raw path.
        query: the raw query.
        headers: its headers, looked up without regard to case.
        read_body: reads the whole body; raises ``ApiError`` 413.
        peer: the client certificate, if one was given.
        websocket_protocols: the offered subprotocols.
        address: ``host:port`` this server was reached at.
        impersonation: the headers that name another user.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    read_body: Callable[[], Awaitable[bytes]]
    peer: PeerCertificate | None = None
    websocket_protocols: tuple[str, ...] = ()
    address: str = ""
    impersonation: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        answer: what to send.
        info: what was asked, ``None`` where the path could not be read.
        warnings: texts for Warning headers.
    """

    answer: Answer
    info: RequestInfo | None = None
    warnings: list[str] = field(default_factory=list)


Verb: TypeAlias = Callable[[ServerContext, Call], Awaitable[Answer]]

_OBJECT_VERBS: Final[Mapping[str, Verb]] = {
    "get": get_object,
    "update": update,
    "patch": patch,
    "delete": delete,
}
_COLLECTION_VERBS: Final[Mapping[str, Verb]] = {
    "create": create,
    "list": list_objects,
    "deletecollection": delete_collection,
}
_SUBRESOURCE_VERBS: Final[Mapping[tuple[str, str], Verb]] = {
    ("status", "get"): get_object,
    ("status", "update"): update,
    ("status", "patch"): patch,
    ("ephemeralcontainers", "get"): get_object,
    ("ephemeralcontainers", "update"): update,
    ("ephemeralcontainers", "patch"): patch,
    ("scale", "get"): get_scale,
    ("scale", "update"): update_scale,
    ("scale", "patch"): patch_scale,
    ("binding", "create"): bind,
    ("eviction", "create"): evict,
    ("token", "create"): request_token,
    ("finalize", "update"): finalize,
    ("log", "get"): read_log,
    ("explain", "get"): explain_pod,
    ("hooklog", "get"): read_hook_log,
    ("exec", "get"): exec_in,
    ("exec", "create"): exec_in,
    ("attach", "get"): attach_to,
    ("attach", "create"): attach_to,
    ("portforward", "get"): forward_ports,
    ("portforward", "create"): forward_ports,
    ("proxy", "get"): proxy_node,
}
_WITH_BODY: Final = frozenset(
    {"create", "update", "patch", "delete", "deletecollection"}
)
#: Upgrades have no body, whatever their method.
_TUNNELS: Final = frozenset({"exec", "attach", "portforward"})


class Pipeline:
    """Takes a request from the door to its verb.

    Args:
        context: what the verbs work with.
        watches: the open watches.
        discovery: the discovery documents.
        site: the paths that are no kinds.
        authentication: tells who asks.
        authorization: tells whether they may.
    """

    def __init__(
        self,
        context: ServerContext,
        watches: Watches,
        discovery: Discovery,
        site: Site,
        authentication: Authentication,
        authorization: Authorization,
    ) -> None:
        self._context = context
        self._watches = watches
        self._discovery = discovery
        self._site = site
        self._authentication = authentication
        self._authorization = authorization

    async def run(self, incoming: Incoming) -> Outcome:
        """Answer a request; every failure becomes a Status."""
        outcome = Outcome(Reply(b""))
        try:
            await self._run(incoming, outcome)
        except ApiError as error:
            outcome.answer = to_reply(error)
        except StoreError as error:
            log.warning("store_failed", error=str(error))
            outcome.answer = to_reply(store_failure(error))
        except TimeoutError:
            outcome.answer = to_reply(timed_out())
        except RecursionError:
            outcome.answer = to_reply(bad_request("the body nests too deeply"))
        except Exception as error:  # noqa: BLE001 - the door: a Status, not a crash
            # As text: a log must not print the variables of the frames, which may
            # hold what a Secret holds.
            log.error(  # noqa: TRY400
                "request_failed",
                method=incoming.method,
                path=incoming.path,
                stack=traceback.format_exc(),
            )
            outcome.answer = to_reply(internal(type(error).__name__))
        return outcome

    async def _run(self, incoming: Incoming, outcome: Outcome) -> None:
        info = parse_request(incoming.method, incoming.path, incoming.query)
        outcome.info = info
        headers = incoming.headers
        user = await self._authentication.authenticate(
            Credentials(
                path=info.path,
                peer=incoming.peer,
                authorization=headers.get("Authorization", ""),
                websocket_protocols=incoming.websocket_protocols,
            )
        )
        if incoming.impersonation:
            user = await self._impersonate(user, incoming)
        await self._authorization.check(user, info)
        if not info.is_resource_request:
            outcome.answer = self._answer_path(info, incoming)
            return
        resource = self._find(info)
        verb = self._verb(info, resource)
        body = b""
        if info.verb in _WITH_BODY and info.subresource not in _TUNNELS:
            body = await incoming.read_body()
        now = self._context.clock.now()
        call = Call(info, resource, user, headers, body, now, outcome.warnings)
        if verb is None:
            outcome.answer = await self._watches.watch(call)
        else:
            outcome.answer = await verb(self._context, call)

    async def _impersonate(self, user: User, incoming: Incoming) -> User:
        """Return the user a request wants to be made as.

        Raises:
            ApiError: 403, the asking user may not.
        """
        wanted = parse_impersonation(incoming.impersonation)
        if wanted is None:
            return user
        for question in wanted.questions:
            await self._authorization.check(user, question)
        return wanted.user

    def _answer_path(self, info: RequestInfo, incoming: Incoming) -> Answer:
        if info.verb not in {"get", "head"}:
            raise _wrong_method()
        reply = self._site.answer(info, incoming.headers)
        if reply is None:
            accept = incoming.headers.get("Accept", "")
            reply = self._discovery.answer(info.path, accept, address=incoming.address)
        if reply is None:
            raise path_not_found()
        tag = reply.headers.get("ETag")
        if tag and incoming.headers.get("If-None-Match") == tag:
            return Reply(b"", 304, reply.content_type, reply.headers)
        return reply

    def _find(self, info: RequestInfo) -> Resource:
        resource = self._context.registry.find(info.group, info.version, info.resource)
        if resource is None:
            raise path_not_found()
        kind = resource.kind
        in_namespace = bool(info.namespace) and kind.resource != "namespaces"
        if in_namespace and not kind.namespaced:
            raise path_not_found()
        is_many = info.verb in {"list", "watch"}
        if kind.namespaced and not info.namespace and not is_many:
            raise path_not_found() if info.verb == "get" else _wrong_method()
        return resource

    def _verb(self, info: RequestInfo, resource: Resource) -> Verb | None:
        """Return what answers; ``None`` is a watch.

        Raises:
            ApiError: 404 no such subresource, 405 no such verb.
        """
        kind = resource.kind
        if info.subresource:
            subresource = resource.subresource(info.subresource)
            if subresource is None:
                raise path_not_found()
            found = _SUBRESOURCE_VERBS.get((info.subresource, info.verb))
            if found is None or info.verb not in subresource.verbs:
                raise _wrong_method()
            return found
        if info.verb == "watch" and "watch" in resource.verbs:
            return None
        by_name = info.verb in {"get", "update", "patch", "delete"}
        verbs = _OBJECT_VERBS if by_name else _COLLECTION_VERBS
        found = verbs.get(info.verb)
        if found is None or (by_name and not info.name):
            raise _wrong_method()
        if info.verb == "create" and info.name:
            raise _wrong_method()
        if info.verb not in resource.verbs:
            raise method_not_allowed(kind.group, kind.resource, info.verb)
        return review if kind in self._context.reviews else found


def _wrong_method() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def timed_out() -> ApiError:
    """504: it took too long."""
    message = "Timeout: request did not complete within the allotted timeout"
    return ApiError(504, "Timeout", message, {})


def to_reply(error: ApiError) -> Reply:
    """Return an error as an answer."""
    headers = {}
    retry_s = (error.details or {}).get("retryAfterSeconds")
    if retry_s:
        headers["Retry-After"] = str(retry_s)
    if error.code == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="podyard"'
    return Reply(orjson.dumps(error.to_status()), error.code, headers=headers)
