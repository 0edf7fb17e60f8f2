"""The review kinds."""

from datetime import UTC, datetime
from typing import Any

import pytest

import podyard.server.authz.modes
from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.lib.parts import load_parts
from podyard.server.authz.chain import AuthorizationChain
from podyard.server.authz.parts import AuthorizationContext, Authorizer
from podyard.server.authz.reviews import REVIEW_KINDS, Reviews
from support.stored_objects import StoredObjects

JANE = User("jane", "7", ("dev", "system:authenticated"), {"scopes": ("a", "b")})
ADMIN = User("root", groups=("system:masters",))
TOKEN_USER = User("system:serviceaccount:a:b", "9", ("system:serviceaccounts",))


class Tokens:
    async def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> User | None:
        return TOKEN_USER if token == "good" else None

    def token_audiences(self, token: str) -> tuple[str, ...]:
        return ("api", "vault")


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def reviews() -> Reviews:
    parts = load_parts(podyard.server.authz.modes, Authorizer)
    chain = AuthorizationChain(parts, AuthorizationContext(StoredObjects()))
    return Reviews(chain, Tokens(), ("api",), Clock())


def _access(**attributes: str) -> dict[str, Any]:
    return {"spec": {"resourceAttributes": attributes}}


def test_every_review_kind_is_answered(reviews: Reviews) -> None:
    assert set(reviews.handlers()) == set(REVIEW_KINDS)


@pytest.mark.parametrize(
    ("user", "spec", "status"),
    [
        pytest.param(
            ADMIN,
            {"resourceAttributes": {"verb": "delete", "resource": "nodes"}},
            {"allowed": True},
            id="master",
        ),
        pytest.param(
            JANE,
            {"resourceAttributes": {"verb": "get", "resource": "pods"}},
            {"allowed": False},
            id="nobody",
        ),
        pytest.param(
            JANE,
            {"nonResourceAttributes": {"verb": "get", "path": "/api"}},
            {"allowed": True},
            id="path",
        ),
        pytest.param(
            User("system:node:n", groups=("system:nodes",)),
            {
                "resourceAttributes": {
                    "verb": "list",
                    "resource": "pods",
                    "fieldSelector": {
                        "requirements": [
                            {"key": "spec.nodeName", "operator": "In", "values": ["n"]}
                        ]
                    },
                }
            },
            {"allowed": True},
            id="field-selector",
        ),
    ],
)
async def test_a_user_asks_what_they_may(
    reviews: Reviews, user: User, spec: dict[str, Any], status: dict[str, Any]
) -> None:
    answer = await reviews.self_subject_access(user, {"spec": spec}, "")

    assert answer["kind"] == "SelfSubjectAccessReview"
    assert answer["apiVersion"] == "authorization.k8s.io/v1"
    assert answer["spec"] == spec
    assert answer["status"] == status


async def test_somebody_asks_for_somebody_else(reviews: Reviews) -> None:
    document = _access(verb="get", resource="pods")
    document["spec"].update(user="x", groups=["system:masters"])

    answer = await reviews.subject_access(JANE, document, "")

    assert answer["status"] == {"allowed": True}


@pytest.mark.parametrize(
    ("handler", "document", "message"),
    [
        pytest.param(
            "self_subject_access",
            {"spec": {}},
            'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: '
            "spec.resourceAttributes: Invalid value: null: exactly one of "
            "nonResourceAttributes or resourceAttributes must be specified",
            id="nothing-asked",
        ),
        pytest.param(
            "self_subject_access",
            {"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}},
            'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: '
            "spec.nonResourceAttributes: Invalid value: {}: cannot be specified in "
            "combination with resourceAttributes",
            id="both-asked",
        ),
        pytest.param(
            "subject_access",
            _access(verb="get", resource="pods"),
            'SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid '
            'value: "": at least one of user or group must be specified',
            id="nobody-named",
        ),
        pytest.param(
            "local_subject_access",
            _access(verb="get", resource="pods", namespace="b"),
            "spec.resourceAttributes.namespace must match namespace: a",
            id="other-namespace",
        ),
        pytest.param("self_subject_rules", {}, "no namespace on request", id="rules"),
        pytest.param(
            "token",
            {"spec": {}},
            "token is required for TokenReview in authentication",
            id="token",
        ),
    ],
)
async def test_incomplete_questions_are_refused(
    reviews: Reviews, handler: str, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        await getattr(reviews, handler)(JANE, document, "a")

    assert refusal.value.message == message


async def test_a_user_asks_who_they_are(reviews: Reviews) -> None:
    answer = await reviews.self_subject(JANE, {}, "")

    assert answer == {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": "2026-05-01T00:00:00Z"},
        "status": {
            "userInfo": {
                "username": "jane",
                "uid": "7",
                "groups": ["dev", "system:authenticated"],
                "extra": {"scopes": ["a", "b"]},
            }
        },
    }


async def test_rules_are_listed_for_a_namespace(reviews: Reviews) -> None:
    answer = await reviews.self_subject_rules(ADMIN, {"spec": {"namespace": "a"}}, "")

    assert answer["status"]["resourceRules"][0] == {
        "verbs": ["*"],
        "apiGroups": ["*"],
        "resources": ["*"],
    }
    assert answer["status"]["incomplete"] is False


async def test_a_good_token_is_told(reviews: Reviews) -> None:
    spec = {"token": "good", "audiences": ["vault", "x"]}

    answer = await reviews.token(JANE, {"spec": spec}, "")

    assert answer["status"] == {
        "authenticated": True,
        "user": {
            "username": "system:serviceaccount:a:b",
            "uid": "9",
            "groups": ["system:serviceaccounts", "system:authenticated"],
        },
        "audiences": ["vault"],
    }


async def test_a_bad_token_is_told(reviews: Reviews) -> None:
    answer = await reviews.token(JANE, {"spec": {"token": "bad"}}, "")

    assert answer["status"] == {"user": {}, "error": "invalid bearer token"}
