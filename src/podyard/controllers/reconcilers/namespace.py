"""A Namespace that is going takes its contents along.

Everything in it is deleted, Pods with their grace; when nothing is left, the
Namespace's own finalizer is taken away and the server lets it go.

Source: kubernetes ``pkg/controller/namespace/deletion`` (v1.36).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import field
from typing import Final

import structlog

from podyard.api.core_v1 import format_time
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import KINDS, NAMESPACE, Kind
from podyard.client.services import PatchType
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue
from podyard.lib.values import dataclass

log = structlog.get_logger()

FINALIZER: Final = "kubernetes"
#: Contents are looked at again after so many seconds even if nothing is heard.
LOOK_AGAIN_S: Final = 15.0
#: The kinds a Namespace can hold; two views of one store count once.
CONTENTS: Final = tuple(
    {kind.storage_prefix: kind for kind in reversed(KINDS) if kind.namespaced}.values()
)


@dataclass(slots=True)
class _Look:
    """What was found in a Namespace.

    Attributes:
        remaining: how many objects of each ``resource.group`` are still there.
        finalizers: how many objects each finalizer keeps.
        failures: why a kind could not be deleted.
    """

    remaining: Counter[str] = field(default_factory=Counter)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class NamespaceController:
    """Empties Namespaces that are going.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._clock = context.clock
        self._queue: WorkQueue[str] = WorkQueue("namespace")
        self._going: set[str] = set()

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Namespace, or of something that left one."""
        if kind is NAMESPACE:
            name = str((new or old or {})["metadata"]["name"])
            if new is not None and new["metadata"].get("deletionTimestamp"):
                self._going.add(name)
                self._queue.add(name)
            else:
                self._going.discard(name)
        elif new is None and old is not None:
            namespace = old["metadata"].get("namespace")
            if namespace in self._going:
                self._queue.add(str(namespace))

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=4)

    async def _sync(self, name: str) -> float | None:
        try:
            namespace = await self._client.get(NAMESPACE, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        finalizers = (namespace.get("spec") or {}).get("finalizers") or []
        if not namespace["metadata"].get("deletionTimestamp"):
            return None
        if FINALIZER not in finalizers:
            return None
        look = await self._empty(name)
        if look.remaining or look.failures:
            await self._tell(namespace, look)
            return LOOK_AGAIN_S
        spec = {
            **namespace["spec"],
            "finalizers": [entry for entry in finalizers if entry != FINALIZER],
        }
        await self._client.update_subresource(
            NAMESPACE, {**namespace, "spec": spec}, "finalize"
        )
        log.info("namespace_emptied", namespace=name)
        return None

    async def _empty(self, name: str) -> _Look:
        look = _Look()
        async with asyncio.TaskGroup() as group:
            for kind in CONTENTS:
                group.create_task(self._empty_of(kind, name, look))
        return look

    async def _empty_of(self, kind: Kind, name: str, look: _Look) -> None:
        try:
            listed = await self._client.list(kind, name)
            if not listed.get("items"):
                return
            await self._client.delete_collection(kind, name, propagation="Background")
            listed = await self._client.list(kind, name)
        except ApiError as error:
            if error.code in {404, 405}:
                return  # not served, or not to be deleted at once
            look.failures.append(f"{kind.qualified_resource}: {error.message}")
            return
        for item in listed.get("items") or ():
            look.remaining[f"{kind.resource}.{kind.group}"] += 1
            look.finalizers.update(item["metadata"].get("finalizers") or ())

    async def _tell(self, namespace: Document, look: _Look) -> None:
        """Write the conditions that say what the Namespace waits for."""
        present = {
            entry["type"]: entry
            for entry in (namespace.get("status") or {}).get("conditions") or ()
        }
        now = format_time(self._clock.now())
        changed: list[Document] = []
        for wanted in build_conditions(look.remaining, look.finalizers, look.failures):
            old = present.get(wanted["type"]) or {}
            if all(old.get(key) == value for key, value in wanted.items()):
                continue
            same = old.get("status") == wanted["status"]
            since = old.get("lastTransitionTime") if same else now
            changed.append({**wanted, "lastTransitionTime": since or now})
        if changed:
            await self._client.patch(
                NAMESPACE,
                namespace["metadata"]["name"],
                {"status": {"conditions": changed}},
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )


def build_conditions(
    remaining: Counter[str], finalizers: Counter[str], failures: Iterable[str]
) -> list[Document]:
    """Return a terminating Namespace's conditions, without their times."""
    faults = sorted(failures)
    left = ", ".join(
        f"{resource} has {count} resource instances"
        for resource, count in sorted(remaining.items())
    )
    kept = ", ".join(
        f"{name} in {count} resource instances"
        for name, count in sorted(finalizers.items())
    )
    return [
        _condition(
            "NamespaceDeletionDiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        _condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        _condition(
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed" if faults else "ContentDeleted",
            "Failed to delete all resource types, "
            f"{len(faults)} remaining: {', '.join(faults)}"
            if faults
            else "All content successfully deleted, may be waiting on finalization",
            status=bool(faults),
        ),
        _condition(
            "NamespaceContentRemaining",
            "SomeResourcesRemain" if left else "ContentRemoved",
            f"Some resources are remaining: {left}"
            if left
            else "All content successfully removed",
            status=bool(left),
        ),
        _condition(
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain" if kept else "ContentHasNoFinalizers",
            f"Some content in the namespace has finalizers remaining: {kept}"
            if kept
            else "All content-preserving finalizers finished",
            status=bool(kept),
        ),
    ]


def _condition(
    name: str, reason: str, message: str, *, status: bool = False
) -> Document:
    return {
        "type": name,
        "status": "True" if status else "False",
        "reason": reason,
        "message": message,
    }


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return NamespaceController(context)


PART: Final = Controller(name="namespace", watches=(NAMESPACE, *CONTENTS), make=make)
