"""A node's agent writes only what is its own.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
and kubernetes ``plugin/pkg/admission/noderestriction`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import not_found
from podyard.api.identity import NODE_PREFIX, NODES
from podyard.api.scheme import (
    LEASE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE_ACCOUNT,
)
from podyard.api.storage import DATA_FINALIZER
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    Lookup,
    Operation,
)
from podyard.server.admission.pods import (
    MIRROR,
    config_map_names,
    is_mirror,
    projections,
    secret_names,
)

_LEASE_NAMESPACE: Final = "kube-node-lease"
#: Labels of Kubernetes' own domains that a node may set on itself.
_OWN_LABELS: Final = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/windows-build",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_OWN_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESTRICTED_DOMAIN: Final = "node-restriction.kubernetes.io"
_DOMAINS: Final = ("kubernetes.io", "k8s.io")
#: Volumes that need an object of the API, and how that is said.
_VOLUME_REFERENCES: Final = {
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
#: The same of the sources of a projected volume.
_PROJECTED_REFERENCES: Final = {
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse what is not the asking node's own.

    Raises:
        ApiError: 403; 404 where a token's Pod is absent.
    """
    user = request.user
    if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
        return
    node = user.node_name
    if not node:
        raise deny(request, f'could not determine node from user "{user.name}"')
    match (request.kind, request.subresource):
        case (kind, "") if kind is POD:
            await _check_pod(request, lookup, node)
        case (kind, "status") if kind is POD:
            _check_pod_status(request, node)
        case (kind, "eviction") if kind is POD:
            await _check_eviction(request, lookup, node)
        case (kind, other) if kind is POD:
            raise deny(
                request,
                f"unexpected pod subresource \"{other}\", only 'status' and "
                "'eviction' are allowed",
            )
        case (kind, "" | "status") if kind is NODE:
            _check_node(request, node)
        case (kind, "token") if kind is SERVICE_ACCOUNT:
            await _check_token(request, lookup, node)
        case (kind, _) if kind is LEASE:
            _check_lease(request, node)
        case (kind, _) if kind is PERSISTENT_VOLUME:
            _check_volume(request, node)
        case (kind, _) if kind is PERSISTENT_VOLUME_CLAIM:
            raise deny(request, "may only update PVC status")
        case _:
            return


def _check_volume(request: AdmissionRequest, node: str) -> None:
    """Let a node say that it has removed the data of a volume, and nothing else."""
    new, old = request.object or {}, request.old_object or {}
    allowed = [
        one
        for one in old.get("metadata", {}).get("finalizers") or ()
        if one != DATA_FINALIZER
    ]
    metadata = {**(old.get("metadata") or {}), "finalizers": allowed}
    wanted = dict(new.get("metadata") or {})
    wanted.setdefault("finalizers", [])
    for one in (metadata, wanted):
        one.pop("managedFields", None)
        one.pop("resourceVersion", None)
    if (
        request.operation is not Operation.UPDATE
        or not old.get("metadata", {}).get("deletionTimestamp")
        or wanted != metadata
        or new.get("spec") != old.get("spec")
    ):
        raise deny(
            request,
            f'node "{node}" can only remove the finalizer {DATA_FINALIZER} of a volume '
            "that is being deleted",
        )


async def _check_pod(request: AdmissionRequest, lookup: Lookup, node: str) -> None:
    if request.operation is Operation.CREATE:
        await _check_mirror(request, lookup, node)
    elif request.operation is Operation.DELETE:
        await _check_bound(
            request,
            lookup,
            node,
            f'node "{node}" can only delete pods with spec.nodeName set to itself',
        )
    else:
        raise deny(
            request,
            f'unexpected operation "{request.operation}", node "{node}" can only '
            "create and delete mirror pods",
        )


