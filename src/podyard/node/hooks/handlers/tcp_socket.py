"""``tcpSocket``: succeeds on connect, as documented; the kubelet knows no such hook."""

from typing import Final

from podyard.api.core_v1 import Handler
from podyard.lib.plain_http import Target, connector, describe_dial
from podyard.node.hooks.handler import HookContext, HookHandler
from podyard.node.hooks.parts import HookError


async def _run(context: HookContext, handler: Handler) -> None:
    action = handler.tcp_socket
    assert action is not None
    if not context.documented:
        raise HookError(f"invalid handler: tcpSocket on port {action.port}")
    host = action.host or (context.pod_ips[0] if context.pod_ips else "")
    port = context.container.port_number(action.port)
    if not host or port is None:
        raise HookError(f'no address or no port "{action.port}" to connect to')
    try:
        await connector(host, port)()
    except OSError as error:
        text = describe_dial(Target("tcp", host, port, ""), error)
        raise HookError(text) from error


PART: Final = HookHandler(
    field="tcpSocket", claims=lambda handler: handler.tcp_socket is not None, run=_run
)
