"""Pods nobody looks after any more are removed.

Those of a node that is gone, those that were to be deleted before they had a node,
and the oldest finished ones when there are very many.

Source: kubernetes ``pkg/controller/podgc`` (v1.36).
"""

from typing import Final

import structlog

from podyard.api.core_v1 import format_time
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import NODE, POD, Kind
from podyard.client.services import PatchType
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

log = structlog.get_logger()

#: So many finished Pods are kept.
FINISHED_KEPT: Final = 12_500
#: A node has to be absent for so many seconds before its Pods are removed.
QUARANTINE_S: Final = 40.0
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
#: The key that stands for "are there too many finished Pods?".
_ALL: Final = ("", "")


class PodGarbageCollector:
    """Removes Pods nobody looks after.

    Args:
        context: what controllers are made with.
        finished_kept: how many finished Pods are kept.
        quarantine_s: how long a node has to be absent, seconds.
    """

    def __init__(
        self,
        context: ControllerContext,
        *,
        finished_kept: int = FINISHED_KEPT,
        quarantine_s: float = QUARANTINE_S,
    ) -> None:
        self._client = context.client
        self._caches = context.caches
        self._clock = context.clock
        self._finished_kept = finished_kept
        self._quarantine_s = quarantine_s
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("pod-gc")
        self._finished: set[str] = set()
        self._started = False
        self._quarantined: set[tuple[str, str]] = set()

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Pod, or of a node that is gone."""
        if kind is NODE:
            if new is None and old is not None:
                self._quarantine_pods(str(old["metadata"]["name"]))
            return
        if new is None:
            assert old is not None
            self._finished.discard(str(old["metadata"]["uid"]))
            self._quarantined.discard(_key(old))
            return
        if (new.get("status") or {}).get("phase") in _FINISHED:
            self._finished.add(str(new["metadata"]["uid"]))
            if len(self._finished) > self._finished_kept:
                self._queue.add(_ALL)
        if self._started:
            self._look(new)

    def _look(self, pod: Document) -> None:
        node_name = (pod.get("spec") or {}).get("nodeName")
        if not node_name:
            if pod["metadata"].get("deletionTimestamp"):
                self._queue.add(_key(pod))
        elif self._caches.get(NODE, "", node_name) is None:
            self._quarantine(pod)

    def _quarantine_pods(self, node_name: str) -> None:
        for pod in self._caches.items(POD):
            if (pod.get("spec") or {}).get("nodeName") == node_name:
                self._quarantine(pod)

    def _quarantine(self, pod: Document) -> None:
        key = _key(pod)
        if key not in self._quarantined:
            self._quarantined.add(key)
            self._queue.add_after(key, self._quarantine_s)

    async def run(self) -> None:
        """Work for ever."""
        self._started = True
        self._quarantined.clear()
        for pod in self._caches.items(POD):
            self._look(pod)
        await self._queue.work(self._sync)

    async def _sync(self, key: tuple[str, str]) -> float | None:
        if key == _ALL:
            await self._remove_oldest()
            return None
        self._quarantined.discard(key)
        pod = self._caches.get(POD, *key)
        if pod is None:
            return None
        node_name = (pod.get("spec") or {}).get("nodeName")
        if not node_name:
            if pod["metadata"].get("deletionTimestamp"):
                await self._remove(pod, why="was deleted before it had a node")
        elif await self._is_node_absent(node_name):
            await self._remove(pod, why="its node no longer exists", disrupted=True)
        return None

    async def _is_node_absent(self, name: str) -> bool:
        if self._caches.get(NODE, "", name) is not None:
            return False
        try:
            await self._client.get(NODE, name)
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        return False

    async def _remove_oldest(self) -> None:
        finished = [
            pod
            for pod in self._caches.items(POD)
            if (pod.get("status") or {}).get("phase") in _FINISHED
            and not pod["metadata"].get("deletionTimestamp")
        ]
        finished.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        for pod in finished[: max(len(finished) - self._finished_kept, 0)]:
            await self._remove(pod, why="too many Pods have finished")

    async def _remove(
        self, pod: Document, *, why: str, disrupted: bool = False
    ) -> None:
        metadata = pod["metadata"]
        namespace, name = _key(pod)
        log.info("pod_removed", pod=f"{namespace}/{name}", uid=metadata["uid"], why=why)
        try:
            if (pod.get("status") or {}).get("phase") not in _FINISHED:
                await self._client.patch(
                    POD,
                    name,
                    self._failure(pod, disrupted=disrupted),
                    namespace,
                    patch_type=PatchType.STRATEGIC,
                    subresource="status",
                )
            await self._client.delete(
                POD, name, namespace, grace_period_s=0, uid=metadata["uid"]
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise

    def _failure(self, pod: Document, *, disrupted: bool) -> Document:
        status: Document = {"phase": "Failed"}
        if disrupted:
            status["conditions"] = [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                    "lastTransitionTime": format_time(self._clock.now()),
                }
            ]
        return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}


def _key(pod: Document) -> tuple[str, str]:
    return str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return PodGarbageCollector(context)


PART: Final = Controller(name="pod-gc", watches=(NODE, POD), make=make)
