"""Pods end in order before the machine does."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import structlog

from podyard.api.core_v1 import Pod
from podyard.lib.logind import LogindError
from podyard.node.shutdown.decide import build_periods
from podyard.node.shutdown.manager import MESSAGE, ShutdownManager
from podyard.node.status.decide import PodFailure
from support.pods import LoopClock

CRITICAL = 2_000_000_000


class Machine:
    """What a test says of the machine, and when the lock was held."""

    def __init__(self):
        self.allowed_s = 30.0
        self.broken = False
        self.held = False
        self.connections = 0
        self.changes = asyncio.Queue()

    @asynccontextmanager
    async def connect(self):
        self.connections += 1
        if self.broken:
            raise LogindError("no bus")
        try:
            yield self
        finally:
            self.held = False

    async def raise_delay(self, to_s):
        return min(to_s, self.allowed_s)

    async def hold(self, who, why):
        self.held = True

    def release(self):
        self.held = False

    async def next_change(self):
        change = await self.changes.get()
        if change is None:
            raise LogindError("lost")
        return change


class Pods:
    """Pods that are over some time after they were told."""

    def __init__(self, **takes_s):
        self.takes_s = takes_s
        self.endings = {}
        self.over = set()
        self.told = []
        self.priorities = {}
        self.graces = {}

    def active_pods(self):
        return [
            Pod.of(
                {
                    "metadata": {"name": uid, "namespace": "default", "uid": uid},
                    "spec": {
                        "containers": [{"name": "app", "image": "i"}],
                        "priority": self.priorities.get(uid, 0),
                        "terminationGracePeriodSeconds": self.graces.get(uid, 30),
                    },
                }
            )
            for uid in self.takes_s
        ]

    def end_pod(self, uid, ending):
        loop = asyncio.get_running_loop()
        self.endings[uid] = (loop.time(), ending)
        loop.call_later(self.takes_s[uid], self.over.add, uid)
        return True

    def is_over(self, uid):
        return uid in self.over

    async def wait_told(self, uid):
        self.told.append(uid)


@asynccontextmanager
async def followed(machine, pods, periods):
    """Follow the machine while the body runs; yield the manager and its events."""
    events = []

    class Events:
        def node_event(self, kind, reason, message):
            events.append((kind, reason, message))

    manager = ShutdownManager(machine, periods, events=Events(), clock=LoopClock())
    manager.seen = []
    manager.on_change(lambda: manager.seen.append(manager.is_going))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(manager.run(pods))
        await asyncio.sleep(0.01)
        yield manager, events
        task.cancel()


async def test_pods_end_by_priority_each_with_no_more_than_its_group_has():
    machine, pods = Machine(), Pods(a=3, b=1, crit=1)
    pods.priorities = {"crit": CRITICAL}
    pods.graces = {"b": 5}
    async with followed(machine, pods, build_periods(30, 10, ())) as (manager, events):
        assert machine.held
        begin_s = asyncio.get_running_loop().time()

        machine.changes.put_nowait(True)
        await asyncio.sleep(1)
        assert manager.is_going
        assert machine.held
        await asyncio.sleep(10)

        assert not machine.held
        assert {uid: e.grace_s for uid, (_, e) in pods.endings.items()} == {
            "a": 20,
            "b": 5,
            "crit": 10,
        }
        at = {uid: round(t - begin_s) for uid, (t, _) in pods.endings.items()}
        assert at == {"a": 0, "b": 0, "crit": 3}
        for _, ending in pods.endings.values():
            assert ending.why == "shutdown"
            assert ending.failure == PodFailure("Terminated", MESSAGE, disrupted=True)
            assert ending.hooks
        assert sorted(pods.told) == ["a", "b", "crit"]
        assert events == [
            ("Normal", "Shutdown", "Shutdown manager detected shutdown event")
        ]


async def test_a_group_that_does_not_end_keeps_nobody_waiting_beyond_its_time():
    machine, pods = Machine(), Pods(stuck=10_000, crit=1)
    pods.priorities = {"crit": CRITICAL}
    async with followed(machine, pods, build_periods(12, 4, ())):
        begin_s = asyncio.get_running_loop().time()

        machine.changes.put_nowait(True)
        await asyncio.sleep(20)

        assert 8 <= pods.endings["crit"][0] - begin_s <= 11
        assert not machine.held


async def test_a_shutdown_called_off_takes_the_lock_again_and_the_node_goes_on():
    machine, pods = Machine(), Pods()
    async with followed(machine, pods, build_periods(5, 0, ())) as (manager, events):
        machine.changes.put_nowait(True)
        await asyncio.sleep(1)
        assert not machine.held

        machine.changes.put_nowait(False)
        await asyncio.sleep(1)

        assert machine.held
        assert manager.seen == [True, False]
        assert events[-1][2] == "Shutdown manager detected shutdown cancellation"


async def test_without_logind_it_is_said_once_and_nothing_else():
    machine = Machine()
    machine.broken = True
    with structlog.testing.capture_logs() as logs:
        async with followed(machine, Pods(), build_periods(5, 0, ())) as (_, events):
            await asyncio.sleep(1000)

    assert [entry["event"] for entry in logs] == ["machine_shutdown_not_followed"]
    assert events == []
    assert 2 < machine.connections < 50


async def test_a_lost_connection_is_made_again_with_its_lock():
    machine = Machine()
    async with followed(machine, Pods(), build_periods(5, 0, ())):
        machine.changes.put_nowait(None)
        await asyncio.sleep(0.1)
        assert not machine.held
        await asyncio.sleep(5)

        assert machine.held
        assert machine.connections == 2


@pytest.mark.parametrize(
    ("allowed_s", "warned"),
    [pytest.param(5, False, id="enough"), pytest.param(4, True, id="too-short")],
)
async def test_a_machine_that_will_not_wait_so_long_is_told_of(allowed_s, warned):
    machine = Machine()
    machine.allowed_s = allowed_s
    with structlog.testing.capture_logs() as logs:
        async with followed(machine, Pods(), build_periods(5, 0, ())):
            pass

    told = [entry for entry in logs if entry["event"] == "machine_shutdown_too_soon"]
    assert bool(told) is warned
    assert machine.connections == 1
