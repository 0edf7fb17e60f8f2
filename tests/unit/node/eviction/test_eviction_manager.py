"""Looks, reclaims and ends, over a scripted machine."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.lib.clock import SystemClock
from podyard.node.eviction.decide import (
    Amount,
    ContainerUse,
    Observation,
    PodUse,
    Threshold,
)
from podyard.node.eviction.manager import EvictionManager, EvictionSettings
from podyard.node.sync.pod import PodEnding

MI = 1024 * 1024
MEMORY = Threshold("memory.available", Amount(100 * MI))
DISK = Threshold("nodefs.available", Amount(10 * MI))


class ScriptedSignals:
    """Tells what it was told; counts how often it is asked for what is expensive."""

    def __init__(self) -> None:
        self.memory_mi = 1000
        self.disk_mi = 1000
        self.uses: dict[str, PodUse] = {}
        self.measured = 0

    async def observe(self) -> Mapping[str, Observation]:
        return {
            "memory.available": Observation(self.memory_mi * MI, 1000 * MI),
            "nodefs.available": Observation(self.disk_mi * MI, 1000 * MI),
        }

    async def measure(self, pods: Sequence[Pod]) -> Mapping[str, PodUse]:
        self.measured += 1
        return {pod.uid: self.uses.get(pod.uid, PodUse()) for pod in pods}


class Pods:
    """Pods that are over as soon as they are told to end."""

    def __init__(self, *pods: Pod) -> None:
        self.here = {pod.uid: pod for pod in pods}
        self.endings: dict[str, PodEnding] = {}

    def active_pods(self) -> Sequence[Pod]:
        return tuple(self.here.values())

    def end_pod(self, uid: str, ending: PodEnding) -> bool:
        self.endings[uid] = ending
        return self.here.pop(uid, None) is not None

    def is_over(self, uid: str) -> bool:
        return uid not in self.here


class Told:
    """Events, as they came."""

    def __init__(self) -> None:
        self.pods: list[tuple[str, str]] = []
        self.node: list[tuple[str, str]] = []

    def event(
        self,
        document: Document,
        event_type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        self.pods.append((reason, message))

    def node_event(self, event_type: str, reason: str, message: str) -> None:
        self.node.append((reason, message))


def pod(name: str, **spec: Any) -> Pod:
    return Pod.of(
        {
            "metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"containers": [{"name": "c"}], **spec},
        }
    )


class World:
    def __init__(self, *pods: Pod) -> None:
        self.signals = ScriptedSignals()
        self.pods = Pods(*pods)
        self.told = Told()
        self.freed = 0
        self.frees_mi = 0
        self.manager = EvictionManager(
            self.signals,
            EvictionSettings((MEMORY, DISK), transition_s=60),
            events=self.told,
            node_events=self.told,
            free_disk=self.free,
            clock=SystemClock(),
        )

    async def free(self) -> None:
        self.freed += 1
        self.signals.disk_mi += self.frees_mi

    async def look(self) -> tuple[str, ...]:
        return await self.manager.look(self.pods)


async def test_nobody_is_measured_while_there_is_enough() -> None:
    world = World(pod("a"))

    assert await world.look() == ()

    assert world.signals.measured == 0
    assert world.manager.pressures() == frozenset()


async def test_one_pod_goes_at_a_time() -> None:
    world = World(pod("a"), pod("b"))
    world.signals.memory_mi = 50
    world.signals.uses = {
        "a": PodUse({"c": ContainerUse(10 * MI)}),
        "b": PodUse({"c": ContainerUse(90 * MI)}),
    }
    changes: list[frozenset[str]] = []
    world.manager.on_change(lambda: changes.append(world.manager.pressures()))

    assert await world.look() == ("b",)
    assert await world.look() == ("a",)

    failure = world.pods.endings["b"].failure
    assert failure is not None
    assert (failure.reason, failure.disrupted) == ("Evicted", True)
    assert failure.message.startswith("The node was low on resource: memory. ")
    assert world.told.pods[0] == ("Evicted", failure.message)
    assert world.told.node[0] == (
        "EvictionThresholdMet",
        "Attempting to reclaim memory",
    )
    assert changes == [{"MemoryPressure"}]


async def test_disk_is_freed_before_anybody_goes() -> None:
    world = World(pod("a"))
    world.signals.disk_mi, world.frees_mi = 5, 100

    assert await world.look() == ()

    assert world.freed == 1
    assert world.manager.pressures() == {"DiskPressure"}


async def test_somebody_goes_where_nothing_could_be_freed() -> None:
    world = World(pod("a"))
    world.signals.disk_mi = 5

    assert await world.look() == ("a",)


async def test_a_pod_above_its_own_limit_goes_without_pressure() -> None:
    volume = {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}
    world = World(pod("a", volumes=[volume]), pod("b"))
    world.signals.uses = {"a": PodUse(volumes={"v": 2 * MI})}

    assert await world.look() == ("a",)

    ending = world.pods.endings["a"]
    assert (ending.why, ending.grace_s) == ("evicted", 1.0)
    assert world.told.pods == [
        ("Evicted", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ')
    ]
    assert world.told.node == []


async def test_it_looks_every_ten_seconds_until_it_is_stopped() -> None:
    world = World(pod("a"), pod("b"))
    task = asyncio.get_running_loop().create_task(world.manager.run(world.pods))

    await asyncio.sleep(5)
    world.signals.memory_mi = 50
    assert world.pods.endings == {}
    await asyncio.sleep(6)
    assert len(world.pods.endings) == 1
    await asyncio.sleep(3)
    assert len(world.pods.endings) == 2
    task.cancel()
