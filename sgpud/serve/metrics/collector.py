"""Prometheus metrics, made from the view at each scrape, so that nothing goes stale.

Their names are a public interface: dashboards and alerts use them. `python -m tools.metrics_page`
generates their list in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sgpud.core.status.view import NodeView
from sgpud.serve.metrics.dra import DRA
from sgpud.serve.metrics.exposition import exposed
from sgpud.serve.metrics.families import MetricFamily
from sgpud.serve.metrics.gpus import GPUS
from sgpud.serve.metrics.node import NODE

FAMILIES: tuple[MetricFamily, ...] = (*NODE, *DRA, *GPUS)
"""Every metric of sgpud."""


class ViewCollector(Collector):
    """Collects the metrics of the current view."""

    def __init__(self, view: Callable[[], NodeView]) -> None:
        """`view` is called once per scrape."""
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Every metric of sgpud."""
        seen = self._view()
        return (family.metric(seen) for family in FAMILIES)

    def describe(self) -> Iterator[Metric]:
        """Nothing: no view is made before the first scrape."""
        return iter(())


def make_registry(view: Callable[[], NodeView]) -> CollectorRegistry:
    """The metrics of one daemon, with those of its process (memory, CPU, descriptors)."""
    registry = CollectorRegistry()
    registry.register(ViewCollector(view))
    ProcessCollector(registry=registry)
    return registry


def encoder(view: Callable[[], NodeView]) -> Callable[[str], tuple[bytes, str]]:
    """A function from an Accept header to the current metrics in that format, and its content type.

    The registry is made once.
    """
    registry = make_registry(view)

    return lambda accept: exposed(registry.collect(), accept)
