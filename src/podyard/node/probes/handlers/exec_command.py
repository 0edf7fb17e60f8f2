"""``exec``: exit code 0 is healthy; too slow is not."""

from typing import Final

from podyard.api.core_v1 import Handler
from podyard.cri.services import CRIError
from podyard.node.probes.build import build_command, build_output
from podyard.node.probes.handler import (
    Attempt,
    ProbeContext,
    ProbeFault,
    ProbeHandler,
    ProbeResult,
)


def _prepare(context: ProbeContext, handler: Handler) -> Attempt:
    command = build_command(handler.exec_command or (), context.container)
    return lambda: _run(context, command)


async def _run(context: ProbeContext, command: tuple[str, ...]) -> ProbeResult:
    timeout_s = context.probe.timeout_s
    try:
        result = await context.runtime.exec_sync(
            context.container_id, command, timeout_s=timeout_s
        )
    except TimeoutError:
        words = " ".join(command)
        return ProbeResult(
            healthy=False,
            output=f"command timed out: '{words}' timed out after {timeout_s}s",
        )
    except CRIError as error:
        raise ProbeFault(error.rpc_text) from error
    output = build_output(result.stdout + result.stderr)
    return ProbeResult(healthy=result.exit_code == 0, output=output)


PART: Final = ProbeHandler(
    field="exec",
    claims=lambda handler: handler.exec_command is not None,
    prepare=_prepare,
)
