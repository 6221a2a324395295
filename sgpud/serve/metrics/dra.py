"""The metrics of the driver of Dynamic Resource Allocation; without samples in a device plugin."""

from __future__ import annotations

from sgpud.core.status.view import NodeView
from sgpud.serve.metrics.families import MetricFamily, MetricType, counter, gauge


def _seconds(seen: NodeView) -> list[float]:
    return [each.prepare_seconds for each in seen.dra]


DRA: tuple[MetricFamily, ...] = (
    gauge(
        "sgpud_dra_slice_published",
        (),
        "1 when the ResourceSlice of this node at the API server is up to date.",
        lambda seen: [((), each.published) for each in seen.dra],
    ),
    gauge(
        "sgpud_dra_claims",
        (),
        "Claims that are prepared on this node.",
        lambda seen: [((), each.claims) for each in seen.dra],
    ),
    counter(
        "sgpud_dra_slice_writes",
        (),
        "Writes of the ResourceSlice.",
        lambda seen: [((), each.writes) for each in seen.dra],
    ),
    counter(
        "sgpud_dra_slice_repairs",
        (),
        "Writes of the ResourceSlice after someone else had changed or deleted it: each start of a"
        " kubelet is one.",
        lambda seen: [((), each.repairs) for each in seen.dra],
    ),
    counter(
        "sgpud_dra_refusals",
        ("reason",),
        "Claims that were not prepared, by reason: their pods wait and the kubelet tries again.",
        lambda seen: (
            ((reason,), count) for each in seen.dra for reason, count in each.refusals.items()
        ),
    ),
    counter(
        "sgpud_dra_api_errors",
        ("method", "status"),
        "Failed calls to the API server; the status is that of HTTP, 0 if there was no answer.",
        lambda seen: (
            ((one.method, str(one.status)), one.count) for each in seen.dra for one in each.errors
        ),
    ),
    MetricFamily(
        MetricType.SUMMARY,
        "sgpud_dra_prepare_seconds",
        "Claims that were prepared, and the seconds that this took.",
        (),
        lambda seen: [((), each.prepared) for each in seen.dra],
        _seconds,
    ),
)
