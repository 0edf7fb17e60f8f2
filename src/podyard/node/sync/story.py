"""What the agent saw and did for a Pod, lately: the last syncs as they were."""

from collections import deque
from dataclasses import field, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from podyard.api.core_v1 import Container, Pod, format_micro_time
from podyard.api.documents import Document
from podyard.api.observed import ObservedPod
from podyard.lib.values import dataclass
from podyard.node.sync.decide import PodActions

KEEP: Final = 50


@dataclass(slots=True)
class Chapter:
    """One sync: what was seen, what was decided, how it went.

    Attributes:
        results: sentences, added while the actions are carried out.
    """

    at: datetime
    observed: ObservedPod
    actions: PodActions | None
    results: list[str] = field(default_factory=list)


class Story:
    """The last chapters of one Pod's life on this node."""

    def __init__(self, keep: int = KEEP) -> None:
        self._chapters: deque[Chapter] = deque(maxlen=keep)

    def open(
        self, at: datetime, observed: ObservedPod, actions: PodActions | None
    ) -> Chapter:
        """Begin a chapter; one that says what the last one said takes its place."""
        last = self._chapters[-1] if self._chapters else None
        if (
            last is not None
            and last.observed == observed
            and last.actions == actions
            and not last.results
        ):
            self._chapters.pop()
        chapter = Chapter(at, observed, actions)
        self._chapters.append(chapter)
        return chapter

    def tell(self, result: str) -> None:
        """Add a result to the newest chapter."""
        if self._chapters:
            self._chapters[-1].results.append(result)

    def to_document(self) -> list[Document]:
        """Return the chapters, oldest first, without environment or secrets."""
        return [
            {
                "at": format_micro_time(chapter.at),
                "observed": _plain(chapter.observed),
                "actions": _plain(chapter.actions),
                "results": list(chapter.results),
            }
            for chapter in self._chapters
        ]


def _plain(value: Any) -> Any:
    """Return a view as JSON; a container is its name, for its spec may hold secrets."""
    if isinstance(value, Container | Pod):
        return value.name
    if isinstance(value, datetime):
        return format_micro_time(value)
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {
            key: _plain(getattr(value, key))
            for key in value.__dataclass_fields__
            if key not in {"annotations", "labels"}
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [_plain(item) for item in value]
    return value
