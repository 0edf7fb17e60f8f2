"""Statuses between agent and API: the patch there, and what is read back."""

from typing import Any, Final

from podyard.api.core_v1 import Pod, parse_time
from podyard.api.documents import Document
from podyard.api.observed import ContainerState, ContainerStatus, ObservedPod
from podyard.api.restart import should_restart
from podyard.node.status.conditions.decide import OWNED

#: The fields of a Pod's status that its agent writes.
FIELDS: Final = (
    "phase",
    "observedGeneration",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
)
#: Lists that a strategic merge would merge by key; here they are replaced.
_KEYED_LISTS: Final = frozenset({"hostIPs", "podIPs"})
_SHARED: Final = "DisruptionTarget"
_BY_AGENT: Final = "TerminationByKubelet"


def build_status_patch(
    base: Document, wanted: Document, *, uid: str
) -> Document | None:
    """Return the strategic merge patch for ``pods/status``; ``None`` if all is so.

    Conditions of others are never part of it. The uid makes it fail on another Pod
    of the same name.

    Args:
        base: the status as the API has it.
        wanted: the status as it should be.
        uid: the Pod's uid.
    """
    status: Document = {}
    for field in FIELDS:
        value = wanted.get(field)
        if _bare(value) == _bare(base.get(field)):
            continue
        if field in _KEYED_LISTS and value:
            status[field] = [{"$patch": "replace"}, *value]
        else:
            status[field] = value
    conditions = _changed_conditions(base, wanted)
    if conditions:
        status["conditions"] = conditions
    return {"metadata": {"uid": uid}, "status": status} if status else None


def _changed_conditions(base: Document, wanted: Document) -> list[Document]:
    old = {c["type"]: c for c in base.get("conditions") or ()}
    changed: list[Document] = []
    for condition in wanted.get("conditions") or ():
        kind = condition["type"]
        if not is_own_condition(condition):
            continue
        before = old.get(kind)
        if before is not None and _bare(before) == _bare(condition):
            continue
        # A merge keeps what it is not told of, so what is gone must be said.
        gone = {key: None for key in ("reason", "message") if key in (before or {})}
        changed.append({**gone, **condition})
    return changed


def is_own_condition(condition: Document) -> bool:
    """Return whether a condition is the agent's to write."""
    if condition["type"] == _SHARED:
        return condition.get("reason") == _BY_AGENT
    return condition["type"] in OWNED


def build_previous(latest: Document | None, in_api: Document) -> Document:
    """Return the status a new one is made from.

    What this agent last said counts before what the API shows (which may be behind);
    conditions of others count as the API shows them.
    """
    if latest is None:
        return in_api
    own = [c for c in latest.get("conditions") or () if is_own_condition(c)]
    kinds = {c["type"] for c in own}
    foreign = [c for c in in_api.get("conditions") or () if c["type"] not in kinds]
    return {**latest, "conditions": foreign + own}


def build_begun_anew(status: Document) -> Document:
    """Return what a new agent takes over of a static Pod's status.

    Its manifest says that it is to run, whatever became of it under an earlier agent:
    only its containers' own ends count, not that of the Pod.
    """
    if status.get("phase") not in {"Succeeded", "Failed"}:
        return status
    kept = {k: v for k, v in status.items() if k not in {"phase", "reason", "message"}}
    kept["conditions"] = [
        c for c in status.get("conditions") or () if c.get("type") != _SHARED
    ]
    return kept


def build_ended(
    pod: Pod, observed: ObservedPod, status: Document
) -> tuple[ContainerStatus, ...]:
    """Return the containers that ended for good and are unknown to the runtime.

    A node that went away took its records along. What the API shows of a container
    that was over then is all that keeps it from running a second time.
    """
    ended: list[ContainerStatus] = []
    for key, containers in (
        ("containerStatuses", pod.spec.containers),
        ("ephemeralContainerStatuses", pod.spec.ephemeral_containers),
    ):
        shown = {s["name"]: s for s in status.get(key) or ()}
        for container in containers:
            if observed.newest(container.name) is None:
                seen = _read_ended(container.name, shown.get(container.name) or {})
                final = key != "containerStatuses" or (
                    seen is not None and not should_restart(pod, container, seen)
                )
                if seen is not None and final:
                    ended.append(seen)
    return tuple(ended)


def _read_ended(name: str, shown: Document) -> ContainerStatus | None:
    """Return a container as its status tells of its end, ``None`` before that."""
    state = (shown.get("state") or {}).get("terminated")
    finished_at = parse_time((state or {}).get("finishedAt"))
    container_id = str(shown.get("containerID") or "").partition("://")[2]
    if not state or finished_at is None or not container_id:
        return None
    started_at = parse_time(state.get("startedAt"))
    return ContainerStatus(
        id=container_id,
        name=name,
        sandbox_id="",
        attempt=int(shown.get("restartCount") or 0),
        state=ContainerState.EXITED,
        created_at=started_at or finished_at,
        image=str(shown.get("image") or ""),
        image_id=str(shown.get("imageID") or ""),
        started_at=started_at,
        finished_at=finished_at,
        exit_code=int(state.get("exitCode") or 0),
        reason=str(state.get("reason") or ""),
        message=str(state.get("message") or ""),
    )


def _bare(value: Any) -> Any:
    """Return a value without what JSON may or may not spell out."""
    if isinstance(value, dict):
        bare = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in bare.items() if item not in (None, {}, [])}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return None if value in ("", {}, []) else value
