"""What every Pod of a node uses, and what is remembered of one."""

from collections.abc import Callable
from dataclasses import field

from podyard.api.core_v1 import Pod
from podyard.api.observed import ObservedPod
from podyard.api.restart import CRASH_LOOP, CrashLoop
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.status.decide import NodeView, Waiting, pod_ips
from podyard.node.status.manager import StatusManager
from podyard.node.sync.act import PodActor
from podyard.node.sync.decide import Memory
from podyard.node.sync.files import Blocking, PodFiles
from podyard.node.sync.observe import Observer
from podyard.node.sync.parts import PodCgroups, Probes, Volumes
from podyard.node.sync.story import Story
from podyard.node.sync.terminate import StopTools


@dataclass(frozen=True, slots=True)
class PodTools:
    """What every Pod uses.

    Attributes:
        network_error: returns why the network is not ready, or an empty string.
        node_view: returns what of the node appears in statuses.
        chance: returns a number from 0 to 1, to spread retries.
        crash_loop: how long containers that keep ending wait.
    """

    observer: Observer
    actor: PodActor
    stops: StopTools
    status: StatusManager
    probes: Probes
    volumes: Volumes
    cgroups: PodCgroups
    files: PodFiles
    blocking: Blocking
    clock: Clock
    network_error: Callable[[], str]
    node_view: Callable[[], NodeView]
    chance: Callable[[], float]
    crash_loop: Backoff = CRASH_LOOP

    def spread(self, seconds: float) -> float:
        """Return seconds times 1 to 1.5, so that Pods do not march in step."""
        return seconds * (1 + self.chance() / 2)

    def ips_of(self, pod: Pod, observed: ObservedPod) -> tuple[str, ...]:
        """Return a Pod's addresses."""
        return pod_ips(pod, observed, self.node_view().host_ips)

    def warn(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        """Record a Warning event about a Pod or one of its containers."""
        path = pod.field_path(container) if container else ""
        self.stops.events.event(
            pod.document, "Warning", reason, message, field_path=path
        )

    def tell(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        """Record a Normal event about a Pod or one of its containers."""
        path = pod.field_path(container) if container else ""
        self.stops.events.event(
            pod.document, "Normal", reason, message, field_path=path
        )


@dataclass(slots=True)
class PodNotes:
    """What is remembered of one Pod between two looks; all of it may be lost.

    Attributes:
        wake: asks for a step, after so many seconds.
        loops: crash loops, by ``crash_loop_key``.
        held: ids of running containers whose PostStart has not returned.
        promised: names of containers killed in order to be restarted.
        waiting: why containers are not running, by name.
        retry_at_s: when to try again, by container name; ``""`` is the Pod itself.
        resetting: a restart rule is starting the Pod anew in place.
        mutations: grows with everything that this agent did to the Pod, so that a
            look taken meanwhile is known to be old.
        story: what was seen and done lately.
    """

    wake: Callable[[float], None]
    loops: dict[str, CrashLoop] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    promised: set[str] = field(default_factory=set)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    retry_at_s: dict[str, float] = field(default_factory=dict)
    resetting: bool = False
    mutations: int = 0
    story: Story = field(default_factory=Story)

    def changed(self, *, look_in_s: float = 0) -> None:
        """Note that the Pod was changed by our own hand, and look soon."""
        self.mutations += 1
        self.wake(look_in_s)

    def memory(self) -> Memory:
        """Return what decisions may know of it."""
        return Memory(self.loops, frozenset(self.held), frozenset(self.promised))