async def _check_mirror(request: AdmissionRequest, lookup: Lookup, node: str) -> None:
    pod = request.object or {}
    spec: Document = pod.get("spec") or {}
    if not is_mirror(pod):
        raise deny(
            request,
            f'pod does not have "{MIRROR}" annotation, node "{node}" can only create '
            "mirror pods",
        )
    if spec.get("nodeName") != node:
        raise deny(
            request,
            f'node "{node}" can only create pods with spec.nodeName set to itself',
        )
    await _check_owner(request, lookup, node)
    found = _api_reference(spec)
    if found:
        raise deny(request, f'node "{node}" can not create pods that reference {found}')


def _api_reference(spec: Document) -> str:
    """Return the first kind of object a Pod refers to, or an empty string.

    Source: kubernetes ``pkg/api/pod`` (v1.36), what static Pods may not have either.
    """
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    if any(True for _ in secret_names(spec)):
        return "secrets"
    if any(True for _ in config_map_names(spec)):
        return "configmaps"
    if spec.get("resourceClaims"):
        return "resourceclaims"
    for volume in spec.get("volumes") or ():
        for field, what in _VOLUME_REFERENCES.items():
            if volume.get(field) is not None:
                return what
        for source in (volume.get("projected") or {}).get("sources") or ():
            for field, what in _PROJECTED_REFERENCES.items():
                if source.get(field) is not None:
                    return what
    return ""


async def _check_owner(request: AdmissionRequest, lookup: Lookup, node: str) -> None:
    """Let a mirror Pod have its node as owner, and nothing else."""
    owners = ((request.object or {}).get("metadata") or {}).get("ownerReferences") or []
    only = f'node "{node}" can only create pods with'
    if len(owners) > 1:
        raise deny(request, f"{only} a single owner reference set to itself")
    if not owners:
        raise deny(request, f"{only} an owner reference set to itself")
    for owner in owners:
        named = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"))
        if named != ("v1", "Node", node):
            raise deny(request, f"{only} an owner reference set to itself")
        if not owner.get("controller"):
            raise deny(request, f"{only} a controller owner reference set to itself")
        if owner.get("blockOwnerDeletion"):
            raise deny(
                request,
                f'node "{node}" must not set blockOwnerDeletion on an owner reference',
            )
        found = await lookup.get(NODE, "", node)
        if found is None:
            raise not_found("", "nodes", node)
        uid = found["metadata"]["uid"]
        if owner.get("uid") != uid:
            raise deny(
                request,
                f"node {node} UID mismatch: expected {owner.get('uid')} got {uid}",
            )


async def _check_bound(
    request: AdmissionRequest, lookup: Lookup, node: str, why: str
) -> None:
    """Refuse an existing Pod of another node."""
    del node
    pod = request.old_object or await lookup.get(POD, request.namespace, request.name)
    if pod is None:
        return
    if (pod.get("spec") or {}).get("nodeName") != request.user.node_name:
        raise deny(request, why)


def _check_pod_status(request: AdmissionRequest, node: str) -> None:
    old, new = request.old_object or {}, request.object or {}
    if (old.get("spec") or {}).get("nodeName") != node:
        why = "can only update pod status for pods with spec.nodeName set to itself"
        raise deny(request, f'node "{node}" {why}')
    if _labels(old) != _labels(new):
        raise deny(request, f'node "{node}" cannot update labels through pod status')


async def _check_eviction(request: AdmissionRequest, lookup: Lookup, node: str) -> None:
    name = request.name or ((request.object or {}).get("metadata") or {}).get("name")
    if not name:
        raise deny(request, "could not determine pod from request data")
    pod = await lookup.get(POD, request.namespace, name)
    if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
        raise deny(
            request, f"node {node} can only evict pods with spec.nodeName set to itself"
        )


def _check_node(request: AdmissionRequest, node: str) -> None:
    new, old = request.object or {}, request.old_object or {}
    name = request.name or (new.get("metadata") or {}).get("name")
    if name != node:
        raise deny(request, f'node "{node}" is not allowed to modify node "{name}"')
    start = f'node "{node}" is not allowed to'
    if request.operation is Operation.CREATE:
        if _config_source(new) is not None:
            raise deny(request, f"{start} create pods with a non-nil configSource")
        _check_labels(request, f"{start} set the following labels", _labels(new), {})
        return
    if request.operation is not Operation.UPDATE:
        return
    wanted = _config_source(new)
    if wanted is not None and wanted != _config_source(old):
        raise deny(
            request, f"{start} update configSource to a new non-nil configSource"
        )
    if _taints(new) != _taints(old):
        raise deny(request, f"{start} modify taints")
    if _owners(new) != _owners(old):
        raise deny(request, f"{start} modify ownerReferences")
    _check_labels(
        request, "is not allowed to modify labels", _labels(new), _labels(old)
    )


