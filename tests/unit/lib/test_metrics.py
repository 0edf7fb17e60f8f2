"""Metrics in the Prometheus text format."""

from podyard.lib.metrics import Computed, Counter, Gauge, Histogram, to_text


def test_counters_and_gauges_are_told_by_label():
    counter = Counter("hits_total", "Hits.", ("code",))
    gauge = Gauge("open", "Open now.")
    counter.add("200")
    counter.add("200", amount=2)
    counter.add('4"\n')
    gauge.set(5)
    gauge.add(amount=-1)

    assert to_text([counter, gauge]).decode().splitlines() == [
        "# HELP hits_total Hits.",
        "# TYPE hits_total counter",
        'hits_total{code="200"} 3',
        'hits_total{code="4\\"\\n"} 1',
        "# HELP open Open now.",
        "# TYPE open gauge",
        "open 4",
    ]


def test_a_histogram_counts_below_each_bound():
    histogram = Histogram("took", "Took.", ("verb",), bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(value, "GET")

    assert to_text([histogram]).decode().splitlines()[2:] == [
        'took_bucket{verb="GET",le="0.1"} 2',
        'took_bucket{verb="GET",le="1"} 3',
        'took_bucket{verb="GET",le="+Inf"} 4',
        'took_sum{verb="GET"} 5.65',
        'took_count{verb="GET"} 4',
    ]


def test_computed_values_are_read_when_shown():
    values = {("a",): 1.0}
    metric = Computed("size", "Size.", lambda: values, ("what",))
    values["b",] = 2.0

    assert list(metric.lines())[2:] == ['size{what="a"} 1', 'size{what="b"} 2']
