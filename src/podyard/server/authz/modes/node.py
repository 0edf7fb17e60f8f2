"""A node's agent may do what its own Pods need, and nothing else.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/ and
kubernetes ``plugin/pkg/auth/authorizer/node`` (v1.36). Upstream keeps a graph of
which Pod needs what; here the Pods of the object's namespace are asked, and an answer
is remembered by the Pod it came from, so that the next one is a single look.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Final

from podyard.api.documents import Document
from podyard.api.identity import NODE_PREFIX, NODES, User
from podyard.api.scheme import PERSISTENT_VOLUME, POD
from podyard.api.storage import NODE_LABEL, node_label
from podyard.server.authz.decide import any_covers, referenced, selected
from podyard.server.authz.parts import (
    Allow,
    AuthorizationContext,
    Authorizer,
    Decision,
    Lookup,
    Mode,
    NoOpinion,
    ResourceRule,
    Rules,
)
from podyard.server.build import RequestInfo

_READ: Final = ("get", "list", "watch")
_LEASE_NAMESPACE: Final = "kube-node-lease"
#: What needs no look at the object.
_RULES: Final = (
    ResourceRule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    ResourceRule(
        ("create",),
        ("authorization.k8s.io",),
        ("localsubjectaccessreviews", "subjectaccessreviews"),
    ),
    ResourceRule(_READ, ("",), ("services",)),
    ResourceRule(_READ, ("discovery.k8s.io",), ("endpointslices",)),
    ResourceRule(("get",), ("",), ("endpoints",)),
    ResourceRule(("create", "patch", "update"), ("", "events.k8s.io"), ("events",)),
    ResourceRule(_READ, ("node.k8s.io",), ("runtimeclasses",)),
    ResourceRule(_READ, ("storage.k8s.io",), ("csidrivers",)),
    ResourceRule(
        ("create", "get", "list", "watch"),
        ("certificates.k8s.io",),
        ("certificatesigningrequests",),
    ),
)
_NODE_VERBS: Final = {
    "": frozenset({"create", "get", "list", "watch", "update", "patch"}),
    "status": frozenset({"update", "patch"}),
}


class NodeMode:
    """The mode at work.

    Args:
        lookup: what it sees of the store.
        most: how many answers are remembered.
    """

    def __init__(self, lookup: Lookup, most: int = 4096) -> None:
        self._lookup = lookup
        self._most = most
        self._known: OrderedDict[tuple[str, str, str, str], str] = OrderedDict()

    async def authorize(self, user: User, info: RequestInfo) -> Decision:
        """Decide one request of a node's agent."""
        if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
            return NoOpinion()
        node = user.node_name
        if not node:
            return NoOpinion(f'unknown node for user "{user.name}"')
        if not info.is_resource_request:
            return NoOpinion()
        match (info.group, info.resource):
            case ("", "persistentvolumes"):
                return await self._volume(node, info)
            case ("", "secrets" | "configmaps" | "persistentvolumeclaims"):
                return await self._read_object(node, info)
            case ("", "serviceaccounts"):
                if info.verb in _READ:
                    return await self._read_object(node, info)
                return await self._create_token(node, info)
            case ("coordination.k8s.io", "leases"):
                return _lease(node, info)
            case ("", "nodes"):
                return _node(node, info)
            case ("", "pods"):
                return await self._pod(node, info)
            case _:
                return Allow() if any_covers(_RULES, info) else NoOpinion()

    async def list_rules(self, user: User, namespace: str) -> Rules:  # noqa: ARG002
        """Return what needs no look at the object."""
        if not user.node_name:
            return Rules()
        return Rules(_RULES, (), "node authorizer does not list what its Pods need")

    async def _read_object(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in _READ:
            return NoOpinion("can only read resources of this type")
        if info.subresource:
            return NoOpinion("cannot read subresource")
        if not info.namespace:
            return NoOpinion("can only read namespaced object of this type")
        if not info.name:
            return NoOpinion("No Object name found")
        return await self._related(node, info)

    async def _create_token(self, node: str, info: RequestInfo) -> Decision:
        if info.verb != "create" or not info.name:
            return NoOpinion("can only create tokens for individual service accounts")
        if info.subresource != "token":
            return NoOpinion("can only create token subresource of serviceaccount")
        return await self._related(node, info)

    async def _volume(self, node: str, info: RequestInfo) -> Decision:
        """Allow a node its own volumes, and to read those its Pods have claimed."""
        if info.subresource:
            return NoOpinion()
        own = node_label(node)
        if info.verb in {"list", "watch"}:
            if selected(info.param("labelSelector"), NODE_LABEL) == own:
                return Allow()
            return NoOpinion(f"can only list/watch volumes with {NODE_LABEL}={own}")
        if info.verb not in {"get", "patch"} or not info.name:
            return NoOpinion()
        volume = await self._lookup.get(PERSISTENT_VOLUME, "", info.name)
        if volume is None:
            return NoOpinion(_no_relation(node))
        if (volume["metadata"].get("labels") or {}).get(NODE_LABEL) == own:
            return Allow()  # NodeRestriction looks at what is written
        claim = (volume.get("spec") or {}).get("claimRef") or {}
        if info.verb != "get" or not claim:
            return NoOpinion(_no_relation(node))
        behind = replace(
            info,
            resource="persistentvolumeclaims",
            namespace=str(claim.get("namespace") or ""),
            name=str(claim.get("name") or ""),
        )
        return await self._related(node, behind)

    async def _pod(self, node: str, info: RequestInfo) -> Decision:
        match (info.subresource, info.verb):
            case ("", "get"):
                pod = await self._lookup.get(POD, info.namespace, info.name)
                # A Pod that is gone may be asked for: the agent has to learn it.
                if pod is None or _runs_on(pod, node):
                    return Allow()
                return NoOpinion(_no_relation(node))
            case ("", "list" | "watch"):
                return await self._read_pods(node, info)
            case (
                ("", "create" | "delete")
                | ("status", "update" | "patch")
                | ("eviction", "create")
            ):
                return Allow()  # NodeRestriction looks at the object
            case _:
                return NoOpinion()

    async def _read_pods(self, node: str, info: RequestInfo) -> Decision:
        if selected(info.param("fieldSelector"), "spec.nodeName") == node:
            return Allow()
        if info.name and info.namespace:
            pod = await self._lookup.get(POD, info.namespace, info.name)
            if pod is not None and _runs_on(pod, node):
                return Allow()
            return NoOpinion(_no_relation(node))
        return NoOpinion("can only list/watch pods with spec.nodeName field selector")

    async def _related(self, node: str, info: RequestInfo) -> Decision:
        """Allow an object that a Pod of this node refers to."""
        wanted = (node, info.resource, info.namespace, info.name)
        known = self._known.get(wanted)
        if known is not None:
            pod = await self._lookup.get(POD, info.namespace, known)
            if pod is not None and _needs(pod, wanted):
                return Allow()
            del self._known[wanted]
        for pod in await self._lookup.list(POD, info.namespace):
            if _needs(pod, wanted):
                self._known[wanted] = str(pod["metadata"]["name"])
                if len(self._known) > self._most:
                    self._known.popitem(last=False)
                return Allow()
        return NoOpinion(_no_relation(node))


def _needs(pod: Document, wanted: tuple[str, str, str, str]) -> bool:
    node, resource, _, name = wanted
    return _runs_on(pod, node) and name in referenced(pod, resource)


def _runs_on(pod: Document, node: str) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName") == node)


def _no_relation(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def _lease(node: str, info: RequestInfo) -> Decision:
    if info.verb not in {"get", "create", "update", "patch", "delete"}:
        return NoOpinion("can only get, create, update, patch, or delete a node lease")
    if info.namespace != _LEASE_NAMESPACE:
        return NoOpinion(
            f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace'
        )
    if info.verb != "create" and info.name != node:
        return NoOpinion(
            "can only access node lease with the same name as the requesting node"
        )
    return Allow()


def _node(node: str, info: RequestInfo) -> Decision:
    if info.verb not in _NODE_VERBS.get(info.subresource, ()):
        return NoOpinion()
    if info.verb not in _READ or info.name == node:
        return Allow()  # NodeRestriction looks at what is written
    which = f"'{info.name}'" if info.name else "all nodes"
    return NoOpinion(f"node '{node}' cannot read {which}, only its own Node object")


def make(context: AuthorizationContext) -> Mode:
    """Return the mode."""
    mode = NodeMode(context.lookup)
    return Mode(mode.authorize, mode.list_rules)


PART: Final = Authorizer(name="Node", order=10, make=make)
