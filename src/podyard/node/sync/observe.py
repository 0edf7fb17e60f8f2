"""What the runtime shows of one Pod: two short lists, details only where new."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ObservedPod,
    PodSandbox,
    SandboxState,
)
from podyard.api.restart import newest_first
from podyard.api.runtime import Annotation, NamespaceMode
from podyard.cri.services import CRINotFoundError, RuntimeService
from podyard.lib.aio import both
from podyard.node.sync.files import Blocking, PodFiles

_FALLBACK: Final = "FallbackToLogsOnError"
#: What the runtime makes of a StartContainer whose asker went away meanwhile.
_CUT_REASON: Final = "StartError"
_CUT_MESSAGE: Final = "context canceled"


class Observer:
    """Looks at Pods. What cannot change any more is asked for once.

    Args:
        runtime: the runtime.
        files: where termination messages are.
        blocking: runs file reads.
    """

    def __init__(
        self, runtime: RuntimeService, files: PodFiles, blocking: Blocking
    ) -> None:
        self._runtime = runtime
        self._files = files
        self._blocking = blocking
        self._running: dict[str, ContainerStatus] = {}
        self._exited: dict[str, ContainerStatus] = {}
        self._sandboxes: dict[str, PodSandbox] = {}

    async def observe(self, uid: str, *, name: str, namespace: str) -> ObservedPod:
        """Return all the runtime knows of a Pod, the newest first.

        Raises:
            CRIError: the runtime cannot be asked.
        """
        sandboxes, containers = await both(
            self._runtime.list_pod_sandboxes(pod_uid=uid),
            self._runtime.list_containers(pod_uid=uid),
        )
        return ObservedPod(
            uid=uid,
            name=name,
            namespace=namespace,
            sandboxes=await self._describe_sandboxes(sandboxes),
            containers=newest_first(
                [
                    seen
                    for listed in containers
                    if (seen := await self._describe(listed)) is not None
                ]
            ),
        )

    async def add_sandbox(self, observed: ObservedPod, sandbox_id: str) -> ObservedPod:
        """Return a look that knows a sandbox just made, without looking anew.

        Raises:
            CRIError: it is gone already, or the runtime is.
        """
        made = await self._runtime.pod_sandbox_status(sandbox_id)
        if made.ips or made.network is NamespaceMode.NODE:
            self._sandboxes[made.id] = made
        return replace(observed, sandboxes=(made, *observed.sandboxes))

    async def add_container(
        self, observed: ObservedPod, container_id: str
    ) -> ObservedPod:
        """Return a look that knows a container just started, without looking anew.

        Raises:
            CRIError: it is gone already, or the runtime is.
        """
        seen = await self._remember(await self._runtime.container_status(container_id))
        return replace(observed, containers=newest_first([seen, *observed.containers]))

    def forget(self, observed: ObservedPod) -> None:
        """Drop what was remembered of a Pod that is gone."""
        for sandbox in observed.sandboxes:
            self._sandboxes.pop(sandbox.id, None)
        self.forget_containers(c.id for c in observed.containers)

    def forget_containers(self, ids: Iterable[str]) -> None:
        """Drop what was remembered of removed containers."""
        for container_id in ids:
            self._running.pop(container_id, None)
            self._exited.pop(container_id, None)

    async def _describe_sandboxes(
        self, listed: tuple[PodSandbox, ...]
    ) -> tuple[PodSandbox, ...]:
        ordered = sorted(listed, key=lambda s: (s.created_at, s.attempt), reverse=True)
        if not ordered:
            return ()
        newest = ordered[0]
        if newest.state is not SandboxState.READY:
            return tuple(ordered)
        known = self._sandboxes.get(newest.id)
        if known is None:
            try:
                known = await self._runtime.pod_sandbox_status(newest.id)
            except CRINotFoundError:
                return tuple(ordered[1:])
            if known.ips or known.network is NamespaceMode.NODE:
                self._sandboxes[newest.id] = known
        seen = replace(newest, ips=known.ips, network=known.network)
        return (seen, *ordered[1:])

    async def _describe(self, listed: ContainerStatus) -> ContainerStatus | None:
        match listed.state:
            case ContainerState.EXITED:
                known = self._exited.get(listed.id)
            case ContainerState.RUNNING:
                known = self._running.get(listed.id)
            case ContainerState.CREATED:
                return listed
            case _:
                known = None
        if known is not None:
            return known
        try:
            seen = await self._runtime.container_status(listed.id)
        except CRINotFoundError:
            return None
        if was_cut(seen):
            # Neither an exit nor a try that failed: it was made and never ran.
            return replace(listed, state=ContainerState.CREATED)
        return await self._remember(seen)

    async def _remember(self, seen: ContainerStatus) -> ContainerStatus:
        if seen.state is ContainerState.EXITED:
            seen = await self._with_message(seen)
            self._exited[seen.id] = seen
            self._running.pop(seen.id, None)
        elif seen.state is ContainerState.RUNNING:
            self._running[seen.id] = seen
        return seen

    async def _with_message(self, seen: ContainerStatus) -> ContainerStatus:
        annotations = seen.annotations
        if not annotations.get(Annotation.TERMINATION_MESSAGE_PATH):
            return seen
        falls_back = (
            annotations.get(Annotation.TERMINATION_MESSAGE_POLICY) == _FALLBACK
            and seen.exit_code != 0
            and seen.reason != "ContainerCannotRun"
        )
        text = await self._blocking(self._read_message, seen, falls_back)
        message = ": ".join(part for part in (seen.message, text) if part)
        return replace(seen, message=message)

    def _read_message(self, seen: ContainerStatus, falls_back: bool) -> str:  # noqa: FBT001 - travels through a thread
        log = None
        if falls_back and seen.log_path:
            log = self._files.logs_dir / seen.log_path
        return self._files.read_termination(
            seen.pod_uid, seen.name, seen.restart_count, log=log
        )


def was_cut(seen: ContainerStatus) -> bool:
    """Tell whether a container never ran because its start was cut off.

    The runtime drops a start whose asker has gone, and says so in words only. One that
    died in the start itself has an exit code, that of a program which waits to become
    the container's, and knows of no start; what came to a good end did run.
    """
    if seen.state is not ContainerState.EXITED or seen.started_at is not None:
        return False
    if seen.reason == _CUT_REASON:
        return _CUT_MESSAGE in seen.message
    return seen.exit_code != 0
