"""Which handler a Pod runs with, from the RuntimeClasses seen on a watch."""

from collections.abc import Callable
from typing import assert_never

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import RuntimeHandler, RuntimeStatus
from podyard.node.runtime_classes.decide import (
    ClassMissing,
    UseHandler,
    decide_handler,
    find_handler,
    refuse_user_namespace,
)
from podyard.node.runtime_classes.parts import RuntimeClassError


class RuntimeClassManager:
    """Looks classes up at every sandbox and container, never remembers one.

    Args:
        find_class: returns the RuntimeClass of a name, or ``None``; an informer's
            look-up.
        runtime_status: returns what the runtime last said of its handlers, or
            ``None`` where it has not been asked yet.
        runtime_name: returns what the runtime calls itself; empty before that.
    """

    def __init__(
        self,
        find_class: Callable[[str], Document | None],
        runtime_status: Callable[[], RuntimeStatus | None] = lambda: None,
        runtime_name: Callable[[], str] = lambda: "",
    ) -> None:
        self._find_class = find_class
        self._runtime_status = runtime_status
        self._runtime_name = runtime_name

    def handler_for(self, pod: Pod) -> str:
        """Return the handler; empty is the runtime's default.

        Raises:
            RuntimeClassError: the class does not exist, or its handler cannot give
                the Pod the user namespace it asks for.
        """
        match self._decide(pod):
            case UseHandler(handler):
                refusal = refuse_user_namespace(pod, self._features(handler))
                if refusal:
                    raise RuntimeClassError(refusal)
                return handler
            case ClassMissing(message):
                raise RuntimeClassError(message)
            case unknown:
                assert_never(unknown)

    def recursive_read_only(self, pod: Pod) -> bool:
        """Return whether the Pod's handler can make mounts read-only all the way."""
        match self._decide(pod):
            case UseHandler(handler):
                return self._features(handler).recursive_read_only_mounts
            case ClassMissing():
                return False
            case unknown:
                assert_never(unknown)

    def _decide(self, pod: Pod) -> UseHandler | ClassMissing:
        name = pod.spec.runtime_class_name
        found = self._find_class(name) if name else None
        return decide_handler(pod, found, runtime_name=self._runtime_name())

    def _features(self, handler: str) -> RuntimeHandler:
        status = self._runtime_status()
        return find_handler(status.handlers if status else (), handler)
