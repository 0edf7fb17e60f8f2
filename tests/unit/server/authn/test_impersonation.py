"""Whom a request wants to be made as, and what that takes."""

import pytest

from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.server.authn.impersonation import parse_impersonation

Headers = list[tuple[str, str]]
ALL = "system:authenticated"


@pytest.mark.parametrize(
    ("headers", "user", "questions"),
    [
        pytest.param(
            [("Impersonate-User", "jane")],
            User("jane", groups=(ALL,)),
            [("", "users", "", "", "jane")],
            id="user",
        ),
        pytest.param(
            [
                ("impersonate-user", "jane"),
                ("Impersonate-Group", "devs"),
                ("Impersonate-Group", "ops"),
            ],
            User("jane", groups=("devs", "ops", ALL)),
            [
                ("", "users", "", "", "jane"),
                ("", "groups", "", "", "devs"),
                ("", "groups", "", "", "ops"),
            ],
            id="groups",
        ),
        pytest.param(
            [("Impersonate-User", "system:serviceaccount:web:app")],
            User(
                "system:serviceaccount:web:app",
                groups=("system:serviceaccounts", "system:serviceaccounts:web", ALL),
            ),
            [("", "serviceaccounts", "", "web", "app")],
            id="service-account",
        ),
        pytest.param(
            [("Impersonate-User", "system:anonymous")],
            User("system:anonymous", groups=("system:unauthenticated",)),
            [("", "users", "", "", "system:anonymous")],
            id="nobody",
        ),
        pytest.param(
            [
                ("Impersonate-User", "jane"),
                ("Impersonate-Uid", "17"),
                ("Impersonate-Extra-Example.com%2Fscope", "a"),
                ("Impersonate-Extra-Example.com%2Fscope", "b"),
            ],
            User("jane", "17", (ALL,), {"example.com/scope": ("a", "b")}),
            [
                ("", "users", "", "", "jane"),
                ("authentication.k8s.io", "userextras", "example.com/scope", "", "a"),
                ("authentication.k8s.io", "userextras", "example.com/scope", "", "b"),
                ("authentication.k8s.io", "uids", "", "", "17"),
            ],
            id="uid-and-more",
        ),
    ],
)
def test_each_part_of_a_user_is_asked_for(
    headers: Headers, user: User, questions: list[tuple[str, ...]]
) -> None:
    found = parse_impersonation(headers)

    assert found is not None
    assert found.user == user
    assert [
        (one.group, one.resource, one.subresource, one.namespace, one.name)
        for one in found.questions
    ] == questions
    assert {one.verb for one in found.questions} == {"impersonate"}


def test_without_a_name_there_is_nobody() -> None:
    assert parse_impersonation([]) is None


@pytest.mark.parametrize(
    "header", ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-a"]
)
def test_a_part_without_a_user_is_refused(header: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse_impersonation([(header, "x")])

    assert refusal.value.code == 500
    assert "without impersonating a user" in refusal.value.message
