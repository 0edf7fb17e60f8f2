"""The group ``system:masters`` may do anything, whatever the other modes say."""

from typing import Final

from podyard.api.identity import MASTERS, User
from podyard.server.authz.parts import (
    Allow,
    AuthorizationContext,
    Authorizer,
    Decision,
    Mode,
    NoOpinion,
    PathRule,
    ResourceRule,
    Rules,
)
from podyard.server.build import RequestInfo

_EVERYTHING: Final = Rules(
    (ResourceRule(("*",), ("*",), ("*",)),), (PathRule(("*",), ("*",)),)
)


def make(context: AuthorizationContext) -> Mode:  # noqa: ARG001 - needs none
    """Return the mode."""
    return Mode(authorize, list_rules)


async def authorize(user: User, info: RequestInfo) -> Decision:  # noqa: ARG001
    """Allow the group everything."""
    return Allow() if MASTERS in user.groups else NoOpinion()


async def list_rules(user: User, namespace: str) -> Rules:  # noqa: ARG001
    """Return everything for the group."""
    return _EVERYTHING if MASTERS in user.groups else Rules()


PART: Final = Authorizer(name="Masters", order=0, make=make)
