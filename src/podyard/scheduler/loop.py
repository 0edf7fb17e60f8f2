"""The scheduler at work: informers → decision → binding.

A new Pod is decided on in the very turn in which it is heard of, and its binding
leaves in the next. A Pod that fits nowhere waits until something changes that could
help it: a node, or the end of another Pod. Where less important Pods are in its way
they are ended, and their room is kept for it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol, assert_never

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.quantity import QuantityError
from podyard.api.scheme import NAMESPACE, NODE, POD, POD_DISRUPTION_BUDGET
from podyard.client.event_correlation import EventSubject
from podyard.client.events import subject_of
from podyard.client.informer import Informer
from podyard.client.services import ApiClient, ApiUnreachableError, PatchType
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.scheduler.accounts import NodeAccounts, is_finished
from podyard.scheduler.build import (
    GATED,
    build_binding,
    build_failure,
    build_mark,
    build_nomination,
)
from podyard.scheduler.claims import Claims, ClaimsNotBoundError
from podyard.scheduler.decide import (
    Placement,
    Unschedulable,
    Verdict,
    decide_placement,
)
from podyard.scheduler.neighbours import minds_others
from podyard.scheduler.parts import NodeInfo, SchedulerPlugin
from podyard.scheduler.preemption.decide import (
    NoPreemption,
    Preemption,
    decide_preemption,
    describe_victim,
)

log = structlog.get_logger()

#: The scheduler Pods ask for by default, and the source of its Events.
SCHEDULER_NAME: Final = "default-scheduler"
#: Pods that wait are looked at again after so many seconds even if nothing changed:
#: a net for changes nobody thought of.
LOOK_AGAIN_S: Final = 300.0
#: How long a binding that failed waits before the next try, seconds.
RETRY: Final = Backoff(base_s=0.1, cap_s=10.0)

#: How long after a victim could not be ended it is tried again, seconds.
PREEMPT_AGAIN_S: Final = 5.0


class Recorder(Protocol):
    """Takes Events."""

    def record(
        self, subject: EventSubject, event_type: str, reason: str, message: str
    ) -> None:
        """Take an Event; never blocks, never fails."""


class Scheduler:
    """One scheduler.

    Args:
        client: the API.
        plugins: the filters and scores.
        recorder: takes Events; whoever made it runs it.
        clock: dates conditions.
        name: the ``spec.schedulerName`` it answers to.
    """

    def __init__(
        self,
        client: ApiClient,
        plugins: Sequence[SchedulerPlugin],
        recorder: Recorder,
        clock: Clock,
        *,
        name: str = SCHEDULER_NAME,
    ) -> None:
        self._client = client
        self._plugins = tuple(plugins)
        self._recorder = recorder
        self._clock = clock
        self._name = name
        self._accounts = NodeAccounts()
        self._waiting: dict[str, Document] = {}
        self._binding: set[str] = set()
        self._preempting: dict[str, frozenset[str]] = {}
        self._told: dict[str, str] = {}
        self._failed_s: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._ready = False
        self._group: asyncio.TaskGroup | None = None
        self.pods = Informer(client, POD, on_change=self._on_pod)
        self.nodes = Informer(client, NODE, on_change=self._on_node)
        self._namespaces = Informer(client, NAMESPACE, on_change=self._on_namespace)
        self._labels_of: dict[str, dict[str, str]] = {}
        self._claims = Claims(client, self.pods, self._changed, self._accounts.node_of)
        self.budgets = Informer(
            client, POD_DISRUPTION_BUDGET, on_change=lambda _old, _new: None
        )

    async def run(self) -> None:
        """Schedule for ever."""
        self._ready = False
        self._restart()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.nodes.run(), name="scheduler nodes")
            group.create_task(self.pods.run(), name="scheduler pods")
            group.create_task(self.budgets.run(), name="scheduler budgets")
            group.create_task(self._namespaces.run(), name="scheduler namespaces")
            for informer in self._claims.informers:
                group.create_task(informer.run(), name=f"scheduler {informer!r}")
            for informer in self._claims.informers:
                await informer.wait_synced()
            await self.nodes.wait_synced()
            await self.pods.wait_synced()
            await self.budgets.wait_synced()
            await self._namespaces.wait_synced()
            self._ready = True
            self._retry_waiting()
            group.create_task(self._watch_changes(), name="scheduler retries")

    def _restart(self) -> None:
        """Give up what an earlier run left half done; the informers' copies stay."""
        self._told.clear()
        self._preempting.clear()
        for uid in self._binding:
            self._accounts.remove(uid)
        halfway, self._binding = self._binding, set()
        for pod in self.pods.items():
            if pod["metadata"]["uid"] in halfway:
                self._on_pod(None, pod)

    @property
    def waiting(self) -> frozenset[str]:
        """The uids of Pods that are waiting for a node."""
        return frozenset(self._waiting)

    # ── what is heard ───────────────────────────────────────────────────────────

    def _on_node(self, old: Document | None, new: Document | None) -> None:
        if new is None:
            assert old is not None
            self._accounts.remove_node(str(old["metadata"]["name"]))
            self._changed.set()
            return
        self._accounts.set_node(new)
        if old is None or _concern(old) != _concern(new):
            self._changed.set()

    def _on_namespace(self, old: Document | None, new: Document | None) -> None:
        """Take a Namespace's labels; terms of affinity select Namespaces by them."""
        name = str((new or old or {})["metadata"]["name"])
        before = self._labels_of.pop(name, None)
        if new is not None:
            self._labels_of[name] = dict(new["metadata"].get("labels") or {})
        if before != self._labels_of.get(name) and self._somebody_minds_others():
            self._changed.set()

    def _somebody_minds_others(self) -> bool:
        return any(minds_others(pod) for pod in self._waiting.values())

    def _on_pod(self, old: Document | None, new: Document | None) -> None:
        if self._binding:
            self._claims.hear_of_pod()
        if new is None:
            assert old is not None
            self._forget(str(old["metadata"]["uid"]))
            return
        uid = str(new["metadata"]["uid"])
        node_name = (new.get("spec") or {}).get("nodeName")
        if is_finished(new):
            self._forget(uid)
        elif node_name:
            self._drop(uid)
            self._accounts.place(new, node_name)
            is_news = old is None or _near(old) != _near(new)
            if is_news and self._somebody_minds_others():
                self._changed.set()
        elif self._is_mine(new):
            self._take(uid, new, is_new=old is None or _asks(old) != _asks(new))
        else:
            self._forget(uid)

    def _is_mine(self, pod: Document) -> bool:
        if pod["metadata"].get("deletionTimestamp"):
            return False
        name = (pod.get("spec") or {}).get("schedulerName") or SCHEDULER_NAME
        return bool(name == self._name)

    def _forget(self, uid: str) -> None:
        """Drop a Pod that ended; its room may be what another one waits for."""
        self._drop(uid)
        if self._accounts.remove(uid):
            self._changed.set()

    def _drop(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)
        self._failed_s.pop(uid, None)
        self._preempting.pop(uid, None)
        self._accounts.forget_nomination(uid)

    def _take(self, uid: str, pod: Document, *, is_new: bool) -> None:
        if uid in self._binding:
            return
        self._waiting[uid] = pod
        nominated = (pod.get("status") or {}).get("nominatedNodeName")
        if nominated and not self._ready:
            self._accounts.nominate(pod, nominated)
        if self._ready and is_new:
            self._schedule(uid, pod)

    # ── deciding ────────────────────────────────────────────────────────────────

    async def _watch_changes(self) -> None:
        """Look at the waiting Pods again after each change, once for many."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            self._retry_waiting()

    def _retry_waiting(self) -> None:
        for uid, pod in sorted(self._waiting.items(), key=_urgency):
            self._schedule(uid, pod)

    def _schedule(self, uid: str, pod: Document) -> None:
        assert self._group is not None
        if (pod.get("spec") or {}).get("schedulingGates"):
            self._group.create_task(
                self._report(pod, reason="SchedulingGated", message=GATED)
            )
            return
        infos = self._accounts.infos(pod, self._labels_of)
        storage = self._claims.of(pod)
        if storage is not None:
            infos = tuple(replace(info, storage=storage) for info in infos)
        try:
            verdict = self._decide(uid, pod, infos)
        except QuantityError as error:
            verdict = Unschedulable(f"the Pod cannot be understood: {error}")
        match verdict:
            case Placement(node_name):
                del self._waiting[uid]
                self._binding.add(uid)
                self._accounts.place(pod, node_name)
                self._group.create_task(self._bind(uid, pod, node_name))
            case Unschedulable():
                self._make_room(uid, pod, infos, verdict)
            case unknown:
                assert_never(unknown)

    def _decide(self, uid: str, pod: Document, infos: tuple[NodeInfo, ...]) -> Verdict:
        """Decide on the node whose room is kept for the Pod first, then on all."""
        nominated = self._accounts.nominated_node(uid)
        kept = [info for info in infos if info.name == nominated]
        if kept:
            verdict = decide_placement(pod, kept, self._plugins)
            if isinstance(verdict, Placement):
                return verdict
        return decide_placement(pod, infos, self._plugins)

    def _make_room(
        self,
        uid: str,
        pod: Document,
        infos: tuple[NodeInfo, ...],
        verdict: Unschedulable,
    ) -> None:
        """End less important Pods where that helps; tell why the Pod waits."""
        assert self._group is not None
        if not verdict.unfit:
            self._refuse(uid, pod, verdict.message)
            return
        if any(self._accounts.node_of(v) for v in self._preempting.get(uid, ())):
            return  # room is being made; what was told is still so
        nominated = self._accounts.nominated_node(uid)
        decision = decide_preemption(
            pod,
            infos,
            verdict.unfit,
            pods_on=self._accounts.pods_on,
            budgets=self.budgets.items(),
            plugins=self._plugins,
            nominated=nominated,
        )
        match decision:
            case Preemption(node_name, victims):
                self._refuse(uid, pod, verdict.filtered)
                self._preempting[uid] = frozenset(
                    str(victim["metadata"]["uid"]) for victim in victims
                )
                outranked = self._accounts.outranked(pod, node_name)
                for other in outranked:
                    self._accounts.forget_nomination(str(other["metadata"]["uid"]))
                self._accounts.nominate(pod, node_name)
                self._group.create_task(self._preempt(uid, pod, decision, outranked))
            case NoPreemption(message, is_hopeless):
                self._refuse(uid, pod, f"{verdict.filtered} preemption: {message}")
                if nominated and is_hopeless:
                    self._accounts.forget_nomination(uid)
                    self._group.create_task(self._nominate(pod, ""))
            case unknown:
                assert_never(unknown)

    def _refuse(self, uid: str, pod: Document, message: str) -> None:
        """Tell that a Pod fits nowhere, unless the same has been told."""
        if self._told.get(uid) == message:
            return
        assert self._group is not None
        self._told[uid] = message
        log.info("pod_unschedulable", pod=_key(pod), uid=uid, why=message)
        self._recorder.record(subject_of(pod), "Warning", "FailedScheduling", message)
        self._group.create_task(
            self._report(pod, reason="Unschedulable", message=message)
        )

    # ── acting ──────────────────────────────────────────────────────────────────

    async def _bind(self, uid: str, pod: Document, node_name: str) -> None:
        metadata = pod["metadata"]
        try:
            if not await self._claims.bind(pod, node_name):
                self._binding.discard(uid)
                self._forget(uid)
                return
            await self._client.create_subresource(
                POD,
                metadata["name"],
                "binding",
                build_binding(pod, node_name),
                metadata["namespace"],
            )
        except (ApiError, ApiUnreachableError, ClaimsNotBoundError) as error:
            await self._take_back(uid, pod, error)
            return
        self._binding.discard(uid)
        self._failed_s.pop(uid, None)
        self._told.pop(uid, None)
        log.info("pod_scheduled", pod=_key(pod), uid=uid, node=node_name)
        message = f"Successfully assigned {_key(pod)} to {node_name}"
        self._recorder.record(subject_of(pod), "Normal", "Scheduled", message)

    async def _take_back(self, uid: str, pod: Document, error: Exception) -> None:
        """Give up an assumption; try again a little later if the Pod still waits."""
        log.warning("bind_failed", pod=_key(pod), uid=uid, error=str(error))
        is_gone = isinstance(error, ApiError) and error.code in {404, 409}
        if not is_gone:
            message = f"binding rejected: {error}"
            self._recorder.record(
                subject_of(pod), "Warning", "FailedScheduling", message
            )
        delay_s = RETRY.after(self._failed_s.get(uid, 0.0))
        await asyncio.sleep(delay_s)
        self._binding.discard(uid)
        latest = self.pods.get(pod["metadata"]["namespace"], pod["metadata"]["name"])
        if latest is None or latest["metadata"]["uid"] != uid:
            self._forget(uid)
        elif not (latest.get("spec") or {}).get("nodeName"):
            self._accounts.remove(uid)
            if self._is_mine(latest) and not is_finished(latest):
                self._failed_s[uid] = delay_s
                self._waiting[uid] = latest
                self._changed.set()

    async def _preempt(
        self,
        uid: str,
        pod: Document,
        preemption: Preemption,
        outranked: Sequence[Document],
    ) -> None:
        """End the victims; whoever is ending already is left alone."""
        for other in outranked:
            await self._nominate(other, "")
        await self._nominate(pod, preemption.node_name)
        for victim in preemption.victims:
            if victim["metadata"].get("deletionTimestamp"):
                continue
            try:
                await self._end(victim)
            except (ApiError, ApiUnreachableError) as error:
                if isinstance(error, ApiError) and error.code in {404, 409}:
                    continue
                log.warning("victim_not_ended", pod=_key(victim), error=str(error))
                await asyncio.sleep(PREEMPT_AGAIN_S)
                self._preempting.pop(uid, None)
                self._changed.set()
                return
            log.info(
                "pod_preempted",
                pod=_key(victim),
                by=_key(pod),
                node=preemption.node_name,
            )
            text = describe_victim(pod, preemption.node_name)
            self._recorder.record(subject_of(victim), "Normal", "Preempted", text)

    async def _end(self, victim: Document) -> None:
        """Tell a victim why, and delete it with its own grace."""
        metadata = victim["metadata"]
        await self._client.patch(
            POD,
            metadata["name"],
            build_mark(victim, self._name, now=self._clock.now()),
            metadata["namespace"],
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )
        await self._client.delete(
            POD, metadata["name"], metadata["namespace"], uid=metadata["uid"]
        )

    async def _nominate(self, pod: Document, node_name: str) -> None:
        """Write where room is made for a Pod; empty takes it back."""
        metadata = pod["metadata"]
        try:
            await self._client.patch(
                POD,
                metadata["name"],
                build_nomination(pod, node_name),
                metadata["namespace"],
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except (ApiError, ApiUnreachableError) as error:
            log.warning("nomination_not_written", pod=_key(pod), error=str(error))

    async def _report(self, pod: Document, *, reason: str, message: str) -> None:
        """Write the condition that says why a Pod waits."""
        patch = build_failure(
            pod, reason=reason, message=message, now=self._clock.now()
        )
        if patch is None:
            return
        metadata = pod["metadata"]
        try:
            await self._client.patch(
                POD,
                metadata["name"],
                patch,
                metadata["namespace"],
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except (ApiError, ApiUnreachableError) as error:
            self._told.pop(metadata["uid"], None)  # so that it is told again
            log.warning("condition_not_written", pod=_key(pod), error=str(error))


def _concern(node: Document) -> tuple[object, ...]:
    """Return what of a Node can make a Pod fit."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    return (
        node["metadata"].get("labels"),
        spec.get("taints"),
        spec.get("unschedulable"),
        status.get("allocatable"),
    )


def _asks(pod: Document) -> tuple[object, object]:
    """Return what of a Pod the decision depends on."""
    return pod.get("spec"), pod["metadata"].get("labels")


def _near(pod: Document) -> tuple[object, ...]:
    """Return what of a Pod that runs matters to those that mind others."""
    metadata = pod["metadata"]
    return (
        (pod.get("spec") or {}).get("nodeName"),
        metadata.get("labels"),
        metadata.get("deletionTimestamp") is None,
    )


def _urgency(item: tuple[str, Document]) -> tuple[int, str, str]:
    """Order waiting Pods: high priority first, then the older."""
    uid, pod = item
    priority = (pod.get("spec") or {}).get("priority") or 0
    return -priority, str(pod["metadata"].get("creationTimestamp") or ""), uid


def _key(pod: Document) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
