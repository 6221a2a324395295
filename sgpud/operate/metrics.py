"""Prometheus metrics: made from the View at each scrape, so that nothing goes stale.

Gauges tell what is so now, counters what has happened since the process began. The names are part
of what sgpud promises: docs and alerts use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sgpud.core.allocation import RefusalRule
from sgpud.core.health_values import Phase
from sgpud.core.plan import Standing
from sgpud.core.pool_views import GpuView, PoolView
from sgpud.core.registration import Phase as Registration
from sgpud.core.status import View
from sgpud.operate.text import one_line

RELOADS = ("applied", "unchanged", "refused")
"""The results of a reload; each is there from the start, so that a rate can be taken of it."""
Rows = Iterable[tuple[Sequence[str], float]]


class ViewCollector(Collector):
    """Tells Prometheus what the View of the moment holds."""

    def __init__(self, view: Callable[[], View]) -> None:
        """`view` is called once per scrape."""
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Every metric of sgpud."""
        seen = self._view()
        yield from _state(seen)
        yield from _pools(seen.pools)
        yield from _gpus(seen.pools)
        yield from _healths(seen)
        yield from _events(seen)


def make_registry(view: Callable[[], View]) -> CollectorRegistry:
    """The metrics of one daemon, with those of its process (memory, CPU, descriptors)."""
    registry = CollectorRegistry()
    registry.register(ViewCollector(view))
    ProcessCollector(registry=registry)
    return registry


def encoder(view: Callable[[], View]) -> Callable[[str], tuple[bytes, str]]:
    """What gives the metrics of the moment, in the format that an Accept header asks for.

    With the content type of that format.
    """
    registry = make_registry(view)

    def encode(accept: str) -> tuple[bytes, str]:
        form, content_type = choose_encoder(accept)
        return form(registry), content_type

    return encode


def _state(seen: View) -> Iterator[Metric]:
    yield _gauge(
        "sgpud_info",
        "Always 1; the labels say what runs.",
        ("version", "driver"),
        [((seen.version, one_line(seen.driver)), 1)],
    )
    flags = {
        "sgpud_serving": (
            "1 when this sgpud serves the plugin directory, 0 when it is a standby or has none.",
            seen.serving == "serving",
        ),
        "sgpud_probe_up": (
            "1 when the GPUs are being read, 0 when what is known of them is old.",
            not seen.probe,
        ),
        "sgpud_holders_fresh": (
            "1 when it is known who holds shares, 0 when that may be stale.",
            not seen.holders,
        ),
        "sgpud_configuration_current": (
            "1 when the configuration file is in use, 0 when an older configuration is.",
            not seen.configuration.problems,
        ),
    }
    for name, (text, holds) in flags.items():
        yield _gauge(name, text, (), [((), holds)])


def _pools(pools: Sequence[PoolView]) -> Iterator[Metric]:
    yield _gauge(
        "sgpud_pool_registered",
        "1 when the kubelet follows the list of this resource.",
        ("resource",),
        (((pool.resource,), pool.registration == Registration.LIVE.value) for pool in pools),
    )
    yield _gauge(
        "sgpud_shares",
        "Listed shares by state: free, held, or draining (on their way out).",
        ("resource", "gpu", "state"),
        (
            ((pool.resource, gpu.uuid, state), count)
            for pool, gpu in _each(pools)
            for state, count in _states(gpu).items()
        ),
    )
    yield _gauge(
        "sgpud_shares_allocatable",
        "Shares listed Healthy, free or held: what the node shows as allocatable.",
        ("resource", "gpu"),
        (((pool.resource, gpu.uuid), gpu.healthy) for pool, gpu in _each(pools)),
    )
    yield _gauge(
        "sgpud_shares_surplus",
        "Held shares beyond the number that is configured.",
        ("resource", "gpu"),
        (((pool.resource, gpu.uuid), gpu.surplus) for pool, gpu in _each(pools)),
    )
    yield _gauge(
        "sgpud_gpu_standing",
        "1 for how the GPU stands in this resource: well, withheld or sick.",
        ("resource", "gpu", "standing"),
        (
            ((pool.resource, gpu.uuid, standing.value), gpu.standing == standing.value)
            for pool, gpu in _each(pools)
            for standing in Standing
        ),
    )


def _gpus(pools: Sequence[PoolView]) -> Iterator[Metric]:
    # A GPU is in two pools while one of them is on its way out.
    gpus = {gpu.uuid: gpu for _, gpu in _each(pools)}.values()
    yield _gauge(
        "sgpud_gpu_info",
        "Always 1; the labels describe the GPU.",
        ("gpu", "product", "index"),
        (
            ((gpu.uuid, one_line(gpu.product), "" if gpu.index is None else str(gpu.index)), 1)
            for gpu in gpus
        ),
    )
    yield _gauge(
        "sgpud_gpu_memory_bytes",
        "Memory of the whole GPU.",
        ("gpu",),
        (((gpu.uuid,), gpu.memory) for gpu in gpus),
    )


def _healths(seen: View) -> Iterator[Metric]:
    yield _gauge(
        "sgpud_gpu_health",
        "1 for the health of the GPU itself: healthy, suspect, unhealthy or probation.",
        ("gpu", "health"),
        (
            ((one.uuid, phase.value), one.health == phase.value)
            for one in seen.healths
            for phase in Phase
        ),
    )
    yield _gauge(
        "sgpud_gpu_cordoned",
        "1 when the operator keeps the GPU from being given out.",
        ("gpu",),
        (((one.uuid,), one.cordoned) for one in seen.healths),
    )
    yield _counter(
        "sgpud_gpu_xids",
        "XIDs that the driver reported, whatever their class; 0 stands for all beyond the first"
        " 1000 pairs of GPU and XID.",
        ("gpu", "xid"),
        (((gpu, str(xid)), count) for gpu, xid, count in seen.counters.xids),
    )


def _events(seen: View) -> Iterator[Metric]:
    counters = seen.counters
    yield _counter(
        "sgpud_allocations",
        "Containers that were given shares.",
        (),
        [((), counters.allocations)],
    )
    yield _counter(
        "sgpud_registrations",
        "Registrations that the kubelet accepted.",
        (),
        [((), counters.registrations)],
    )
    yield _counter(
        "sgpud_refusals",
        "Containers that were refused, by the rule that refused them: each is a failed pod.",
        ("rule",),
        _counted((rule.value for rule in RefusalRule), counters.refusals),
    )
    yield _counter(
        "sgpud_reloads",
        "Reloads of the configuration, by result.",
        ("result",),
        _counted(RELOADS, counters.reloads),
    )


def _each(pools: Sequence[PoolView]) -> Iterator[tuple[PoolView, GpuView]]:
    return ((pool, gpu) for pool in pools for gpu in pool.gpus)


def _states(gpu: GpuView) -> Mapping[str, int]:
    return {"free": gpu.free, "held": gpu.held, "draining": gpu.draining}


def _counted(names: Iterable[str], counts: Mapping[str, int]) -> Rows:
    return [((name,), count) for name, count in {**dict.fromkeys(names, 0), **counts}.items()]


def _gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def _counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for labels, value in rows:
        family.add_metric(list(labels), float(value))
    return family
