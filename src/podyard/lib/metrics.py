"""Counters, gauges and histograms in the Prometheus text format 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

#: The content type of the text format.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Upper bounds of request durations, seconds.
LATENCY_BUCKETS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)


class Metric(Protocol):
    """Something that can be shown."""

    def lines(self) -> Iterable[str]:
        """Return its lines of the text format."""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(names: Sequence[str], values: Sequence[str], extra: str = "") -> str:
    pairs = [
        f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)
    ]
    if extra:
        pairs.append(extra)
    return "{" + ",".join(pairs) + "}" if pairs else ""


class Counter:
    """A number that only grows, by labels.

    Args:
        name: ``…_total``.
        text: the help line.
        labels: the label names.
    """

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        """Add to the number of these label values."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def value(self, *labels: str) -> float:
        """Return the number of these label values."""
        return self._values.get(labels, 0)

    def lines(self) -> Iterable[str]:
        """Return its lines of the text format."""
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} {self.kind}"
        for labels, value in sorted(self._values.items()):
            yield f"{self._name}{_labels(self._labels, labels)} {value:.15g}"


class Gauge(Counter):
    """A number that goes up and down, by labels."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        """Set the number of these label values."""
        self._values[labels] = value


class Histogram:
    """How often a value fell below each bound, by labels.

    Args:
        name: the name without ``_bucket``.
        text: the help line.
        labels: the label names.
        bounds: ascending upper bounds; the infinite one is implied.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count one value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterable[str]:
        """Return its lines of the text format."""
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} histogram"
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*self._bounds, None), counts, strict=True):
                total += count
                edge = "+Inf" if bound is None else f"{bound:g}"
                where = _labels(self._labels, labels, f'le="{edge}"')
                yield f"{self._name}_bucket{where} {total}"
            where = _labels(self._labels, labels)
            yield f"{self._name}_sum{where} {self._sums[labels]:.9g}"
            yield f"{self._name}_count{where} {total}"


class Computed:
    """Numbers that are asked for when they are shown.

    Args:
        name: the metric's name.
        text: the help line.
        read: returns the value by label values.
        labels: the label names.
        kind: ``gauge`` or ``counter``.
    """

    def __init__(
        self,
        name: str,
        text: str,
        read: Callable[[], Mapping[tuple[str, ...], float]],
        labels: Sequence[str] = (),
        kind: str = "gauge",
    ) -> None:
        self._name = name
        self._text = text
        self._read = read
        self._labels = tuple(labels)
        self._kind = kind

    def lines(self) -> Iterable[str]:
        """Return its lines of the text format."""
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} {self._kind}"
        for labels, value in sorted(self._read().items()):
            yield f"{self._name}{_labels(self._labels, labels)} {value:.15g}"


def to_text(metrics: Iterable[Metric]) -> bytes:
    """Return the whole exposition."""
    lines = [line for metric in metrics for line in metric.lines()]
    return ("\n".join(lines) + "\n").encode()
