"""The patch that takes a Pod's status in the API to what its agent sees."""

from typing import Any, Final

from podyard.api.documents import Document
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


def _bare(value: Any) -> Any:
    """Return a value without what JSON may or may not spell out."""
    if isinstance(value, dict):
        bare = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in bare.items() if item not in (None, {}, [])}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return None if value in ("", {}, []) else value
