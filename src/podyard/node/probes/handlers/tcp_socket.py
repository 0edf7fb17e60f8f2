"""``tcpSocket``: a connection is healthy."""

import asyncio
from typing import Final

from podyard.api.core_v1 import Handler
from podyard.lib.plain_http import Target, connect_and_leave, describe_dial
from podyard.node.probes.handler import (
    ProbeContext,
    ProbeFault,
    ProbeHandler,
    ProbeResult,
)


async def _run(context: ProbeContext, handler: Handler) -> ProbeResult:
    action = handler.tcp_socket
    assert action is not None
    port = context.container.port_number(action.port)
    if port is None:
        raise ProbeFault(
            f'strconv.Atoi: parsing "{action.port}": invalid syntax: the container '
            "has no port of that name"
        )
    target = Target("tcp", action.host or context.pod_ip, port, "")
    try:
        async with asyncio.timeout(context.probe.timeout_s):
            await connect_and_leave(target.host, target.port)
    except TimeoutError:
        return ProbeResult(
            healthy=False, output=f"dial tcp {target.address}: i/o timeout"
        )
    except OSError as error:
        return ProbeResult(healthy=False, output=describe_dial(target, error))
    return ProbeResult(healthy=True)


PART: Final = ProbeHandler(
    field="tcpSocket", claims=lambda handler: handler.tcp_socket is not None, run=_run
)
