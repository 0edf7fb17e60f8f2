"""Whether the runtime and its network are there, and what the runtime can do."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from podyard.api.observed import RuntimeCondition, RuntimeStatus, RuntimeVersion
from podyard.api.runtime import NETWORK_READY, RUNTIME_READY
from podyard.cri.services import CRIError, RuntimeService

log = structlog.get_logger()

#: Between questions while all is well, and while it is not, seconds.
WELL_S: Final = 5.0
ILL_S: Final = 0.5


class RuntimeHealth:
    """Asks the runtime how it is.

    Args:
        runtime: the runtime.
    """

    def __init__(self, runtime: RuntimeService) -> None:
        self._runtime = runtime
        self._listeners: list[Callable[[], None]] = []
        self._known = asyncio.Event()
        self._error = "container runtime status check may not have completed yet"
        #: What the runtime last said; ``None`` before it was reached.
        self.status: RuntimeStatus | None = None
        self.version: RuntimeVersion | None = None

    @property
    def runtime_error(self) -> str:
        """Why the runtime is not ready, or an empty string."""
        if self._error or self.status is None:
            return self._error
        condition = self.status.condition(RUNTIME_READY)
        if condition.status:
            return ""
        return f"container runtime not ready: {_show(condition)}"

    @property
    def network_error(self) -> str:
        """Why the Pod network is not ready, or an empty string."""
        if self.status is None:
            return "container runtime network not ready: status not known yet"
        condition = self.status.condition(NETWORK_READY)
        if condition.status:
            return ""
        return f"container runtime network not ready: {_show(condition)}"

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have ``tell()`` called whenever an answer differs from the one before."""
        self._listeners.append(tell)

    async def wait_known(self) -> None:
        """Wait until the runtime has answered once."""
        await self._known.wait()

    async def ask(self) -> None:
        """Ask now. Never raises for a runtime that is away."""
        before = (self.runtime_error, self.network_error, self.status)
        try:
            if self.version is None or self._error:
                self.version = await self._runtime.version()
            self.status = await self._runtime.status()
        except CRIError as error:
            if not self._error:
                log.warning("runtime_away", error=error.message)
            self._error = "container runtime is down"
        else:
            if self._error and before[2] is not None:
                log.info("runtime_back")
            self._error = ""
            self._known.set()
        if before != (self.runtime_error, self.network_error, self.status):
            for tell in self._listeners:
                tell()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.ask()
            well = not self.runtime_error and not self.network_error
            await asyncio.sleep(WELL_S if well else ILL_S)


def _show(condition: RuntimeCondition) -> str:
    status = "true" if condition.status else "false"
    return (
        f"{condition.type}={status} reason:{condition.reason} "
        f"message:{condition.message}"
    )
