"""The ground everything stands on: what nobody allowed is denied.

It has no opinion, as upstream's mode of that name, so that whatever plugs in later
may still allow; where no mode allows, the chain denies.
"""

from typing import Final

from podyard.api.identity import User
from podyard.server.authz.parts import (
    AuthorizationContext,
    Authorizer,
    Decision,
    Mode,
    NoOpinion,
    Rules,
)
from podyard.server.build import RequestInfo


def make(context: AuthorizationContext) -> Mode:  # noqa: ARG001 - needs none
    """Return the mode."""
    return Mode(authorize, list_rules)


async def authorize(user: User, info: RequestInfo) -> Decision:  # noqa: ARG001
    """Allow nothing."""
    return NoOpinion()


async def list_rules(user: User, namespace: str) -> Rules:  # noqa: ARG001
    """Return no rule."""
    return Rules()


PART: Final = Authorizer(name="AlwaysDeny", order=100, make=make)
