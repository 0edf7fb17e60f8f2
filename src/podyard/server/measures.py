"""What is counted of the requests and the store, under upstream's metric names.

Source: https://kubernetes.io/docs/reference/instrumenting/metrics/
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from podyard.lib.metrics import Computed, Counter, Gauge, Histogram, Metric, to_text
from podyard.server.build import RequestInfo
from podyard.server.registry import Registry
from podyard.store.backend import StoreStatistics

_VERBS: Final = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
_NOTHING: Final = RequestInfo(verb="other", path="")


class Measures:
    """Counts requests; shows itself as Prometheus text."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        what = ("verb", "group", "version", "resource", "subresource")
        self._requests = Counter(
            "apiserver_request_total",
            "Requests by verb, kind and HTTP status.",
            (*what, "scope", "code"),
        )
        self._durations = Histogram(
            "apiserver_request_duration_seconds",
            "How long requests took.",
            ("verb", "resource"),
        )
        self._long_running = Gauge(
            "apiserver_longrunning_requests",
            "Watches, logs and tunnels open now.",
            (*what, "scope"),
        )
        self._more: list[Metric] = []

    def add(self, metric: Metric) -> None:
        """Show another metric, too."""
        self._more.append(metric)

    def _served(self, info: RequestInfo) -> bool:
        """Say whether the labels are ours; strangers' paths would fill the memory."""
        found = self._registry.find(info.group, info.version, info.resource)
        return found is not None and (
            not info.subresource or found.subresource(info.subresource) is not None
        )

    def _labels(self, info: RequestInfo | None) -> tuple[str, ...]:
        asked = info or _NOTHING
        if not asked.is_resource_request or not self._served(asked):
            return (asked.verb.upper()[:8] if info else "", "", "", "", "", "")
        scope = "resource" if asked.name else "namespace"
        if not asked.namespace:
            scope = "cluster"
        return (
            _VERBS.get(asked.verb, ""),
            asked.group,
            asked.version,
            asked.resource,
            asked.subresource,
            scope,
        )

    def count(self, info: RequestInfo | None, code: int, took_s: float) -> None:
        """Count one answered request."""
        labels = self._labels(info)
        self._requests.add(*labels, str(code))
        self._durations.observe(took_s, labels[0], labels[3])

    @contextmanager
    def long_running(self, info: RequestInfo | None) -> Iterator[None]:
        """Count a stream while it is open, and once as a request."""
        labels = self._labels(info)
        self._requests.add(*labels, "200")
        self._long_running.add(*labels)
        try:
            yield
        finally:
            self._long_running.add(*labels, amount=-1)

    def to_text(self) -> bytes:
        """Return the exposition."""
        own: list[Metric] = [self._requests, self._durations, self._long_running]
        return to_text([*own, *self._more])


def store_metrics(read: Callable[[], StoreStatistics]) -> list[Metric]:
    """Return the metrics of the store."""

    def one(name: str) -> Callable[[], Mapping[tuple[str, ...], float]]:
        return lambda: {(): float(getattr(read(), name))}

    gauges = {
        "rows": "Objects stored now.",
        "log_rows": "Revisions kept.",
        "file_bytes": "Size of the database file and its log.",
        "subscriptions": "Watches open now.",
        "current_rev": "The newest revision.",
        "compact_rev": "The oldest revision that can be asked for.",
    }
    counters = {
        "writes": "Writes committed.",
        "commits": "Transactions they took.",
        "overflows": "Watches let go because their reader was too slow.",
    }
    shown: list[Metric] = [
        Computed(f"podyard_store_{name}", text, one(name))
        for name, text in gauges.items()
    ]
    shown += [
        Computed(f"podyard_store_{name}_total", text, one(name), kind="counter")
        for name, text in counters.items()
    ]
    return shown
