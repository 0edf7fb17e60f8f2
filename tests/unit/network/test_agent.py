"""The network agent looks again upon every change, and no more."""

import asyncio

from podyard.network.agent import NetworkAgent
from podyard.network.decide import NetworkFacts
from podyard.network.nftables import NftablesError

FACTS = NetworkFacts("podyard-p", "pyd-p", "10.88.0.0/24", "10.96.0.0/20", True)


class Objects:
    """A list that stands for an informer."""

    def __init__(self, *documents):
        self.documents = list(documents)

    def items(self):
        return self.documents

    async def wait_synced(self):
        return None


def pod(port):
    return {
        "metadata": {"name": f"p{port}", "namespace": "d"},
        "spec": {"containers": [{"ports": [{"containerPort": 80, "hostPort": port}]}]},
        "status": {"podIP": "10.88.0.9", "phase": "Running"},
    }


async def follow(agent, pods, steps):
    async with asyncio.TaskGroup() as group:
        running = group.create_task(
            agent.run(pods=pods, services=Objects(), slices=Objects())
        )
        await asyncio.sleep(1)
        for step in steps:
            step()
            await asyncio.sleep(10)
        running.cancel()


async def forget(targets):
    return None


async def test_changes_that_come_together_make_one_round():
    applied = []

    async def apply(table):
        applied.append(table.collections["host_ports"].elements)

    agent = NetworkAgent(FACTS, apply=apply, forget_stale=forget)
    pods = Objects(pod(8080))

    def change():
        pods.documents.append(pod(8081))
        for _ in range(5):
            agent.on_pod(None, pods.documents[-1])

    await follow(agent, pods, [change])

    assert [list(ports) for ports in applied] == [
        ["tcp . 8080"],
        ["tcp . 8080", "tcp . 8081"],
    ]


async def test_a_pod_without_a_change_of_ports_makes_no_round():
    applied = []

    async def apply(table):
        applied.append(table)

    agent = NetworkAgent(FACTS, apply=apply, forget_stale=forget)
    ready = {**pod(8080), "spec": pod(8080)["spec"] | {"priority": 1}}

    await follow(agent, Objects(), [lambda: agent.on_pod(pod(8080), ready)])

    assert len(applied) == 1


async def test_refused_rules_are_tried_again():
    tried = []

    async def apply(table):
        tried.append(table)
        if len(tried) == 1:
            raise NftablesError("busy")

    agent = NetworkAgent(FACTS, apply=apply, forget_stale=forget)
    await follow(agent, Objects(), [lambda: None])

    assert len(tried) == 2


async def test_flows_are_forgotten_when_udp_goes_elsewhere():
    asked = []

    async def apply(table):
        return None

    async def ask(targets):
        asked.append(targets.addresses)

    agent = NetworkAgent(FACTS, apply=apply, forget_stale=ask)
    service = {
        "metadata": {"namespace": "d", "name": "s"},
        "spec": {
            "clusterIP": "10.96.0.2",
            "ports": [{"name": "d", "port": 53, "protocol": "UDP"}],
        },
    }
    tcp = {
        "metadata": {"namespace": "d", "name": "t"},
        "spec": {"clusterIP": "10.96.0.3", "ports": [{"port": 80}]},
    }

    await follow(
        agent,
        Objects(),
        [
            lambda: agent.on_service(None, service),
            lambda: agent.on_service(None, tcp),
            lambda: agent.on_slice(None, endpoint_slice("10.88.0.2")),
            lambda: agent.on_slice(
                endpoint_slice("10.88.0.2"), endpoint_slice("10.88.0.3")
            ),
            lambda: agent.on_service(service, None),
        ],
    )

    to = ("10.96.0.2", 53)
    assert asked == [
        {},
        {to: frozenset()},
        {to: frozenset({("10.88.0.2", 5353)})},
        {to: frozenset({("10.88.0.3", 5353)})},
        {},
    ]


def endpoint_slice(ip):
    return {
        "metadata": {
            "namespace": "d",
            "name": "s-x",
            "labels": {"kubernetes.io/service-name": "s"},
        },
        "endpoints": [{"addresses": [ip]}],
        "ports": [{"name": "d", "port": 5353}],
    }
