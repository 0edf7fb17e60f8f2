"""Volumes of Pods: made ready, kept up to date, taken down.

What is mounted is told by the disk and the kernel, so that a restart of the agent
loses nothing; memory only spares work that is done already.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from podyard.api.core_v1 import Container, Pod, Volume, VolumeMount
from podyard.api.documents import Document
from podyard.api.expansion import expand_strictly
from podyard.api.runtime import EnvVar, Mount, MountPropagation
from podyard.api.scheme import Kind
from podyard.client.referenced import ReferencedObjectError
from podyard.lib.aio import finish
from podyard.lib.clock import Clock
from podyard.lib.parts import load_parts
from podyard.lib.values import dataclass
from podyard.node.volumes import plugins as plugins_package
from podyard.node.volumes.mounts import (
    check_propagation,
    prepare_sub_path,
    take_down,
)
from podyard.node.volumes.parts import (
    MountedVolume,
    SetUpError,
    VolumeContext,
    VolumeError,
    VolumeMounter,
    VolumePlugin,
    VolumeServices,
)

log = structlog.get_logger()

_EMPTY_DIR: Final = "kubernetes.io/empty-dir"
_VOLUMES: Final = "volumes"
_SUB_PATHS: Final = "volume-subpaths"
_UID: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,252}")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
#: Work on disk that was begun is ended, even while being cancelled; seconds.
_DISK_WITHIN_S: Final = 120.0
#: How long until a volume that could not be refreshed is tried again, seconds.
_RETRY_S: Final = 15.0
_PROPAGATIONS: Final = {
    "": MountPropagation.PRIVATE,
    "None": MountPropagation.PRIVATE,
    "HostToContainer": MountPropagation.HOST_TO_CONTAINER,
    "Bidirectional": MountPropagation.BIDIRECTIONAL,
}


class Events(Protocol):
    """Kubernetes Events; never waits, never fails."""

    def event(
        self,
        document: Document,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Tell users something about an object."""


def load_volume_plugins() -> tuple[VolumePlugin, ...]:
    """Return the plugins that ship with us."""
    return load_parts(plugins_package, VolumePlugin)


@dataclass(slots=True)
class _Ready:
    fingerprint: bytes
    mounted: MountedVolume
    refresh_at_s: float | None


@dataclass(slots=True, eq=False)
class _Lock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


@dataclass(slots=True)
class _PodVolumes:
    pod: Pod
    ready: dict[str, _Ready] = field(default_factory=dict)

    @property
    def refresh_at_s(self) -> float | None:
        times = [r.refresh_at_s for r in self.ready.values() if r.refresh_at_s]
        return min(times, default=None)


