"""The one thing that starts things for a Pod, in the documented order.

It may take as long as pulls and PostStart hooks take; the Pod's steps go on beside
it. It can be cancelled at any time: a CRI call on its way is let finish, then the
next look shows how far it came.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from podyard.api.core_v1 import Container, Pod
from podyard.api.observed import ObservedPod
from podyard.cri.services import CRIError
from podyard.lib.aio import both, wait_first
from podyard.node.hooks.parts import HookError
from podyard.node.status.decide import Waiting
from podyard.node.sync.act import PodActionError, Sandbox, StartError
from podyard.node.sync.build import hook_of
from podyard.node.sync.decide import (
    DeliverPostStart,
    Group,
    Kill,
    KillReason,
    PodActions,
    StartAction,
    has_certain_volumes,
)
from podyard.node.sync.stops import PodStops, is_alive
from podyard.node.sync.tools import PodNotes, PodTools
from podyard.node.volumes.parts import MountedVolume

log = structlog.get_logger()

#: What failed is tried again after so many seconds, times 1 to 1.5.
RETRY_S: Final = 10.0
#: The reason of a container whose PostStart has failed.
POST_START_FAILED: Final = "PostStartHookError"
POST_START_RETRY_S: Final = 1.0
#: While the network is not ready.
NETWORK_RETRY_S: Final = 1.0
#: A start that takes longer than this is shown in the status meanwhile, seconds.
SLOW_START_S: Final = 0.25
#: After a start that was told of already the Pod is looked at again, seconds.
LOOK_SOON_S: Final = 0.05


class StartChain:
    """Carries out the starts of one decision.

    Args:
        pod: the Pod as it was decided about.
        tools: what every Pod uses.
        notes: what is remembered of this one.
        stops: the Pod's stops.
        publish: tells of what was seen of the Pod.
        on_refused: called with the reason when the Pod can never start.
    """

    def __init__(
        self,
        pod: Pod,
        tools: PodTools,
        notes: PodNotes,
        stops: PodStops,
        publish: Callable[[ObservedPod], object],
        on_refused: Callable[[str], None],
    ) -> None:
        self.pod = pod
        #: Since when there is a sandbox it works in; ``None`` before.
        self.sandbox_since_s: float | None = None
        #: The container it is at.
        self.current: Container | None = None
        #: Names of the containers it has yet to start.
        self.pending: frozenset[str] = frozenset()
        #: Whether everything it tried has worked so far.
        self.went_well = True
        self._hook_id = ""
        self._hook_gone = asyncio.Event()
        self._tools = tools
        self._notes = notes
        self._stops = stops
        self._publish = publish
        self._on_refused = on_refused
        self._log = log.bind(pod=pod.full_name)

    def notice(self, observed: ObservedPod) -> None:
        """End the wait for a hook whose container is gone."""
        if self._hook_id and not any(
            c.id == self._hook_id and is_alive(c) for c in observed.containers
        ):
            self._hook_gone.set()

    async def run(
        self,
        actions: PodActions,
        start: tuple[StartAction, ...],
        observed: ObservedPod,
    ) -> None:
        """Carry it out; what fails is noted and tried again. Never raises."""
        self.pending = frozenset(action.container.name for action in start)
        try:
            if actions.reset:
                await self._reset(actions.reset, observed)
            else:
                await self._start_all(actions, start, observed)
        except PodActionError as error:
            self._failed(error.message)
            if error.refused:
                self._on_refused(error.message)
        except CRIError as error:
            self._failed(f"{error.call}: {error.message}")
            self._log.warning("sync_failed", call=error.call, error=error.message)
        except Exception as error:  # noqa: BLE001 - one Pod's crash ends nothing else
            self._failed(f"crash: {error!r}")
            self._log.exception("sync_crashed")

    def _failed(self, why: str) -> None:
        self._retry_later("", RETRY_S)
        self._notes.story.tell(why)

    def _retry_later(
        self, name: str, base_s: float, *, at_most_s: float | None = None
    ) -> None:
        self.went_well = False
        wait_s = self._tools.spread(base_s)
        if at_most_s is not None:
            wait_s = min(wait_s, at_most_s)
        self._notes.retry_at_s[name] = self._tools.clock.monotonic_s() + wait_s

    # --- starting ---

    async def _start_all(
        self,
        actions: PodActions,
        start: tuple[StartAction, ...],
        observed: ObservedPod,
    ) -> None:
        """Make the sandbox if need be, then start what is to be started."""
        actor = self._tools.actor
        if actions.create_sandbox and self._network_is_away():
            return
        sandbox = await actor.describe_sandbox(
            self.pod,
            actions.attempt,
            sandbox_id=actions.sandbox_id,
            # One that is there goes on, whatever has become of its class.
            handler=_handler_of(observed, actions),
            announce=actions.create_sandbox,
        )
        if not actions.create_sandbox:
            volumes = await actor.prepare_pod(self.pod)
        else:
            volumes, sandbox = await self._make_sandbox(actions, sandbox, observed)
            self._notes.changed(look_in_s=SLOW_START_S)
            observed = await self._tools.observer.add_sandbox(observed, sandbox.id)
        self.sandbox_since_s = self._tools.clock.monotonic_s()
        for action in start:
            going, observed = await self._start_one(action, sandbox, volumes, observed)
            if not going:
                return

    async def _make_sandbox(
        self, actions: PodActions, described: Sandbox, observed: ObservedPod
    ) -> tuple[Mapping[str, MountedVolume], Sandbox]:
        """Make volumes and then the sandbox, or both at once where that is safe."""
        actor = self._tools.actor
        if has_certain_volumes(self.pod) and not actions.sandbox_id:
            return await both(
                actor.prepare_pod(self.pod), actor.create_sandbox(self.pod, described)
            )
        volumes = await actor.prepare_pod(self.pod)
        await self._end_old_sandboxes(actions, observed)
        return volumes, await actor.create_sandbox(self.pod, described)

    def _network_is_away(self) -> bool:
        error = "" if self.pod.spec.host_network else self._tools.network_error()
        if not error:
            return False
        message = f"network is not ready: {error}"
        self._tools.warn(self.pod, "NetworkNotReady", message)
        self._retry_later("", NETWORK_RETRY_S)
        return True

    async def _end_old_sandboxes(
        self, actions: PodActions, observed: ObservedPod
    ) -> None:
        if actions.sandbox_id:
            self._tools.tell(
                self.pod,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            )
        ips = self._tools.ips_of(self.pod, observed)
        for stop in self._stops.stop_all(
            self.pod, observed, ips, why="sandbox changed"
        ):
            await stop.stopped.wait()
        for sandbox in observed.sandboxes:
            await self._tools.stops.runtime.stop_pod_sandbox(sandbox.id)

    async def _start_one(
        self,
        action: StartAction,
        sandbox: Sandbox,
        volumes: Mapping[str, MountedVolume],
        observed: ObservedPod,
    ) -> tuple[bool, ObservedPod]:
        """Start one container.

        Returns:
            Whether those after it may be started, and the look that knows it.
        """
        container = action.container
        ips = self._tools.ips_of(self.pod, observed)
        self.current = container
        try:
            if isinstance(action, DeliverPostStart):
                container_id = action.container_id
            else:
                started = await self._tools.actor.start_container(
                    self.pod, container, sandbox, volumes, observed, ips
                )
                container_id = started.id
                observed = await self._started(container, container_id, observed)
                await self._tools.actor.link_log(self.pod, container, started)
            if hook_of(container, "post_start") is not None:
                await self._post_start(container, container_id, ips)
        except StartError as error:
            self._notes.waiting[container.name] = Waiting(error.reason, error.message)
            # One whose hook has failed has ended, and waits as any that has ended
            # does; the moment is for people to see why.
            retry_s = (
                POST_START_RETRY_S if error.reason == POST_START_FAILED else RETRY_S
            )
            self._retry_later(container.name, retry_s, at_most_s=error.look_in_s)
            self._notes.story.tell(f"{container.name}: {error.reason}")
            self.pending -= {container.name}
            self._notes.changed()
            return action.group is not Group.INIT or container.is_sidecar, observed
        finally:
            self.current = None
        return True, observed

    async def _started(
        self, container: Container, container_id: str, observed: ObservedPod
    ) -> ObservedPod:
        """Note a start and tell of it at once, while the chain goes on."""
        notes = self._notes
        self.pending -= {container.name}
        notes.waiting.pop(container.name, None)
        notes.retry_at_s.pop(container.name, None)
        notes.promised.discard(container.name)
        if hook_of(container, "post_start") is not None:
            notes.held.add(container_id)
        notes.changed(look_in_s=LOOK_SOON_S)
        observed = await self._tools.observer.add_container(observed, container_id)
        self._publish(observed)
        self._tools.tell(
            self.pod, "Started", "Container started", container=container.name
        )
        return observed

    async def _post_start(
        self, container: Container, container_id: str, ips: tuple[str, ...]
    ) -> None:
        """Deliver the PostStart; only its return makes the container count."""
        self._hook_id = container_id
        self._hook_gone = asyncio.Event()
        try:
            await wait_first(
                self._tools.stops.hooks.post_start(
                    self.pod, container, container_id, ips
                ),
                self._hook_gone.wait(),
            )
        except HookError as error:
            await self._post_start_failed(container, container_id, ips)
            raise StartError(POST_START_FAILED, error.message) from error
        finally:
            self._hook_id = ""
        self._notes.held.discard(container_id)
        self._notes.changed()

    async def _post_start_failed(
        self, container: Container, container_id: str, ips: tuple[str, ...]
    ) -> None:
        self._tools.warn(
            self.pod,
            "FailedPostStartHook",
            "PostStartHook failed",
            container=container.name,
        )
        kill = Kill(
            container_id,
            container,
            "FailedPostStartHook",
            KillReason.POST_START,
            restart=False,
        )
        await self._stops.kill(self.pod, kill, ips).stopped.wait()
        self._notes.held.discard(container_id)

    # --- starting over in place ---

    async def _reset(self, ids: tuple[str, ...], observed: ObservedPod) -> None:
        """Kill and remove every container, so that the Pod starts anew in place."""
        runtime = self._tools.stops.runtime
        by_id = {c.id: c for c in observed.containers}
        for container_id in ids:
            seen = by_id[container_id]
            if is_alive(seen):
                self._tools.tell(self.pod, "Killing", "killing", container=seen.name)
                await runtime.stop_container(container_id, grace_s=0)
        for container_id in ids:
            await runtime.remove_container(container_id)
            self._notes.mutations += 1
        self._tools.observer.forget_containers(ids)


def _handler_of(observed: ObservedPod, actions: PodActions) -> str | None:
    if actions.create_sandbox:
        return None
    return next(
        (s.runtime_handler for s in observed.sandboxes if s.id == actions.sandbox_id),
        None,
    )