def _check_labels(
    request: AdmissionRequest, start: str, new: Document, old: Document
) -> None:
    changed = {key for key in {*new, *old} if new.get(key) != old.get(key)}
    bad = sorted(key for key in changed if not _may_label(key))
    if bad:
        raise deny(request, f"{start}: {', '.join(bad)}")


def _may_label(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    if not slash:
        return True
    if _within(domain, (_RESTRICTED_DOMAIN,)):
        return False
    if not _within(domain, _DOMAINS):
        return True
    return key in _OWN_LABELS or _within(domain, _OWN_DOMAINS)


def _within(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == top or domain.endswith(f".{top}") for top in parents)


async def _check_token(request: AdmissionRequest, lookup: Lookup, node: str) -> None:
    if request.operation is not Operation.CREATE:
        return
    spec = (request.object or {}).get("spec") or {}
    reference = spec.get("boundObjectRef") or {}
    if (
        reference.get("apiVersion") != "v1"
        or reference.get("kind") != "Pod"
        or not reference.get("name")
    ):
        raise deny(request, "node requested token not bound to a pod")
    if not reference.get("uid"):
        raise deny(request, "node requested token with a pod binding without a uid")
    name = reference["name"]
    pod = await lookup.get(POD, request.namespace, name)
    if pod is None:
        raise not_found("", "pods", name)
    uid = pod["metadata"]["uid"]
    if reference["uid"] != uid:
        raise deny(
            request,
            f"the UID in the bound object reference ({reference['uid']}) does not "
            "match the UID in record. The object might have been deleted and then "
            "recreated",
        )
    if (pod.get("spec") or {}).get("nodeName") != node:
        raise deny(
            request, "node requested token bound to a pod scheduled on a different node"
        )
    _check_audiences(request, pod, spec.get("audiences") or [])


def _check_audiences(
    request: AdmissionRequest, pod: Document, audiences: list[str]
) -> None:
    """Let a node ask only for the audiences its Pod's volumes name.

    Those of its credential provider plugins are allowed besides; upstream that is the
    verb ``request-serviceaccounts-token-audience`` of RBAC.
    """
    if len(audiences) > 1:
        raise deny(request, "node may only request 0 or 1 audiences")
    wanted = audiences[0] if audiences else ""
    named = {
        (source.get("serviceAccountToken") or {}).get("audience") or ""
        for source in projections(pod.get("spec") or {})
        if source.get("serviceAccountToken") is not None
    }
    if wanted not in named | request.node_token_audiences:
        raise deny(
            request,
            f'audience "{wanted}" not found in pod spec volume, {request.user.name} is '
            "not authorized to request tokens for this audience",
        )


def _check_lease(request: AdmissionRequest, node: str) -> None:
    if request.namespace != _LEASE_NAMESPACE:
        raise deny(
            request,
            f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace',
        )
    name = request.name or ((request.object or {}).get("metadata") or {}).get("name")
    if name != node:
        raise deny(
            request,
            "can only access node lease with the same name as the requesting node",
        )


def _labels(document: Document) -> Document:
    labels: Document = (document.get("metadata") or {}).get("labels") or {}
    return labels


def _taints(node: Document) -> object:
    return (node.get("spec") or {}).get("taints") or []


def _config_source(node: Document) -> object:
    return (node.get("spec") or {}).get("configSource")


def _owners(document: Document) -> object:
    return (document.get("metadata") or {}).get("ownerReferences") or []


PART: Final = AdmissionPlugin(
    name="NodeRestriction",
    after=("NamespaceLifecycle", "ServiceAccount"),
    validate=validate,
)