class VolumeManager:
    """Makes volumes ready and takes them down.

    Args:
        pods_dir: holds a directory for each Pod, named after its uid.
        services: what volumes are made of.
        events: hears of refreshes that failed.
        clock: tells when tokens must be renewed.
        plugins: the kinds of volumes; ours by default.
        recursive_read_only: whether a Pod's handler can make mounts read-only all
            the way.
    """

    def __init__(
        self,
        pods_dir: Path,
        services: VolumeServices,
        events: Events,
        clock: Clock,
        *,
        plugins: Sequence[VolumePlugin] | None = None,
        recursive_read_only: Callable[[Pod], bool] = lambda _pod: False,
    ) -> None:
        self._pods_dir = pods_dir.resolve()
        self._services = services
        self._events = events
        self._clock = clock
        self._plugins = load_volume_plugins() if plugins is None else tuple(plugins)
        self._recursive_read_only = recursive_read_only
        self._pods: dict[str, _PodVolumes] = {}
        self._locks: dict[str, _Lock] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        services.objects.on_change(self._object_changed)

    async def mount_pod(self, pod: Pod) -> Mapping[str, MountedVolume]:
        """Make every volume of the Pod ready, idempotently; refresh live content.

        Raises:
            VolumeError: one cannot be had now. A volume that was ready before stays
                as it was, with an event, and raises nothing.
        """
        async with self._exclusive(pod.uid):
            return await self._mount(pod)

    async def unmount_pod(self, uid: str) -> None:
        """Take all volumes of a Pod down; one that is gone is down already.

        Raises:
            VolumeError: one cannot be taken down now.
        """
        async with self._exclusive(uid):
            self._pods.pop(uid, None)
            self._services.tokens.forget(uid)
            names = (_SUB_PATHS, _VOLUMES)
            work = asyncio.to_thread(take_down, self._pod_dir(uid), names)
            try:
                await finish(work, within_s=_DISK_WITHIN_S)
            except OSError as error:
                raise VolumeError(
                    f"UnmountVolume.TearDown failed: {error}", reason="FailedUnMount"
                ) from error

    def known_uids(self) -> frozenset[str]:
        """Return the Pods that have any volume on disk or mounted."""
        try:
            listed = [entry for entry in self._pods_dir.iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return frozenset()
        return frozenset(
            entry.name
            for entry in listed
            if (entry / _VOLUMES).is_dir() or (entry / _SUB_PATHS).is_dir()
        )

    def empty_dir(self, uid: str, volume: str) -> Path:
        """Return where a Pod's emptyDir is."""
        return self._volume_dir(uid, _EMPTY_DIR, volume)

    async def build_mounts(
        self,
        pod: Pod,
        container: Container,
        volumes: Mapping[str, MountedVolume],
        env: Sequence[EnvVar],
        pod_ips: tuple[str, ...],  # noqa: ARG002 - part of the door; needed by none
        *,
        extra: tuple[Mount, ...] = (),
    ) -> tuple[Mount, ...]:
        """Return the container's mounts in spec order, ``extra`` after them.

        Raises:
            VolumeError: a mount cannot be made; CreateContainerConfigError.
        """
        mounts = [
            await self._build_mount(pod, container, index, volumes, env)
            for index in range(len(container.volume_mounts))
        ]
        return (*mounts, *extra)

    async def run(self) -> None:
        """Refresh volumes when their sources change or tokens grow old, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wait_for_work()
                for uid in self._due():
                    group.create_task(self._refresh(uid), name=f"volumes {uid}")

    @asynccontextmanager
    async def _exclusive(self, uid: str) -> AsyncGenerator[None, None]:
        """Work on one Pod's volumes alone; locks nobody wants are forgotten."""
        held = self._locks.setdefault(uid, _Lock())
        held.users += 1
        try:
            async with held.lock:
                yield
        finally:
            held.users -= 1
            if not held.users:
                del self._locks[uid]

    def _pod_dir(self, uid: str) -> Path:
        if not _UID.fullmatch(uid):
            raise VolumeError(f"{uid!r} is no Pod uid")
        return self._pods_dir / uid

    def _volume_dir(self, uid: str, plugin: str, volume: str) -> Path:
        if not _NAME.fullmatch(volume):
            raise VolumeError(f"{volume!r} is no volume name")
        return self._pod_dir(uid) / _VOLUMES / plugin.replace("/", "~") / volume

    async def _mount(self, pod: Pod) -> Mapping[str, MountedVolume]:
        state = self._pods.get(pod.uid)
        if state is None:
            state = self._pods[pod.uid] = _PodVolumes(pod)
        state.pod = pod
        faults: dict[str, str] = {}
        waiting: list[tuple[str, VolumeMounter, bytes]] = []
        for volume in pod.spec.volumes:
            mounter = self._mounter(pod, volume)
            try:
                print_ = await mounter.prepare()
            except (SetUpError, ReferencedObjectError) as error:
                await self._note_fault(state, volume.name, mounter, error, faults)
                continue
            ready = state.ready.get(volume.name)
            if ready is not None and ready.fingerprint == print_:
                ready.refresh_at_s = mounter.refresh_at_s
            else:
                waiting.append((volume.name, mounter, print_))
        if waiting:
            work = asyncio.to_thread(_set_up, waiting)
            faults.update(await finish(work, within_s=_DISK_WITHIN_S))
        for name, mounter, print_ in waiting:
            if name not in faults:
                state.ready[name] = _Ready(
                    print_, mounter.mounted(), mounter.refresh_at_s
                )
        self._wake.set()
        if faults:
            first, *others = (_failed(name, why) for name, why in faults.items())
            for message in others:
                self._events.event(pod.document, "Warning", "FailedMount", message)
            raise VolumeError(first)
        return {name: ready.mounted for name, ready in state.ready.items()}

    def _mounter(self, pod: Pod, volume: Volume) -> VolumeMounter:
        for plugin in self._plugins:
            if plugin.claims(volume):
                path = self._volume_dir(pod.uid, plugin.name, volume.name)
                context = VolumeContext(pod, volume, path, self._services)
                return plugin.make(context)
        raise VolumeError(
            _failed(volume.name, f"no volume plugin matched: {volume.source}")
        )

    async def _note_fault(
        self,
        state: _PodVolumes,
        name: str,
        mounter: VolumeMounter,
        error: SetUpError | ReferencedObjectError,
        faults: dict[str, str],
    ) -> None:
        """Take down a fault; a volume that was ready goes on as it was."""
        ready = state.ready.get(name)
        if ready is None and await asyncio.to_thread(mounter.is_set_up):
            ready = state.ready[name] = _Ready(b"", mounter.mounted(), None)
        if ready is None:
            faults[name] = error.message
            return
        ready.refresh_at_s = self._clock.monotonic_s() + _RETRY_S
        message = _failed(name, error.message)
        self._events.event(state.pod.document, "Warning", "FailedMount", message)

    def _object_changed(self, kind: Kind, namespace: str, name: str) -> None:
        uids = self._services.objects.pods_of(kind, namespace, name)
        self._changed.update(uid for uid in uids if uid in self._pods)
        if self._changed:
            self._wake.set()

    async def _wait_for_work(self) -> None:
        while not self._changed:
            self._wake.clear()
            times = [p.refresh_at_s for p in self._pods.values() if p.refresh_at_s]
            first_s = min(times, default=None)
            now_s = self._clock.monotonic_s()
            if first_s is not None and first_s <= now_s:
                return
            try:
                async with asyncio.timeout(
                    None if first_s is None else first_s - now_s
                ):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _due(self) -> set[str]:
        now_s = self._clock.monotonic_s()
        due, self._changed = self._changed, set()
        for uid, state in self._pods.items():
            if state.refresh_at_s is None or state.refresh_at_s > now_s:
                continue
            due.add(uid)
            for ready in state.ready.values():  # not again before this try is over
                if ready.refresh_at_s and ready.refresh_at_s <= now_s:
                    ready.refresh_at_s = now_s + _RETRY_S
        return due

    async def _refresh(self, uid: str) -> None:
        async with self._exclusive(uid):
            state = self._pods.get(uid)
            if state is None:
                return
            try:
                await self._mount(state.pod)
            except VolumeError as error:
                self._events.event(
                    state.pod.document, "Warning", error.reason, error.message
                )
            except Exception:
                log.exception("volume_refresh_crashed", pod=state.pod.full_name)

    async def _build_mount(
        self,
        pod: Pod,
        container: Container,
        index: int,
        volumes: Mapping[str, MountedVolume],
        env: Sequence[EnvVar],
    ) -> Mount:
        wanted = container.volume_mounts[index]
        mounted = volumes.get(wanted.name)
        if mounted is None:
            raise VolumeError(
                f'cannot find volume "{wanted.name}" to mount into container '
                f'"{container.name}"'
            )
        propagation = _propagation(wanted)
        read_only = wanted.read_only or mounted.read_only
        recursive = self._recursive(pod, wanted)
        path = wanted.mount_path
        container_path = path if path.startswith("/") else f"/{path}"
        sub_path = _sub_path(wanted, env)
        if mounted.image:
            return Mount(
                container_path,
                readonly=True,
                image=mounted.image,
                image_sub_path=sub_path,
            )
        host_path = mounted.host_path
        if sub_path:
            names = (wanted.name, container.name, str(index))
            target = self._pod_dir(pod.uid).joinpath(_SUB_PATHS, *names)
            await self._bind_sub_path(host_path, sub_path, target, wanted, container)
            host_path = str(target)
        if propagation is not MountPropagation.PRIVATE:
            try:
                await asyncio.to_thread(
                    check_propagation, wanted.name, host_path, propagation
                )
            except SetUpError as error:
                raise VolumeError(error.message) from error
        return Mount(
            container_path,
            host_path,
            readonly=read_only,
            recursive_read_only=recursive,
            selinux_relabel=mounted.selinux_relabel,
            propagation=propagation,
        )

    def _recursive(self, pod: Pod, wanted: VolumeMount) -> bool:
        if wanted.recursive_read_only in {"", "Disabled"} or not wanted.read_only:
            return False
        if self._recursive_read_only(pod):
            return True
        if wanted.recursive_read_only == "IfPossible":
            return False
        raise VolumeError(
            f'volume "{wanted.name}" requested recursive read-only mode, but it is '
            "not supported by the runtime"
        )

    async def _bind_sub_path(
        self,
        root: str,
        sub_path: str,
        target: Path,
        wanted: VolumeMount,
        container: Container,
    ) -> None:
        work = asyncio.to_thread(prepare_sub_path, root, sub_path, target)
        try:
            await finish(work, within_s=_DISK_WITHIN_S)
        except OSError as error:
            # What exactly was found is the node's business, not the Pod's.
            log.warning(
                "subpath_refused",
                container=container.name,
                volume=wanted.name,
                error=str(error),
            )
            raise VolumeError(
                f'failed to prepare subPath for volumeMount "{wanted.name}" of '
                f'container "{container.name}"'
            ) from error


def _failed(volume: str, why: str) -> str:
    return f'MountVolume.SetUp failed for volume "{volume}" : {why}'


def _set_up(waiting: Sequence[tuple[str, VolumeMounter, bytes]]) -> dict[str, str]:
    """Set volumes up in order; return which ones failed and why."""
    faults: dict[str, str] = {}
    for name, mounter, _ in waiting:
        try:
            mounter.set_up()
        except SetUpError as error:
            faults[name] = error.message
        except OSError as error:
            faults[name] = str(error)
    return faults


def _propagation(wanted: VolumeMount) -> MountPropagation:
    found = _PROPAGATIONS.get(wanted.mount_propagation)
    if found is None:
        raise VolumeError(
            f'invalid MountPropagation mode: "{wanted.mount_propagation}"'
        )
    return found


def _sub_path(wanted: VolumeMount, env: Sequence[EnvVar]) -> str:
    """Return the subPath to use, expanded and checked; empty where there is none."""
    sub_path = wanted.sub_path
    if wanted.sub_path_expr:
        texts = {v.name: v.value.decode("utf-8", "surrogateescape") for v in env}
        sub_path, missing = expand_strictly(wanted.sub_path_expr, texts)
        if missing:
            raise VolumeError(f"missing value for {', '.join(missing)}")
    if sub_path.startswith("/"):
        raise VolumeError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise VolumeError(
            f"unable to provision SubPath `{sub_path}`: must not contain '..'"
        )
    if "\0" in sub_path:
        raise VolumeError(f"unable to provision SubPath {sub_path!r}: holds a NUL byte")
    return sub_path
