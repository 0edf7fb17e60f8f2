"""A node's core in a test: real workers over the fake runtime, on fake time.

What stands outside the core (API, journal, volumes, images, hooks, probes) is as
plain as its Protocol allows and keeps what it was told.
"""

import asyncio
import itertools
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from podyard.api.core_v1 import Container, Pod, Volume, format_time
from podyard.api.documents import Document
from podyard.api.errors import not_found
from podyard.api.observed import ContainerState, ContainerStatus, ObservedPod
from podyard.api.patch import apply_strategic_merge_patch
from podyard.api.runtime import EnvVar, Mount, SandboxConfig
from podyard.client.services import ApiUnreachableError
from podyard.node.environment.build import DNSSettings
from podyard.node.hooks.parts import HookError
from podyard.node.images.parts import EnsuredImage, ImageError
from podyard.node.pleg.evented import EventedPleg
from podyard.node.probes.parts import ContainerVerdict, ProbeVerdicts
from podyard.node.resources.build import HostLimits
from podyard.node.runtime_classes.parts import RuntimeClassError
from podyard.node.status.decide import NodeView
from podyard.node.status.manager import StatusManager
from podyard.node.sync.act import ActParts, ActSettings, NodeNow, PodActor
from podyard.node.sync.build import BuildSettings
from podyard.node.sync.files import PodFiles
from podyard.node.sync.ledger import StopLedger
from podyard.node.sync.observe import Observer
from podyard.node.sync.pod import PodSync
from podyard.node.sync.terminate import StopTools
from podyard.node.sync.tools import PodTools
from podyard.node.volumes.parts import MountedVolume
from podyard.node.workers import PodWorkers
from podyard.store.node_journal import JournalRecord
from podyard.testing.fake_cri import FakeRuntime
from support.definitions import load_schemas

_T = TypeVar("_T")

#: The fake runtime's own beginning of time.
START = datetime(2026, 1, 1, tzinfo=UTC)


