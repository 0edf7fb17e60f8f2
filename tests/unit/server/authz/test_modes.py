"""What each mode allows, and how a refusal reads."""

from typing import Any

import pytest

import podyard.server.authz.modes
from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.lib.parts import load_parts
from podyard.server.authz.chain import AuthorizationChain
from podyard.server.authz.parts import Allow, AuthorizationContext, Authorizer, Deny
from podyard.server.build import RequestInfo, parse_request
from support.stored_objects import StoredObjects, make

ADMIN = User("podyard-admin", groups=("system:masters", "system:authenticated"))
JANE = User("jane", groups=("system:authenticated",))
NODE = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
NO_NODE = User("jane", groups=("system:nodes", "system:authenticated"))
SCHEDULER = User("system:kube-scheduler", groups=("system:authenticated",))
CONTROLLERS = User("system:kube-controller-manager", groups=("system:authenticated",))
ACCOUNT = User(
    "system:serviceaccount:web:app",
    groups=(
        "system:serviceaccounts",
        "system:serviceaccounts:web",
        "system:authenticated",
    ),
)
ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))

POD = make(
    "Pod",
    "p1",
    "web",
    spec={
        "nodeName": "n1",
        "serviceAccountName": "app",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "by-volume"}},
            {"name": "b", "configMap": {"name": "cm-by-volume"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"secret": {"name": "by-projection"}},
                        {"configMap": {"name": "kube-root-ca.crt"}},
                    ]
                },
            },
        ],
        "initContainers": [
            {
                "name": "i",
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "by-env"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-env"}}},
                ],
            }
        ],
        "containers": [
            {
                "name": "c",
                "envFrom": [
                    {"secretRef": {"name": "by-env-from"}},
                    {"configMapRef": {"name": "cm-env-from"}},
                ],
            }
        ],
    },
)
ELSEWHERE = make(
    "Pod",
    "p2",
    "web",
    spec={
        "nodeName": "n2",
        "serviceAccountName": "other",
        "imagePullSecrets": [{"name": "foreign"}],
    },
)


CLAIMING = make(
    "Pod",
    "p3",
    "web",
    spec={
        "nodeName": "n1",
        "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "claimed"}},
            {"name": "b", "ephemeral": {}},
        ],
    },
)
VOLUMES = [
    make(
        "PersistentVolume",
        name,
        metadata={"labels": labels},
        spec={"claimRef": {"namespace": "web", "name": claim}},
    )
    for name, claim, labels in (
        ("own", "anything", {"podyard.dev/node": "n1"}),
        ("used", "claimed", {}),
        ("foreign", "unused", {"podyard.dev/node": "n2"}),
    )
]


@pytest.fixture
def objects() -> StoredObjects:
    return StoredObjects(POD, ELSEWHERE, CLAIMING, *VOLUMES)


@pytest.fixture
def chain(objects: StoredObjects) -> AuthorizationChain:
    parts = load_parts(podyard.server.authz.modes, Authorizer)
    return AuthorizationChain(parts, AuthorizationContext(objects))


def _ask(line: str) -> RequestInfo:
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    return parse_request(method, path, query)


def test_the_modes_are_asked_in_this_order(chain: AuthorizationChain) -> None:
    assert chain.names == (
        "Masters",
        "Node",
        "SystemComponents",
        "SelfService",
        "AlwaysDeny",
    )


WEB = "/api/v1/namespaces/web"


def _rows(user: User, allowed: bool, *lines: str) -> list[Any]:
    word = "may" if allowed else "may-not"
    return [
        pytest.param(user, line, allowed, id=f"{user.name}-{word}-{line}")
        for line in lines
    ]


