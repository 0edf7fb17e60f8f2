"""PodDisruptionBudgets say how many of their Pods may go.

What cannot be counted allows nothing. A Pod that was marked to be disrupted and was
left alone loses the mark.

Source: kubernetes ``pkg/controller/disruption`` (v1.36).
"""

from collections.abc import Iterator
from typing import Final

import structlog

from podyard.api.disruption import DISRUPTION_TARGET, budget_holds
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import (
    DEPLOYMENT,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    STATEFUL_SET,
    Kind,
)
from podyard.client.events import subject_of
from podyard.client.services import PatchType
from podyard.controllers.disruption_budgets import (
    BudgetLook,
    Expected,
    ScaleError,
    build_failed_status,
    decide_budget,
    decide_expected,
    facts_of,
    same_status,
    show_selector,
    stale_in_s,
)
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

log = structlog.get_logger()

#: The source of its Events.
COMPONENT: Final = "controllermanager"
_UNMANAGED: Final = (
    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be "
    "unmanaged. As a result, the status of the PDB cannot be calculated correctly, "
    "which may result in undefined behavior. To account for these pods please set "
    '".spec.minAvailable" field of the PDB to an integer value.'
)

#: Whether it is a budget or a Pod, its namespace and its name.
_Key = tuple[Kind, str, str]


class DisruptionController:
    """Keeps the status of every PodDisruptionBudget.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._caches = context.caches
        self._clock = context.clock
        self._recorder = context.recorder(COMPONENT)
        self._queue: WorkQueue[_Key] = WorkQueue("disruption")
        self._budgets: dict[str, dict[str, Document]] = {}

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a budget, a Pod, or a controller of Pods."""
        document = new or old
        assert document is not None
        if kind is POD_DISRUPTION_BUDGET:
            self._take_budget(document, is_there=new is not None)
        elif kind is POD:
            for budget in self._touched(old, new):
                self._queue.add(_budget_key(budget))
            if new is not None:
                self._watch_mark(new)
        elif _replicas(old) != _replicas(new):
            namespace = str(document["metadata"].get("namespace") or "")
            for budget in self._budgets.get(namespace, {}).values():
                self._queue.add(_budget_key(budget))

    def _take_budget(self, budget: Document, *, is_there: bool) -> None:
        metadata = budget["metadata"]
        known = self._budgets.setdefault(str(metadata["namespace"]), {})
        if is_there:
            known[str(metadata["name"])] = budget
            self._queue.add(_budget_key(budget))
        else:
            known.pop(str(metadata["name"]), None)

    def _touched(
        self, old: Document | None, new: Document | None
    ) -> Iterator[Document]:
        """Return the budgets a change of a Pod means something to."""
        if old is not None and new is not None and facts_of(old) == facts_of(new):
            return
        both = [pod for pod in (old, new) if pod is not None]
        namespace = str(both[0]["metadata"].get("namespace") or "")
        for budget in self._budgets.get(namespace, {}).values():
            if any(budget_holds(budget, pod) for pod in both):
                yield budget

    def _watch_mark(self, pod: Document) -> None:
        left_s = stale_in_s(pod, self._clock.now())
        if left_s is not None:
            metadata = pod["metadata"]
            key = (POD, str(metadata["namespace"]), str(metadata["name"]))
            self._queue.add_after(key, left_s)

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync)

    async def _sync(self, key: _Key) -> float | None:
        kind, namespace, name = key
        if kind is POD:
            return await self._unmark(namespace, name)
        budget = self._budgets.get(namespace, {}).get(name)
        if budget is None:
            return None
        pods = [pod for pod in self._caches.items(POD) if budget_holds(budget, pod)]
        if not pods:
            self._tell(budget, "Normal", "NoPods", "No matching pods found")
        try:
            expected = decide_expected(budget, pods, self._caches.get)
        except ScaleError as error:
            text = f"Failed to calculate the number of expected pods: {error}"
            self._tell(budget, "Warning", "CalculateExpectedPodCountFailed", text)
            now = self._clock.now()
            await self._write(budget, build_failed_status(budget, str(error), now=now))
            return None
        self._tell_unmanaged(budget, expected)
        look = decide_budget(budget, pods, expected, now=self._clock.now())
        self._tell_not_deleted(budget, pods, look)
        await self._write(budget, look.status)
        return look.again_in_s

    async def _write(self, budget: Document, status: Document) -> None:
        if same_status(status, budget.get("status") or {}):
            return
        try:
            stored = await self._client.update_status(
                POD_DISRUPTION_BUDGET, {**budget, "status": status}
            )
        except ApiError as error:
            if error.code != 404:
                raise
            return
        metadata = stored["metadata"]
        known = self._budgets.get(str(metadata["namespace"]), {})
        present = known.get(str(metadata["name"]))
        # What was written counts until it is heard of, or newer news is.
        if present is not None and _rev(present) < _rev(stored):
            known[str(metadata["name"])] = stored

    async def _unmark(self, namespace: str, name: str) -> float | None:
        pod = self._caches.get(POD, namespace, name)
        left_s = None if pod is None else stale_in_s(pod, self._clock.now())
        if pod is None or left_s is None or left_s > 0:
            return left_s
        condition = {
            "type": DISRUPTION_TARGET,
            "status": "False",
            "reason": "",
            "message": "",
        }
        patch: Document = {
            "metadata": {"uid": pod["metadata"]["uid"]},
            "status": {"conditions": [condition]},
        }
        try:
            await self._client.patch(
                POD,
                name,
                patch,
                namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        log.info("disruption_mark_removed", pod=f"{namespace}/{name}")
        return None

    # --- telling

    def _tell(self, about: Document, event_type: str, reason: str, text: str) -> None:
        self._recorder.record(subject_of(about), event_type, reason, text)

    def _tell_unmanaged(self, budget: Document, expected: Expected) -> None:
        if expected.unmanaged:
            selector = show_selector((budget.get("spec") or {}).get("selector") or {})
            text = _UNMANAGED.format(selector=selector)
            self._tell(budget, "Warning", "UnmanagedPods", text)

    def _tell_not_deleted(
        self, budget: Document, pods: list[Document], look: BudgetLook
    ) -> None:
        metadata = budget["metadata"]
        for pod in pods:
            if pod["metadata"]["name"] in look.not_deleted:
                text = (
                    f"Pod was expected by PDB {metadata['namespace']}/"
                    f"{metadata['name']} to be deleted but it wasn't"
                )
                self._tell(pod, "Warning", "NotDeleted", text)


def _budget_key(budget: Document) -> _Key:
    metadata = budget["metadata"]
    return POD_DISRUPTION_BUDGET, str(metadata["namespace"]), str(metadata["name"])


def _replicas(document: Document | None) -> object:
    if document is None:
        return None
    return (document.get("spec") or {}).get("replicas", 1)


def _rev(document: Document) -> int:
    # Revisions can be compared since v1.35 (KEP-5504).
    return int(document["metadata"].get("resourceVersion") or 0)


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return DisruptionController(context)


PART: Final = Controller(
    name="disruption",
    watches=(POD_DISRUPTION_BUDGET, POD, REPLICA_SET, STATEFUL_SET, DEPLOYMENT),
    make=make,
)
