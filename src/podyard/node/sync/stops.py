"""All stops of one Pod: single containers, or everything at its end."""

import asyncio
from collections.abc import Callable

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import ContainerState, ContainerStatus, ObservedPod
from podyard.node.status.decide import PodFailure
from podyard.node.sync.build import stop_grace_s
from podyard.node.sync.decide import Kill, KillReason
from podyard.node.sync.ledger import OpenStop
from podyard.node.sync.terminate import (
    ContainerStop,
    Deadline,
    StopOrder,
    StopPlan,
    StopTools,
)

_PROBE_KILLS = {KillReason.LIVENESS: "liveness", KillReason.STARTUP: "startup"}


def is_alive(container: ContainerStatus) -> bool:
    """Return whether a container runs, or may run."""
    return container.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)


class PodStops:
    """The stops of one Pod that are under way, and the Pod's own deadline.

    Args:
        tools: with what.
        group: where stops run.
        on_stopped: called whenever a container has stopped.
    """

    def __init__(
        self,
        tools: StopTools,
        group: asyncio.TaskGroup,
        on_stopped: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._group = group
        self._on_stopped = on_stopped
        self._stops: dict[str, ContainerStop] = {}
        self._order: StopOrder | None = None
        self._deadline: Deadline | None = None

    def __contains__(self, container_id: object) -> bool:
        return container_id in self._stops

    @property
    def has_deadline(self) -> bool:
        """Whether the whole Pod is to be over at some time."""
        return self._deadline is not None

    def describe(self) -> list[Document]:
        """Return the stops under way, for records."""
        return [stop.describe() for stop in self._stops.values()]

    def shorten(self, grace_s: float) -> None:
        """Have the whole Pod over in so many seconds, where that is sooner."""
        if self._deadline is None:
            self._deadline = Deadline(self._tools.clock, grace_s)
        elif not self._deadline.shorten(grace_s):
            return
        for stop in self._stops.values():
            stop.deadline.shorten(grace_s)

    def notice(self, observed: ObservedPod) -> None:
        """Let go of the stops of containers that no longer live."""
        alive = {c.id for c in observed.containers if is_alive(c)}
        for container_id, stop in list(self._stops.items()):
            if container_id not in alive:
                stop.container_gone()
            if stop.stopped.is_set():
                del self._stops[container_id]

    def resume(
        self, pod: Pod, stop: OpenStop, left_s: float, ips: tuple[str, ...]
    ) -> None:
        """Go on with a stop that had begun before the agent restarted."""
        plan = StopPlan(
            pod=pod,
            container=pod.find_container(stop.container),
            container_id=stop.container_id,
            name=stop.container,
            message=f"Stopping container {stop.container}",
            why="resumed",
            grace_s=max(left_s, 0),
            restart=stop.restart,
            pod_ips=ips,
        )
        self._spawn(plan, record_id=stop.record_id)

    def kill(self, pod: Pod, kill: Kill, ips: tuple[str, ...]) -> ContainerStop:
        """Stop one container while its Pod goes on; once, however often asked."""
        known = self._stops.get(kill.container_id)
        if known is not None:
            return known
        probe = _PROBE_KILLS.get(kill.reason, "")
        return self._spawn(
            StopPlan(
                pod=pod,
                container=kill.container,
                container_id=kill.container_id,
                name=kill.container.name,
                message=kill.message,
                why=kill.reason.value,
                grace_s=stop_grace_s(pod, kill.container, probe=probe),
                restart=kill.restart,
                hook=kill.reason is not KillReason.UNKNOWN_STATE,
                pod_ips=ips,
            )
        )

    def stop_all(
        self,
        pod: Pod,
        observed: ObservedPod,
        ips: tuple[str, ...],
        *,
        why: str,
        hooks: bool = True,
        failure: PodFailure | None = None,
    ) -> list[ContainerStop]:
        """Stop everything that lives, sidecars last; return all stops under way.

        May be called again and again: what is stopping already goes on, with the
        Pod's deadline if that is nearer.
        """
        alive = [c for c in observed.containers if is_alive(c)]
        if not alive:
            self._order = None
            return []
        if self._order is None:
            self._order = StopOrder(pod, [c.name for c in alive])
        grace_s: float = stop_grace_s(pod, None)
        if self._deadline is not None:
            grace_s = self._deadline.remaining_s
        return [
            self._join(seen, grace_s)
            or self._spawn(
                StopPlan(
                    pod=pod,
                    container=pod.find_container(seen.name),
                    container_id=seen.id,
                    name=seen.name,
                    message=f"Stopping container {seen.name}",
                    why=why,
                    grace_s=grace_s,
                    hook=hooks and seen.state is ContainerState.RUNNING,
                    pod_ips=ips,
                    failure=failure,
                ),
                order=self._order,
            )
            for seen in alive
        ]

    def _join(self, seen: ContainerStatus, grace_s: float) -> ContainerStop | None:
        """Return the stop of a container that is under way, taken into the whole."""
        stop = self._stops.get(seen.id)
        if stop is None:
            return None
        if self._order is not None:
            stop.set_order(self._order)
        if self._deadline is not None:
            stop.deadline.shorten(grace_s)
        return stop

    def _spawn(
        self,
        plan: StopPlan,
        *,
        order: StopOrder | None = None,
        record_id: int | None = None,
    ) -> ContainerStop:
        stop = ContainerStop(
            plan,
            self._tools,
            order=order,
            on_stopped=self._on_stopped,
            record_id=record_id,
        )
        self._stops[plan.container_id] = stop
        self._group.create_task(stop.run(), name=f"stop-{plan.container_id}")
        return stop