class LoopClock:
    """The loop's time, which tests move."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


async def inline(function: Callable[..., _T], /, *args: object) -> _T:
    """Run file work at once: fake time must not run past a thread."""
    return function(*args)


class MemoryJournal:
    """A journal that forgets with the process."""

    def __init__(self) -> None:
        self.records: dict[int, JournalRecord] = {}
        self._ids = itertools.count(1)

    async def open(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        number = next(self._ids)
        self.records[number] = JournalRecord(number, kind, pod_uid, body, at, None)
        return number

    async def close(self, record_id: int, *, at: datetime, result: Document) -> None:
        record = self.records[record_id]
        body = {**record.body, **result}
        self.records[record_id] = replace(record, body=body, closed_at=at)

    async def note(
        self, kind: str, pod_uid: str, body: Document, *, at: datetime
    ) -> int:
        number = await self.open(kind, pod_uid, body, at=at)
        await self.close(number, at=at, result={})
        return number

    async def list(
        self, pod_uid: str = "", *, kind: str = "", only_open: bool = False
    ) -> tuple[JournalRecord, ...]:
        return tuple(
            r
            for r in self.records.values()
            if (not pod_uid or r.pod_uid == pod_uid)
            and (not kind or r.kind == kind)
            and (not only_open or r.is_open)
        )

    async def prune(self, *, now: datetime) -> int:
        return 0


class PodApi:
    """The few calls about Pods that the core makes; every status is kept."""

    def __init__(self) -> None:
        self.pods: dict[str, Document] = {}
        self.history: list[Document] = []
        self.away = False
        self.tell: Callable[[str, Pod], None] = lambda kind, pod: None
        self._rev = itertools.count(1)

    def put(self, document: Document) -> Pod:
        document["metadata"]["resourceVersion"] = str(next(self._rev))
        self.pods[document["metadata"]["name"]] = document
        pod = Pod.of(document)
        self.tell("take", pod)
        return pod

    async def patch(
        self, kind: Any, name: str, patch: Any, namespace: str = "", **_: Any
    ) -> Document:
        await asyncio.sleep(0.002)
        if self.away:
            raise ApiUnreachableError("connection refused", server="https://test")
        if name not in self.pods:
            raise not_found("", "pods", name)
        merged = apply_strategic_merge_patch(
            self.pods[name], patch, load_schemas().patch_schema("v1", "Pod")
        )
        self.history.append(merged["status"])
        self.put(merged)
        return merged

    async def delete(
        self, kind: Any, name: str, namespace: str = "", **_: Any
    ) -> Document:
        if self.away:
            raise ApiUnreachableError("connection refused", server="https://test")
        if name not in self.pods:
            raise not_found("", "pods", name)
        gone = self.pods.pop(name)
        self.tell("drop", Pod.of(gone))
        return {}


class PlainVolumes:
    """Pods without volumes, but for images as volumes."""

    def __init__(self) -> None:
        self.mounted: set[str] = set()

    async def mount_pod(self, pod: Pod) -> Mapping[str, MountedVolume]:
        self.mounted.add(pod.uid)
        return {
            volume.name: MountedVolume(
                volume.name, "", read_only=True, image=volume.spec["reference"]
            )
            for volume in pod.spec.volumes
            if volume.source == "image"
        }

    async def unmount_pod(self, uid: str) -> None:
        self.mounted.discard(uid)

    def known_uids(self) -> frozenset[str]:
        return frozenset(self.mounted)

    async def build_mounts(
        self,
        pod: Pod,
        container: Container,
        volumes: Mapping[str, MountedVolume],
        env: Sequence[EnvVar],
        pod_ips: tuple[str, ...],
        *,
        extra: tuple[Mount, ...] = (),
    ) -> tuple[Mount, ...]:
        images = tuple(
            Mount(mount.mount_path, readonly=True, image=volumes[mount.name].image)
            for mount in container.volume_mounts
            if mount.name in volumes
        )
        return images + extra


class PlainEnvironment:
    """Containers without variables."""

    async def build(
        self, pod: Pod, container: Container, **_: Any
    ) -> tuple[EnvVar, ...]:
        return ()


class PlainImages:
    """Every image is there, but for those that are not."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self.missing: set[str] = set()
        self.look_in_s: float | None = None
        self.delay_s = 0.0

    async def ensure_image(
        self, pod: Pod, container: Container, sandbox: SandboxConfig, handler: str
    ) -> EnsuredImage:
        await asyncio.sleep(self.delay_s)
        if container.image in self.missing:
            raise ImageError(
                "ErrImagePull",
                f'image "{container.image}" not found',
                look_in_s=self.look_in_s,
            )
        image = await self._runtime.image_status(container.image)
        image = image or self._runtime.add_image(container.image)
        return EnsuredImage(image.id, image)

    async def ensure_volume_image(self, pod: Pod, volume: Volume) -> str:
        reference = volume.spec["reference"]
        if reference in self.missing:
            raise ImageError("ErrImagePull", f'image "{reference}" not found')
        return self._runtime.add_image(reference).id

    def progress_of(self, uid: str, image: str) -> str:
        return ""


class PlainCgroups:
    """A machine without cgroups."""

    def __init__(self) -> None:
        self.made: set[str] = set()

    async def ensure(self, pod: Pod) -> str:
        self.made.add(pod.uid)
        return f"/test/pod{pod.uid}"

    async def remove(self, uid: str) -> None:
        self.made.discard(uid)

    async def uids(self) -> frozenset[str]:
        return frozenset(self.made)


class GivenHandler:
    """The runtime handler a test gives; ``None``: the class does not exist."""

    def __init__(self) -> None:
        self.handler: str | None = ""

    def handler_for(self, pod: Pod) -> str:
        if self.handler is None:
            raise RuntimeClassError('runtimeclass.node.k8s.io "x" not found')
        return self.handler


class TimedHooks:
    """Hooks that take so long, or fail; an owed one is remembered."""

    def __init__(self) -> None:
        self.post_start_s = 0.0
        self.pre_stop_s = 0.0
        self.failing: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.owed: set[str] = set()

    async def expect_post_start(
        self, pod: Pod, container: Container, container_id: str
    ) -> None:
        self.owed.add(container_id)

    async def owed_post_starts(self, pod_uid: str) -> frozenset[str]:
        return frozenset(self.owed)

    async def settle(self, pod_uid: str, alive: AbstractSet[str]) -> None:
        self.owed &= alive

    async def settle_others(self, is_known: Callable[[str], bool]) -> None:
        pass

    async def post_start(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
    ) -> None:
        self.told.append(("PostStart", container.name))
        await asyncio.sleep(self.post_start_s)
        self.owed.discard(container_id)
        if container.name in self.failing:
            raise HookError("it said no")

    async def pre_stop(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ips: tuple[str, ...],
        *,
        deadline_at: datetime,
    ) -> None:
        self.told.append(("PreStop", container.name))
        await asyncio.sleep(self.pre_stop_s)
        if container.name in self.failing:
            raise HookError("it said no")


