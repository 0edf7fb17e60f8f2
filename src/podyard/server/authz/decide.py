"""Whether a rule covers a request, and which objects a Pod refers to. Pure.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ (how rules
match) and .../access-authn-authz/node/ (what a node may read).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from podyard.api.documents import Document
from podyard.api.storage import claims_of
from podyard.server.authz.parts import PathRule, ResourceRule
from podyard.server.build import RequestInfo

#: Subresources that run something: permission is ``create``, whatever the HTTP verb,
#: because a WebSocket has to begin with a GET.
STREAMING: Final = frozenset({"exec", "attach", "portforward"})


def effective(info: RequestInfo) -> RequestInfo:
    """Return the request with the verb that permission is needed for."""
    if (
        info.is_resource_request
        and not info.group
        and info.resource == "pods"
        and info.subresource in STREAMING
        and info.verb != "create"
    ):
        return replace(info, verb="create")
    return info


def covers(rule: ResourceRule, info: RequestInfo) -> bool:
    """Tell whether a rule for resources allows a request for one."""
    if not info.is_resource_request:
        return False
    resource = info.resource
    if info.subresource:
        resource = f"{resource}/{info.subresource}"
    return (
        _has(rule.verbs, info.verb)
        and _has(rule.groups, info.group)
        and (
            _has(rule.resources, resource) or f"*/{info.subresource}" in rule.resources
        )
        and (not rule.names or info.name in rule.names)
    )


def covers_path(rule: PathRule, info: RequestInfo) -> bool:
    """Tell whether a rule for paths allows a request for no resource."""
    if info.is_resource_request:
        return False
    verb = "get" if info.verb == "head" else info.verb
    return _has(rule.verbs, verb) and any(
        _path_fits(pattern, info.path) for pattern in rule.paths
    )


def _has(names: tuple[str, ...], name: str) -> bool:
    return name in names or "*" in names


def _path_fits(pattern: str, path: str) -> bool:
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return pattern == path


def referenced(pod: Document, resource: str) -> frozenset[str]:
    """Return the names of the objects of one resource that a Pod needs.

    Args:
        pod: the Pod.
        resource: ``secrets``, ``configmaps``, ``serviceaccounts`` or
            ``persistentvolumeclaims``.
    """
    spec: Document = pod.get("spec") or {}
    if resource == "secrets":
        return frozenset(filter(None, _secrets(spec)))
    if resource == "configmaps":
        return frozenset(filter(None, _config_maps(spec)))
    if resource == "persistentvolumeclaims":
        return frozenset(claims_of(pod))
    if resource == "serviceaccounts":
        return frozenset(filter(None, [spec.get("serviceAccountName")]))
    return frozenset()


def _secrets(spec: Document) -> Iterator[str | None]:
    for reference in spec.get("imagePullSecrets") or ():
        yield reference.get("name")
    for source in _volume_sources(spec):
        yield (source.get("secret") or {}).get("secretName")
        yield (source.get("secret") or {}).get("name")
        for driver in ("csi", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO"):
            inner = source.get(driver) or {}
            for field in ("nodePublishSecretRef", "secretRef"):
                yield (inner.get(field) or {}).get("name")
    yield from _environment(spec, "secretKeyRef", "secretRef")


def _config_maps(spec: Document) -> Iterator[str | None]:
    for source in _volume_sources(spec):
        yield (source.get("configMap") or {}).get("name")
    yield from _environment(spec, "configMapKeyRef", "configMapRef")


def _volume_sources(spec: Document) -> Iterator[Document]:
    for volume in spec.get("volumes") or ():
        yield volume
        yield from (volume.get("projected") or {}).get("sources") or ()


def _environment(spec: Document, key_field: str, field: str) -> Iterator[str | None]:
    for container in containers(spec):
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            yield (source.get(key_field) or {}).get("name")
        for source in container.get("envFrom") or ():
            yield (source.get(field) or {}).get("name")


def containers(spec: Document) -> Iterator[Document]:
    """Iterate over a Pod's containers of every kind."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def selected(selector: str, field: str) -> str | None:
    """Return the one value a field selector allows for ``field``, if it does."""
    for term in selector.split(","):
        name, equals, value = term.partition("=")
        if equals and name.strip() == field and not name.endswith("!"):
            return value.removeprefix("=").strip()
    return None


def any_covers(rules: Iterable[ResourceRule], info: RequestInfo) -> bool:
    """Tell whether one of several rules allows a request."""
    return any(covers(rule, info) for rule in rules)
