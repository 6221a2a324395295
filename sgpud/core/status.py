"""The View: what people and machines see of this node, made from the plan and little else."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import asdict, field, frozen

from sgpud import __version__
from sgpud.core.health_view import HealthView, healths, troubles
from sgpud.core.healths import worst
from sgpud.core.holder_views import HolderView, holder_views
from sgpud.core.node import Node
from sgpud.core.plan import Group, Plan, Pool
from sgpud.core.registration import Phase, State


@frozen
class GpuView:
    """What one pool lists of one GPU. Numbers are shares, memory is in bytes."""

    uuid: str
    product: str
    index: int | None
    memory: int
    shares: int
    """Shares that stay: free and held."""
    held: int
    free: int
    draining: int
    surplus: int
    """Held beyond what is configured."""
    healthy: int
    """Listed Healthy: what the node shows as allocatable."""
    standing: str
    """well, withheld or sick."""
    reason: str
    holders: tuple[HolderView, ...] = ()
    health: str = ""
    """The phase of its health, or of its physical GPU's where that is worse; empty: it is gone."""


@frozen
class PoolView:
    """One resource."""

    resource: str
    registration: str
    """The phase of its registration."""
    problem: str
    """Why the last try failed, or empty."""
    generation: int
    dropped: bool
    """No longer configured, and on its way out."""
    gpus: tuple[GpuView, ...]

    @property
    def healthy(self) -> int:
        """Allocatable shares."""
        return sum(gpu.healthy for gpu in self.gpus)

    @property
    def held(self) -> int:
        """Held shares."""
        return sum(gpu.held for gpu in self.gpus)


@frozen
class ConfigurationView:
    """Which configuration is in use."""

    file: str
    in_use: str
    """`file`, or `last good` when the file could not be used at start."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file as it is now, where it is not what is in use."""
    warnings: tuple[str, ...] = ()


@frozen
class Counters:
    """What has been counted since the process began."""

    allocations: int = 0
    """Containers that were given shares."""
    refusals: Mapping[str, int] = field(factory=dict)
    """By rule."""
    reloads: Mapping[str, int] = field(factory=dict)
    """By result: applied, unchanged, refused."""
    registrations: int = 0
    """Register calls that the kubelet answered."""
    xids: tuple[tuple[str, int, int], ...] = ()
    """GPU, XID, and how many of them."""


@frozen
class Instance:
    """What this sgpud is on its node."""

    serving: str
    """As in View."""
    directory: str
    """The plugin directory."""


@frozen
class View:
    """One document for status, plan, metrics and the systemd status line."""

    version: str
    serving: str
    """`serving`, `standby` (another sgpud serves the directory), or `no directory`."""
    directory: str
    configuration: ConfigurationView
    driver: str
    probe: str
    """Why nothing fresh is known of the GPUs, or empty."""
    method: str
    """How containers are given GPUs, and why."""
    holders: str
    """Why the holders may be stale, or empty."""
    pools: tuple[PoolView, ...]
    notes: tuple[str, ...]
    counters: Counters
    unknown: tuple[str, ...] = ()
    """Facts without which nothing can be advertised yet."""
    healths: tuple[HealthView, ...] = ()
    """Of every GPU, shared or not, and of the physical GPUs of MIG instances."""


def view(
    node: Node,
    plan: Plan | None,
    registrations: Mapping[str, State],
    configuration: ConfigurationView,
    counters: Counters,
    instance: Instance,
) -> View:
    """The view of a node."""
    pools = plan.pools if plan else ()
    chosen = plan.chosen if plan else None
    facts = {"configuration": node.sharing, "GPUs": node.gpus, "holders": node.books}
    return View(
        version=__version__,
        serving=instance.serving,
        directory=instance.directory,
        configuration=configuration,
        driver=node.driver,
        probe=node.probe_problem,
        method=f"{chosen.method.value}: {chosen.why}" if chosen else "",
        holders=(node.books.problem or node.books.doubt) if node.books else "",
        pools=tuple(_pool(pool, registrations.get(pool.resource), node) for pool in pools),
        notes=plan.notes if plan else (),
        counters=counters,
        unknown=tuple(name for name, fact in facts.items() if fact is None),
        healths=healths(node),
    )


def document(seen: View) -> dict[str, object]:
    """The view as plain values, ready for JSON."""
    return asdict(seen)


def summary(seen: View) -> str:
    """One line for systemd: what is shared, whether the kubelet knows, and what is wrong."""
    parts = []
    if seen.serving != "serving":
        parts.append(seen.serving)
    if seen.configuration.problems:
        parts.append(
            f"{seen.configuration.file} is not in use ({len(seen.configuration.problems)} problems,"
            f" first: {seen.configuration.problems[0]})"
        )
    if seen.probe:
        parts.append(seen.probe)
    for pool in seen.pools:
        gpus = sum(1 for gpu in pool.gpus if gpu.shares)
        state = "registered" if pool.registration == Phase.LIVE.value else pool.registration
        parts.append(
            f"{pool.resource}: {pool.healthy} shares of {gpus} GPUs, {pool.held} held, {state}"
        )
    parts += troubles(seen.healths)
    if not seen.pools and not seen.probe:
        waits = f"waiting for {', '.join(seen.unknown)}" if seen.unknown else "no GPU is shared"
        parts.append(waits)
    return "; ".join(parts)


def _pool(pool: Pool, state: State | None, node: Node) -> PoolView:
    return PoolView(
        pool.resource,
        state.phase.value if state else "not registered",
        state.problem if state else "",
        state.generation if state else 0,
        pool.dropped,
        tuple(_gpu(group, node, pool.resource) for group in pool.groups),
    )


def _gpu(group: Group, node: Node, resource: str) -> GpuView:
    gpu = group.gpu
    return GpuView(
        uuid=group.uuid,
        product=gpu.product if gpu else "",
        index=gpu.index if gpu else None,
        memory=gpu.memory if gpu else 0,
        shares=len(group.active),
        held=len(group.held),
        free=len(group.free),
        draining=len(group.draining),
        surplus=group.surplus,
        healthy=len(group.healthy),
        standing=group.standing.value,
        reason=group.reason,
        holders=holder_views(node, (resource, group.uuid)),
        health=worst(node, gpu).value if gpu else "",
    )
