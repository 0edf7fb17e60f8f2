"""What a runtime itself says is running, whatever the API says."""

import asyncio

from podyard.api.observed import ContainerState
from podyard.cri.client import CriChannel, GrpcRuntimeService


def running_containers(endpoint: str) -> dict[str, str]:
    """Return ``NAMESPACE/POD/CONTAINER`` → id of all running containers.

    Raises:
        AssertionError: the same container runs twice.
    """
    return asyncio.run(_running_containers(endpoint))


async def _running_containers(endpoint: str) -> dict[str, str]:
    channel = CriChannel(endpoint)
    try:
        listed = await GrpcRuntimeService(channel).list_containers()
    finally:
        await channel.close()
    found: dict[str, str] = {}
    for container in listed:
        if container.state is not ContainerState.RUNNING:
            continue
        labels = container.labels
        name = "/".join(
            labels[f"io.kubernetes.{part}"]
            for part in ("pod.namespace", "pod.name", "container.name")
        )
        assert name not in found, f"{name} runs twice: {found[name]}, {container.id}"
        found[name] = container.id
    return found
