"""The GPUs as people see them: health, memory, utilisation, containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from sgpud.core.allocation.injection import InjectionChoice
from sgpud.core.gpu.attribution import Attribution, GpuUsage, ProcessView, gpu_use
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import Usage
from sgpud.core.health.causes import advice
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import health_of
from sgpud.core.limits.enforcement import enforcement
from sgpud.core.limits.overuse import allowance
from sgpud.core.limits.pod_caps import CapState
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.planning.full_guard import FRESH_FOR, MISSED
from sgpud.core.planning.node import Node
from sgpud.core.status.pools import HolderView

SHOWN = 3
"""GPUs that a status line names; it is one line."""


@frozen
class HealthView:
    """The health of one GPU: a physical one, or a MIG instance."""

    uuid: str
    health: str
    """healthy, suspect, unhealthy or probation."""
    reason: str
    """Why it is not healthy, or empty."""
    advice: str
    """What to do, or empty."""
    cordoned: bool
    cause: str = ""
    """The name of the reason alone, e.g. `XID 79`, or empty."""


def healths(node: Node) -> tuple[HealthView, ...]:
    """The health of every GPU, and of the physical GPUs of MIG instances."""
    found = []
    known = {uuid: gpu for gpu in node.gpus or () for uuid in (gpu.physical, gpu.uuid)}
    for uuid, gpu in known.items():
        health = health_of(node, uuid)
        cause = health.cause
        found.append(
            HealthView(
                uuid,
                health.phase.value,
                str(cause) if cause else "",
                advice(cause, gpu.physical) if cause else "",
                health.cordoned,
                cause.name if cause else "",
            )
        )
    return tuple(found)


def troubles(seen: Sequence[HealthView]) -> list[str]:
    """The GPUs with problems, for a status line."""
    troubled = [one for one in seen if one.cordoned or one.reason]
    parts = [
        f"{one.uuid} {one.health}{f' ({one.reason})' if one.reason else ''}"
        f"{', cordoned' if one.cordoned else ''}"
        for one in troubled[:SHOWN]
    ]
    if len(troubled) > SHOWN:
        parts.append(f"and {len(troubled) - SHOWN} more GPUs with problems")
    return parts


_WORSE = [
    each.value
    for each in (
        HealthPhase.HEALTHY,
        HealthPhase.PROBATION,
        HealthPhase.SUSPECT,
        HealthPhase.UNHEALTHY,
    )
]


@frozen
class ContainerView:
    """One container that holds shares of one GPU, in any pool."""

    namespace: str
    """Of its pod, like its name: empty until podresources has reported them."""
    pod: str
    uid: str
    """Its pod's UID; empty for shares just granted, which the checkpoint does not name yet."""
    container: str
    shares: int
    granted: int | None
    """Bytes that its shares represent; null: one of them is a place, which promises none."""
    since: float
    """When they were granted, in seconds since the epoch; 0: unknown."""
    processes: int | None
    """Its processes on this GPU; null: unknown, see the GPU's `use_problem`."""
    used: int | None
    """Bytes of the GPU's memory that they use; null: unknown."""
    over: int | None
    """Bytes used beyond what was granted, of places beyond `expected_memory`; null where either is
    not known."""
    utilisation: int | None
    """Percent, of all its processes together; null: unknown, or not reported by NVML."""
    over_for: float | None = None
    """Seconds for which it has overused its memory, as [limits] says; null: it does not."""
    verdict: str = ""
    """For overuse: whether it is the one to stop, and why, or empty."""
    limit: int | None = None
    """Bytes of this GPU that all containers of its pod together may use, as sgpud's helper has set
    and the driver shows it; null: nothing, see `limit_problem`, or NVIDIA's toolkit sets limits."""
    limit_used: int | None = None
    """Bytes that the driver counts against that; null: not known."""
    limit_late: bool = False
    """Whether it was set after the containers had started: what they had by then is not counted."""
    limit_problem: str = ""
    """Why its pod's memory is not limited although it is to be, or empty."""


@frozen
class GpuStateView:
    """One GPU of the node, shared or not. Memory is in bytes."""

    uuid: str
    physical: str
    """The physical GPU's UUID: its own, or that of a MIG instance's parent."""
    index: int
    mig: str
    """GPU instance and compute instance, e.g. `1/0`; empty for a whole GPU."""
    product: str
    pci: str
    numa: int | None
    memory: int | None
    reserved: int
    """Memory that the driver reserves; not in `used`."""
    used: int | None
    """Measured; null: not yet, or not reported by NVML."""
    utilisation: int | None
    """Percent of the sampling period in which any kernel ran; null: as above, always on MIG."""
    measured_ago: float | None
    """Seconds since both were measured; null: not yet."""
    fresh: bool
    """Whether that was recent: at most a measurement or two were missed."""
    uncorrected_ecc: int | None
    """Uncorrected ECC errors over its life; null: not reported."""
    row_remap_pending: bool | None
    """Whether a row of its memory is remapped with the next reset; null: not reported."""
    row_remap_failed: bool | None
    """Whether a row could not be remapped; null: not reported."""
    health: str
    """healthy, suspect, unhealthy, probation, or unknown for one that is gone: its own, or its
    physical GPU's if that is worse."""
    cause: str
    """The name of the cause, e.g. `XID 79`, or empty."""
    reason: str
    """The cause with its details."""
    advice: str
    """What to do, or empty."""
    cordoned: bool
    missing: bool
    """Whether the driver no longer reports it."""
    containers: tuple[ContainerView, ...]
    """The containers that hold shares of it, the oldest first."""
    processes: tuple[ProcessView, ...]
    """Its known processes, by memory."""
    use_problem: str
    """Why the use of its containers is unknown, or empty."""
    enforcement: str = "none"
    """What keeps its containers within the memory they were granted: toolkit, dmem, misc, watch or
    none."""
    enforcement_reason: str = ""
    """Why it is this, and nothing better."""
    enforcement_remedy: str = ""
    """What a person can do for better, or empty."""
    limit_required: bool = False
    """Whether `[limits] memory = "require"`: containers start only if their memory is limited."""


