"""Takes garbage out: of the runtime, of the disk, of the cgroup tree."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from podyard.api.observed import ContainerStatus
from podyard.api.runtime import Label
from podyard.cri.services import CRIError, RuntimeService
from podyard.node.pleg.decide import Look
from podyard.node.sync.files import Blocking, PodFiles
from podyard.node.sync.garbage.decide import decide_garbage
from podyard.node.sync.observe import Observer
from podyard.node.sync.parts import PodCgroups, Volumes
from podyard.node.sync.stops import is_alive
from podyard.node.volumes.parts import VolumeError

log = structlog.get_logger()

#: What a container nobody knows gets between its stop signal and SIGKILL, seconds.
ORPHAN_GRACE_S: Final = 2


class GarbageCollector:
    """Removes what nobody wants.

    Args:
        runtime: the runtime.
        observer: told of what is removed.
        files: the Pods' files.
        volumes: the Pods' volumes.
        cgroups: the Pods' cgroups.
        known: whether a source or a worker still has this Pod.
        blocking: runs file work.
    """

    def __init__(
        self,
        runtime: RuntimeService,
        observer: Observer,
        files: PodFiles,
        *,
        volumes: Volumes,
        cgroups: PodCgroups,
        known: Callable[[str], bool],
        blocking: Blocking,
    ) -> None:
        self._runtime = runtime
        self._observer = observer
        self._files = files
        self._volumes = volumes
        self._cgroups = cgroups
        self._known = known
        self._blocking = blocking

    async def collect(self, look: Look, *, sources_ready: bool) -> None:
        """Remove what a look at the whole node shows to be garbage.

        What cannot be removed now is tried again the next time.
        """
        garbage = decide_garbage(
            look.sandboxes,
            look.containers,
            known=self._known,
            sources_ready=sources_ready,
        )
        for container in garbage.containers:
            await self._try(self._remove_container(container), container.id)
        for sandbox in garbage.sandboxes:
            await self._try(self._remove_sandbox(sandbox.id), sandbox.id)
        for uid in garbage.orphans:
            if not self._known(uid):
                log.info("orphan_found", uid=uid)
                await self._try(self._end_orphan(uid, look), uid)
        if sources_ready:
            await self._remove_files(look.uids)

    async def _try(self, work: Awaitable[None], what: str) -> None:
        try:
            await work
        except CRIError as error:
            log.warning("garbage_stays", what=what, error=error.message)

    async def _remove_container(self, container: ContainerStatus) -> None:
        await self._runtime.remove_container(container.id)
        self._observer.forget_containers([container.id])
        await self._blocking(self._remove_container_files, container)

    def _remove_container_files(self, container: ContainerStatus) -> None:
        labels, attempt = container.labels, container.restart_count
        self._files.remove_container(container.pod_uid, container.name, attempt)
        self._files.remove_log(
            labels.get(Label.POD_NAMESPACE, ""),
            labels.get(Label.POD_NAME, ""),
            container.pod_uid,
            container.name,
            attempt,
        )

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        await self._runtime.stop_pod_sandbox(sandbox_id)
        await self._runtime.remove_pod_sandbox(sandbox_id)

    async def _end_orphan(self, uid: str, look: Look) -> None:
        """End a Pod of the runtime that no source has: briefly, and without hooks."""
        containers = [c for c in look.containers if c.pod_uid == uid]
        for container in containers:
            if is_alive(container):
                await self._runtime.stop_container(container.id, grace_s=ORPHAN_GRACE_S)
        for container in containers:
            await self._runtime.remove_container(container.id)
        self._observer.forget_containers(c.id for c in containers)
        for sandbox in look.sandboxes:
            if look.uid_of(sandbox.id) == uid:
                await self._remove_sandbox(sandbox.id)

    async def _remove_files(self, in_runtime: Iterable[str]) -> None:
        """Remove volumes, cgroups, directories and logs of Pods that are gone."""
        on_disk = await self._blocking(self._files.known_uids)
        logged = await self._blocking(self._files.logged_uids)
        found = on_disk | logged | self._volumes.known_uids()
        found |= await self._cgroups.uids()
        present = frozenset(in_runtime)
        for uid in sorted(found):
            if self._known(uid) or uid in present:
                continue
            try:
                await self._volumes.unmount_pod(uid)
                await self._cgroups.remove(uid)
                await self._blocking(self._files.remove_pod, uid)
                await self._blocking(self._files.remove_logs, uid)
                log.info("pod_remains_removed", uid=uid)
            except (VolumeError, OSError) as error:
                log.warning("pod_remains_stay", uid=uid, error=str(error))
        await self._blocking(self._files.remove_dead_links)