@pytest.mark.parametrize(
    ("user", "line", "allowed"),
    [
        *_rows(
            ADMIN,
            True,
            f"DELETE {WEB}/pods/p1",
            f"GET {WEB}/secrets/foreign",
            "GET /metrics",
            "POST /apis/rbac.authorization.k8s.io/v1/clusterroles",
        ),
        *_rows(
            JANE,
            True,
            "GET /api",
            "GET /api/v1",
            "GET /apis/apps/v1",
            "GET /openapi/v3",
            "GET /version",
            "GET /version/",
            "HEAD /readyz",
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
        ),
        *_rows(
            JANE,
            False,
            "GET /api/v1/pods",
            f"GET {WEB}/pods/p1",
            "POST /api",
            "GET /metrics",
            "GET /openid/v1/jwks",
            "POST /apis/authentication.k8s.io/v1/tokenreviews",
            "POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
        ),
        *_rows(
            ACCOUNT,
            True,
            "GET /apis",
            "GET /.well-known/openid-configuration",
            "GET /openid/v1/jwks",
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
        ),
        *_rows(
            ACCOUNT,
            False,
            f"GET {WEB}/pods",
            f"GET {WEB}/serviceaccounts/app",
            f"POST {WEB}/serviceaccounts/app/token",
        ),
        *_rows(ANONYMOUS, True, "GET /healthz", "GET /livez", "GET /version"),
        *_rows(
            ANONYMOUS,
            False,
            "GET /api",
            "GET /openapi/v3",
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        ),
        *_rows(
            SCHEDULER,
            True,
            "GET /api/v1/pods?watch=true",
            "GET /api/v1/nodes",
            f"POST {WEB}/pods/p1/binding",
            f"PATCH {WEB}/pods/p1/status",
            f"POST {WEB}/events",
        ),
        *_rows(
            SCHEDULER,
            False,
            f"POST {WEB}/pods",
            f"PATCH {WEB}/pods/p1",
            f"GET {WEB}/secrets/pull",
            "PATCH /api/v1/nodes/n1",
            f"POST {WEB}/pods/p1/exec",
        ),
        *_rows(
            CONTROLLERS,
            True,
            f"DELETE {WEB}/pods",
            f"GET {WEB}/secrets?watch=1",
            "PUT /api/v1/namespaces/web/finalize",
            "PATCH /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1/status",
            f"POST {WEB}/serviceaccounts",
            f"POST {WEB}/configmaps",
            f"PATCH {WEB}/pods/p1/status",
            "DELETE /apis/anything.example/v1/namespaces/web/things/x",
        ),
        *_rows(
            CONTROLLERS,
            False,
            f"GET {WEB}/pods/p1/exec",
            f"GET {WEB}/pods/p1/log",
            "GET /api/v1/nodes/n1/proxy/pods",
            f"POST {WEB}/serviceaccounts/app/token",
            "POST /api/v1/nodes",
            "POST /api/v1/namespaces",
        ),
        *_rows(
            NODE,
            True,
            "POST /api/v1/nodes",
            "GET /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1/status",
            "GET /api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1",
            "GET /api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1",
            f"GET {WEB}/pods/p1",
            f"GET {WEB}/pods/gone",
            f"PATCH {WEB}/pods/p1/status",
            f"DELETE {WEB}/pods/p1",
            f"POST {WEB}/pods",
            f"POST {WEB}/pods/p1/eviction",
            f"GET {WEB}/secrets/pull",
            f"GET {WEB}/secrets/by-volume",
            f"GET {WEB}/secrets/by-projection",
            f"GET {WEB}/secrets/by-env",
            f"GET {WEB}/secrets/by-env-from",
            f"GET {WEB}/secrets?watch=1&fieldSelector=metadata.name%3Dpull",
            f"GET {WEB}/configmaps/cm-by-volume",
            f"GET {WEB}/configmaps/kube-root-ca.crt",
            f"GET {WEB}/configmaps/cm-env",
            f"GET {WEB}/configmaps/cm-env-from",
            f"POST {WEB}/serviceaccounts/app/token",
            f"GET {WEB}/serviceaccounts/app",
            f"GET {WEB}/persistentvolumeclaims/claimed",
            f"GET {WEB}/persistentvolumeclaims/p3-b",
            "GET /api/v1/persistentvolumes/own",
            "PATCH /api/v1/persistentvolumes/own",
            "GET /api/v1/persistentvolumes/used",
            "GET /api/v1/persistentvolumes?watch=1&labelSelector=podyard.dev/node%3Dn1",
            f"POST {WEB}/events",
            "GET /api/v1/services?watch=1",
            "GET /apis/node.k8s.io/v1/runtimeclasses",
            "GET /apis/discovery.k8s.io/v1/endpointslices",
            "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            "POST /apis/authentication.k8s.io/v1/tokenreviews",
            "POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
            "GET /api",
        ),
        *_rows(
            NODE,
            False,
            "GET /api/v1/nodes",
            "GET /api/v1/nodes/n2",
            "DELETE /api/v1/nodes/n1",
            "GET /api/v1/nodes/n1/status",
            "GET /api/v1/pods",
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
            "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn1",
            f"GET {WEB}/pods/p2",
            f"PATCH {WEB}/pods/p1",
            f"GET {WEB}/pods/p1/log",
            f"POST {WEB}/pods/p1/binding",
            f"POST {WEB}/pods/p1/exec",
            f"GET {WEB}/secrets",
            "GET /api/v1/secrets",
            f"GET {WEB}/secrets/foreign",
            f"GET {WEB}/secrets/unused",
            "GET /api/v1/namespaces/else/secrets/pull",
            f"PUT {WEB}/secrets/pull",
            f"GET {WEB}/configmaps/unused",
            f"POST {WEB}/serviceaccounts/other/token",
            f"GET {WEB}/serviceaccounts/other",
            f"GET {WEB}/persistentvolumeclaims",
            f"GET {WEB}/persistentvolumeclaims/unused",
            f"PATCH {WEB}/persistentvolumeclaims/claimed",
            "GET /api/v1/persistentvolumes",
            "GET /api/v1/persistentvolumes/foreign",
            "PATCH /api/v1/persistentvolumes/used",
            "DELETE /api/v1/persistentvolumes/own",
            "PATCH /api/v1/persistentvolumes/own/status",
            "GET /api/v1/persistentvolumes?labelSelector=podyard.dev/node%3Dn2",
            "GET /api/v1/persistentvolumes?labelSelector=podyard.dev/node!%3Dn1",
            f"PUT {WEB}/serviceaccounts/app",
            "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            "PUT /apis/coordination.k8s.io/v1/namespaces/web/leases/n1",
            "GET /metrics",
        ),
        *_rows(NO_NODE, False, "GET /api/v1/nodes/n1", f"GET {WEB}/secrets/pull"),
    ],
)
async def test_who_may_what(
    chain: AuthorizationChain, user: User, line: str, allowed: bool
) -> None:
    decision = await chain.decide(user, _ask(line))

    assert isinstance(decision, Allow) is allowed


