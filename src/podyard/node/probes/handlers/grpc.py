"""``grpc``: the gRPC health service says SERVING."""

from typing import Final

from podyard.api.core_v1 import Handler
from podyard.node.probes.handler import ProbeContext, ProbeHandler, ProbeResult


async def _run(context: ProbeContext, handler: Handler) -> ProbeResult:
    action = handler.grpc
    assert action is not None
    fault = await context.grpc_check(
        context.pod_ip, action.port, action.service, float(context.probe.timeout_s)
    )
    return ProbeResult(healthy=fault is None, output=fault or "")


PART: Final = ProbeHandler(
    field="grpc", claims=lambda handler: handler.grpc is not None, run=_run
)
