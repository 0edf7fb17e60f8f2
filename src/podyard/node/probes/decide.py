"""From single results to verdicts: thresholds, and when to look next. Pure.

Source: Kubernetes docs "Configure Liveness, Readiness and Startup Probes";
``pkg/kubelet/prober/worker.go`` (v1.36).
"""

from datetime import datetime
from enum import StrEnum

from podyard.api.core_v1 import Container, Probe
from podyard.lib.values import dataclass


class ProbeKind(StrEnum):
    """The three probes, as events spell them."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class Streak:
    """Equal results in a row; the whole memory of a probe."""

    healthy: bool | None = None
    length: int = 0

    def then(self, *, healthy: bool) -> "Streak":
        """Return the streak after one more result."""
        return Streak(healthy, self.length + 1 if healthy == self.healthy else 1)


def decide_verdict(streak: Streak, probe: Probe) -> bool | None:
    """Return what the streak proves, or ``None`` where nothing changes yet."""
    if streak.healthy is None:
        return None
    threshold = probe.success_threshold if streak.healthy else probe.failure_threshold
    return streak.healthy if streak.length >= threshold else None


def decide_first_delay(
    probe: Probe, *, started_at: datetime, now: datetime, jitter: float
) -> float:
    """Return the seconds until the first attempt.

    Args:
        probe: the probe.
        started_at: when the container started.
        now: the time.
        jitter: 0…1, spread over a period for containers adopted after a restart of
            the agent, so that a thousand probes do not start at once; 0 for new ones.
    """
    ran_s = max(0.0, (now - started_at).total_seconds())
    if ran_s < probe.initial_delay_s:
        return probe.initial_delay_s - ran_s
    return jitter * probe.period_s


def probe_of(container: Container, kind: ProbeKind) -> Probe | None:
    """Return the container's probe of that kind, if it has one."""
    match kind:
        case ProbeKind.STARTUP:
            return container.startup_probe
        case ProbeKind.LIVENESS:
            return container.liveness_probe
        case ProbeKind.READINESS:
            return container.readiness_probe


def has_probes(container: Container) -> bool:
    """Return whether anything is to be probed."""
    return any(probe_of(container, kind) is not None for kind in ProbeKind)
