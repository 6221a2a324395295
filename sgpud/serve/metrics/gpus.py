"""The metrics of GPUs: memory, health, shares and who uses them.

A measured value is exported only while it is fresh.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from sgpud.core.gpu.attribution import OwnerKind, ProcessView
from sgpud.core.health.machine import HealthPhase
from sgpud.core.limits.enforcement import EnforcementKind
from sgpud.core.planning.plan import Availability
from sgpud.core.status.gpus import ContainerView, GpuStateView
from sgpud.core.status.pools import PoolGpuView, PoolView
from sgpud.core.status.view import NodeView
from sgpud.core.text import SHARE_STATES
from sgpud.serve.metrics.families import MetricFamily, Rows, counter, gauge

SHARE = ("resource", "gpu")
CONTAINER = ("namespace", "pod", "container", "gpu")
POD = ("namespace", "pod", "gpu")


def states(gpu: PoolGpuView) -> Mapping[str, int]:
    """The listed shares of a GPU by state; each is in one."""
    return {state: getattr(gpu, state) for state in SHARE_STATES}


def _listed(seen: NodeView) -> Iterator[tuple[PoolView, PoolGpuView]]:
    return ((pool, gpu) for pool in seen.pools for gpu in pool.gpus)


def _present(seen: NodeView) -> Iterator[GpuStateView]:
    return (gpu for gpu in seen.gpus if gpu.product)


def _measured(of: Callable[[GpuStateView], float | None]) -> Callable[[NodeView], Rows]:
    """A value per GPU, if it is known and fresh."""
    return lambda seen: (
        ((gpu.uuid,), value) for gpu in seen.gpus if gpu.fresh and (value := of(gpu)) is not None
    )


def _container(
    of: Callable[[ContainerView], float | None], *, measured: bool = True
) -> Callable[[NodeView], Rows]:
    """A value per container and GPU, if it is known, and fresh if it was measured.

    Two pods can have the same name, until the kubelet has freed the first one's shares: their
    values are added.
    """

    def rows(seen: NodeView) -> Rows:
        found: defaultdict[tuple[str, str, str, str], float] = defaultdict(float)
        for gpu in seen.gpus if seen.usage.fresh or not measured else ():
            for one in gpu.containers:
                value = of(one)
                if value is not None:
                    found[one.namespace, one.pod or one.uid, one.container, gpu.uuid] += value
        return found.items()

    return rows


def _limits(seen: NodeView) -> Rows:
    """The cap of each pod on each GPU; those of two pods with the same name are added."""
    caps = {
        (one.namespace, one.pod or one.uid, gpu.uuid, one.uid): one.limit
        for gpu in seen.gpus
        for one in gpu.containers
        if one.limit is not None
    }
    found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for (namespace, pod, gpu, _), limit in caps.items():
        found[namespace, pod, gpu] += limit
    return found.items()


def _owned(of: Callable[[Sequence[ProcessView]], float | None]) -> Callable[[NodeView], Rows]:
    """A value of the processes on each GPU, by the kind of their owner."""

    def rows(seen: NodeView) -> Iterator[tuple[tuple[str, str], float]]:
        for gpu in seen.gpus if seen.usage.fresh and not seen.usage.problem else ():
            for owner in OwnerKind:
                value = of([one for one in gpu.processes if one.owner == owner.value])
                if value is not None:
                    yield (gpu.uuid, owner.value), value

    return rows


def _memory(processes: Sequence[ProcessView]) -> float | None:
    known = [one.used for one in processes if one.used is not None]
    return sum(known) if len(known) == len(processes) else None


def _ratio(percent: int | None) -> float | None:
    return None if percent is None else percent / 100


GPUS: tuple[MetricFamily, ...] = (
    gauge(
        "sgpud_gpu_info",
        ("gpu", "index", "mig", "pci", "product"),
        "Always 1; the labels describe the GPU, mig with GPU and compute instance.",
        lambda seen: (
            ((gpu.uuid, str(gpu.index), gpu.mig, gpu.pci, gpu.product), 1) for gpu in _present(seen)
        ),
    ),
    gauge(
        "sgpud_gpu_unreadable",
        ("index", "pci", "gpu"),
        "Always 1, for each GPU that NVML counts and that cannot be shared; status has the reason.",
        lambda seen: (((str(gpu.index), gpu.pci, gpu.uuid), 1) for gpu in seen.unreadable),
    ),
    gauge(
        "sgpud_gpu_memory_bytes",
        ("gpu",),
        "Memory of the whole GPU.",
        lambda seen: (
            ((gpu.uuid,), gpu.memory) for gpu in _present(seen) if gpu.memory is not None
        ),
    ),
    gauge(
        "sgpud_gpu_memory_reserved_bytes",
        ("gpu",),
        "Memory of the GPU that the driver reserves.",
        lambda seen: (((gpu.uuid,), gpu.reserved) for gpu in _present(seen)),
    ),
    gauge(
        "sgpud_gpu_memory_used_bytes",
        ("gpu",),
        "Memory in use by all processes, without what the driver reserves.",
        _measured(lambda gpu: gpu.used),
    ),
    gauge(
        "sgpud_gpu_uncorrected_ecc_errors",
        ("gpu",),
        "Uncorrected ECC errors over the GPU's life.",
        _measured(lambda gpu: gpu.uncorrected_ecc),
    ),
    gauge(
        "sgpud_gpu_row_remap_pending",
        ("gpu",),
        "1 if a row of the GPU's memory is remapped with the next reset.",
        _measured(lambda gpu: gpu.row_remap_pending),
    ),
    gauge(
        "sgpud_gpu_row_remap_failed",
        ("gpu",),
        "1 if a row of the GPU's memory could not be remapped.",
        _measured(lambda gpu: gpu.row_remap_failed),
    ),
    gauge(
        "sgpud_gpu_utilisation_ratio",
        ("gpu",),
        "Fraction of the sampling period in which any kernel ran, 0 to 1. Not on MIG.",
        _measured(lambda gpu: _ratio(gpu.utilisation)),
    ),
    gauge(
        "sgpud_gpu_measurement_age_seconds",
        ("gpu",),
        "Seconds since memory and utilisation were measured.",
        lambda seen: (
            ((gpu.uuid,), gpu.measured_ago) for gpu in seen.gpus if gpu.measured_ago is not None
        ),
    ),
    gauge(
        "sgpud_gpu_health",
        ("gpu", "health"),
        "1 for the health of the GPU itself: healthy, suspect, unhealthy or probation.",
        lambda seen: (
            ((one.uuid, phase.value), one.health == phase.value)
            for one in seen.healths
            for phase in HealthPhase
        ),
    ),
    gauge(
        "sgpud_gpu_unhealthy",
        ("gpu", "reason"),
        "1 for the reason why the GPU is not healthy, e.g. XID 79; no sample for a healthy one.",
        lambda seen: (((one.uuid, one.cause), 1) for one in seen.healths if one.cause),
    ),
    gauge(
        "sgpud_gpu_cordoned",
        ("gpu",),
        "1 when an operator has cordoned the GPU.",
        lambda seen: (((one.uuid,), one.cordoned) for one in seen.healths),
    ),
    counter(
        "sgpud_gpu_xids",
        ("gpu", "xid"),
        "XIDs that the driver reported, whatever their class; 0 counts all beyond the first 1000"
        " pairs of GPU and XID.",
        lambda seen: (((gpu, str(xid)), count) for gpu, xid, count in seen.counters.xids),
    ),
    gauge(
        "sgpud_shares",
        (*SHARE, "state"),
        "Listed shares, each in one state: held; free; withheld (free, but not allocatable now);"
        " unhealthy (free, its GPU is unhealthy); or draining (about to be removed).",
        lambda seen: (
            ((pool.resource, gpu.uuid, state), count)
            for pool, gpu in _listed(seen)
            for state, count in states(gpu).items()
        ),
    ),
    gauge(
        "sgpud_shares_allocatable",
        SHARE,
        "Shares listed Healthy, free or held: what the node shows as allocatable.",
        lambda seen: (((pool.resource, gpu.uuid), gpu.allocatable) for pool, gpu in _listed(seen)),
    ),
    gauge(
        "sgpud_shares_surplus",
        SHARE,
        "Held shares beyond the configured number.",
        lambda seen: (((pool.resource, gpu.uuid), gpu.surplus) for pool, gpu in _listed(seen)),
    ),
    gauge(
        "sgpud_gpu_availability",
        (*SHARE, "availability"),
        "1 for the availability of the GPU in this resource: available, withheld or unhealthy.",
        lambda seen: (
            ((pool.resource, gpu.uuid, availability.value), gpu.availability == availability.value)
            for pool, gpu in _listed(seen)
            for availability in Availability
        ),
    ),
    gauge(
        "sgpud_gpu_processes",
        ("gpu", "owner"),
        "Processes on the GPU, by owner: holder, shareless (a pod that holds no share of it),"
        " outside (not in a pod), or unknown.",
        _owned(len),
    ),
    gauge(
        "sgpud_gpu_process_memory_bytes",
        ("gpu", "owner"),
        "Memory that these processes use together; no sample if NVML does not report it.",
        _owned(_memory),
    ),
    gauge(
        "sgpud_container_shares",
        CONTAINER,
        "Shares of the GPU that the container holds; pod is its UID until its name is known.",
        _container(lambda one: one.shares, measured=False),
    ),
    gauge(
        "sgpud_container_memory_granted_bytes",
        CONTAINER,
        "Memory that its shares represent; no sample for places, which promise none.",
        _container(lambda one: one.granted, measured=False),
    ),
    gauge(
        "sgpud_container_memory_used_bytes",
        CONTAINER,
        "Memory of the GPU that its processes use; no sample if unknown.",
        _container(lambda one: one.used),
    ),
    gauge(
        "sgpud_container_memory_over_bytes",
        CONTAINER,
        "Memory used beyond what was granted, for places beyond expected_memory; no sample if"
        " either is unknown.",
        _container(lambda one: one.over),
    ),
    gauge(
        "sgpud_gpu_memory_enforcement",
        ("gpu", "enforcement"),
        "1 for what keeps containers within the memory they were granted of the GPU: toolkit (the"
        " driver, by a limit that NVIDIA's container toolkit sets), dmem or misc (the driver, by"
        " one that sgpud's helper sets), watch or none.",
        lambda seen: (
            ((gpu.uuid, kind.value), gpu.enforcement == kind.value)
            for gpu in seen.gpus
            for kind in EnforcementKind
        ),
    ),
    gauge(
        "sgpud_gpu_memory_limit_required",
        ("gpu",),
        'Whether containers start only if their memory on the GPU is limited (memory = "require").',
        lambda seen: (((gpu.uuid,), gpu.limit_required) for gpu in seen.gpus),
    ),
    gauge(
        "sgpud_pod_memory_limit_bytes",
        POD,
        "Memory of the GPU that the pod may use, as sgpud's helper has set it; no sample without"
        " such a limit.",
        _limits,
    ),
    gauge(
        "sgpud_container_overuse_bytes",
        CONTAINER,
        "The same for a container that overuses memory as defined in [limits]: by more than"
        " tolerance, for over_for, while its GPU is under pressure; no sample for others.",
        _container(lambda one: None if one.over_for is None else one.over),
    ),
    counter(
        "sgpud_overuse",
        ("gpu",),
        "Containers that started to overuse the memory of the GPU.",
        lambda seen: (((gpu.uuid,), seen.counters.overuse.get(gpu.uuid, 0)) for gpu in seen.gpus),
    ),
    gauge(
        "sgpud_container_utilisation_ratio",
        CONTAINER,
        "Fraction of the sampling period in which its kernels ran on the GPU, 0 to 1. Not on MIG.",
        _container(lambda one: _ratio(one.utilisation)),
    ),
)
"""Every family of this module."""
