"""The pools as people see them: what each lists of each GPU, who holds it, how it is registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from sgpud.core.healths import worst
from sgpud.core.holder_views import HolderView
from sgpud.core.holding import Key
from sgpud.core.node import Node
from sgpud.core.plan import Group, Pool
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
    streams: int = 0
    """Live ListAndWatch streams of the kubelet: without one the node shows none of its shares."""

    @property
    def healthy(self) -> int:
        """Allocatable shares."""
        return sum(gpu.healthy for gpu in self.gpus)

    @property
    def held(self) -> int:
        """Held shares."""
        return sum(gpu.held for gpu in self.gpus)


def pool_view(
    pool: Pool, state: State | None, node: Node, holders: Mapping[Key, tuple[HolderView, ...]]
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
        if pool.registration != Phase.LIVE.value and not pool.dropped:
            why = f" ({pool.problem})" if pool.problem else ""
            yield f"the kubelet does not follow {pool.resource}: {pool.registration}{why}"


def _gpu(group: Group, node: Node, holders: tuple[HolderView, ...]) -> GpuView:
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
        holders=holders,
        health=worst(node, gpu).value if gpu else "",
    )
