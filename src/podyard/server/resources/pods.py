"""Pods: how they are printed, what is set for them, what they have below them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from podyard.api.core_v1 import parse_time
from podyard.api.documents import Document
from podyard.api.scheme import POD
from podyard.lib.values import dataclass
from podyard.server import table
from podyard.server.resource import (
    STATUS,
    STATUS_VERBS,
    Cell,
    Column,
    Resource,
    Strategy,
    Subresource,
    fields,
    read_path,
)

_TERMINAL: Final = {"Succeeded", "Failed"}


def _prepare_create(document: Document) -> None:
    """Ephemeral containers have a subresource of their own."""
    (document.get("spec") or {}).pop("ephemeralContainers", None)


def _prepare_update(new: Document, old: Document) -> None:
    """Keep what has a subresource of its own."""
    spec, stored = new.get("spec") or {}, old.get("spec") or {}
    if "ephemeralContainers" in stored:
        spec["ephemeralContainers"] = stored["ephemeralContainers"]
    else:
        spec.pop("ephemeralContainers", None)
    if stored.get("nodeName") and not spec.get("nodeName"):
        spec["nodeName"] = stored["nodeName"]


def _prepare_status(new: Document, old: Document) -> None:
    """Keep the two forms of a Pod's addresses alike; the QoS class stays."""
    status, stored = new.get("status") or {}, old.get("status") or {}
    for single, many in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        values = status.get(many) or []
        if values and not status.get(single):
            status[single] = values[0].get("ip") or ""
        elif status.get(single) and not values:
            status[many] = [{"ip": status[single]}]
    if stored.get("qosClass") and not status.get("qosClass"):
        status["qosClass"] = stored["qosClass"]
    new["status"] = status


@dataclass(slots=True)
class _Tally:
    """What is counted while the containers of a Pod are looked at."""

    reason: str
    restarts: int = 0
    ready: int = 0
    last_restart: datetime | None = None

    def count(self, container: Document) -> None:
        self.restarts += container.get("restartCount") or 0
        ended = (container.get("lastState") or {}).get("terminated") or {}
        at = parse_time(ended.get("finishedAt"))
        if at and (self.last_restart is None or self.last_restart < at):
            self.last_restart = at


def _ended(terminated: Document, prefix: str = "") -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode') or 0}"


def _is_restartable(container: Document | None) -> bool:
    return (container or {}).get("restartPolicy") == "Always"


def _look_at_init(pod: Document, tally: _Tally, sidecars: _Tally) -> bool:
    """Count the init containers; return whether the Pod still initializes."""
    declared = table.spec(pod).get("initContainers") or []
    by_name = {container.get("name"): container for container in declared}
    statuses = table.status(pod).get("initContainerStatuses") or []
    for index, container in enumerate(statuses):
        restartable = _is_restartable(by_name.get(container.get("name")))
        tally.count(container)
        if restartable:
            sidecars.count(container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if restartable and container.get("started"):
            tally.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            tally.reason = _ended(terminated, "Init:")
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            tally.reason = f"Init:{waiting['reason']}"
        else:
            tally.reason = f"Init:{index}/{len(declared)}"
        return True
    return False


def _look_at_containers(pod: Document, tally: _Tally) -> None:
    has_running = False
    for container in reversed(table.status(pod).get("containerStatuses") or []):
        tally.count(container)
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            tally.reason = waiting["reason"]
        elif terminated is not None:
            tally.reason = _ended(terminated)
        elif container.get("ready") and state.get("running") is not None:
            has_running = True
            tally.ready += 1
    if tally.reason == "Completed" and has_running:
        ready = table.has_condition(pod, "Ready")
        tally.reason = "Running" if ready else "NotReady"


def _tally(pod: Document) -> _Tally:
    status = table.status(pod)
    tally = _Tally(status.get("reason") or status.get("phase") or "")
    for condition in status.get("conditions") or ():
        if (condition.get("type"), condition.get("reason")) == (
            "PodScheduled",
            "SchedulingGated",
        ):
            tally.reason = "SchedulingGated"
    sidecars = _Tally("")
    initializing = _look_at_init(pod, tally, sidecars)
    if not initializing or table.has_condition(pod, "Initialized"):
        tally.restarts, tally.last_restart = sidecars.restarts, sidecars.last_restart
        _look_at_containers(pod, tally)
    if table.metadata(pod).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            tally.reason = "Unknown"
        elif status.get("phase") not in _TERMINAL:
            tally.reason = "Terminating"
    return tally


def _gates(pod: Document) -> str:
    gates = table.spec(pod).get("readinessGates") or []
    if not gates:
        return table.NONE
    passed = sum(table.has_condition(pod, gate.get("conditionType")) for gate in gates)
    return f"{passed}/{len(gates)}"


def _ip(pod: Document) -> str:
    status = table.status(pod)
    ips = status.get("podIPs") or []
    found = (ips[0].get("ip") if ips else "") or status.get("podIP")
    return str(found or table.NONE)


def _cells(document: Document, now: datetime) -> Sequence[Cell]:
    spec, status = table.spec(document), table.status(document)
    tally = _tally(document)
    total = len(spec.get("containers") or [])
    total += sum(map(_is_restartable, spec.get("initContainers") or []))
    restarts = str(tally.restarts)
    if tally.restarts and tally.last_restart:
        restarts += f" ({table.human_duration(now - tally.last_restart)} ago)"
    return (
        table.name(document),
        f"{tally.ready}/{total}",
        tally.reason,
        restarts,
        table.age(document, now),
        _ip(document),
        spec.get("nodeName") or table.NONE,
        status.get("nominatedNodeName") or table.NONE,
        _gates(document),
    )


def _ips(document: Document) -> str:
    ips: list[dict[str, Any]] = table.status(document).get("podIPs") or []
    return ",".join(str(entry.get("ip")) for entry in ips)


PART: Final = Resource(
    POD,
    columns=(
        table.NAME_COLUMN,
        Column(
            "Ready",
            description="The aggregate readiness state of this pod for accepting "
            "traffic.",
        ),
        Column(
            "Status", description="The aggregate status of the containers in this pod."
        ),
        Column(
            "Restarts",
            description="The number of times the containers in this pod have been "
            "restarted and when the last container in this pod has restarted.",
        ),
        table.AGE_COLUMN,
        table.wide("IP"),
        table.wide("Node"),
        table.wide("Nominated Node"),
        table.wide("Readiness Gates"),
    ),
    cells=_cells,
    strategy=Strategy(
        has_status=True,
        has_generation=True,
        graceful=True,
        returns_deleted=True,
        status_metadata=frozenset({"labels", "annotations", "finalizers"}),
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        prepare_status=_prepare_status,
    ),
    subresources=(
        Subresource("attach", ("create", "get"), kind="PodAttachOptions"),
        Subresource("binding", ("create",), kind="Binding"),
        Subresource("ephemeralcontainers", STATUS_VERBS),
        Subresource("eviction", ("create",), "Eviction", "policy", "v1"),
        Subresource("exec", ("create", "get"), kind="PodExecOptions"),
        Subresource("explain", ("get",)),
        Subresource("hooklog", ("get",)),
        Subresource("log", ("get",)),
        Subresource("portforward", ("create", "get"), kind="PodPortForwardOptions"),
        STATUS,
    ),
    selectable_fields={
        **fields(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ),
        "spec.host": read_path("spec.nodeName"),
        "spec.hostNetwork": lambda pod: str(
            bool(table.spec(pod).get("hostNetwork"))
        ).lower(),
        "status.podIPs": _ips,
    },
)