@frozen
class UsageView:
    """How current the process information is, for all GPUs."""

    ago: float | None
    """Seconds since NVML reported processes; null: not yet."""
    fresh: bool
    """Whether that was recent."""
    problem: str
    """Why some processes are unknown, or empty."""


def usage_view(node: Node, usage: Usage | None, now: float) -> UsageView:
    """How current the process information is. `now`: monotonic seconds."""
    if usage is None:
        return UsageView(None, fresh=False, problem="processes are not known yet")
    ago = max(0.0, now - usage.at)
    return UsageView(round(ago, 1), ago < _fresh_for(node), usage.problem)


def gpu_states(
    node: Node,
    holders: Mapping[str, Sequence[HolderView]],
    usage: Usage | None,
    now: float,
    chosen: InjectionChoice | None = None,
) -> tuple[GpuStateView, ...]:
    """Every GPU that is known or held, in their order; `holders` by UUID.

    `now`: monotonic seconds. `chosen`: how GPUs are handed over, once that is known.
    """
    owners = Attribution(node.checkpoint)
    seen = {view.uuid: view for view in healths(node)}
    known = {gpu.uuid: gpu for gpu in node.gpus or ()}
    gone = [Gpu(uuid, -1, "", 0) for uuid in holders if uuid not in known]
    found = []
    for gpu in (*known.values(), *gone):
        use = gpu_use(gpu.uuid, usage, owners)
        state = _state(node, gpu, _health(gpu, seen), use, now)
        enforced = enforcement(node, chosen, gpu, use.problem)
        containers = _containers(node, holders.get(gpu.uuid, ()), use, gpu.uuid, now)
        found.append(
            evolve(
                state,
                containers=tuple(sorted(containers, key=lambda one: one.since)),
                missing=gpu.uuid in node.missing or gpu.uuid not in known,
                enforcement=enforced.kind.value,
                enforcement_reason=enforced.reason,
                enforcement_remedy=enforced.remedy,
                limit_required=node.limits.memory is MemoryLimits.REQUIRE,
            )
        )
    return tuple(found)


def _state(node: Node, gpu: Gpu, health: HealthView, use: GpuUsage, now: float) -> GpuStateView:
    sample, at = node.samples.get(gpu.uuid, (None, 0.0))
    return GpuStateView(
        uuid=gpu.uuid,
        physical=gpu.physical,
        index=gpu.index,
        mig=f"{gpu.mig.gi}/{gpu.mig.ci}" if gpu.mig else "",
        product=gpu.product,
        pci=gpu.pci,
        numa=gpu.numa,
        memory=node.sharing.sized(gpu).memory if node.sharing else gpu.memory,
        reserved=gpu.reserved,
        used=sample.used if sample else None,
        utilisation=sample.utilisation if sample else None,
        measured_ago=round(max(0.0, now - at), 1) if sample else None,
        fresh=sample is not None and now - at < _fresh_for(node),
        uncorrected_ecc=sample.ecc_total if sample else None,
        row_remap_pending=sample.remap_pending if sample else None,
        row_remap_failed=sample.remap_failed if sample else None,
        health=health.health,
        cause=health.cause,
        reason=health.reason,
        advice=health.advice,
        cordoned=health.cordoned,
        missing=False,
        containers=(),
        processes=tuple(sorted(use.processes, key=lambda one: (-(one.used or 0), one.pid))),
        use_problem=use.problem,
    )


def _health(gpu: Gpu, seen: Mapping[str, HealthView]) -> HealthView:
    """A GPU's own health, or its physical GPU's if that is worse."""
    views = [seen[uuid] for uuid in (gpu.uuid, gpu.physical) if uuid in seen]
    if not views:
        return HealthView(gpu.uuid, "unknown", "it is no longer on this node", "", cordoned=False)
    worst = max(views, key=lambda view: _WORSE.index(view.health))
    return evolve(worst, cordoned=any(view.cordoned for view in views))


def _containers(
    node: Node, holders: Iterable[HolderView], use: GpuUsage, uuid: str, now: float
) -> Iterator[ContainerView]:
    expected = node.sharing.guard_settings.expected if node.sharing else 0
    state = node.overuse.get(uuid)
    over = state.overusers if state and now - state.at < _fresh_for(node) else {}
    by_container: dict[tuple[str, str], list[HolderView]] = {}
    for holder in holders:
        by_container.setdefault((holder.uid, holder.container), []).append(holder)
    for container, parts in by_container.items():
        first, used = parts[0], use.of(container)
        sizes = [part.bytes for part in parts]
        granted, memory = allowance(sizes, expected), used.used if used else None
        excess = over.get(container)
        cap = node.capping.caps.get((first.uid, uuid), CapState())
        yield ContainerView(
            first.namespace,
            first.pod,
            first.uid,
            first.container,
            sum(part.shares for part in parts),
            sum(sizes) if all(sizes) else None,
            first.since,
            used.processes if used else None,
            memory,
            None if memory is None or granted is None else max(0, memory - granted),
            used.utilisation if used else None,
            state.at - excess.since if state and excess else None,
            excess.verdict if excess else "",
            cap.limit,
            cap.used,
            cap.late,
            cap.problem,
        )


def _fresh_for(node: Node) -> float:
    every = node.sharing.measure_every if node.sharing else 0.0
    return max(FRESH_FOR, MISSED * every)
