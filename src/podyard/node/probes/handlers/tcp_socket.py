"""``tcpSocket``: a connection is healthy."""

import asyncio
from typing import Final

from podyard.api.core_v1 import Handler
from podyard.lib.plain_http import Target, connector, describe_dial
from podyard.node.probes.handler import (
    Attempt,
    ProbeContext,
    ProbeFault,
    ProbeHandler,
    ProbeResult,
)

_HEALTHY: Final = ProbeResult(healthy=True)


def _prepare(context: ProbeContext, handler: Handler) -> Attempt:
    action = handler.tcp_socket
    assert action is not None
    port = context.container.port_number(action.port)
    if port is None:
        raise ProbeFault(
            f'strconv.Atoi: parsing "{action.port}": invalid syntax: the container '
            "has no port of that name"
        )
    target = Target("tcp", action.host or context.pod_ip, port, "")
    connect = connector(target.host, target.port)

    async def attempt() -> ProbeResult:
        try:
            async with asyncio.timeout(context.probe.timeout_s):
                await connect()
        except TimeoutError:
            return ProbeResult(
                healthy=False, output=f"dial tcp {target.address}: i/o timeout"
            )
        except OSError as error:
            return ProbeResult(healthy=False, output=describe_dial(target, error))
        return _HEALTHY

    return attempt


PART: Final = ProbeHandler(
    field="tcpSocket",
    claims=lambda handler: handler.tcp_socket is not None,
    prepare=_prepare,
)
