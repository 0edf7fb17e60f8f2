"""containerd's own event stream, for runtimes whose CRI has none (1.6).

Subscribed are the topics that change what CRI would report of a container or
sandbox. An exit is told by ``/tasks/delete``, not ``/tasks/exit``: CRI notes the exit
when it deletes the task, so only then is there something new to see.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from podyard.api.observed import ContainerEvent, ContainerEventType
from podyard.api.runtime import Label
from podyard.containerd.build import NAMESPACE
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.proto import podyard_containerd_pb2 as pb

_SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"
_CONTAINERS: Final = "/containerd.services.containers.v1.Containers/"
_TOPICS: Final = (
    "/containers/create",
    "/containers/delete",
    "/tasks/start",
    "/tasks/delete",
)


class ContainerdEvents:
    """Events of CRI containers and sandboxes, by their ids.

    Which Pod an id belongs to is read from containerd's labels, where CRI puts it,
    and remembered until the container is deleted.

    Attributes:
        socket: containerd's address.
    """

    def __init__(self, socket: str) -> None:
        """Subscribe at the containerd of ``socket``, once iterated."""
        self.socket = socket
        self._pod_uids: dict[str, str] = {}

    async def stream(self) -> AsyncGenerator[ContainerEvent, None]:
        """Iterate over events, beginning now, until the connection breaks.

        Raises:
            ContainerdError: the connection broke, or there was none.
        """
        async with ContainerdClient(self.socket) as client:
            await self._learn(client)
            request = pb.SubscribeRequest(
                filters=[
                    # A bare slash would open a quotation in containerd's filters.
                    f'namespace=={NAMESPACE},topic=="{topic}"'
                    for topic in _TOPICS
                ]
            )
            envelopes = client.stream(_SUBSCRIBE, request, pb.Envelope)
            async with aclosing(envelopes):
                async for envelope in envelopes:
                    event = await self._event(client, envelope)
                    if event is not None:
                        yield event

    async def _learn(self, client: ContainerdClient) -> None:
        self._pod_uids = await _list(client)

    async def _event(
        self, client: ContainerdClient, envelope: pb.Envelope
    ) -> ContainerEvent | None:
        body = envelope.event.value
        match envelope.topic:
            case "/containers/create":
                container_id = pb.ContainerEvent.FromString(body).id
                kind = ContainerEventType.CREATED
            case "/containers/delete":
                container_id = pb.ContainerEvent.FromString(body).id
                kind = ContainerEventType.DELETED
            case "/tasks/start":
                container_id = pb.TaskStart.FromString(body).container_id
                kind = ContainerEventType.STARTED
            case "/tasks/delete":
                task = pb.TaskDelete.FromString(body)
                if task.id not in {"", task.container_id}:
                    return None  # an exec ended, the container did not
                container_id = task.container_id
                kind = ContainerEventType.STOPPED
            case _:
                return None
        if container_id not in self._pod_uids:
            self._pod_uids[container_id] = await self._pod_uid(client, container_id)
        uid = self._pod_uids[container_id]
        if kind is ContainerEventType.DELETED:
            del self._pod_uids[container_id]
        return ContainerEvent(kind, container_id, uid)

    async def _pod_uid(self, client: ContainerdClient, container_id: str) -> str:
        request = pb.GetContainerRequest(id=container_id)
        try:
            reply = await client.call(
                _CONTAINERS + "Get", request, pb.GetContainerResponse, timeout_s=10
            )
        except ContainerdError as error:
            if error.code == "NOT_FOUND":
                return ""
            raise
        return reply.container.labels.get(Label.POD_UID, "")


async def list_container_ids(socket: str) -> frozenset[str]:
    """Return the ids of the containers and sandboxes that containerd knows.

    Raises:
        ContainerdError: containerd does not answer.
    """
    async with ContainerdClient(socket) as client:
        return frozenset(await _list(client))


async def _list(client: ContainerdClient) -> dict[str, str]:
    """Return container id → Pod UID."""
    reply = await client.call(
        _CONTAINERS + "List", pb.ListContainersRequest(), pb.ListContainersResponse
    )
    return {item.id: item.labels.get(Label.POD_UID, "") for item in reply.containers}
