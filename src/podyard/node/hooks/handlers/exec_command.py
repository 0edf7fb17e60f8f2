"""``exec``: a command in the container, in its namespaces and cgroups.

The command is not expanded, and there is no time limit but the caller's.
"""

from typing import Final

from podyard.api.core_v1 import Handler
from podyard.cri.services import CRIError, CRIUnavailableError
from podyard.node.hooks.build import build_exec_failure
from podyard.node.hooks.handler import HookContext, HookHandler
from podyard.node.hooks.parts import HookError, HookInterruptedError


async def _run(context: HookContext, handler: Handler) -> None:
    command = handler.exec_command or ()
    if context.tells("arguments"):
        command = (*command, context.delivery_id, str(context.attempt))
    try:
        result = await context.runtime.exec_sync(
            context.container_id, command, timeout_s=0
        )
    except CRIUnavailableError as error:
        raise HookInterruptedError(error.rpc_text) from error
    except CRIError as error:
        raise HookError(error.rpc_text) from error
    await context.keep_output(result.stdout, result.stderr, result.exit_code)
    if result.exit_code != 0:
        raise HookError(
            build_exec_failure(command, result.exit_code, result.stdout, result.stderr),
            summary=f"the command exited with {result.exit_code}",
        )


PART: Final = HookHandler(
    field="exec", claims=lambda handler: handler.exec_command is not None, run=_run
)
