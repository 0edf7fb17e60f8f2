"""A node's agent writes only what is its own."""

from typing import Any

import pytest

from podyard.api.identity import User
from podyard.api.scheme import (
    LEASE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE_ACCOUNT,
)
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.admission.plugins.node_restriction import PART
from support.admission import NODE_USER, USER, admit, pod, request
from support.stored_objects import StoredObjects, make

CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
MIRROR = {"kubernetes.io/config.mirror": "hash"}
OWNER = {
    "apiVersion": "v1",
    "kind": "Node",
    "name": "n1",
    "uid": "uid-n1",
    "controller": True,
}
TOKEN_VOLUME = {
    "name": "t",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"serviceAccountToken": {"path": "v", "audience": "vault"}},
        ]
    },
}
OBJECTS = StoredObjects(
    make("Node", "n1"),
    make("Pod", "mine", "web", spec={"nodeName": "n1", "volumes": [TOKEN_VOLUME]}),
    make("Pod", "theirs", "web", spec={"nodeName": "n2"}),
)


def _mirror(*, owners: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    document = pod(annotations=MIRROR, **{"nodeName": "n1", **spec})
    document["metadata"]["ownerReferences"] = [OWNER] if owners is None else owners
    return document


def _pod(document: Any, operation: Operation = CREATE, **more: Any) -> AdmissionRequest:
    return request(document, operation=operation, user=NODE_USER, **more)


def _node(
    operation: Operation, new: Any, old: Any = None, subresource: str = ""
) -> AdmissionRequest:
    return request(
        new,
        operation=operation,
        kind=NODE,
        namespace="",
        user=NODE_USER,
        old_object=old,
        subresource=subresource,
    )


def _token(name: str, **spec: Any) -> AdmissionRequest:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": f"uid-{name}"}
    spec = {"boundObjectRef": reference, **spec}
    return request(
        {"spec": spec},
        kind=SERVICE_ACCOUNT,
        name="app",
        subresource="token",
        user=NODE_USER,
    )


def _lease(name: str, namespace: str = "kube-node-lease") -> AdmissionRequest:
    return request(
        make("Lease", name, namespace), kind=LEASE, namespace=namespace, user=NODE_USER
    )


def _labelled(**labels: str) -> Any:
    keys = {key.replace("__", "/").replace("_", "."): v for key, v in labels.items()}
    return make("Node", "n1", metadata={"labels": keys}, spec={})


P = 'pods "p" is forbidden: '
N = 'nodes "n1" is forbidden: '


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        # Pods
        pytest.param(_pod(_mirror()), "", id="mirror"),
        pytest.param(
            _pod(_mirror(owners=[])),
            P + 'node "n1" can only create pods with an owner reference set to itself',
            id="no-owner",
        ),
        pytest.param(
            _pod(pod(nodeName="n1")),
            P + 'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" '
            "can only create mirror pods",
            id="no-mirror",
        ),
        pytest.param(
            _pod(_mirror(nodeName="n2")),
            P + 'node "n1" can only create pods with spec.nodeName set to itself',
            id="mirror-elsewhere",
        ),
        pytest.param(
            _pod(_mirror(owners=[OWNER, OWNER])),
            P + 'node "n1" can only create pods with a single owner reference set to '
            "itself",
            id="two-owners",
        ),
        pytest.param(
            _pod(_mirror(owners=[{**OWNER, "name": "n2"}])),
            P + 'node "n1" can only create pods with an owner reference set to itself',
            id="other-owner",
        ),
        pytest.param(
            _pod(_mirror(owners=[{**OWNER, "controller": False}])),
            P + 'node "n1" can only create pods with a controller owner reference set '
            "to itself",
            id="no-controller",
        ),
        pytest.param(
            _pod(_mirror(owners=[{**OWNER, "blockOwnerDeletion": True}])),
            P + 'node "n1" must not set blockOwnerDeletion on an owner reference',
            id="blocking-owner",
        ),
        pytest.param(
            _pod(_mirror(owners=[{**OWNER, "uid": "x"}])),
            P + "node n1 UID mismatch: expected x got uid-n1",
            id="owner-uid",
        ),
        pytest.param(
            _pod(_mirror(serviceAccountName="a")),
            P + 'node "n1" can not create pods that reference serviceaccounts',
            id="account",
        ),
        pytest.param(
            _pod(_mirror(imagePullSecrets=[{"name": "s"}])),
            P + 'node "n1" can not create pods that reference secrets',
            id="secrets",
        ),
        pytest.param(
            _pod(_mirror(volumes=[{"name": "v", "configMap": {"name": "c"}}])),
            P + 'node "n1" can not create pods that reference configmaps',
            id="configmaps",
        ),
        pytest.param(
            _pod(_mirror(volumes=[TOKEN_VOLUME])),
            P + 'node "n1" can not create pods that reference serviceaccounts (via '
            "projected volumes)",
            id="tokens",
        ),
        pytest.param(
            _pod(_mirror(resourceClaims=[{"name": "gpu"}])),
            P + 'node "n1" can not create pods that reference resourceclaims',
            id="resource-claims",
        ),
        pytest.param(
            _pod(_mirror(volumes=[{"name": "v", "csi": {"driver": "d"}}])),
            P + 'node "n1" can not create pods that reference csidrivers (via CSI '
            "volumes)",
            id="csi",
        ),
        pytest.param(
            _pod(_mirror(volumes=[{"name": "v", "ephemeral": {}}])),
            P + 'node "n1" can not create pods that reference persistentvolumeclaims '
            "(via ephemeral volumes)",
            id="ephemeral",
        ),
        pytest.param(
            _pod(_mirror(volumes=[{"name": "v", "hostPath": {"path": "/x"}}])),
            "",
            id="host-path",
        ),
        pytest.param(
            _pod(_mirror(volumes=[{"name": "v", "persistentVolumeClaim": {"x": 1}}])),
            P + 'node "n1" can not create pods that reference persistentvolumeclaims',
            id="claims",
        ),
        pytest.param(
            _pod(_mirror(), UPDATE),
            P + 'unexpected operation "UPDATE", node "n1" can only create and delete '
            "mirror pods",
            id="update",
        ),
        pytest.param(_pod(None, DELETE, name="mine"), "", id="delete-mine"),
        pytest.param(_pod(None, DELETE, name="gone"), "", id="delete-gone"),
        pytest.param(
            _pod(None, DELETE, name="theirs"),
            'pods "theirs" is forbidden: node "n1" can only delete pods with '
            "spec.nodeName set to itself",
            id="delete-theirs",
        ),
        pytest.param(
            _pod(
                pod(nodeName="n1"),
                UPDATE,
                subresource="status",
                old_object=pod(nodeName="n1"),
            ),
            "",
            id="status-mine",
        ),
        pytest.param(
            _pod(pod(), UPDATE, subresource="status", old_object=pod(nodeName="n2")),
            P + 'node "n1" can only update pod status for pods with spec.nodeName set '
            "to itself",
            id="status-theirs",
        ),
        pytest.param(
            _pod(
                {**pod(), "metadata": {"name": "p", "labels": {"a": "b"}}},
                UPDATE,
                subresource="status",
                old_object=pod(nodeName="n1"),
            ),
            P + 'node "n1" cannot update labels through pod status',
            id="status-labels",
        ),
        pytest.param(
            _pod({}, name="mine", subresource="binding"),
            'pods "mine" is forbidden: unexpected pod subresource "binding", only '
            "'status' and 'eviction' are allowed",
            id="other-subresource",
        ),
        pytest.param(
            _pod({}, name="mine", subresource="eviction"), "", id="evict-mine"
        ),
        pytest.param(
            _pod({}, name="theirs", subresource="eviction"),
            'pods "theirs" is forbidden: node n1 can only evict pods with spec.nodeName '
            "set to itself",
            id="evict-theirs",
        ),
        # Nodes
        pytest.param(_node(CREATE, make("Node", "n1")), "", id="create-node"),
        pytest.param(
            _node(CREATE, make("Node", "n2")),
            'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"',
            id="create-other-node",
        ),
        pytest.param(
            _node(
                CREATE,
                _labelled(
                    kubernetes_io__hostname="n1",
                    node_kubernetes_io__anything="x",
                    kubelet_kubernetes_io__x="y",
                    example_com__x="y",
                    plain="x",
                    a_topology_kubernetes_io__zone="z",
                ),
            ),
            N + 'node "n1" is not allowed to set the following labels: '
            "a.topology.kubernetes.io/zone",
            id="labels",
        ),
        pytest.param(
            _node(
                UPDATE,
                _labelled(node_restriction_kubernetes_io__x="y"),
                _labelled(),
            ),
            N + "is not allowed to modify labels: node.restriction.kubernetes.io/x",
            id="restricted-label",
        ),
        pytest.param(
            _node(
                UPDATE,
                make("Node", "n1", spec={"taints": [{"key": "a"}]}),
                make("Node", "n1"),
            ),
            N + 'node "n1" is not allowed to modify taints',
            id="taints",
        ),
        pytest.param(
            _node(
                UPDATE,
                make("Node", "n1", metadata={"ownerReferences": [{"uid": "x"}]}),
                make("Node", "n1"),
            ),
            N + 'node "n1" is not allowed to modify ownerReferences',
            id="owners",
        ),
        pytest.param(
            _node(CREATE, make("Node", "n1", spec={"configSource": {"configMap": {}}})),
            N + 'node "n1" is not allowed to create pods with a non-nil configSource',
            id="config-source",
        ),
        pytest.param(
            _node(
                UPDATE,
                make("Node", "n1", spec={"configSource": {"configMap": {}}}),
                make("Node", "n1"),
            ),
            N + 'node "n1" is not allowed to update configSource to a new non-nil '
            "configSource",
            id="new-config-source",
        ),
        pytest.param(
            _node(UPDATE, make("Node", "n1"), make("Node", "n1"), "status"),
            "",
            id="node-status",
        ),
        # Tokens
        pytest.param(_token("mine"), "", id="token"),
        pytest.param(_token("mine", audiences=["vault"]), "", id="token-audience"),
        pytest.param(
            _token("mine", audiences=["bank"]),
            'serviceaccounts "app" is forbidden: audience "bank" not found in pod spec '
            "volume, system:node:n1 is not authorized to request tokens for this audience",
            id="token-other-audience",
        ),
        pytest.param(
            _token("mine", audiences=["a", "b"]),
            'serviceaccounts "app" is forbidden: node may only request 0 or 1 audiences',
            id="token-two-audiences",
        ),
        pytest.param(
            _token("mine", boundObjectRef=None),
            'serviceaccounts "app" is forbidden: node requested token not bound to a pod',
            id="token-unbound",
        ),
        pytest.param(
            _token(
                "mine",
                boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "mine"},
            ),
            'serviceaccounts "app" is forbidden: node requested token with a pod binding '
            "without a uid",
            id="token-without-uid",
        ),
        pytest.param(
            _token(
                "mine",
                boundObjectRef={
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": "mine",
                    "uid": "x",
                },
            ),
            'serviceaccounts "app" is forbidden: the UID in the bound object reference '
            "(x) does not match the UID in record. The object might have been deleted "
            "and then recreated",
            id="token-of-another-uid",
        ),
        pytest.param(_token("gone"), 'pods "gone" not found', id="token-of-absent"),
        pytest.param(
            _token("theirs"),
            'serviceaccounts "app" is forbidden: node requested token bound to a pod '
            "scheduled on a different node",
            id="token-of-theirs",
        ),
        # Leases
        pytest.param(_lease("n1"), "", id="lease"),
        pytest.param(
            _lease("n2"),
            'leases.coordination.k8s.io "n2" is forbidden: can only access node lease '
            "with the same name as the requesting node",
            id="other-lease",
        ),
        pytest.param(
            _lease("n1", "web"),
            'leases.coordination.k8s.io "n1" is forbidden: can only access leases in the '
            '"kube-node-lease" system namespace',
            id="lease-elsewhere",
        ),
        # Claims
        pytest.param(
            request(
                make("PersistentVolumeClaim", "c", "web"),
                kind=PERSISTENT_VOLUME_CLAIM,
                user=NODE_USER,
            ),
            'persistentvolumeclaims "c" is forbidden: may only update PVC status',
            id="claim",
        ),
        # Others
        pytest.param(
            request(pod(), user=User("system:node:", groups=("system:nodes",))),
            P + 'could not determine node from user "system:node:"',
            id="nameless-node",
        ),
        pytest.param(request(pod(), user=USER), "", id="a-person"),
        pytest.param(
            request(make("Node", "n9"), kind=NODE, namespace="", user=USER),
            "",
            id="a-person's-node",
        ),
    ],
)
async def test_node_restriction(asked: AdmissionRequest, refusal: str) -> None:
    assert await admit(PART, asked, OBJECTS) == refusal


async def test_nodes_may_not_touch_restricted_labels_in_any_case() -> None:
    key = "node-restriction.kubernetes.io/x"
    new = make("Node", "n1", metadata={"labels": {key: "y"}})

    refusal = await admit(PART, _node(CREATE, new), OBJECTS)

    assert refusal == f'{N}node "n1" is not allowed to set the following labels: {key}'


async def test_audiences_of_the_nodes_plugins_are_allowed_besides() -> None:
    asked = _token("mine", audiences=["bank"])
    asked.node_token_audiences = frozenset({"bank"})

    assert await admit(PART, asked, OBJECTS) == ""
