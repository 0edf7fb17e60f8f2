"""``grpc``: the gRPC health service says SERVING."""

from typing import Final

from podyard.api.core_v1 import Handler
from podyard.node.probes.handler import (
    Attempt,
    ProbeContext,
    ProbeHandler,
    ProbeResult,
)


def _prepare(context: ProbeContext, handler: Handler) -> Attempt:
    action = handler.grpc
    assert action is not None
    host, timeout_s = context.pod_ip, float(context.probe.timeout_s)

    async def attempt() -> ProbeResult:
        fault = await context.grpc_check(host, action.port, action.service, timeout_s)
        return ProbeResult(healthy=fault is None, output=fault or "")

    return attempt


PART: Final = ProbeHandler(
    field="grpc",
    claims=lambda handler: handler.grpc is not None,
    prepare=_prepare,
)
