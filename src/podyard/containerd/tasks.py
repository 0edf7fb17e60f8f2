"""Tasks, containerd's word for the processes of a container: ended without CRI."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.proto import podyard_containerd_pb2 as pb

_TASKS: Final = "/containerd.services.tasks.v1.Tasks/"
_ENDS_WITHIN_S: Final = 10.0


async def end_task(socket: str, container_id: str) -> None:
    """Kill what runs in a container and forget that it did; the container stays.

    Raises:
        ContainerdError: containerd does not answer, or it does not end.
    """
    kill = pb.KillTaskRequest(
        container_id=container_id, signal=signal.SIGKILL, all=True
    )
    wait = pb.WaitTaskRequest(container_id=container_id)
    delete = pb.DeleteTaskRequest(container_id=container_id)
    async with ContainerdClient(socket) as client:
        # CRI hears of the end, too, and may be quicker.
        with _unless_gone():
            await client.call(_TASKS + "Kill", kill, pb.Empty)
        with _unless_gone():
            await client.call(
                _TASKS + "Wait", wait, pb.WaitTaskResponse, timeout_s=_ENDS_WITHIN_S
            )
        with _unless_gone():
            await client.call(_TASKS + "Delete", delete, pb.DeleteTaskResponse)


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except ContainerdError as error:
        if error.code != "NOT_FOUND":
            raise
