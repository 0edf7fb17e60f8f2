"""``httpGet``: any answer is success; only a transport fault fails."""

from typing import Final

from podyard.api.core_v1 import Handler, HTTPGetAction
from podyard.lib.plain_http import FetchError, Target, fetch
from podyard.node.hooks.handler import HookContext, HookHandler
from podyard.node.hooks.parts import ATTEMPT_HEADER, ID_HEADER, HookError

_USER_AGENT: Final = "kube-lifecycle/1.36"


async def _run(context: HookContext, handler: Handler) -> None:
    action = handler.http_get
    assert action is not None
    target = _target(context, action)
    headers = _headers(context, action)
    try:
        await fetch(target, headers=headers, user_agent=_USER_AGENT)
    except FetchError as error:
        if not (error.plain_http and target.scheme == "https"):
            raise HookError(str(error)) from error
        await _without_tls(context, target, headers)


def _headers(
    context: HookContext, action: HTTPGetAction
) -> tuple[tuple[str, str], ...]:
    if not context.tells("headers"):
        return action.headers
    return (
        *action.headers,
        (ID_HEADER, context.delivery_id),
        (ATTEMPT_HEADER, str(context.attempt)),
    )


async def _without_tls(
    context: HookContext, target: Target, wanted: tuple[tuple[str, str], ...]
) -> None:
    plain = Target("http", target.host, target.port, target.path)
    headers = tuple(
        (name, value) for name, value in wanted if name.lower() != "authorization"
    )
    try:
        await fetch(plain, headers=headers, user_agent=_USER_AGENT)
    except FetchError as error:
        raise HookError(str(error)) from error
    context.warn(
        "LifecycleHTTPFallback",
        f"request to HTTPS lifecycle hook {target.address} got HTTP response, "
        "retry with HTTP succeeded",
    )


def _target(context: HookContext, action: HTTPGetAction) -> Target:
    host = action.host or (context.pod_ips[0] if context.pod_ips else "")
    if not host:
        raise HookError(
            f'failed to find networking container: Pod "{context.pod.full_name}" has '
            "no address"
        )
    port = context.container.port_number(action.port)
    if port is None:
        raise HookError(f'no port named "{action.port}" in the container')
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return Target(action.scheme.lower(), host, port, path)


PART: Final = HookHandler(
    field="httpGet", claims=lambda handler: handler.http_get is not None, run=_run
)
