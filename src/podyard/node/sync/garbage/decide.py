"""Which containers and sandboxes are garbage.

Source: Kubernetes docs "Garbage Collection" (containers) and
``pkg/kubelet/kuberuntime`` (v1.36).
"""

from collections import defaultdict
from collections.abc import Callable

from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    PodSandbox,
    SandboxState,
)
from podyard.api.restart import newest_first
from podyard.api.runtime import Label
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go.

    Attributes:
        containers: dead instances beyond the newest of their name.
        sandboxes: old, empty ones of Pods that live on.
        orphans: Pods of the runtime that no source knows.
    """

    containers: tuple[ContainerStatus, ...] = ()
    sandboxes: tuple[PodSandbox, ...] = ()
    orphans: tuple[str, ...] = ()


def decide_garbage(
    sandboxes: tuple[PodSandbox, ...],
    containers: tuple[ContainerStatus, ...],
    *,
    known: Callable[[str], bool],
    sources_ready: bool,
) -> Garbage:
    """Return what may be removed.

    One dead instance of each container is kept, for its log and its exit. Nothing
    counts as orphaned before every source has told of all it has.

    Args:
        sandboxes: all of the node.
        containers: all of the node.
        known: whether some source wants this Pod, or a worker still sees to it.
        sources_ready: whether all sources have reported once.
    """
    by_name: dict[tuple[str, str], list[ContainerStatus]] = defaultdict(list)
    uids: set[str] = set()
    for container in containers:
        uids.add(container.pod_uid)
        by_name[container.pod_uid, container.name].append(container)
    for sandbox in sandboxes:
        uids.add(_uid(sandbox))
    orphans = {u for u in uids if u and not known(u)} if sources_ready else set()
    dead: list[ContainerStatus] = []
    for (uid, _), instances in by_name.items():
        if known(uid):
            dead.extend(_dead_beyond_newest(instances))
    removed = {c.id for c in dead}
    in_use = {c.sandbox_id for c in containers if c.id not in removed}
    old = [
        sandbox
        for sandbox in sandboxes
        if known(_uid(sandbox))
        and sandbox.state is SandboxState.NOT_READY
        and sandbox.id not in in_use
        and not _is_newest(sandbox, sandboxes)
    ]
    return Garbage(tuple(dead), tuple(old), tuple(sorted(orphans)))


def _uid(sandbox: PodSandbox) -> str:
    return sandbox.labels.get(Label.POD_UID, sandbox.uid)


def _dead_beyond_newest(instances: list[ContainerStatus]) -> list[ContainerStatus]:
    ordered = newest_first(instances)
    exited = [c for c in ordered if c.state is ContainerState.EXITED]
    # One that was created and never started is of no use once there is a newer one.
    stillborn = [c for c in ordered[1:] if c.state is ContainerState.CREATED]
    return exited[1:] + stillborn


def _is_newest(sandbox: PodSandbox, sandboxes: tuple[PodSandbox, ...]) -> bool:
    mine = [s for s in sandboxes if _uid(s) == _uid(sandbox)]
    return max(mine, key=lambda s: (s.created_at, s.attempt)).id == sandbox.id
