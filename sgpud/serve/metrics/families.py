"""What a metric family is: its name, what it tells, and how its samples are read from a View."""

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
"""Samples: the labels' values, in order, and the value."""


class MetricType(Enum):
    """What may be made of the numbers."""

    GAUGE = "gauge"
    """What is so now."""
    COUNTER = "counter"
    """What has happened since the process began; its name gets `_total` at its end."""
    SUMMARY = "summary"
    """How often, and how much in all: `_count` and `_sum`."""


@frozen
class MetricFamily:
    """One metric with all its label values. `rows` gives its samples; none may come twice."""

    kind: MetricType
    name: str
    text: str
    """What it tells, in a sentence."""
    labels: tuple[str, ...]
    rows: Callable[[NodeView], Rows]
    sums: Callable[[NodeView], Sequence[float]] = lambda _: ()
    """Of a summary: the sums, in the order of `rows`, which count."""

    @property
    def shown(self) -> str:
        """The name as a query has it."""
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
    """The values of labels: names from outside, in which nothing can control a terminal."""
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
    """Counts by name; each of these names is there from the start, for a rate to be taken of."""
    return [((name,), count) for name, count in {**dict.fromkeys(names, 0), **counts}.items()]
