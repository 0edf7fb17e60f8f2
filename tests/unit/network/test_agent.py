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


async def test_changes_that_come_together_make_one_round():
    applied = []

    async def apply(text):
        applied.append(text)

    agent = NetworkAgent(FACTS, apply=apply)
    pods = Objects(pod(8080))

    def change():
        pods.documents.append(pod(8081))
        for _ in range(5):
            agent.on_change(None, pods.documents[-1])

    await follow(agent, pods, [change])

    assert len(applied) == 2
    assert "8081" not in applied[0]
    assert "8081" in applied[1]


async def test_refused_rules_are_tried_again():
    tried = []

    async def apply(text):
        tried.append(text)
        if len(tried) == 1:
            raise NftablesError("busy")

    await follow(NetworkAgent(FACTS, apply=apply), Objects(), [lambda: None])

    assert len(tried) == 2


async def test_base_rules_need_no_informer():
    applied = []

    async def apply(text):
        applied.append(text)

    await NetworkAgent(FACTS, apply=apply).apply_base()

    assert "masquerade" in applied[0]
