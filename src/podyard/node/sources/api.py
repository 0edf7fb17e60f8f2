"""Pods that the API assigned to this node."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.scheme import POD
from podyard.client.informer import Informer
from podyard.client.services import ApiClient
from podyard.node.sources.parts import PodSink

log = structlog.get_logger()

NAME: Final = "api"


class ApiSource:
    """Follows the Pods whose ``spec.nodeName`` is this node.

    Args:
        client: the API.
        node_name: this node.
        sink: who takes them.
        ready: awaited before the first Pod is told of: what Pods of the API need
            (Services, RuntimeClasses) has been heard of then.
    """

    def __init__(
        self,
        client: ApiClient,
        node_name: str,
        sink: PodSink,
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._sink = sink
        self._ready = ready
        self._informer = Informer(
            client,
            POD,
            on_change=self._take,
            field_selector=f"spec.nodeName={node_name}",
        )

    async def run(self) -> None:
        """Follow for ever."""
        await self._ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="pods-informer")
            await self._informer.wait_synced()
            self._sink.source_ready(NAME)

    def _take(self, old: Document | None, new: Document | None) -> None:
        document = new or old
        if document is None:
            return
        try:
            pod = Pod.of({"apiVersion": "v1", "kind": "Pod", **document})
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            # One Pod nobody can read must not keep the others from being run.
            log.exception("pod_unreadable", error=str(error))
            return
        if new is None:
            self._sink.drop_pod(NAME, pod)
        else:
            self._sink.take_pod(NAME, pod)
