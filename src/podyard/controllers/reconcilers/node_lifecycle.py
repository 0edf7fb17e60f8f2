"""Nodes that fall silent are marked, tainted, and in time emptied.

A node's agent renews its Lease; when it has not for a while, the node's conditions
become Unknown. Conditions become taints, and NoExecute taints drive Pods away as
their tolerations say.

Source: kubernetes ``pkg/controller/{nodelifecycle,tainteviction}`` (v1.36).
"""

import asyncio
from collections.abc import Hashable
from typing import Final, assert_never

import structlog

from podyard.api.core_v1 import format_time
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import LEASE, NODE, POD, Kind
from podyard.client.events import subject_of
from podyard.client.services import PatchType
from podyard.controllers.node_health import (
    EvictAfter,
    Stay,
    build_silent,
    condition,
    decide_eviction,
    decide_taints,
    is_ready,
)
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

log = structlog.get_logger()

#: A Lease that was not renewed for so many seconds is stale.
GRACE_S: Final = 40.0
#: A node that has never reported is given so many seconds.
STARTUP_GRACE_S: Final = 60.0
LEASE_NAMESPACE: Final = "kube-node-lease"


class NodeLifecycleController:
    """Watches over nodes.

    Ages are measured on the event loop's clock from when a renewal was heard of, so
    that neither another machine's clock nor a suspended machine counts.

    Args:
        context: what controllers are made with.
        grace_s: how long a node may be silent, seconds.
        startup_grace_s: how long before its first report, seconds.
    """

    def __init__(
        self,
        context: ControllerContext,
        *,
        grace_s: float = GRACE_S,
        startup_grace_s: float = STARTUP_GRACE_S,
    ) -> None:
        self._client = context.client
        self._caches = context.caches
        self._clock = context.clock
        self._grace_s = grace_s
        self._startup_grace_s = startup_grace_s
        self._node_events = context.recorder("node-controller")
        self._eviction_events = context.recorder("taint-eviction-controller")
        self._nodes: WorkQueue[str] = WorkQueue("node-lifecycle")
        self._pods: WorkQueue[tuple[str, str]] = WorkQueue("taint-eviction")
        self._heard_s: dict[str, float] = {}
        self._signs: dict[str, Hashable] = {}
        self._evicting: set[tuple[str, str]] = set()

    # ── what is heard ───────────────────────────────────────────────────────────

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a node, its Lease, or a Pod."""
        if kind is LEASE:
            if new is not None and new["metadata"].get("namespace") == LEASE_NAMESPACE:
                name = str(new["metadata"]["name"])
                self._hear(name, "lease", (new.get("spec") or {}).get("renewTime"))
        elif kind is NODE:
            self._on_node(old, new)
        elif new is not None:
            if _is_evictable(new):
                self._pods.add(_key(new))
        elif old is not None:
            self._evicting.discard(_key(old))

    def _on_node(self, old: Document | None, new: Document | None) -> None:
        if new is None:
            assert old is not None
            name = str(old["metadata"]["name"])
            self._heard_s.pop(name, None)
            self._signs = {
                key: sign
                for key, sign in self._signs.items()
                if not key.startswith(f"{name}/")
            }
            return
        name = str(new["metadata"]["name"])
        ready = condition(new, "Ready") or {}
        self._heard_s.setdefault(name, _loop_s())
        if ready.get("status") in {"True", "False"}:  # Unknown is what we write
            sign = (ready["status"], ready.get("lastHeartbeatTime"))
            self._hear(name, "status", sign)
        else:
            self._signs.pop(f"{name}/status", None)
        if old is None or _health(old) != _health(new):
            self._nodes.add(name)
        if old is None or _taints(old) != _taints(new):
            for pod in self._caches.items(POD):
                if (pod.get("spec") or {}).get("nodeName") == name:
                    self._pods.add(_key(pod))

    def _hear(self, name: str, source: str, sign: Hashable) -> None:
        """Take a sign of life, if it is a new one."""
        key = f"{name}/{source}"
        if sign is not None and self._signs.get(key) != sign:
            self._signs[key] = sign
            self._heard_s[name] = _loop_s()

    async def run(self) -> None:
        """Work for ever."""
        now_s = _loop_s()
        for node in self._caches.items(NODE):
            name = str(node["metadata"]["name"])
            self._heard_s[name] = now_s
            self._nodes.add(name)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.work(self._sync_node))
            group.create_task(self._pods.work(self._sync_pod, workers=4))

    # ── nodes ───────────────────────────────────────────────────────────────────

    async def _sync_node(self, name: str) -> float | None:
        node = self._caches.get(NODE, "", name)
        if node is None:
            return None
        ready = condition(node, "Ready")
        grace_s = self._grace_s if ready is not None else self._startup_grace_s
        left_s = self._heard_s.get(name, _loop_s()) + grace_s - _loop_s()
        if left_s <= 0:
            node = await self._mark_silent(node)
            left_s = grace_s
        taints = decide_taints(node, now=self._clock.now())
        if taints is not None:
            patch = {
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "spec": {"taints": taints or None},
            }
            await self._client.patch(NODE, name, patch)
            log.info("node_tainted", node=name, taints=[t["key"] for t in taints])
        return left_s + 0.01

    async def _mark_silent(self, node: Document) -> Document:
        """Say of every condition that nobody vouches for it any more."""
        name = str(node["metadata"]["name"])
        conditions = build_silent(node, now=self._clock.now())
        if not conditions:
            return node
        was_ready = is_ready(node)
        log.warning("node_silent", node=name, grace_s=self._grace_s)
        node = await self._client.patch(
            NODE,
            name,
            {"status": {"conditions": conditions}},
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )
        if was_ready:
            message = f"Node {name} status is now: NodeNotReady"
            self._node_events.record(
                subject_of(node), "Normal", "NodeNotReady", message
            )
            await self._mark_pods(name)
        return node

    async def _mark_pods(self, node_name: str) -> None:
        """Say of each Pod of a silent node that it is not ready."""
        for pod in self._caches.items(POD):
            if (pod.get("spec") or {}).get("nodeName") != node_name:
                continue
            present = condition(pod, "Ready")
            if present is None or present.get("status") != "True":
                continue
            now = format_time(self._clock.now())
            changed = {**present, "status": "False", "lastTransitionTime": now}
            namespace, name = _key(pod)
            try:
                await self._client.patch(
                    POD,
                    name,
                    {"status": {"conditions": [changed]}},
                    namespace,
                    patch_type=PatchType.STRATEGIC,
                    subresource="status",
                )
            except ApiError as error:
                if error.code not in {404, 409}:
                    raise
            self._node_events.record(
                subject_of(pod), "Warning", "NodeNotReady", "Node is not ready"
            )

    # ── Pods ────────────────────────────────────────────────────────────────────

    async def _sync_pod(self, key: tuple[str, str]) -> float | None:
        pod = self._caches.get(POD, *key)
        if pod is None or not _is_evictable(pod):
            self._evicting.discard(key)
            return None
        node = self._caches.get(NODE, "", pod["spec"]["nodeName"])
        if node is None:
            return None
        match decide_eviction(pod, node, now=self._clock.now()):
            case Stay():
                if key in self._evicting:
                    self._evicting.discard(key)
                    self._say(pod, f"Cancelling deletion of Pod {'/'.join(key)}")
                return None
            case EvictAfter(delay_s) if delay_s > 0:
                self._evicting.add(key)
                return delay_s
            case EvictAfter():
                await self._evict(pod)
                return None
            case unknown:
                assert_never(unknown)

    async def _evict(self, pod: Document) -> None:
        namespace, name = _key(pod)
        uid = pod["metadata"]["uid"]
        self._evicting.discard((namespace, name))
        self._say(pod, f"Marking for deletion Pod {namespace}/{name}")
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": format_time(self._clock.now()),
        }
        try:
            await self._client.patch(
                POD,
                name,
                {"metadata": {"uid": uid}, "status": {"conditions": [disruption]}},
                namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
            await self._client.delete(POD, name, namespace, uid=uid)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise

    def _say(self, pod: Document, message: str) -> None:
        self._eviction_events.record(
            subject_of(pod), "Normal", "TaintManagerEviction", message
        )


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


def _is_evictable(pod: Document) -> bool:
    bound = (pod.get("spec") or {}).get("nodeName")
    return bool(bound) and not pod["metadata"].get("deletionTimestamp")


def _taints(node: Document) -> object:
    return (node.get("spec") or {}).get("taints") or []


def _health(node: Document) -> object:
    """Return what of a Node its taints depend on."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    spec = node.get("spec") or {}
    states = [(entry.get("type"), entry.get("status")) for entry in conditions]
    return states, spec.get("taints"), spec.get("unschedulable")


def _key(pod: Document) -> tuple[str, str]:
    return str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return NodeLifecycleController(context)


PART: Final = Controller(name="node-lifecycle", watches=(LEASE, NODE, POD), make=make)
