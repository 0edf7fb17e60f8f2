"""``/stats/summary``: what the node and its Pods use.

Source: ``k8s.io/kubelet/pkg/apis/stats/v1alpha1`` (field names).
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from podyard.api.core_v1 import Pod, format_time
from podyard.api.documents import Document
from podyard.api.observed import ContainerStats
from podyard.cri.services import RuntimeService
from podyard.lib.values import dataclass
from podyard.node.endpoints.parts import PodDirectory


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """The node's own figures, from ``/proc``."""

    cpu_usage_core_ns: int
    memory_total_bytes: int
    memory_available_bytes: int


def read_node_usage(proc: Path = Path("/proc")) -> NodeUsage:
    """Read the node's usage since boot (blocking, microseconds)."""
    fields = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    ticks = user + nice + system + irq + softirq + steal
    memory: dict[str, int] = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    # USER_HZ is 100 on every Linux that runs containers.
    return NodeUsage(
        ticks * 10_000_000, memory["MemTotal"], memory.get("MemAvailable", 0)
    )


class Summarizer:
    """Builds the summary from the runtime's stats, one call for all containers."""

    def __init__(
        self, node_name: str, runtime: RuntimeService, pods: PodDirectory
    ) -> None:
        self._node_name = node_name
        self._runtime = runtime
        self._pods = pods

    async def summary(self, now: datetime) -> Document:
        """Return the ``Summary`` document."""
        usage = await asyncio.to_thread(read_node_usage)
        by_pod: dict[str, list[ContainerStats]] = {}
        for stats in await self._runtime.container_stats():
            by_pod.setdefault(stats.pod_uid, []).append(stats)
        at = format_time(now)
        used = usage.memory_total_bytes - usage.memory_available_bytes
        return {
            "node": {
                "nodeName": self._node_name,
                "cpu": {"time": at, "usageCoreNanoSeconds": usage.cpu_usage_core_ns},
                "memory": {
                    "time": at,
                    "availableBytes": usage.memory_available_bytes,
                    "usageBytes": used,
                    "workingSetBytes": used,
                },
            },
            "pods": [
                _pod_stats(pod, by_pod.get(pod.uid, []), at)
                for pod in self._pods.all_pods()
                if pod.uid in by_pod
            ],
        }


def _pod_stats(pod: Pod, containers: list[ContainerStats], at: str) -> Document:
    entries = [_container_stats(stats) for stats in containers]
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "containers": entries,
        "cpu": {"time": at, **_total(entries, "cpu", "usageCoreNanoSeconds")},
        "memory": {
            "time": at,
            **_total(entries, "memory", "workingSetBytes"),
            **_total(entries, "memory", "usageBytes"),
        },
    }


def _total(entries: list[Document], part: str, name: str) -> Mapping[str, int]:
    values = [entry[part][name] for entry in entries if name in entry[part]]
    return {name: sum(values)} if values else {}


def _container_stats(stats: ContainerStats) -> Document:
    at = format_time(stats.at)
    return {
        "name": stats.name,
        "cpu": {"time": at, **_given(usageCoreNanoSeconds=stats.cpu_usage_core_ns)},
        "memory": {
            "time": at,
            **_given(
                workingSetBytes=stats.memory_working_set_bytes,
                usageBytes=stats.memory_usage_bytes,
                rssBytes=stats.memory_rss_bytes,
            ),
        },
        "rootfs": {
            "time": at,
            **_given(
                usedBytes=stats.rootfs_used_bytes,
                inodesUsed=stats.rootfs_inodes_used,
            ),
        },
    }


def _given(**values: int | None) -> Mapping[str, int]:
    return {name: value for name, value in values.items() if value is not None}
