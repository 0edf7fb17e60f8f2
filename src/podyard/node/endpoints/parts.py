"""What the node's endpoints ask of the agent."""

from typing import Protocol

from podyard.api.core_v1 import Pod


class PodDirectory(Protocol):
    """The Pods this node has been told to run."""

    def find_pod(self, namespace: str, name: str) -> Pod | None:
        """Return a Pod by name, or ``None``. A static Pod is found by its own name."""

    def all_pods(self) -> tuple[Pod, ...]:
        """Return every Pod of this node."""


class EndpointError(Exception):
    """A request the node refuses.

    Attributes:
        code: the HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