@pytest.mark.parametrize(
    ("user", "line", "message"),
    [
        pytest.param(
            JANE,
            f"GET {WEB}/pods",
            'pods is forbidden: User "jane" cannot list resource "pods" in API group '
            '"" in the namespace "web"',
            id="list",
        ),
        pytest.param(
            JANE,
            f"GET {WEB}/pods/p1/log",
            'pods "p1" is forbidden: User "jane" cannot get resource "pods/log" in API '
            'group "" in the namespace "web"',
            id="subresource",
        ),
        pytest.param(
            JANE,
            "DELETE /apis/apps/v1/namespaces/web/deployments/d",
            'deployments.apps "d" is forbidden: User "jane" cannot delete resource '
            '"deployments" in API group "apps" in the namespace "web"',
            id="group",
        ),
        pytest.param(
            JANE,
            "GET /api/v1/nodes?watch=1",
            'nodes is forbidden: User "jane" cannot watch resource "nodes" in API '
            'group "" at the cluster scope',
            id="cluster-scope",
        ),
        pytest.param(
            JANE,
            "GET /metrics",
            'forbidden: User "jane" cannot get path "/metrics"',
            id="path",
        ),
        pytest.param(
            JANE,
            f"GET {WEB}/pods/p1/exec",
            'pods "p1" is forbidden: User "jane" cannot create resource "pods/exec" in '
            'API group "" in the namespace "web"',
            id="exec-is-create",
        ),
        pytest.param(
            NODE,
            f"GET {WEB}/secrets/foreign",
            'secrets "foreign" is forbidden: User "system:node:n1" cannot get resource '
            '"secrets" in API group "" in the namespace "web": no relationship found '
            "between node 'n1' and this object",
            id="node",
        ),
        pytest.param(
            NODE,
            "GET /api/v1/nodes",
            'nodes is forbidden: User "system:node:n1" cannot list resource "nodes" in '
            "API group \"\" at the cluster scope: node 'n1' cannot read all nodes, only "
            "its own Node object",
            id="node-all-nodes",
        ),
        pytest.param(
            NODE,
            "GET /api/v1/nodes/n2",
            'nodes "n2" is forbidden: User "system:node:n1" cannot get resource "nodes" '
            "in API group \"\" at the cluster scope: node 'n1' cannot read 'n2', only its "
            "own Node object",
            id="node-other-node",
        ),
        pytest.param(
            NODE,
            f"POST {WEB}/serviceaccounts/app/else",
            'serviceaccounts "app" is forbidden: User "system:node:n1" cannot create '
            'resource "serviceaccounts/else" in API group "" in the namespace "web": can '
            "only create token subresource of serviceaccount",
            id="node-account",
        ),
        pytest.param(
            NODE,
            "GET /api/v1/pods",
            'pods is forbidden: User "system:node:n1" cannot list resource "pods" in '
            'API group "" at the cluster scope: can only list/watch pods with '
            "spec.nodeName field selector",
            id="node-lists-all",
        ),
    ],
)
async def test_a_refusal_reads_as_upstream(
    chain: AuthorizationChain, user: User, line: str, message: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        await chain.check(user, _ask(line))

    assert (refusal.value.code, refusal.value.reason) == (403, "Forbidden")
    assert refusal.value.message == message


async def test_an_answer_for_a_node_is_remembered_by_its_pod(
    chain: AuthorizationChain, objects: StoredObjects
) -> None:
    ask = _ask(f"GET {WEB}/secrets/pull")
    await chain.check(NODE, ask)
    listed = objects.lists

    await chain.check(NODE, ask)

    assert objects.lists == listed


async def test_what_a_node_may_read_ends_with_the_pod(
    chain: AuthorizationChain, objects: StoredObjects
) -> None:
    ask = _ask(f"GET {WEB}/secrets/pull")
    await chain.check(NODE, ask)
    objects.put({**POD, "spec": {**POD["spec"], "nodeName": "n2"}})

    assert not isinstance(await chain.decide(NODE, ask), Allow)


async def test_rules_are_listed(chain: AuthorizationChain) -> None:
    rules = await chain.list_rules(ADMIN, "web")

    assert rules.resources[0].verbs == ("*",)
    assert not rules.incomplete
    assert (await chain.list_rules(NODE, "web")).incomplete


async def test_a_deny_ends_the_asking(objects: StoredObjects) -> None:
    async def refuse(user: User, info: RequestInfo) -> Deny:
        return Deny("closed")

    async def none(user: User, namespace: str) -> Any:
        return None

    from podyard.server.authz.parts import Mode

    parts = load_parts(podyard.server.authz.modes, Authorizer)
    closed = Authorizer("Closed", -1, lambda context: Mode(refuse, none))
    chain = AuthorizationChain([*parts, closed], AuthorizationContext(objects))

    with pytest.raises(ApiError, match="closed"):
        await chain.check(ADMIN, _ask("GET /api"))
