"""What the probe room hands to others."""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class ContainerVerdict:
    """What the probes of one container instance say; ``None``: nothing yet.

    Attributes:
        started: the startup probe's verdict.
        ready: the readiness probe's verdict.
        liveness_failed: the liveness probe gave it up.
        startup_failed: the startup probe gave it up.
    """

    started: bool | None = None
    ready: bool | None = None
    liveness_failed: bool = False
    startup_failed: bool = False


_NOTHING_YET: Final = ContainerVerdict()


@dataclass(frozen=True, slots=True)
class ProbeVerdicts:
    """The verdicts of one Pod, by container id, so that a new instance starts anew."""

    by_id: Mapping[str, ContainerVerdict] = field(default_factory=dict)

    def of(self, container_id: str) -> ContainerVerdict:
        """Return that container's verdict; a stranger has none yet."""
        return self.by_id.get(container_id, _NOTHING_YET)
