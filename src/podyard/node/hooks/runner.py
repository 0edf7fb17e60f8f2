"""Delivers lifecycle hooks: finds the handler, keeps the journal, tells how it went.

Source: Kubernetes docs "Container Lifecycle Hooks"; ``pkg/kubelet/lifecycle``.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final

import structlog

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.cri.services import RuntimeService
from podyard.lib.aio import finish
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.hooks.build import build_delivery_id, build_failure
from podyard.node.hooks.deliveries import Deliveries, HookName
from podyard.node.hooks.handler import (
    HookContext,
    HookHandler,
    KeepOutput,
    keep_nothing,
)
from podyard.node.hooks.output import HookLog
from podyard.node.hooks.parts import HookError, HookInterruptedError

log = structlog.get_logger()

#: An event on a Pod: its document, ``Warning``, reason, message.
Warn = Callable[[Pod, str, str], None]

#: How often a delivery that the runtime's death cut off is made again, and after how
#: many seconds: long enough for a runtime to come back.
_TRIES: Final = 30
_TRY_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A hook that is due, whatever number of deliveries it takes."""

    hook: HookName
    pod: Pod
    container: Container
    container_id: str
    pod_ips: tuple[str, ...]
    handler: Handler


class HookRunner:
    """Runs PostStart and PreStop.

    Args:
        runtime: runs exec hooks.
        deliveries: the journal's rows.
        handlers: the parts.
        clock: measures.
        documented: see ``HookContext``.
        warn: records a Warning event on a Pod.
        output: keeps what exec hooks put out; ``None`` lets it go.
    """

    def __init__(
        self,
        runtime: RuntimeService,
        deliveries: Deliveries,
        handlers: Sequence[HookHandler],
        *,
        clock: Clock,
        documented: bool,
        warn: Warn,
        output: HookLog | None = None,
    ) -> None:
        self._runtime = runtime
        self._deliveries = deliveries
        self._handlers = tuple(handlers)
        self._clock = clock
        self._documented = documented
        self._warn = warn
        self._output = output
        self._leaving = False

    def leave_open(self) -> None:
        """The agent stops and its containers run on: what is cut now is owed."""
        self._leaving = True

    async def expect_post_start(
        self, pod: Pod, container: Container, container_id: str
    ) -> None:
        """Write down that this created container is owed its PostStart."""
        await self._deliveries.expect(pod, container, container_id, "PostStart")

    async def owed_post_starts(self, pod_uid: str) -> frozenset[str]:
        """Return the container ids whose PostStart has not come to an end."""
        return await self._deliveries.owed(pod_uid, "PostStart")

    async def settle(self, pod_uid: str, alive: AbstractSet[str]) -> None:
        """Write down that what is owed to containers that are gone is owed no more."""
        await self._deliveries.settle(pod_uid, alive)

    async def settle_others(self, is_known: Callable[[str], bool]) -> None:
        """Write down the same of Pods that are no longer here."""
        await self._deliveries.settle_others(is_known)

    async def post_start(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
    ) -> None:
        """Deliver the PostStart and wait for it; no time limit.

        Raises:
            HookError: it failed.
        """
        handler = container.lifecycle.post_start if container.lifecycle else None
        if handler is not None:
            await self._deliver(
                _Call("PostStart", pod, container, container_id, pod_ips, handler)
            )

    async def pre_stop(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
        *,
        deadline_at: datetime,
    ) -> None:
        """Deliver the PreStop and wait for it; the caller cancels at the deadline.

        Raises:
            HookError: it failed.
        """
        handler = container.lifecycle.pre_stop if container.lifecycle else None
        if handler is not None:
            log.debug("pre_stop_begins", pod=pod.full_name, until=deadline_at)
            await self._deliver(
                _Call("PreStop", pod, container, container_id, pod_ips, handler)
            )

    async def _deliver(self, call: _Call) -> None:
        for last in (*(False for _ in range(_TRIES - 1)), True):
            if await self._try(call, last=last):
                return
            await asyncio.sleep(_TRY_AGAIN_S)

    async def _try(self, call: _Call, *, last: bool) -> bool:
        """Return whether the delivery came to its end."""
        hook, pod, container = call.hook, call.pod, call.container
        container_id, handler = call.container_id, call.handler
        delivery = await self._deliveries.begin(pod, container, container_id, hook)
        if delivery is None:
            return True
        context = HookContext(
            pod=pod,
            container=container,
            container_id=container_id,
            pod_ips=call.pod_ips,
            runtime=self._runtime,
            documented=self._documented,
            warn=lambda reason, message: self._warn(pod, reason, message),
            delivery_id=build_delivery_id(hook, container_id),
            attempt=delivery.attempt,
            keep_output=self._keeper(hook, pod, container, delivery.attempt),
        )
        begin_s = self._clock.monotonic_s()

        async def end(result: str, error: str = "") -> None:
            await self._deliveries.end(
                container_id,
                hook,
                result=result,
                took_s=self._clock.monotonic_s() - begin_s,
                error=error,
            )

        try:
            await self._part(handler).run(context, handler)
        except HookError as error:
            if isinstance(error, HookInterruptedError) and not last:
                await self._deliveries.interrupt(pod, container, container_id, hook)
                return False
            await end("failed", error.summary)
            raise HookError(
                build_failure(pod, container, handler, error.message),
                summary=error.summary,
            ) from error
        except asyncio.CancelledError:
            if not self._leaving:
                await finish(end("given up"), within_s=5)
            raise
        await end("succeeded")
        return True

    def _keeper(
        self, hook: HookName, pod: Pod, container: Container, attempt: int
    ) -> KeepOutput:
        output = self._output
        if output is None:
            return keep_nothing

        async def keep(stdout: bytes, stderr: bytes, exit_code: int) -> None:
            heading = f"--- {hook}, attempt {attempt}: exit code {exit_code}"
            await output.keep(pod, container, heading, (stdout, stderr))

        return keep

    def _part(self, handler: Handler) -> HookHandler:
        for part in self._handlers:
            if part.claims(handler):
                return part
        raise HookError("invalid handler: none of exec, httpGet, sleep, tcpSocket")
