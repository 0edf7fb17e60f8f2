"""Mirror Pods: what the API shows of static Pods, made and removed here."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.errors import ApiError
from podyard.api.scheme import POD
from podyard.client.services import ApiClient, ApiUnreachableError
from podyard.lib.backoff import Backoff
from podyard.node.sources.build import build_mirror, mirrors

log = structlog.get_logger()

_RETRY: Final = Backoff(base_s=0.5, cap_s=30)


class MirrorPods:
    """Keeps one mirror for each static Pod, and none besides.

    Args:
        client: the API.
        node_name: this node.
        node_uid: returns the Node's uid, empty while it is not registered.
        static_pods: returns the static Pods that are to be seen.
        ready: returns whether both sources have told of all they have; before that
            no mirror is removed.
    """

    def __init__(
        self,
        client: ApiClient,
        node_name: str,
        node_uid: Callable[[], str],
        static_pods: Callable[[], tuple[Pod, ...]],
        ready: Callable[[], bool],
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._node_uid = node_uid
        self._static_pods = static_pods
        self._ready = ready
        self._shown: dict[tuple[str, str], Pod] = {}
        self._changed = asyncio.Event()

    def find(self, pod: Pod) -> Pod | None:
        """Return the mirror of a static Pod, or ``None``."""
        mirror = self._shown.get((pod.namespace, pod.name))
        if mirror is None or mirror.deleting or not mirrors(mirror, pod):
            return None
        return mirror

    def take(self, mirror: Pod) -> None:
        """Take a mirror as the API shows it."""
        self._shown[mirror.namespace, mirror.name] = mirror
        self._changed.set()

    def drop(self, mirror: Pod) -> None:
        """Let go of a mirror that the API no longer shows."""
        known = self._shown.get((mirror.namespace, mirror.name))
        if known is not None and known.uid == mirror.uid:
            del self._shown[mirror.namespace, mirror.name]
        self._changed.set()

    def look_again(self) -> None:
        """Compare anew: static Pods or the node have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Make and remove mirrors for ever."""
        delay_s = 0.0
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._settle()
            except (ApiError, ApiUnreachableError) as error:
                delay_s = _RETRY.after(delay_s)
                log.warning("mirror_failed", error=str(error))
                await asyncio.sleep(delay_s)
                self._changed.set()
            else:
                delay_s = 0.0

    async def _settle(self) -> None:
        if not self._ready() or not self._node_uid():
            return
        static = {(p.namespace, p.name): p for p in self._static_pods()}
        for key, mirror in list(self._shown.items()):
            pod = static.get(key)
            if pod is None or not mirrors(mirror, pod) or mirror.deleting:
                await self._delete(mirror)
        for key, pod in static.items():
            if key not in self._shown:
                await self._create(pod)

    async def _create(self, pod: Pod) -> None:
        document = build_mirror(
            pod, node_name=self._node_name, node_uid=self._node_uid()
        )
        try:
            stored = await self._client.create(POD, document, pod.namespace)
        except ApiError as error:
            if error.code == 409:
                return
            if error.code in {400, 403, 422}:
                log.warning("mirror_refused", pod=pod.full_name, error=error.message)
                return
            raise
        self._shown[pod.namespace, pod.name] = Pod.of(stored)

    async def _delete(self, mirror: Pod) -> None:
        try:
            await self._client.delete(
                POD, mirror.name, mirror.namespace, grace_period_s=0, uid=mirror.uid
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        self._shown.pop((mirror.namespace, mirror.name), None)
