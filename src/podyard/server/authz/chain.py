"""Authorizers, asked one after the other; where none allows, it is denied."""

from collections.abc import Collection, Iterable

from podyard.api.errors import ApiError, forbidden
from podyard.api.identity import User
from podyard.server.authz.decide import effective
from podyard.server.authz.parts import (
    Allow,
    AuthorizationContext,
    Authorizer,
    Decision,
    Deny,
    NoOpinion,
    Rules,
)
from podyard.server.build import RequestInfo


class AuthorizationChain:
    """The enabled modes in their order.

    Args:
        authorizers: every mode there is.
        context: what they are made with.
        enabled: the names of those that are asked; ``None`` means all of them.
    """

    def __init__(
        self,
        authorizers: Iterable[Authorizer],
        context: AuthorizationContext,
        enabled: Collection[str] | None = None,
    ) -> None:
        parts = sorted(
            (part for part in authorizers if enabled is None or part.name in enabled),
            key=lambda part: (part.order, part.name),
        )
        self._modes = tuple((part.name, part.make(context)) for part in parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The modes in the order they are asked."""
        return tuple(name for name, _ in self._modes)

    async def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return the first opinion; ``NoOpinion`` carries every mode's reason."""
        info = effective(info)
        reasons: list[str] = []
        for _, mode in self._modes:
            decision = await mode.authorize(user, info)
            if not isinstance(decision, NoOpinion):
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return NoOpinion("\n".join(reasons))

    async def check(self, user: User, info: RequestInfo) -> None:
        """Let an allowed request pass.

        Raises:
            ApiError: 403, with the sentence kubectl prints.
        """
        match await self.decide(user, info):
            case Allow():
                return
            case Deny(reason) | NoOpinion(reason):
                raise refusal(user, effective(info), reason)

    async def list_rules(self, user: User, namespace: str) -> Rules:
        """Return all that the modes can list of what a user may do."""
        found = [await mode.list_rules(user, namespace) for _, mode in self._modes]
        return Rules(
            tuple(rule for rules in found for rule in rules.resources),
            tuple(rule for rules in found for rule in rules.paths),
            "; ".join(rules.incomplete for rules in found if rules.incomplete),
        )


def refusal(user: User, info: RequestInfo, reason: str = "") -> ApiError:
    """Return the 403 for a request nobody allowed."""
    tail = f": {reason}" if reason else ""
    if not info.is_resource_request:
        message = (
            f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"{tail}'
        )
        return ApiError(403, "Forbidden", message, {})
    resource = info.resource
    if info.subresource:
        resource = f"{resource}/{info.subresource}"
    where = (
        f'in the namespace "{info.namespace}"'
        if info.namespace
        else "at the cluster scope"
    )
    detail = (
        f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group '
        f'"{info.group}" {where}{tail}'
    )
    return forbidden(info.group, info.resource, info.name, detail)
