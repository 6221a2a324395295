"""Values that the tests of the core are made of, and hypothesis strategies for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import IdIndex, index
from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.node_health import heard
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, Grant, Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import GpuShares, Plan, Pool, plan
from sgpud.core.sharing.rules import GpuRule, ShareTerms, Sharing
from sgpud.core.sharing.share_id import share_id

GIB = 2**30
POOL = "deepomatic.com/shared-gpu"
OTHER = "deepomatic.com/shared-a100"
THIRD = "deepomatic.com/shared-t4"

small = st.integers(0, 40)
some_numbers = st.builds(IntSet.of, st.lists(small, max_size=12))


def uuid(number: int) -> str:
    """A UUID as long as real ones are."""
    return f"GPU-{number:08x}-0000-4000-8000-000000000000"


POLICY = HealthPolicy()
PASS = Sample(uuid(0), used=1, total=2, utilisation=0, recovery=0, ecc=0)
"""What a healthy GPU is measured to be."""


def gpu(number: int, product: str = "NVIDIA A100-SXM4-40GB", **facts: Any) -> Gpu:
    """A physical GPU: index and UUID follow from its number."""
    known = Gpu(
        uuid(number),
        number,
        product,
        40 * GIB,
        minor=number,
        pci=f"0000:{number:02x}:00.0",
        numa=number % 2,
    )
    return evolve(known, **facts)


def mig(parent: Gpu, gi: int, ci: int = 0) -> Gpu:
    """A MIG instance of a physical GPU."""
    return evolve(
        parent,
        uuid=f"MIG-{parent.index:08x}-0000-4000-8000-{gi:06x}{ci:06x}",
        memory=5 * GIB,
        mig=Mig(parent.uuid, gi, ci),
    )


def sharing(factor: int = 4, *rules: GpuRule, resource: str = POOL, **rest: Any) -> Sharing:
    """A configuration: so many shares per GPU."""
    return evolve(Sharing(default=ShareTerms(resource, factor), rules=rules), **rest)


def holder(
    shares: Mapping[str, IntSet], *, resource: str = POOL, per_gpu: int | None = None
) -> Holder:
    """A container that holds shares; `per_gpu` of None: nobody knows the terms."""
    partition = dict.fromkeys(shares, per_gpu) if per_gpu else {}
    return Holder("pod", "main", resource, shares, partition)


def checkpoint(*holders: Holder, written: float = 1000.0, **rest: Any) -> CheckpointState:
    """A checkpoint that was read."""
    return evolve(CheckpointState(holders, written), **rest)


def grant(
    shares: Mapping[str, IntSet], *, resource: str = POOL, per_gpu: int = 4, at: float = 1000.0
) -> Grant:
    """What Allocate answered."""
    return Grant(resource, shares, dict.fromkeys(shares, per_gpu), at)


def node(config: Sharing, gpus: Sequence[Gpu], known: CheckpointState | None = None) -> Node:
    """A node of which everything is known, after its first step at time 0."""
    return advance(Node(config, tuple(gpus), checkpoint=known or CheckpointState()), 0.0, 1000.0)


def fallen(of: Node, name: str) -> Node:
    """The node after the driver said that a GPU has fallen off the bus (XID 79)."""
    return heard(of, GpuEvent(name, EventKind.XID, 79), 0.0)


def planned(of: Node, now: float = 1000.0) -> Plan:
    """The plan of a node of which everything is known."""
    found = plan(of, now)
    assert found is not None
    return found


def pool_of(found: Plan, resource: str = POOL) -> Pool:
    """A pool that the plan has."""
    pool = found.pool(resource)
    assert pool is not None
    return pool


def group_of(found: Plan, number: int, resource: str = POOL) -> GpuShares:
    """What a pool lists of GPU `number`."""
    (group,) = (one for one in pool_of(found, resource).groups if one.uuid == uuid(number))
    return group


def served(of: Node, resource: str = POOL, now: float = 1000.0) -> tuple[Plan, Pool, IdIndex]:
    """What a worker answers from."""
    found = planned(of, now)
    pool = pool_of(found, resource)
    return found, pool, index(pool)


def ids(number: int, *numbers: int) -> list[str]:
    """Ids of shares of GPU `number`."""
    return [share_id(uuid(number), one) for one in numbers]
