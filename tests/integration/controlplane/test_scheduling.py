"""Pods find their nodes."""

import asyncio
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.scheme import NAMESPACE, NODE, POD, SERVICE_ACCOUNT
from podyard.client.events import EventRecorder
from podyard.client.http import HttpApiClient
from podyard.lib.clock import SystemClock
from podyard.lib.parts import load_parts
from podyard.scheduler import plugins
from podyard.scheduler.loop import Scheduler
from podyard.scheduler.parts import SchedulerPlugin
from support.control_plane import Cluster, cluster, node, pod, until

pytestmark = pytest.mark.integration


async def _ready(running: Cluster) -> None:
    """Wait until Pods can be created and the node takes them."""
    await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))

    async def untainted() -> bool:
        found = await running.admin.list(NODE)
        return all(not n["spec"].get("taints") for n in found["items"])

    await until(untainted)


async def _node_of(running: Cluster, name: str) -> str:
    found = await running.admin.get(POD, name, "default")
    return str(found["spec"].get("nodeName") or "")


async def _condition(running: Cluster, name: str) -> Document:
    found = await running.admin.get(POD, name, "default")
    for condition in found["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled":
            result: Document = condition
            return result
    return {}


async def test_a_pod_is_bound_and_told_so(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(node("n1"))
        await _ready(running)

        await running.apply(pod("p"))

        assert await until(lambda: _node_of(running, "p"), within_s=2) == "n1"
        assert (await _condition(running, "p"))["status"] == "True"
        assert await until(lambda: running.events("Scheduled")) == [
            "Successfully assigned default/p to n1"
        ]


async def test_a_pod_that_fits_nowhere_says_why_and_is_retried_when_it_may_fit(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await _ready(running)
        await running.apply(pod("p", nodeSelector={"disk": "ssd"}))
        await until(lambda: running.events("FailedScheduling"))
        first = await until(lambda: _condition(running, "p"))
        assert first["message"] == "no nodes available to schedule pods"

        await running.apply(node("n1"))
        wanted = (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node "
            "affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not "
            "helpful for scheduling."
        )

        async def told() -> bool:
            condition = await _condition(running, "p")
            return bool(condition.get("message") == wanted)

        await until(told)
        condition = await _condition(running, "p")
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")

        await running.admin.patch(NODE, "n1", {"metadata": {"labels": {"disk": "ssd"}}})

        assert await until(lambda: _node_of(running, "p"), within_s=2) == "n1"


async def test_pods_at_once_never_promise_the_same_room_twice(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(node("n1", cpu="2"))
        await _ready(running)

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(running.apply(pod(f"p{number}", cpu="500m")))

        async def bound() -> list[str]:
            listed = await running.admin.list(POD, "default")
            return [
                p["metadata"]["name"]
                for p in listed["items"]
                if p["spec"].get("nodeName")
            ]

        async def all_decided() -> bool:
            listed = await running.admin.list(POD, "default")
            return all(
                p["spec"].get("nodeName") or p["status"].get("conditions")
                for p in listed["items"]
            )

        await until(all_decided)
        first = await bound()
        assert len(first) == 4

        await running.admin.delete(POD, first[0], "default", grace_period_s=0)

        async def four_again() -> bool:
            now = await bound()
            return len(now) == 4 and first[0] not in now

        await until(four_again, within_s=2)


async def test_gated_pods_wait_and_other_schedulers_pods_are_left_alone(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(node("n1"))
        await _ready(running)
        await running.apply(pod("gated", schedulingGates=[{"name": "example.com/g"}]))
        await running.apply(pod("other", schedulerName="mine"))
        await running.apply(pod("after"))
        await until(lambda: _node_of(running, "after"))

        condition = await until(lambda: _condition(running, "gated"))
        assert condition["reason"] == "SchedulingGated"
        assert condition["message"] == (
            "Scheduling is blocked due to non-empty scheduling gates"
        )
        assert not await _node_of(running, "other")

        await running.admin.patch(
            POD, "gated", {"spec": {"schedulingGates": []}}, "default"
        )

        assert await until(lambda: _node_of(running, "gated"), within_s=2) == "n1"


async def test_a_pod_is_bound_within_milliseconds(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with cluster(tmp_path) as running:
        await running.apply(node("n1"))
        await _ready(running)
        spans: list[float] = []
        for number in range(10):
            name = f"p{number}"
            selector = f"metadata.name={name}"
            created = await running.admin.list(POD, "default")
            rev = created["metadata"]["resourceVersion"]
            stream = running.admin.watch(
                POD, "default", resource_version=rev, field_selector=selector
            )
            async with aclosing(stream), asyncio.timeout(5):
                begin = asyncio.ensure_future(running.apply(pod(name)))  # noqa: TID251
                added_s = 0.0
                async for event in stream:
                    if event.type == "ADDED":
                        added_s = loop.time()
                    elif event.object["spec"].get("nodeName"):
                        spans.append(loop.time() - added_s)
                        break
                await begin

        # Server, scheduler and test share one process and one loop here.
        assert sorted(spans)[len(spans) // 2] < 0.1


async def test_two_schedulers_and_a_restart_do_no_harm(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(node("n1", cpu="2"))
        await _ready(running)
        identity = running.plane.connection(running.pki.scheduler)
        async with HttpApiClient(identity) as client:
            recorder = EventRecorder(
                client, component="second", host="", clock=SystemClock()
            )
            parts = load_parts(plugins, SchedulerPlugin)
            second = Scheduler(client, parts, recorder, SystemClock())
            for run in range(2):
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(second.run())
                    await second.pods.wait_synced()
                    for number in range(6):
                        name = f"p{run}-{number}"
                        group.create_task(running.apply(pod(name, cpu="100m")))
                    await asyncio.sleep(0)
                    for number in range(6):
                        await until(partial(_bound, running, f"p{run}-{number}"))
                    task.cancel()

            # The room of every Pod is counted once: 12 of 20 are there, 8 fit.
            async with asyncio.TaskGroup() as group:
                task = group.create_task(second.run())
                for number in range(9):
                    group.create_task(running.apply(pod(f"q{number}", cpu="100m")))
                await until(partial(_count_bound, running, 20))
                await until(lambda: running.events("FailedScheduling"))
                task.cancel()
            assert await _count_bound(running, 20)


async def _bound(running: Cluster, name: str) -> bool:
    found = await running.find(POD, name, "default")
    return found is not None and bool(found["spec"].get("nodeName"))


async def _count_bound(running: Cluster, wanted: int) -> bool:
    listed = await running.admin.list(POD, "default")
    return sum(bool(p["spec"].get("nodeName")) for p in listed["items"]) == wanted


async def test_a_more_important_pod_takes_the_room_of_a_lesser_one(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(node("n1", cpu="1"))
        await _ready(running)
        await running.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1000,
            }
        )
        await running.apply(pod("low", cpu="1", terminationGracePeriodSeconds=7))
        await until(lambda: _node_of(running, "low"))

        high = await running.apply(pod("high", cpu="1", priorityClassName="high"))

        async def ending() -> bool:
            low = await running.admin.get(POD, "low", "default")
            return bool(low["metadata"].get("deletionTimestamp"))

        await until(ending)
        low = await running.admin.get(POD, "low", "default")
        mark = next(
            c for c in low["status"]["conditions"] if c["type"] == "DisruptionTarget"
        )
        assert low["metadata"]["deletionGracePeriodSeconds"] == 7
        assert (mark["reason"], mark["message"]) == (
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
        )
        assert await until(lambda: running.events("Preempted")) == [
            f"Preempted by pod {high['metadata']['uid']} on node n1"
        ]

        async def nominated() -> str:
            found = await running.admin.get(POD, "high", "default")
            return str(found["status"].get("nominatedNodeName") or "")

        assert await until(nominated) == "n1"
        condition = await until(lambda: _condition(running, "high"))
        assert condition["message"] == "0/1 nodes are available: 1 Insufficient cpu."

        await running.apply(pod("other", cpu="1"))
        await running.admin.delete(POD, "low", "default", grace_period_s=0)

        assert await until(lambda: _node_of(running, "high")) == "n1"
        assert await _node_of(running, "other") == ""


async def test_pods_find_each_other_and_keep_apart(tmp_path: Path) -> None:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    alike = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "web"}},
        "namespaceSelector": {"matchLabels": {"shares": "nodes"}},
    }

    def labelled(name: str, app: str, **spec: Any) -> Document:
        document = pod(name, **spec)
        document["metadata"]["labels"] = {"app": app}
        return document

    async with cluster(tmp_path) as running:
        for name in ("n1", "n2"):
            await running.apply(node(name))
        await _ready(running)
        # Nobody is there to be near to; the condition says so.
        companion = labelled(
            "companion", "db", affinity={"podAffinity": {required: [alike]}}
        )
        await running.apply(companion)
        condition = await until(lambda: _condition(running, "companion"))
        assert condition["message"] == (
            "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. "
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for "
            "scheduling."
        )

        # One comes, of a namespace that the term does not select; then it does.
        await running.apply(labelled("web", "web", nodeName="n2"))
        await running.admin.patch(
            NAMESPACE, "default", {"metadata": {"labels": {"shares": "nodes"}}}
        )
        assert await until(lambda: _node_of(running, "companion"), within_s=30) == "n2"

        # Those that keep apart take one node each, and the third has none.
        apart = {"podAntiAffinity": {required: [alike]}}
        await running.apply(labelled("web-2", "web", affinity=apart))
        assert await until(lambda: _node_of(running, "web-2"), within_s=30) == "n1"
        await running.apply(labelled("web-3", "web", affinity=apart))
        condition = await until(lambda: _condition(running, "web-3"))
        assert condition["message"].startswith(
            "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. "
            "preemption: 0/2 nodes are available: 2 No preemption victims found"
        )

        # When one of them goes, the third is next.
        await running.admin.delete(POD, "web", "default", grace_period_s=0)
        assert await until(lambda: _node_of(running, "web-3"), within_s=30) == "n2"
