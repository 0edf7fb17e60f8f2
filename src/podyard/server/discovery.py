"""Discovery: which groups, versions and kinds there are, in both forms.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.lib.values import dataclass
from podyard.server.call import Reply
from podyard.server.resource import Resource, Subresource

_AGGREGATED: Final = "apidiscovery.k8s.io"
_VERSIONS: Final = ("v2", "v2beta1")
#: Groups in the order upstream lists them; others follow by name.
_ORDER: Final = (
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
)


@dataclass(frozen=True, slots=True)
class Served:
    """One kind in discovery.

    Attributes:
        kind: the kind.
        verbs: what may be done with it.
        subresources: what is below it.
    """

    kind: Kind
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...] = ()


def served_kinds(
    resources: Iterable[Resource], reviews: Iterable[Kind]
) -> tuple[Served, ...]:
    """Return everything discovery shows, by group and resource."""
    found = [Served(part.kind, part.verbs, part.subresources) for part in resources]
    found += [Served(kind, ("create",)) for kind in reviews]
    return tuple(sorted(found, key=lambda part: part.kind.resource))


class Discovery:
    """The discovery documents, made once.

    Args:
        served: every kind.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self._served = served
        self._by_version: dict[str, dict[str, list[Served]]] = {}
        for part in served:
            versions = self._by_version.setdefault(part.kind.group, {})
            versions.setdefault(part.kind.version, []).append(part)
        self._replies: dict[tuple[str, str], Reply] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """The named groups in order."""
        names = [group for group in self._by_version if group]
        known = [group for group in _ORDER if group in names]
        return (*known, *sorted(set(names) - set(known)))

    def answer(self, path: str, accept: str, *, address: str) -> Reply | None:
        """Answer a discovery path, or return ``None`` where it is none.

        Args:
            path: without a trailing slash.
            accept: the Accept header.
            address: ``host:port`` of this server, for the old form of ``/api``.
        """
        form = _aggregated_form(accept) if path in {"/api", "/apis"} else ""
        key = (path, form or (address if path == "/api" else ""))
        if key not in self._replies:
            document = self._document(path, form, address)
            if document is None:
                return None
            media = "application/json"
            if form:
                media += f";g={_AGGREGATED};v={form};as=APIGroupDiscoveryList"
            body = orjson.dumps(document)
            tag = f'"{hashlib.sha512(body).hexdigest()[:64].upper()}"'
            headers = {"ETag": tag, "Vary": "Accept"} if form else {}
            self._replies[key] = Reply(body, content_type=media, headers=headers)
        return self._replies[key]

    def _document(self, path: str, form: str, address: str) -> Document | None:
        parts = path.strip("/").split("/")
        match parts:
            case ["api"] | ["apis"] if form:
                groups = [""] if parts == ["api"] else list(self.groups)
                return self._aggregated(groups, form)
            case ["api"]:
                return _api_versions(address)
            case ["apis"]:
                return {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [self._group(group) for group in self.groups],
                }
            case ["apis", group] if group in self._by_version:
                return {
                    "kind": "APIGroup",
                    "apiVersion": "v1",
                    **self._group(group),
                }
            case ["api", version]:
                return self._resource_list("", version)
            case ["apis", group, version]:
                return self._resource_list(group, version)
            case _:
                return None

    def _group(self, group: str) -> Document:
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for version in self._by_version[group]
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _resource_list(self, group: str, version: str) -> Document | None:
        parts = self._by_version.get(group, {}).get(version)
        if parts is None:
            return None
        resources = []
        for part in parts:
            resources.append(_old_resource(part))
            resources += [_old_subresource(part, sub) for sub in part.subresources]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": resources,
        }

    def _aggregated(self, groups: list[str], form: str) -> Document:
        items = []
        for group in groups:
            versions = [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_new_resource(part) for part in parts],
                }
                for version, parts in self._by_version.get(group, {}).items()
            ]
            metadata = {"name": group} if group else {}
            items.append({"metadata": metadata, "versions": versions})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"{_AGGREGATED}/{form}",
            "metadata": {},
            "items": items,
        }


def _aggregated_form(accept: str) -> str:
    """Return the version of aggregated discovery a client prefers, if any."""
    for entry in accept.split(","):
        parts = {part.strip() for part in entry.split(";")}
        if f"g={_AGGREGATED}" not in parts or "as=APIGroupDiscoveryList" not in parts:
            if parts & {"application/json", "*/*"}:
                return ""
            continue
        for version in _VERSIONS:
            if f"v={version}" in parts and "application/json" in parts:
                return version
    return ""


def _api_versions(address: str) -> Document:
    where = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [where],
    }


def _old_resource(part: Served) -> Document:
    kind = part.kind
    document: Document = {
        "name": kind.resource,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(part.verbs),
    }
    if kind.short_names:
        document["shortNames"] = list(kind.short_names)
    if kind.categories:
        document["categories"] = list(kind.categories)
    return document


def _old_subresource(part: Served, subresource: Subresource) -> Document:
    kind = part.kind
    document: Document = {
        "name": f"{kind.resource}/{subresource.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": subresource.kind or kind.kind,
        "verbs": list(subresource.verbs),
    }
    if subresource.version:
        document["group"] = subresource.group
        document["version"] = subresource.version
    return document


def _response_kind(kind: str, group: str, version: str) -> Document:
    return {"group": group, "version": version, "kind": kind}


def _new_resource(part: Served) -> Document:
    kind = part.kind
    document: Document = {
        "resource": kind.resource,
        "responseKind": _response_kind(kind.kind, kind.group, kind.version),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(part.verbs),
    }
    if kind.short_names:
        document["shortNames"] = list(kind.short_names)
    if kind.categories:
        document["categories"] = list(kind.categories)
    if part.subresources:
        document["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _response_kind(
                    sub.kind or kind.kind,
                    sub.group if sub.version else kind.group,
                    sub.version or kind.version,
                ),
                "verbs": list(sub.verbs),
            }
            for sub in part.subresources
        ]
    return document
