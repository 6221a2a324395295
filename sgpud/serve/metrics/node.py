"""The metrics of sgpud itself: its state, its exchange with the kubelet, its NVML process."""

from __future__ import annotations

import platform

from sgpud.core.allocation.allocate import RefusalRule
from sgpud.core.registration.events import RegistrationPhase as Registration
from sgpud.core.status.view import SERVING, NodeView
from sgpud.serve.metrics.families import (
    MetricFamily,
    MetricType,
    Rows,
    counted,
    counter,
    flag,
    gauge,
)

RELOADS = ("applied", "unchanged", "refused")
"""The possible results of a reload."""
IN_USE = {"file": "file", "last good": "last_good"}
"""The label value of each configuration that can be in use."""


def _in_use(seen: NodeView) -> Rows:
    return [((label,), seen.configuration.in_use == name) for name, label in IN_USE.items()]


def _usage_age(seen: NodeView) -> Rows:
    return [] if seen.usage.ago is None else [((), seen.usage.ago)]


NODE: tuple[MetricFamily, ...] = (
    gauge(
        "sgpud_build_info",
        ("version", "python"),
        "Always 1; the labels are the versions of sgpud and Python.",
        lambda seen: [((seen.version, platform.python_version()), 1)],
    ),
    gauge(
        "sgpud_driver_info",
        ("driver",),
        "Always 1; the label is the version of the NVIDIA driver, empty until known.",
        lambda seen: [((seen.driver,), 1)],
    ),
    flag(
        "sgpud_serving",
        "1 when this sgpud serves the plugin directory, 0 when it is a standby or has none.",
        lambda seen: seen.serving == SERVING,
    ),
    flag(
        "sgpud_ready",
        "1 when /readyz succeeds: the kubelet follows every list, or a standby could take over.",
        lambda seen: not seen.unready,
    ),
    flag(
        "sgpud_probe_up",
        "1 when the GPUs can be read, 0 when what is known of them is stale.",
        lambda seen: not seen.probe,
    ),
    flag(
        "sgpud_holders_fresh",
        "1 when the holders of shares are up to date, 0 when they may be stale.",
        lambda seen: not seen.holders,
    ),
    flag(
        "sgpud_state_saved",
        "1 when the latest state is saved, 0 when a restart would lose it.",
        lambda seen: not seen.unsaved,
    ),
    flag(
        "sgpud_configuration_current",
        "1 when the configuration file is in use as it is, 0 when an older configuration is.",
        lambda seen: not seen.configuration.problems,
    ),
    gauge(
        "sgpud_configuration_in_use",
        ("source",),
        "1 for the configuration in use: file, or last_good if the file was invalid at start.",
        _in_use,
    ),
    gauge(
        "sgpud_usage_age_seconds",
        (),
        "Seconds since NVML last reported processes; no sample before the first report.",
        _usage_age,
    ),
    gauge(
        "sgpud_pool_registered",
        ("resource",),
        "1 when the kubelet follows the list of this resource.",
        lambda seen: (
            ((pool.resource,), pool.registration == Registration.LIVE.value) for pool in seen.pools
        ),
    ),
    gauge(
        "sgpud_pool_superseded",
        ("resource",),
        "1 while another plugin, which registered later, serves this resource.",
        lambda seen: (
            ((pool.resource,), pool.registration == Registration.SUPERSEDED.value)
            for pool in seen.pools
        ),
    ),
    gauge(
        "sgpud_pool_streams",
        ("resource",),
        "Live ListAndWatch streams of this resource.",
        lambda seen: (((pool.resource,), pool.streams) for pool in seen.pools),
    ),
    counter(
        "sgpud_list_messages",
        ("resource",),
        "Lists of shares sent to the kubelet.",
        lambda seen: counted((pool.resource for pool in seen.pools), seen.counters.lists),
    ),
    counter(
        "sgpud_registrations",
        (),
        "Registrations that the kubelet accepted.",
        lambda seen: [((), seen.counters.registrations)],
    ),
    counter(
        "sgpud_allocations",
        (),
        "Containers that were granted shares.",
        lambda seen: [((), seen.counters.allocations)],
    ),
    counter(
        "sgpud_refusals",
        ("rule",),
        "Containers that were refused, by rule: each is a failed pod.",
        lambda seen: counted((rule.value for rule in RefusalRule), seen.counters.refusals),
    ),
    counter(
        "sgpud_overuse_evictions",
        (),
        'Pods that were evicted for overuse of memory ([limits] overuse = "evict").',
        lambda seen: [((), sum(one.overuse_evictions for one in seen.cluster))],
    ),
    counter(
        "sgpud_reloads",
        ("result",),
        "Reloads of the configuration, by result: applied, unchanged or refused.",
        lambda seen: counted(RELOADS, seen.counters.reloads),
    ),
    counter(
        "sgpud_probe_restarts",
        (),
        "Restarts of the NVML process, whatever the reason.",
        lambda seen: [((), max(0, seen.counters.probe_starts - 1))],
    ),
    MetricFamily(
        MetricType.SUMMARY,
        "sgpud_probe_call_seconds",
        "Duration of NVML calls, as the NVML process measured them.",
        ("call",),
        lambda seen: [((each.call,), each.times) for each in seen.counters.calls],
        lambda seen: [each.seconds for each in seen.counters.calls],
    ),
)
"""Every family of this module."""
