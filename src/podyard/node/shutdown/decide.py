"""Which Pods stop together when the node goes away, and how long they get. Pure.

Source: kubernetes ``pkg/kubelet/nodeshutdown`` (v1.36);
https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
"""

from collections.abc import Iterable, Sequence

from podyard.api.priority import CRITICAL
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class ShutdownPeriod:
    """How long Pods get from a priority on.

    Attributes:
        priority: the lowest it is about.
        grace_s: what they get, seconds.
    """

    priority: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class ShutdownGroup:
    """Pods that stop at the same time.

    Attributes:
        uids: the Pods.
        grace_s: the most they get; ``None`` for all that is left.
    """

    uids: tuple[str, ...]
    grace_s: float | None = None


def build_periods(
    whole_s: float, critical_s: float, by_priority: Sequence[ShutdownPeriod]
) -> tuple[ShutdownPeriod, ...]:
    """Return the periods of KubeletConfiguration's three settings, lowest first.

    Args:
        whole_s: ``shutdownGracePeriod``, 0 for none.
        critical_s: ``shutdownGracePeriodCriticalPods``, the end of it.
        by_priority: ``shutdownGracePeriodByPodPriority``.

    Raises:
        ValueError: they exclude each other, or make no sense.
    """
    if by_priority:
        if whole_s or critical_s:
            raise ValueError(
                "shutdownGracePeriodByPodPriority excludes shutdownGracePeriod and "
                "shutdownGracePeriodCriticalPods"
            )
        return tuple(sorted(by_priority, key=lambda period: period.priority))
    if critical_s > whole_s:
        raise ValueError(
            "shutdownGracePeriodCriticalPods must not be longer than "
            "shutdownGracePeriod"
        )
    if not whole_s:
        return ()
    return (
        ShutdownPeriod(0, whole_s - critical_s),
        ShutdownPeriod(CRITICAL, critical_s),
    )


def decide_shutdown(
    pods: Iterable[tuple[str, int]], periods: Sequence[ShutdownPeriod]
) -> tuple[ShutdownGroup, ...]:
    """Return the groups in the order in which they stop: the least important first.

    Args:
        pods: uid and priority of each.
        periods: lowest priority first; without any each priority is its own group.
    """
    groups: dict[int, list[str]] = {}
    for uid, priority in pods:
        if not periods:
            groups.setdefault(priority, []).append(uid)
            continue
        reached = [i for i, period in enumerate(periods) if period.priority <= priority]
        # Whoever is below the lowest goes with the lowest.
        groups.setdefault(reached[-1] if reached else 0, []).append(uid)
    return tuple(
        ShutdownGroup(tuple(uids), periods[key].grace_s if periods else None)
        for key, uids in sorted(groups.items())
    )
