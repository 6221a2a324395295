"""The pools as people see them: shares by GPU, and who holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from sgpud.core.allocation.decisions import parts_of
from sgpud.core.health.node_health import worst
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Key, held
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, GpuShares, Pool
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.core.text import SHARE_STATES


@frozen
class PoolGpuView:
    """What one pool lists of one GPU. Numbers are shares, memory is in bytes."""

    uuid: str
    product: str
    index: int | None
    memory: int | None
    shares: int
    """All but the draining ones: held, free, withheld or unhealthy."""
    held: int
    free: int
    """Given to the next container that asks."""
    withheld: int
    """Not held, and not given now although the GPU is healthy."""
    unhealthy: int
    """Not held, and not given because the GPU is unhealthy."""
    draining: int
    surplus: int
    """Held beyond what is configured."""
    allocatable: int
    """Listed Healthy, held or free: what the kubelet counts as allocatable. With `advertise =
    "largest"` the free memory shares are counted for the GPU with the most room."""
    availability: str
    """available, withheld or unhealthy."""
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
    gpus: tuple[PoolGpuView, ...]
    draining: int = 0
    """Memory shares that are draining: they are of no GPU."""
    streams: int = 0
    """Live ListAndWatch streams of the kubelet: without one the node shows none of its shares."""

    @property
    def held(self) -> int:
        """Held shares."""
        return sum(gpu.held for gpu in self.gpus)

    @property
    def counts(self) -> dict[str, int]:
        """Its shares by state, and the allocatable ones."""
        keys = (*SHARE_STATES, "allocatable")
        found = {key: sum(getattr(gpu, key) for gpu in self.gpus) for key in keys}
        found["draining"] += self.draining
        return found


def pool_view(
    pool: Pool,
    state: RegistrationState | None,
    node: Node,
    holders: Mapping[Key, tuple[HolderView, ...]],
) -> PoolView:
    """What people see of a pool; `state` of None: it is not being registered."""
    return PoolView(
        pool.resource,
        state.phase.value if state else "not registered",
        state.problem if state else "",
        state.generation if state else 0,
        pool.dropped,
        tuple(
            _gpu(group, node, holders.get((pool.resource, group.uuid), ())) for group in pool.groups
        ),
        len(pool.own.draining) if pool.own else 0,
        state.streams if state else 0,
    )


def unregistered(pools: Sequence[PoolView]) -> Iterator[str]:
    """Why the pools of a serving sgpud are not ready: one on its way out need not be."""
    for pool in pools:
        if pool.registration != RegistrationPhase.LIVE.value and not pool.dropped:
            why = f" ({pool.problem})" if pool.problem else ""
            yield f"the kubelet does not follow {pool.resource}: {pool.registration}{why}"


def _gpu(group: GpuShares, node: Node, holders: tuple[HolderView, ...]) -> PoolGpuView:
    gpu = group.gpu
    unheld = dict.fromkeys(Availability, 0) | {group.availability: group.unheld}
    return PoolGpuView(
        uuid=group.uuid,
        product=gpu.product if gpu else "",
        index=gpu.index if gpu else None,
        memory=gpu.memory if gpu else None,
        shares=group.given + group.unheld,
        held=group.given,
        free=unheld[Availability.AVAILABLE],
        withheld=unheld[Availability.WITHHELD],
        unhealthy=unheld[Availability.UNHEALTHY],
        draining=len(group.draining),
        surplus=group.surplus,
        allocatable=len(group.healthy) + group.offered + _bound(group),
        availability=group.availability.value,
        reason=group.reason,
        holders=holders,
        health=worst(node, gpu).value if gpu else "",
    )


def _bound(group: GpuShares) -> int:
    """The Healthy ones among the memory shares that are bound to a GPU, but name none."""
    sick = group.availability is Availability.UNHEALTHY
    return 0 if sick else group.given - len(group.held)


@frozen
class HolderView:
    """Who holds shares of one GPU."""

    namespace: str
    """Empty, like the pod's name, until podresources has reported it."""
    pod: str
    uid: str
    """The pod's UID; empty for shares just granted, which the checkpoint does not name yet."""
    container: str
    shares: int
    bytes: int
    """Memory that the shares represent; 0 for places."""
    since: float
    """When they were granted, in seconds since the epoch; 0: unknown."""


def holder_views(node: Node) -> dict[Key, tuple[HolderView, ...]]:
    """The holders by resource and GPU, the oldest first."""
    found: dict[Key, list[HolderView]] = {}
    for key, view in _views(node):
        found.setdefault(key, []).append(view)
    return {
        key: tuple(sorted(views, key=lambda view: (view.since, view.namespace, view.pod)))
        for key, views in found.items()
    }


def _views(node: Node) -> Iterator[tuple[Key, HolderView]]:
    if node.checkpoint is None:
        return
    for holder in node.checkpoint.holders:
        names = (holder.namespace, holder.name, holder.pod, holder.container)
        for part in parts_of(holder.shares, holder.gpu):
            size = part.count * holder.sizes.get(part.uuid, 0)
            view = HolderView(*names, part.count, size, holder.since)
            yield (holder.resource, part.uuid), view
    recorded = held(node.checkpoint, ()) if node.grants else {}
    for grant in node.grants:
        for stem, numbers in grant.shares.items():
            fresh = numbers - recorded.get((grant.resource, stem), IntSet())
            if fresh:
                uuid = grant.gpu or stem
                size = len(fresh) * grant.sizes.get(uuid, 0)
                view = HolderView("", "", "", "", len(fresh), size, grant.at)
                yield (grant.resource, uuid), view
