"""``kubectl --as``: only for those who may, and with what the other one may."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import podyard.server.authz.modes
from podyard.api.identity import User
from podyard.lib.parts import load_parts
from podyard.server.app import Gates
from podyard.server.authn.parts import Credentials
from podyard.server.authz.chain import AuthorizationChain
from podyard.server.authz.parts import AuthorizationContext, Authorizer
from support.api_server import PODS, Running, api_server
from support.stored_objects import StoredObjects

pytestmark = pytest.mark.integration


class ByName:
    """Believes what the Authorization header says."""

    async def authenticate(self, credentials: Credentials) -> User:
        name = credentials.authorization
        groups = ("system:masters",) if name == "admin" else ()
        return User(name, groups=(*groups, "system:authenticated"))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    chain = AuthorizationChain(
        load_parts(podyard.server.authz.modes, Authorizer),
        AuthorizationContext(StoredObjects()),
    )
    async with api_server(tmp_path, gates=Gates(ByName(), chain)) as running:
        yield running


@pytest.mark.parametrize(
    ("who", "headers", "status", "said"),
    [
        pytest.param("admin", {}, 200, "", id="oneself"),
        pytest.param(
            "admin",
            {"Impersonate_User": "jane"},
            403,
            'pods is forbidden: User "jane" cannot list resource "pods" in API group '
            '"" in the namespace "default"',
            id="as-a-user-who-may-not",
        ),
        pytest.param(
            "admin",
            {"Impersonate_User": "jane", "Impersonate_Group": "system:masters"},
            200,
            "",
            id="as-one-of-a-group-that-may",
        ),
        pytest.param(
            "jane",
            {"Impersonate_User": "joe"},
            403,
            'users "joe" is forbidden: User "jane" cannot impersonate resource "users" '
            'in API group "" at the cluster scope',
            id="by-a-user-who-may-not",
        ),
        pytest.param(
            "jane",
            {"Impersonate_User": "system:serviceaccount:web:app"},
            403,
            'serviceaccounts "app" is forbidden: User "jane" cannot impersonate resource '
            '"serviceaccounts" in API group "" in the namespace "web"',
            id="as-an-account",
        ),
        pytest.param(
            "admin",
            {"Impersonate_Group": "system:masters"},
            500,
            "without impersonating a user",
            id="a-group-alone",
        ),
    ],
)
async def test_a_request_is_made_as_whom_it_names(
    api: Running, who: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = await api.ask("GET", PODS, Authorization=who, **headers)

    assert answer.status == status
    assert said in answer.json.get("message", "")
