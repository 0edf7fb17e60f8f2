"""What this node did for a Pod, and why: ``/explain/{namespace}/{pod}``.

Pulls, hooks and stops come from the node's journal, the rest is looked at when asked.
No value of a Secret is told but of those the API server names: it has checked that
the reader may get them.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from podyard.api.core_v1 import Container, Pod, format_micro_time
from podyard.api.documents import Document
from podyard.cri.services import CRIError
from podyard.lib.values import dataclass
from podyard.node.endpoints.parts import EndpointError, PodDirectory
from podyard.node.environment.explain import Origin, describe_environment
from podyard.node.runtime_classes.parts import RuntimeClassError
from podyard.store.backend import StoreError
from podyard.store.node_journal import JournalRecord, NodeJournal

#: What may be asked for with ``?part=``; nothing asked is everything.
PARTS: Final = ("pulls", "hooks", "stops", "environment", "runtimeClass", "story")
_KINDS: Final = {"pulls": "pull", "hooks": "hook", "stops": "stop"}
_REJECTED: Final = "Pod was rejected: "


class Environment(Protocol):
    """Tells where variables come from (``node/environment``)."""

    async def explain(
        self,
        pod: Pod,
        container: Container,
        *,
        image: Iterable[str],
        pod_ips: tuple[str, ...],
        host_ips: tuple[str, ...],
        node_allocatable: Mapping[str, str],
    ) -> tuple[Origin, ...]:
        """Return where each variable comes from, as it would be built now."""


class RuntimeClasses(Protocol):
    """RuntimeClass to handler (``node/runtime_classes``)."""

    def handler_for(self, pod: Pod) -> str:
        """Return the handler; empty is the runtime's default.

        Raises:
            RuntimeClassError: the class does not exist.
        """


@dataclass(frozen=True, slots=True)
class ExplainParts:
    """Where answers come from.

    Attributes:
        journal: the node's records.
        pods: the Pods of this node.
        environment: where variables come from.
        runtime_classes: class to handler.
        handlers: returns the handlers the runtime accepts; empty where unknown.
        image_environment: returns an image's own variables.
        container_environment: returns the variables a container was started with;
            none where unknown.
        status: returns a Pod's status as this node sees it.
        story: returns what was seen and done lately, ``None`` where not known.
        host_ips: the node's addresses.
        allocatable: returns what the node has to give.
    """

    journal: NodeJournal
    pods: PodDirectory
    environment: Environment
    runtime_classes: RuntimeClasses
    handlers: Callable[[], tuple[str, ...]]
    image_environment: Callable[[str], Awaitable[tuple[str, ...]]]
    container_environment: Callable[[str], Awaitable[tuple[str, ...]]]
    status: Callable[[Pod], Document]
    story: Callable[[str], Document | None]
    host_ips: tuple[str, ...]
    allocatable: Callable[[], Mapping[str, str]]


class PodExplainer:
    """Answers what was done for a Pod.

    Args:
        node_name: whose answer it is.
        parts: where answers come from.
    """

    def __init__(self, node_name: str, parts: ExplainParts) -> None:
        self._node_name = node_name
        self._parts = parts

    async def explain(
        self,
        namespace: str,
        name: str,
        *,
        wanted: frozenset[str],
        shown: frozenset[str],
    ) -> Document:
        """Return what is known of a Pod, also of one that is gone.

        Args:
            namespace: its namespace.
            name: its name.
            wanted: the parts, of ``PARTS``; none are all.
            shown: names of Secrets whose values may be shown.

        Raises:
            EndpointError: 404 nothing is known of it, 500 the journal is unreadable.
        """
        pod = self._parts.pods.find_pod(namespace, name)
        try:
            uid = pod.uid if pod else await self._uid_of(namespace, name)
            if not uid:
                raise EndpointError(
                    404, f"nothing is known of a Pod {namespace}/{name}"
                )
            records = await self._parts.journal.list(uid)
        except StoreError as error:
            raise EndpointError(500, f"the node's journal: {error}") from error
        wanted = wanted or frozenset(PARTS)
        found: Document = {
            "kind": "PodExplanation",
            "apiVersion": "podyard.dev/v1",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "node": self._node_name,
            "gone": pod is None,
        }
        for part, kind in _KINDS.items():
            if part in wanted:
                found[part] = [to_document(r) for r in records if r.kind == kind]
        if pod is not None:
            found |= await self._explain_present(pod, wanted, shown)
        return found

    async def _explain_present(
        self, pod: Pod, wanted: frozenset[str], shown: frozenset[str]
    ) -> Document:
        status = self._parts.status(pod)
        found: Document = {"admission": describe_admission(status)}
        if "environment" in wanted:
            found["environment"] = [
                await self._environment(pod, container, status, shown)
                for container in pod.all_containers()
            ]
        if "runtimeClass" in wanted:
            found["runtimeClass"] = self._runtime_class(pod)
        story = self._parts.story(pod.uid)
        if "story" in wanted:
            found["story"] = story
        if "stops" in wanted and story is not None:
            # Their rows say how they began, not how far they are.
            found["stopping"] = [
                stop
                for stop in story.get("stopping") or ()
                if "tookSeconds" not in stop
            ]
        return found

    async def _uid_of(self, namespace: str, name: str) -> str:
        """Return the newest Pod of that name that the journal knows."""
        for record in reversed(await self._parts.journal.list()):
            body = record.body
            if (body.get("namespace"), body.get("pod")) == (namespace, name):
                return record.pod_uid
        return ""

    async def _environment(
        self, pod: Pod, container: Container, status: Document, shown: frozenset[str]
    ) -> Document:
        ips = tuple(str(entry.get("ip")) for entry in status.get("podIPs") or ())
        origins = await self._parts.environment.explain(
            pod,
            container,
            image=await self._image_environment(container, status),
            pod_ips=ips,
            host_ips=self._parts.host_ips,
            node_allocatable=self._parts.allocatable(),
        )
        running = await self._running_environment(container, status)
        return {
            "container": container.name,
            "running": bool(running),
            "variables": describe_environment(container, origins, running, shown),
        }

    async def _running_environment(
        self, container: Container, status: Document
    ) -> tuple[str, ...]:
        for entry in _statuses(status):
            if entry.get("name") != container.name:
                continue
            if (entry.get("state") or {}).get("running") is None:
                return ()
            container_id = str(entry.get("containerID") or "").rpartition("/")[2]
            try:
                return await self._parts.container_environment(container_id)
            except CRIError:
                return ()
        return ()

    async def _image_environment(
        self, container: Container, status: Document
    ) -> tuple[str, ...]:
        name = container.image
        for entry in _statuses(status):
            if entry.get("name") == container.name and entry.get("imageID"):
                name = str(entry["imageID"])
        try:
            return await self._parts.image_environment(name)
        except CRIError:
            return ()

    def _runtime_class(self, pod: Pod) -> Document:
        found: Document = {
            "class": pod.spec.runtime_class_name or "",
            "handlers": list(self._parts.handlers()),
        }
        try:
            found["handler"] = self._parts.runtime_classes.handler_for(pod)
        except RuntimeClassError as error:
            found["error"] = error.message
        return found


def _statuses(status: Document) -> Iterator[Document]:
    for key in (
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ):
        yield from status.get(key) or ()


def to_document(record: JournalRecord) -> Document:
    """Return a record for people."""
    document: Document = {
        "id": record.id,
        "openedAt": format_micro_time(record.opened_at),
    }
    if record.closed_at is not None:
        document["closedAt"] = format_micro_time(record.closed_at)
    return document | record.body


def describe_admission(status: Document) -> Document:
    """Return whether the node took a Pod, from its status."""
    message = str(status.get("message") or "")
    if status.get("phase") == "Failed" and message.startswith(_REJECTED):
        return {
            "admitted": False,
            "reason": str(status.get("reason") or ""),
            "message": message.removeprefix(_REJECTED),
        }
    return {"admitted": True}
