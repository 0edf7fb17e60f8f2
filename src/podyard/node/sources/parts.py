"""What a source of Pods tells."""

from typing import Protocol

from podyard.api.core_v1 import Pod


class PodSink(Protocol):
    """Who takes Pods. Calls never wait."""

    def take_pod(self, source: str, pod: Pod) -> None:
        """Take a new Pod, or a newer state of one."""

    def drop_pod(self, source: str, pod: Pod) -> None:
        """Let go of a Pod that the source no longer has."""

    def source_ready(self, source: str) -> None:
        """Note that the source has told of everything it had."""
