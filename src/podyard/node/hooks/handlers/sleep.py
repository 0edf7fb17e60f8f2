"""``sleep``: wait; cut short when the container is gone."""

import asyncio
from typing import Final

from podyard.api.core_v1 import Handler
from podyard.node.hooks.handler import HookContext, HookHandler


async def _run(_context: HookContext, handler: Handler) -> None:
    await asyncio.sleep(handler.sleep_s or 0)


PART: Final = HookHandler(
    field="sleep", claims=lambda handler: handler.sleep_s is not None, run=_run
)
