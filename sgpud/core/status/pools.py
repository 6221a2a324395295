"""The pools as people see them: shares by GPU, and who holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

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
    """Listed Healthy, held or free: what the kubelet counts as allocatable."""
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
        return {key: sum(getattr(gpu, key) for gpu in self.gpus) for key in keys}


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
    unheld = dict.fromkeys(Availability, 0) | {group.availability: len(group.free)}
    return PoolGpuView(
        uuid=group.uuid,
        product=gpu.product if gpu else "",
        index=gpu.index if gpu else None,
        memory=gpu.memory if gpu else None,
        shares=len(group.active),
        held=len(group.held),
        free=unheld[Availability.AVAILABLE],
        withheld=unheld[Availability.WITHHELD],
        unhealthy=unheld[Availability.UNHEALTHY],
        draining=len(group.draining),
        surplus=group.surplus,
        allocatable=len(group.healthy),
        availability=group.availability.value,
        reason=group.reason,
        holders=holders,
        health=worst(node, gpu).value if gpu else "",
    )


@frozen
class HolderView:
    """Who holds shares of one GPU."""

    namespace: str
    """Empty, as the pod's name, until podresources has told it."""
    pod: str
    uid: str
    """The pod's UID; empty for shares that were given this moment and are in no record yet."""
    container: str
    shares: int
    bytes: int
    """Memory that the shares stand for; 0 for places."""
    since: float
    """When they were given, in seconds since the epoch; 0 where nobody knows."""


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
        for uuid, numbers in holder.shares.items():
            size = len(numbers) * holder.sizes.get(uuid, 0)
            yield (holder.resource, uuid), HolderView(*names, len(numbers), size, holder.since)
    recorded = held(node.checkpoint, ()) if node.grants else {}
    for grant in node.grants:
        for uuid, numbers in grant.shares.items():
            key = (grant.resource, uuid)
            fresh = numbers - recorded.get(key, IntSet())
            if fresh:
                size = len(fresh) * grant.sizes.get(uuid, 0)
                yield key, HolderView("", "", "", "", len(fresh), size, grant.at)
