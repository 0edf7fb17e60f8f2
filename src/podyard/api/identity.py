"""Who makes a request: the user as authentication found it.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: The group that may do anything, by way of its own authorizer.
MASTERS: Final = "system:masters"
#: The group every user but the anonymous one is in.
AUTHENTICATED: Final = "system:authenticated"
#: The group of the anonymous user.
UNAUTHENTICATED: Final = "system:unauthenticated"
#: The user without credentials.
ANONYMOUS: Final = "system:anonymous"
#: The group of node agents.
NODES: Final = "system:nodes"
#: What a node agent's user name begins with.
NODE_PREFIX: Final = "system:node:"
#: The scheduler's user name.
SCHEDULER: Final = "system:kube-scheduler"
#: The controllers' user name.
CONTROLLER_MANAGER: Final = "system:kube-controller-manager"
#: The user name with which the API server calls a node.
API_SERVER: Final = "podyard-apiserver"
#: The user name of the first admin.
ADMIN: Final = "podyard-admin"
#: The group of every ServiceAccount.
SERVICE_ACCOUNTS: Final = "system:serviceaccounts"
#: What a ServiceAccount's user name begins with.
SERVICE_ACCOUNT_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Attributes:
        name: the user name.
        uid: the identity provider's id, empty where it has none.
        groups: the groups, in the order they were found.
        extra: more facts, such as a token's Pod, by key.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def node_name(self) -> str:
        """The Node this user is the agent of, or an empty string."""
        if NODES in self.groups and self.name.startswith(NODE_PREFIX):
            return self.name.removeprefix(NODE_PREFIX)
        return ""

    def to_document(self) -> Document:
        """Return the ``authentication.k8s.io/v1`` UserInfo."""
        info: Document = {"username": self.name}
        if self.uid:
            info["uid"] = self.uid
        if self.groups:
            info["groups"] = list(self.groups)
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


def service_account_user_name(namespace: str, name: str) -> str:
    """Return the user name of a ServiceAccount."""
    return f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"


def parse_service_account(user_name: str) -> tuple[str, str] | None:
    """Return namespace and name behind a ServiceAccount's user name, if it is one."""
    if not user_name.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, colon, name = user_name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(
        ":"
    )
    if not (namespace and colon and name) or ":" in name:
        return None
    return namespace, name


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """Return the groups every ServiceAccount of a namespace is in."""
    return (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}")
