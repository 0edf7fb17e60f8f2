"""Path and query → RequestInfo: what a request asks for. Pure.

Source: apiserver ``endpoints/request/requestinfo.go`` (v1.36).
"""

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs, unquote

from podyard.api.errors import bad_request
from podyard.lib.values import dataclass

#: HTTP method → verb of a request for a resource.
_VERBS: Final = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
#: What follows ``/namespaces/NAME/`` and is a subresource, not a resource.
_NAMESPACE_SUBRESOURCES: Final = frozenset({"status", "finalize"})
_NO_QUERY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What one request asks for.

    Attributes:
        verb: ``get list watch create update patch delete deletecollection`` for a
            resource request, else the HTTP method in lower case.
        path: the decoded path, without a trailing slash (but ``/`` itself).
        is_resource_request: whether it is about a kind of an API group.
        group: the API group, empty for core.
        version: ``v1`` …; empty for a non-resource request.
        resource: the plural, ``pods``.
        subresource: ``status``, ``log`` …, or empty.
        namespace: empty for cluster scope and for all namespaces.
        name: the object's name. For list and watch the one name that the field
            selector allows, as authorization wants it.
        rest: the path segments behind the subresource (``nodes/n/proxy/REST``).
        query: all query parameters, decoded.
    """

    verb: str
    path: str
    is_resource_request: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: tuple[str, ...] = ()
    query: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_QUERY)

    def param(self, name: str) -> str:
        """Return the first value of a query parameter, or an empty string."""
        values = self.query.get(name)
        return values[0] if values else ""

    def flag(self, name: str) -> bool:
        """Return a boolean parameter: present and neither ``false`` nor ``0``."""
        values = self.query.get(name)
        return bool(values) and values[0].lower() not in {"false", "0"}  # type: ignore[index]

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version


def parse_request(method: str, path: str, query: str = "") -> RequestInfo:
    """Return what a request asks for.

    Args:
        method: the HTTP method, upper case.
        path: the raw path, still percent-encoded, without the query.
        query: the raw query string, without the question mark.

    Raises:
        ApiError: 400, a path segment no name may be (``..``, an encoded slash).
    """
    parameters = parse_query(query) if query else _NO_QUERY
    segments = tuple(_decode(part) for part in path.split("/") if part)
    where = "/" + "/".join(segments)
    root = segments[0] if segments else ""
    if root == "api" and len(segments) > 2:
        return _resource_request(
            method, where, "", segments[1], segments[2:], parameters
        )
    if root == "apis" and len(segments) > 3:
        group, version = segments[1], segments[2]
        return _resource_request(
            method, where, group, version, segments[3:], parameters
        )
    return RequestInfo(verb=method.lower(), path=where, query=parameters)


def parse_query(query: str) -> Mapping[str, tuple[str, ...]]:
    """Return the decoded parameters of a raw query string.

    Raises:
        ApiError: 400, more parameters than any client has to say.
    """
    try:
        pairs = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise bad_request("the query has more than 1000 parameters") from error
    return {name: tuple(values) for name, values in pairs.items()}


def _decode(segment: str) -> str:
    text = unquote(segment) if "%" in segment else segment
    if text in {".", ".."}:
        raise bad_request(f"invalid path segment {text!r}: may not be '{text}'")
    if text is not segment and ("/" in text or "%" in text or "\0" in text):
        raise bad_request(f"invalid path segment {text!r}: may not contain '/' or '%'")
    return text


def _resource_request(
    method: str,
    path: str,
    group: str,
    version: str,
    parts: tuple[str, ...],
    query: Mapping[str, tuple[str, ...]],
) -> RequestInfo:
    verb = _VERBS.get(method, method.lower())
    if parts[0] == "watch" and len(parts) > 1:  # the old form, /api/v1/watch/pods
        verb, parts = "watch", parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:  # pyright: ignore[reportGeneralTypeIssues] - never empty
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    name = parts[1] if len(parts) > 1 else ""
    info = RequestInfo(
        verb=verb,
        path=path,
        is_resource_request=True,
        group=group,
        version=version,
        resource=parts[0],  # pyright: ignore[reportGeneralTypeIssues] - never empty
        subresource=parts[2] if len(parts) > 2 else "",
        namespace=namespace,
        name=name,
        rest=parts[3:],
        query=query,
    )
    return info if name and verb != "watch" else _collection(info)


def _collection(info: RequestInfo) -> RequestInfo:
    """Tell list, watch and deletecollection apart, and find the one name asked."""
    verb = info.verb
    if verb == "get":
        verb = "watch" if info.flag("watch") else "list"
    elif verb == "delete":
        verb = "deletecollection"
    name = info.name
    if not name and verb in {"list", "watch", "deletecollection"}:
        name = _selected_name(info.param("fieldSelector"))
    return replace(info, verb=verb, name=name)


def _selected_name(selector: str) -> str:
    """Return N of a ``metadata.name=N`` term, or an empty string."""
    for term in selector.split(","):
        field, equals, value = term.partition("=")
        if equals and field.strip() == "metadata.name":
            return value.removeprefix("=").strip()
    return ""
