"""What the scheduler and the controllers may.

Source: the default roles ``system:kube-scheduler`` and those of the controllers,
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#core-component-roles
Our controllers share one identity; the garbage collector and the namespace
controller have to read and delete every kind there is.
"""

from collections.abc import Mapping
from typing import Final

from podyard.api.identity import CONTROLLER_MANAGER, SCHEDULER, User
from podyard.server.authz.decide import any_covers
from podyard.server.authz.parts import (
    Allow,
    AuthorizationContext,
    Authorizer,
    Decision,
    Mode,
    NoOpinion,
    ResourceRule,
    Rules,
)
from podyard.server.build import RequestInfo

_READ: Final = ("get", "list", "watch")
_EVENTS: Final = ResourceRule(
    ("create", "patch", "update"), ("", "events.k8s.io"), ("events",)
)
_LEASES: Final = ResourceRule(
    ("create", "get", "list", "watch", "update", "patch"),
    ("coordination.k8s.io",),
    ("leases",),
)
_REVIEWS: Final = (
    ResourceRule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    ResourceRule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
)
_SCHEDULER: Final = (
    _EVENTS,
    _LEASES,
    *_REVIEWS,
    ResourceRule(
        _READ,
        ("",),
        (
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "replicationcontrollers",
            "services",
        ),
    ),
    ResourceRule(("delete",), ("",), ("pods",)),
    ResourceRule(("create",), ("",), ("bindings", "pods/binding")),
    ResourceRule(("patch", "update"), ("",), ("persistentvolumeclaims",)),
    ResourceRule(("patch", "update"), ("",), ("pods/status",)),
    ResourceRule(_READ, ("apps",), ("replicasets", "statefulsets")),
    ResourceRule(_READ, ("policy",), ("poddisruptionbudgets",)),
    ResourceRule(_READ, ("scheduling.k8s.io",), ("priorityclasses",)),
    ResourceRule(
        _READ,
        ("storage.k8s.io",),
        ("csidrivers", "csinodes", "csistoragecapacities", "storageclasses"),
    ),
)
_CONTROLLERS: Final = (
    _EVENTS,
    _LEASES,
    *_REVIEWS,
    ResourceRule(
        (*_READ, "delete", "deletecollection", "patch", "update"), ("*",), ("*",)
    ),
    ResourceRule(
        ("create",),
        ("",),
        (
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "pods/eviction",
            "secrets",
            "serviceaccounts",
        ),
    ),
    ResourceRule(("create",), ("apps",), ("controllerrevisions", "replicasets")),
    ResourceRule(("create",), ("batch",), ("jobs",)),
    ResourceRule(("create",), ("discovery.k8s.io",), ("endpointslices",)),
)
#: No component looks into containers or borrows identities.
_NEVER: Final = frozenset({"exec", "attach", "portforward", "proxy", "log", "token"})
_RULES: Final[Mapping[str, tuple[ResourceRule, ...]]] = {
    SCHEDULER: _SCHEDULER,
    CONTROLLER_MANAGER: _CONTROLLERS,
}


def make(context: AuthorizationContext) -> Mode:  # noqa: ARG001 - needs none
    """Return the mode."""
    return Mode(authorize, list_rules)


async def authorize(user: User, info: RequestInfo) -> Decision:
    """Allow what the component's rules cover."""
    if info.subresource in _NEVER:
        return NoOpinion()
    allowed = any_covers(_RULES.get(user.name, ()), info)
    return Allow() if allowed else NoOpinion()


async def list_rules(user: User, namespace: str) -> Rules:  # noqa: ARG001
    """Return the component's rules."""
    return Rules(_RULES.get(user.name, ()))


PART: Final = Authorizer(name="SystemComponents", order=20, make=make)
