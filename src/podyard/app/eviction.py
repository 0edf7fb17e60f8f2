"""The node's eviction, made and joined with the rooms it asks."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from podyard.api.core_v1 import Pod
from podyard.api.quantity import Format, Quantity
from podyard.app.config import Config, thresholds
from podyard.cri.services import ImageService, RuntimeService
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.eviction.decide import MEMORY_AVAILABLE
from podyard.node.eviction.manager import (
    EvictionManager,
    EvictionSettings,
    NodeEvents,
)
from podyard.node.eviction.signals import HostSignals
from podyard.node.resources.cgroups import PodCgroups
from podyard.node.resources.host import memory_capacity_bytes
from podyard.node.sync.files import PodFiles
from podyard.node.sync.parts import Events
from podyard.node.volumes.manager import VolumeManager


@dataclass(frozen=True, slots=True)
class PodPlaces:
    """Where things of Pods are."""

    data_dir: Path
    volumes: VolumeManager
    cgroups: PodCgroups

    def logs_of(self, pod: Pod) -> Path:
        """Return the directory of a Pod's logs."""
        logs = self.data_dir / "logs"
        files = PodFiles(self.data_dir / "pods", logs / "pods", logs / "containers")
        return files.pod_logs(pod.namespace, pod.name, pod.uid)

    def empty_dir(self, uid: str, volume: str) -> Path:
        """Return where a Pod's emptyDir is."""
        return self.volumes.empty_dir(uid, volume)

    def process_count(self, pod: Pod) -> int:
        """Return how many processes a Pod has. Blocks."""
        return self.cgroups.process_count(pod)


def make_eviction(
    config: Config,
    *,
    runtime: RuntimeService,
    images: ImageService,
    places: PodPlaces,
    events: Events,
    node_events: NodeEvents,
    free_disk: Callable[[], Awaitable[None]],
    clock: Clock,
) -> EvictionManager:
    """Return what ends Pods where the node is short of something.

    Raises:
        ValueError: a threshold cannot be read.
    """
    return EvictionManager(
        HostSignals(runtime, images, places.data_dir, places),
        EvictionSettings(
            thresholds=thresholds(config),
            max_grace_s=config.eviction_max_pod_grace_s,
            transition_s=config.eviction_pressure_transition_s,
        ),
        events=events,
        node_events=node_events,
        free_disk=free_disk,
        clock=clock,
    )


def memory_kept(config: Config) -> str:
    """Return the memory that Pods may not have, for it is the hard threshold."""
    for threshold in thresholds(config):
        if threshold.signal == MEMORY_AVAILABLE and threshold.is_hard:
            kept = threshold.amount.of(memory_capacity_bytes())
            return str(Quantity.of(kept, Format.BINARY_SI))
    return "0"