class ManualProbes:
    """Verdicts as a test gives them, by container id."""

    def __init__(self) -> None:
        self.given: dict[str, ContainerVerdict] = {}
        self.seen: dict[str, tuple[ObservedPod, frozenset[str]]] = {}
        self.started: frozenset[str] = frozenset()
        self._tell: Callable[[str], None] = lambda uid: None

    def add_pod(self, pod: Pod) -> None:
        pass

    def look(
        self,
        pod: Pod,
        observed: ObservedPod,
        pod_ips: tuple[str, ...],
        *,
        held: frozenset[str],
        terminating: bool,
        started: frozenset[str] = frozenset(),
    ) -> None:
        self.seen[pod.uid] = (observed, held)
        self.started = started

    def remove_pod(self, uid: str) -> None:
        self.seen.pop(uid, None)

    def verdicts(self, uid: str) -> ProbeVerdicts:
        return ProbeVerdicts(self.given)

    def on_change(self, tell: Callable[[str], None]) -> None:
        self._tell = tell


@dataclass
class KeptEvents:
    """Events as they were told: type, reason, message, fieldPath."""

    all: list[tuple[str, str, str, str]] = field(default_factory=list)

    def event(
        self,
        document: Document,
        event_type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        self.all.append((event_type, reason, message, field_path))

    def of(self, reason: str) -> list[str]:
        """Return the messages with that reason."""
        return [message for _, why, message, _ in self.all if why == reason]


class SmallNode:
    """Workers, status and events of one node; the agent's core without its loops."""

    def __init__(
        self,
        directory: Path,
        runtime: FakeRuntime | None = None,
        journal: MemoryJournal | None = None,
        hooks: TimedHooks | None = None,
        *,
        documented: bool = True,
    ) -> None:
        self.runtime = runtime or FakeRuntime()
        self.journal = journal or MemoryJournal()
        self.clock = LoopClock()
        self.api = PodApi()
        self.events = KeptEvents()
        self.hooks = hooks or TimedHooks()
        self.probes = ManualProbes()
        self.images = PlainImages(self.runtime)
        self.volumes = PlainVolumes()
        self.cgroups = PlainCgroups()
        self.classes = GivenHandler()
        self.documented = documented
        self.files = PodFiles(
            directory / "pods", directory / "logs", directory / "links"
        )
        self.network_error = ""
        self.status = StatusManager(self.api)  # type: ignore[arg-type]
        self.ledger = StopLedger(self.journal, self.clock)
        self.tools = self._build_tools()
        self.workers: PodWorkers

    def _build_tools(self) -> PodTools:
        actor = PodActor(
            ActParts(
                runtime=self.runtime,
                images=self.images,
                volumes=self.volumes,
                environment=PlainEnvironment(),
                cgroups=self.cgroups,
                runtime_classes=self.classes,
                hooks=self.hooks,
                events=self.events,
            ),
            self.files,
            ActSettings(
                BuildSettings("/seccomp"),
                DNSSettings(("10.96.0.10",)),
                HostLimits(1 << 30),
                fail_refused_handlers=self.documented,
            ),
            lambda: NodeNow(("10.0.0.1",), handlers=frozenset({"", "runc"})),
            inline,
        )
        return PodTools(
            observer=Observer(self.runtime, self.files, inline),
            actor=actor,
            stops=StopTools(
                self.runtime, self.hooks, self.events, self.ledger, self.clock
            ),
            status=self.status,
            probes=self.probes,
            volumes=self.volumes,
            cgroups=self.cgroups,
            files=self.files,
            blocking=inline,
            clock=self.clock,
            network_error=lambda: self.network_error,
            node_view=lambda: NodeView(("10.0.0.1",), "fake"),
            chance=lambda: 0.0,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SmallNode"]:
        """Run it while the body runs; what the API holds is taken at once."""
        stops = await self.ledger.load()
        async with asyncio.TaskGroup() as group:
            self.workers = PodWorkers(
                group,
                lambda pod, inner, wake: PodSync(
                    pod, self.tools, inner, wake, stops.pop(pod.uid, ())
                ),
                self.clock,
                lambda: 0.0,
            )
            self.api.tell = self._take
            for document in self.api.pods.values():
                self.workers.update(Pod.of(document))
            pleg = EventedPleg(
                self.runtime.container_events,
                lambda _: "",
                self.wake,
                lambda: None,
            )
            tasks = [
                group.create_task(self.status.run()),
                group.create_task(pleg.run()),
            ]
            try:
                yield self
            finally:
                self.api.tell = lambda kind, pod: None
                for task in tasks:
                    task.cancel()
                for task in asyncio.all_tasks():
                    if task.get_name().startswith("pod-"):
                        task.cancel()

    def wake(self, uid: str) -> None:
        self.workers.wake(uid)

    def _take(self, kind: str, pod: Pod) -> None:
        if kind == "take":
            self.workers.update(pod)
        else:
            self.workers.remove(pod.uid)

    # --- what a test does and sees ---

    def apply(self, document: Document) -> Pod:
        """Create or change a Pod."""
        return self.api.put(document)

    def delete(self, name: str, *, grace_s: int = 30) -> None:
        """Have the API begin a graceful deletion."""
        document = self.api.pods[name]
        until = self.clock.now() + timedelta(seconds=grace_s)
        metadata = {
            **document["metadata"],
            "deletionTimestamp": format_time(until),
            "deletionGracePeriodSeconds": grace_s,
        }
        metadata["generation"] = metadata.get("generation", 1) + 1
        self.api.put({**document, "metadata": metadata})

    def force_delete(self, name: str) -> None:
        """Have the API forget a Pod at once."""
        document = self.api.pods.pop(name)
        self.workers.remove(Pod.of(document).uid)

    def status_of(self, name: str) -> Document:
        """Return a Pod's status as the API has it."""
        status: Document = self.api.pods[name].get("status") or {}
        return status

    def state_of(self, name: str, container: str) -> Document:
        """Return a container's state as the API has it."""
        for key in (
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ):
            for status in self.status_of(name).get(key) or ():
                if status["name"] == container:
                    state: Document = status["state"]
                    return state
        return {}

    async def containers(self, name: str = "") -> list[ContainerStatus]:
        """Return the containers of the runtime, oldest first."""
        listed = await self.runtime.list_containers()
        full = [await self.runtime.container_status(c.id) for c in listed]
        return sorted(
            (c for c in full if not name or c.name == name), key=lambda c: c.created_at
        )

    async def running_names(self) -> list[str]:
        """Return the names of the containers that run."""
        return [
            c.name for c in await self.containers() if c.state is ContainerState.RUNNING
        ]

    async def phase_becomes(
        self, name: str, phase: str, *, within_s: float = 60
    ) -> Document:
        """Wait until the API shows that phase, and return the status."""
        await until(
            lambda: self._has_phase(name, phase), within_s, f"{name} to be {phase}"
        )
        return self.status_of(name)

    async def _has_phase(self, name: str, phase: str) -> bool:
        return name in self.api.pods and self.status_of(name).get("phase") == phase

    async def is_gone(self, name: str, *, within_s: float = 60) -> None:
        """Wait until a Pod is gone from the API, and from here."""

        async def gone() -> bool:
            return name not in self.api.pods and not list(self.workers)

        await until(gone, within_s, f"{name} to be gone")


async def until(
    ask: Callable[[], Awaitable[object]], within_s: float, what: str
) -> None:
    """Wait on fake time until something is true."""
    try:
        async with asyncio.timeout(within_s):
            while not await ask():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {within_s} s for {what}") from None


def pod_document(
    *containers: Document,
    name: str = "web",
    uid: str = "",
    init: Sequence[Document] = (),
    **spec: Any,
) -> Document:
    """Return a Pod as the API has it, with its defaults."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "generation": 1,
            "creationTimestamp": format_time(START),
        },
        "spec": {
            "containers": list(containers) or [container()],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "enableServiceLinks": True,
            "nodeName": "n1",
            **({"initContainers": list(init)} if init else {}),
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def container(name: str = "app", command: str = "", **more: Any) -> Document:
    """Return a container that runs a command of the fake runtime."""
    spec: Document = {"name": name, "image": "busybox:1", **more}
    if command:
        spec["command"] = ["sh", "-c", command]
    return spec
