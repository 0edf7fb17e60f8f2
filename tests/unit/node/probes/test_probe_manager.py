"""Probes of instances as they come and go, over the fake runtime."""

import asyncio
import itertools
import random
from contextlib import asynccontextmanager
from datetime import timedelta

from podyard.api.core_v1 import Pod
from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    ExecResult,
    ObservedPod,
)
from podyard.lib.parts import load_parts
from podyard.node.probes import handlers
from podyard.node.probes.handler import ProbeHandler
from podyard.node.probes.manager import ProbeManager
from podyard.testing.fake_cri import FakeRuntime
from support.pods import LoopClock


def probe(word, **fields):
    return {"exec": {"command": [word]}, "periodSeconds": 1, **fields}


class Probed:
    """A Pod of one container whose probes answer as told, by their command."""

    def __init__(self, **probes):
        self.clock = LoopClock()
        self.healthy = {"startup": True, "liveness": True, "readiness": True}
        self.asked = []
        self.told = []
        runtime = FakeRuntime()
        runtime.exec_sync = self._exec
        self.manager = ProbeManager(
            runtime,
            load_parts(handlers, ProbeHandler),
            grpc_check=None,
            record=lambda _pod, _kind, reason, message, _path: self.told.append(
                (reason, message)
            ),
            clock=self.clock,
            chance=random.Random(1),
        )
        self.pod = Pod.of(
            {
                "metadata": {"name": "web", "namespace": "default", "uid": "u"},
                "spec": {"containers": [{"name": "app", "image": "i", **probes}]},
            }
        )

    async def _exec(self, container_id, command, *, timeout_s):
        self.asked.append(command[0])
        code = 0 if self.healthy[command[0]] else 1
        return ExecResult(stdout=b"", stderr=b"no", exit_code=code)

    def look(self, container_id="c1", *, ran_s=0.0, **told):
        at = self.clock.now() - timedelta(seconds=ran_s)
        running = ContainerStatus(
            id=container_id,
            name="app",
            sandbox_id="s",
            attempt=0,
            state=ContainerState.RUNNING,
            created_at=at,
            started_at=at,
        )
        observed = ObservedPod("u", "web", "default", (), (running,))
        told = {"held": frozenset(), "terminating": False, **told}
        self.manager.look(self.pod, observed, ("10.0.0.2",), **told)

    def verdict(self, container_id="c1"):
        return self.manager.verdicts("u").of(container_id)

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.manager.run())
            await asyncio.sleep(0)
            self.manager.add_pod(self.pod)
            yield self
            task.cancel()


ALL = {
    "startupProbe": probe("startup", failureThreshold=3),
    "livenessProbe": probe("liveness", failureThreshold=2),
    "readinessProbe": probe("readiness"),
}


async def test_until_it_has_started_only_the_startup_probe_asks():
    probed = Probed(**ALL)
    probed.healthy["startup"] = False
    async with probed.running():
        probed.look()
        await asyncio.sleep(1.5)

        assert set(probed.asked) == {"startup"}
        assert probed.verdict().started is False

        probed.healthy["startup"] = True
        await asyncio.sleep(3)

        assert probed.verdict().started is True
        assert probed.verdict().ready is True
        assert {"liveness", "readiness"} <= set(probed.asked)


async def test_a_container_that_had_started_is_not_asked_to_start_again():
    probed = Probed(**ALL)
    probed.healthy["startup"] = False
    async with probed.running():
        probed.look(ran_s=60, started=frozenset({"c1"}))

        assert probed.verdict().started is True
        await asyncio.sleep(10)
        assert "startup" not in probed.asked
        assert {"liveness", "readiness"} <= set(probed.asked)
        assert not probed.verdict().startup_failed


async def test_a_container_still_starting_when_the_agent_came_must_pass_its_probe():
    probed = Probed(**ALL)
    probed.healthy["startup"] = False
    async with probed.running():
        probed.look(ran_s=60)

        assert probed.verdict().started is False
        await asyncio.sleep(10)
        assert set(probed.asked) == {"startup"}
        assert probed.verdict().startup_failed


async def test_the_next_instance_of_a_started_container_starts_anew():
    probed = Probed(**ALL)
    async with probed.running():
        probed.look(ran_s=60, started=frozenset({"c1"}))
        probed.healthy["startup"] = False

        probed.look("c2", started=frozenset({"c1"}))

        assert probed.verdict("c2").started is False
        assert probed.verdict("c1").started is None
        await asyncio.sleep(0.1)
        assert probed.asked == ["startup"]  # of the second one, at once


async def test_a_failed_liveness_probe_tells_each_time_and_gives_up_once():
    probed = Probed(livenessProbe=probe("liveness", failureThreshold=2))
    probed.healthy["liveness"] = False
    async with probed.running():
        probed.look()
        await asyncio.sleep(10)

        assert probed.verdict().liveness_failed
        assert probed.told == [("Unhealthy", "Liveness probe failed: no")] * 2


async def test_a_pod_on_its_way_out_is_asked_for_readiness_only():
    probed = Probed(**ALL)
    async with probed.running():
        probed.look()
        await asyncio.sleep(3)
        probed.look(terminating=True)
        probed.asked.clear()
        probed.healthy["readiness"] = False

        await asyncio.sleep(5)

        assert set(probed.asked) == {"readiness"}
        assert probed.verdict().ready is False


async def test_a_probe_keeps_its_period_however_long_an_attempt_takes():
    probed = Probed(readinessProbe=probe("readiness", periodSeconds=2))
    times = []
    plain = probed._exec

    async def slow(container_id, command, *, timeout_s):
        times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.7)
        return await plain(container_id, command, timeout_s=timeout_s)

    probed.manager._runtime.exec_sync = slow
    async with probed.running():
        probed.look()
        await asyncio.sleep(20)

    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(gaps) >= 8
    assert all(1.95 <= gap <= 2.05 for gap in gaps)


async def test_a_probe_of_a_port_without_that_name_says_so_and_decides_nothing():
    probed = Probed(livenessProbe={"tcpSocket": {"port": "web"}, "failureThreshold": 1})
    async with probed.running():
        probed.look()
        await asyncio.sleep(1)

        assert not probed.verdict().liveness_failed
        (told,) = probed.told
        assert told[1].startswith(
            "Liveness probe errored and resulted in unknown state: "
            'strconv.Atoi: parsing "web"'
        )
