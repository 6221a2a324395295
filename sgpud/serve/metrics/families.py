"""A metric family: its name, its help text, and how its samples are read from a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from attrs import frozen
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from sgpud.core.status.view import NodeView
from sgpud.core.text import one_line

Rows = Iterable[tuple[Sequence[str], float]]
"""Samples: the label values, in order, and the value."""


class MetricType(Enum):
    """Prometheus' type of a metric."""

    GAUGE = "gauge"
    """A current value."""
    COUNTER = "counter"
    """A count since the process started; its name gets the suffix `_total`."""
    SUMMARY = "summary"
    """A count and a total: `_count` and `_sum`."""


@frozen
class MetricFamily:
    """One metric with all its label values. `rows` returns its samples, each only once."""

    kind: MetricType
    name: str
    text: str
    """The help text, a sentence."""
    labels: tuple[str, ...]
    rows: Callable[[NodeView], Rows]
    sums: Callable[[NodeView], Sequence[float]] = lambda _: ()
    """Of a summary: the sums, in the order of `rows`, which has the counts."""

    @property
    def shown(self) -> str:
        """The name in a query."""
        return f"{self.name}_total" if self.kind is MetricType.COUNTER else self.name

    def metric(self, seen: NodeView) -> Metric:
        """The samples of a view."""
        if self.kind is MetricType.SUMMARY:
            summary = SummaryMetricFamily(self.name, self.text, labels=self.labels)
            for (labels, count), total in zip(self.rows(seen), self.sums(seen), strict=True):
                summary.add_metric(_clean(labels), int(count), total)
            return summary
        made = CounterMetricFamily if self.kind is MetricType.COUNTER else GaugeMetricFamily
        family = made(self.name, self.text, labels=self.labels)
        for labels, value in self.rows(seen):
            family.add_metric(_clean(labels), float(value))
        return family


def _clean(labels: Sequence[str]) -> Sequence[str]:
    """Label values: names from outside, cleaned of what could control a terminal."""
    return [label if label.isprintable() else one_line(label) for label in labels]


def gauge(
    name: str, labels: tuple[str, ...], text: str, rows: Callable[[NodeView], Rows]
) -> MetricFamily:
    """A gauge."""
    return MetricFamily(MetricType.GAUGE, name, text, labels, rows)


def counter(
    name: str, labels: tuple[str, ...], text: str, rows: Callable[[NodeView], Rows]
) -> MetricFamily:
    """A counter."""
    return MetricFamily(MetricType.COUNTER, name, text, labels, rows)


def flag(name: str, text: str, holds: Callable[[NodeView], bool]) -> MetricFamily:
    """A gauge that is 1 or 0."""
    return gauge(name, (), text, lambda seen: [((), holds(seen))])


def counted(names: Iterable[str], counts: Mapping[str, int]) -> Rows:
    """Counts by name; these names are exported from the start, so that rates work."""
    return [((name,), count) for name, count in {**dict.fromkeys(names, 0), **counts}.items()]
