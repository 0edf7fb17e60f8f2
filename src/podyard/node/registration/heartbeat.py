"""Registers the Node and keeps telling that it lives, and how it is."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.observed import Image
from podyard.api.scheme import LEASE, NODE
from podyard.client.informer import Informer
from podyard.client.services import ApiClient, ApiUnreachableError, PatchType
from podyard.cri.services import CRIError, ImageService
from podyard.lib.backoff import Backoff
from podyard.lib.clock import Clock
from podyard.node.registration.build import (
    LEASE_NAMESPACE,
    LEASE_RENEW_S,
    MachineFacts,
    NodeCondition,
    NodeSettings,
    RuntimeFacts,
    build_labels,
    build_lease,
    build_node,
    build_node_status,
    without_heartbeats,
)
from podyard.node.sync.parts import Events

log = structlog.get_logger()

#: The status is worked out this often, and told at least this often, seconds.
STATUS_S: Final = 10.0
REPORT_S: Final = 300.0
#: Changes that come together are told together, seconds.
SETTLE_S: Final = 0.02
_RETRY: Final = Backoff(base_s=0.2, cap_s=5)
_EVENTS: Final = {
    ("Ready", "True"): ("Normal", "NodeReady"),
    ("Ready", "False"): ("Normal", "NodeNotReady"),
    ("MemoryPressure", "False"): ("Normal", "NodeHasSufficientMemory"),
    ("MemoryPressure", "True"): ("Normal", "NodeHasInsufficientMemory"),
    ("DiskPressure", "False"): ("Normal", "NodeHasNoDiskPressure"),
    ("DiskPressure", "True"): ("Normal", "NodeHasDiskPressure"),
    ("PIDPressure", "False"): ("Normal", "NodeHasSufficientPID"),
    ("PIDPressure", "True"): ("Normal", "NodeHasInsufficientPID"),
}


class NodeRegistration:
    """The Node object of this node.

    Args:
        client: the API.
        settings: how it presents itself.
        facts: returns what the machine has.
        runtime: returns what the runtime says of itself.
        condition: returns how the node is doing.
        images: lists what is on it.
        events: records what happens to it.
        clock: dates it.
    """

    def __init__(
        self,
        client: ApiClient,
        settings: NodeSettings,
        *,
        facts: Callable[[], MachineFacts],
        runtime: Callable[[], RuntimeFacts],
        condition: Callable[[], NodeCondition],
        images: ImageService,
        events: Events,
        clock: Clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._facts = facts
        self._runtime = runtime
        self._condition = condition
        self._images = images
        self._events = events
        self._clock = clock
        self._known_images: tuple[Image, ...] = ()
        self._shown: Document = {}
        self._node: Document | None = None
        # Labels and taints are others' to change, and decide what may run here.
        self._informer = Informer(
            client,
            NODE,
            on_change=self._follow,
            field_selector=f"metadata.name={settings.name}",
        )
        self._told_at_s = -REPORT_S
        self._changed = asyncio.Event()
        self._registered = asyncio.Event()

    @property
    def uid(self) -> str:
        """The Node's uid, empty while it is not registered."""
        return str((self._node or {}).get("metadata", {}).get("uid", ""))

    @property
    def document(self) -> Document:
        """The Node as this agent sees it, registered or not."""
        node = self._node or build_node(self._settings, self._facts())
        return {**node, "status": self._build_status()}

    def change_soon(self) -> None:
        """Work the status out before its time: something changed."""
        self._changed.set()

    async def wait_registered(self) -> None:
        """Wait until the API has the Node."""
        await self._registered.wait()

    async def run(self) -> None:
        """Register, then tell for ever."""
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_for_ever(), name="node-lease")
            group.create_task(self._report_for_ever(), name="node-status")
            group.create_task(self._informer.run(), name="node-informer")

    def _follow(self, _old: Document | None, new: Document | None) -> None:
        if new is not None:
            self._node = new

    def reference(self) -> Document:
        """Return what events about the Node refer to.

        Its uid is the name: clients look for events of a Node by that.
        """
        name = self._settings.name
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "uid": name},
        }

    # --- registering ---

    async def _register(self) -> None:
        delay_s = 0.0
        while True:
            try:
                self._node = await self._create_or_adopt()
            except (ApiError, ApiUnreachableError) as error:
                if delay_s == 0:
                    log.warning("node_not_registered", error=str(error))
                delay_s = _RETRY.after(delay_s)
                await asyncio.sleep(delay_s)
            else:
                break
        self._shown = self._node.get("status") or {}
        self._registered.set()
        log.info("node_registered", node=self._settings.name)
        self._event("Normal", "Starting", "Starting kubelet.")
        before = (self._shown.get("nodeInfo") or {}).get("bootID")
        boot_id = self._facts().boot_id
        if before and boot_id and before != boot_id:
            self._event(
                "Warning",
                "Rebooted",
                f"Node {self._settings.name} has been rebooted, boot id: {boot_id}",
            )

    async def _create_or_adopt(self) -> Document:
        facts = self._facts()
        try:
            return await self._client.create(NODE, build_node(self._settings, facts))
        except ApiError as error:
            if error.code != 409:
                raise
        node = await self._client.get(NODE, self._settings.name)
        wanted = build_labels(self._settings, facts)
        labels = node["metadata"].get("labels") or {}
        missing = {k: v for k, v in wanted.items() if labels.get(k) != v}
        patch: Document = {"metadata": {"labels": missing}} if missing else {}
        noted = node["metadata"].get("annotations") or {}
        notes = self._settings.annotations
        absent = {k: v for k, v in notes.items() if noted.get(k) != v}
        if absent:
            patch.setdefault("metadata", {})["annotations"] = absent
        cidrs = self._settings.pod_cidrs
        if cidrs and not (node.get("spec") or {}).get("podCIDR"):
            patch["spec"] = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}
        if patch:
            node = await self._client.patch(NODE, self._settings.name, patch)
        return node

    # --- the Lease ---

    async def _renew_for_ever(self) -> None:
        lease: Document | None = None
        delay_s = 0.0
        while True:
            try:
                lease = await self._renew(lease)
            except (ApiError, ApiUnreachableError) as error:
                if delay_s == 0:
                    log.warning("lease_not_renewed", error=str(error))
                lease = None
                delay_s = _RETRY.after(delay_s)
                await asyncio.sleep(delay_s)
            else:
                delay_s = 0.0
                await asyncio.sleep(LEASE_RENEW_S)

    async def _renew(self, lease: Document | None) -> Document:
        wanted = build_lease(self._settings, node_uid=self.uid, now=self._clock.now())
        if lease is None:
            try:
                return await self._client.create(LEASE, wanted, LEASE_NAMESPACE)
            except ApiError as error:
                if error.code != 409:
                    raise
            lease = await self._client.get(LEASE, self._settings.name, LEASE_NAMESPACE)
        return await self._client.update(
            LEASE, {**lease, "spec": wanted["spec"]}, LEASE_NAMESPACE
        )

    # --- the status ---

    async def _report_for_ever(self) -> None:
        delay_s = 0.0
        while True:
            await self._look_at_images()
            try:
                await self._report()
                delay_s = 0.0
            except (ApiError, ApiUnreachableError) as error:
                if delay_s == 0:
                    log.warning("node_status_not_told", error=str(error))
                if isinstance(error, ApiError) and error.code == 404:
                    await self._register()
                delay_s = _RETRY.after(delay_s)
            pause_s = delay_s or STATUS_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
                    await asyncio.sleep(SETTLE_S)
            self._changed.clear()

    async def _look_at_images(self) -> None:
        with contextlib.suppress(CRIError):
            self._known_images = await self._images.list_images()

    def _build_status(self) -> Document:
        return build_node_status(
            self._settings,
            self._facts(),
            self._runtime(),
            self._condition(),
            self._known_images,
            previous=self._shown,
            now=self._clock.now(),
        )

    async def _report(self) -> None:
        status = self._build_status()
        changed = {
            key: value
            for key, value in without_heartbeats(status).items()
            if value != without_heartbeats(self._shown).get(key)
        }
        now_s = self._clock.monotonic_s()
        if not changed and now_s - self._told_at_s < REPORT_S:
            return
        patch: Document = {key: status[key] for key in changed}
        patch["conditions"] = status["conditions"]
        if "addresses" in patch:
            patch["addresses"] = [{"$patch": "replace"}, *patch["addresses"]]
        stored = await self._client.patch(
            NODE,
            self._settings.name,
            {"status": patch},
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )
        before = {c["type"]: c for c in self._shown.get("conditions") or ()}
        self._node = stored
        self._shown = {**status, "conditions": _conditions_of(stored, status)}
        self._told_at_s = now_s
        self._tell_changes(before, status)

    def _tell_changes(self, before: dict[str, Document], status: Document) -> None:
        for condition in status["conditions"]:
            kind, value = condition["type"], condition["status"]
            if (before.get(kind) or {}).get("status") == value:
                continue
            known = _EVENTS.get((kind, value))
            if known is not None:
                event_type, reason = known
                text = f"Node {self._settings.name} status is now: {reason}"
                self._event(event_type, reason, text)

    def _event(self, event_type: str, reason: str, message: str) -> None:
        self._events.event(
            self.reference(),
            "Warning" if event_type == "Warning" else "Normal",
            reason,
            message,
        )


def _conditions_of(stored: Document, status: Document) -> list[Document]:
    """Return the conditions as stored, everybody's, or as sent where they are not."""
    shown = (stored.get("status") or {}).get("conditions")
    return list(shown or status["conditions"])
